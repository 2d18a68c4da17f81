package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/proxy/h2"
)

// coalescer is a client's HTTP/2 connection on which an answer's HEADERS wait for the DATA behind them. net/http writes the two apart, each of which is a TLS
// record, a system call and a packet of its own.
type coalescer struct {
	*tls.Conn
	urgent atomic.Bool // the next HEADERS go at once
	table  fieldTable
	room   atomic.Int64 // how much the client may send on all streams together

	mu     sync.Mutex
	frames answerScan
	held   *[copyBuffer]byte // nil: nothing waits; else held[:n]
	n      int
	timer  *time.Timer
	armed  bool  // it will ring
	err    error // of what the timer wrote, or errTooMuchRoom
}

// net/http gives room back twice for what lies unread when its stream is reset, and is read after that. Where the connection's room comes to 2^31 bytes it panics, and leaves
// handlers waiting for good. Before, the client is told to open another connection, and then this one is closed.
const (
	firstRoom = 65535 // RFC 9113 section 6.9.2
	wornRoom  = 1 << 29
	mostRoom  = 1 << 30
)

var errTooMuchRoom = errors.New("the client has reset so many uploads that its connection's window has grown too large")

// worn tells whether the connection should not go on for long.
func (c *conn) worn() bool { return c.answers != nil && c.answers.room.Load() > wornRoom }

// holdTime bounds how long HEADERS wait: DATA stays away where the client grants no room for it.
const holdTime = time.Millisecond

// holdMost is the most that is written together: one TLS record.
const holdMost = 16 << 10

// Read reads what the server may know of.
func (c *coalescer) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if refused := c.table.pass(p[:n]); refused != nil {
		return 0, refused
	}
	if c.table.data > 0 {
		c.room.Add(-c.table.data)
		c.table.data = 0
	}
	return n, err
}

// Write writes whole frames, or parts of them, as they come, but for HEADERS that do not end their stream.
func (c *coalescer) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	wait := c.frames.pass(p) && !c.urgent.Swap(false)
	if c.frames.granted > 0 {
		if c.room.Add(c.frames.granted) > mostRoom {
			c.err = errTooMuchRoom
			return 0, c.err
		}
		c.frames.granted = 0
	}
	switch {
	case c.n+len(p) > holdMost:
		if err := c.release(); err != nil {
			return 0, err
		}
		return c.Conn.Write(p)
	case wait:
		if c.held == nil {
			c.held = buffers.Get().(*[copyBuffer]byte)
		}
		c.n += copy(c.held[c.n:], p)
		c.arm()
		return len(p), nil
	case c.n == 0:
		return c.Conn.Write(p)
	}
	c.n += copy(c.held[c.n:], p)
	if err := c.release(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// release writes what waits. c.mu is held.
func (c *coalescer) release() error {
	if c.n == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.held[:c.n])
	buffers.Put(c.held)
	c.held, c.n = nil, 0
	return err
}

// arm sets the timer. It is not stopped when what waits has gone: the next that waits finds it armed, and one that goes too early does no harm.
func (c *coalescer) arm() {
	if c.armed {
		return
	}
	c.armed = true
	if c.timer == nil {
		c.timer = time.AfterFunc(holdTime, c.ring)
	} else {
		c.timer.Reset(holdTime)
	}
}

func (c *coalescer) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = false
	if err := c.release(); err != nil && c.err == nil {
		c.err = err
	}
}

// hurry is called before something is flushed that nothing may follow for a while.
func (c *conn) hurry() {
	if c.answers != nil {
		c.answers.urgent.Store(true)
	}
}

// answerScan follows what the server writes.
type answerScan struct {
	h2.Frames
	increment uint32 // as far as a WINDOW_UPDATE has come
	granted   int64  // by those for the connection
}

// pass tells whether the bytes end with HEADERS behind which more of their stream must come.
func (f *answerScan) pass(p []byte) bool {
	for len(p) > 0 {
		payload, rest, begun := f.Next(p)
		p = rest
		if begun {
			f.increment = 0
		}
		if len(payload) == 0 || f.Kind() != h2.WindowUpdate || f.Stream() != 0 {
			continue
		}
		for _, b := range payload {
			f.increment = f.increment<<8 | uint32(b)
		}
		if f.Left == 0 {
			f.granted += int64(f.increment)
		}
	}
	return f.Between() && f.Kind() == h2.Headers && f.Has(h2.EndHeaders) && !f.Has(h2.EndStream)
}

// coalesce makes a server of HTTP/2 write to its clients through a coalescer. keepScheme has to come before.
func (s *Server) coalesce(server *http.Server) {
	serve := server.TLSNextProto[h2.Unencrypted]
	if serve == nil {
		return
	}
	server.TLSNextProto["h2"] = func(server *http.Server, c *tls.Conn, h http.Handler) {
		var preface [len(h2.Preface)]byte
		_ = c.SetReadDeadline(time.Now().Add(s.limits.headerTimeout))
		if _, err := io.ReadFull(c, preface[:]); err != nil || string(preface[:]) != h2.Preface {
			s.log.Debug("a client that chose HTTP/2 does not speak it", "client", c.RemoteAddr().String(), "error", err)
			_ = c.Close()
			return
		}
		_ = c.SetReadDeadline(noDeadline)
		through := &coalescer{Conn: c, table: fieldTable{size: usedTable}}
		through.room.Store(firstRoom)
		if below, ok := c.NetConn().(*conn); ok {
			below.answers = through
		}
		serve(server, h2.Conn(through), h)
	}
}
