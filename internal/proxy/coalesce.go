package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// coalescer is a client's HTTP/2 connection on which an answer's HEADERS wait for the DATA behind them. net/http writes the two apart, each of which is a TLS
// record, a system call and a packet of its own.
type coalescer struct {
	*tls.Conn
	urgent atomic.Bool // the next HEADERS go at once
	table  fieldTable
	room   atomic.Int64 // how much the client may send on all streams together

	mu     sync.Mutex
	frames frameScan
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

// frameScan follows the frames of a stream of bytes (RFC 9113 section 4.1).
type frameScan struct {
	header [9]byte
	n      int // bytes of the header that are here
	left   int // bytes of the payload that are still to come

	increment uint32 // as far as a WINDOW_UPDATE has come
	granted   int64  // by those for the connection
}

// pass tells whether the bytes end with HEADERS behind which more of their stream must come.
func (f *frameScan) pass(p []byte) bool {
	const headers, windowUpdate, endStream, endHeaders = 1, 8, 1, 4
	for len(p) > 0 {
		if f.left == 0 {
			n := copy(f.header[f.n:], p)
			p = p[n:]
			if f.n += n; f.n < len(f.header) {
				return false
			}
			f.n = 0
			f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
			f.increment = 0
		}
		n := min(f.left, len(p))
		f.left -= n
		if f.header[3] == windowUpdate && binary.BigEndian.Uint32(f.header[5:]) == 0 {
			for _, b := range p[:n] {
				f.increment = f.increment<<8 | uint32(b)
			}
			if f.left == 0 {
				f.granted += int64(f.increment)
			}
		}
		p = p[n:]
	}
	return f.left == 0 && f.n == 0 && f.header[3] == headers && f.header[4]&(endStream|endHeaders) == endHeaders
}

// http2Preface begins every connection (RFC 9113 section 3.4).
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// unencryptedHTTP2 is the key under which net/http keeps its HTTP/2 for connections that are none of crypto/tls, in TLSNextProto. It takes them in a *tls.Conn
// around a connection that has UnencryptedNetConn, and behind the preface.
const unencryptedHTTP2 = "unencrypted_http2"

type handedOver struct{ net.Conn }

// UnencryptedNetConn is for net/http.
func (h handedOver) UnencryptedNetConn() net.Conn { return h.Conn }

// coalesce makes a server of HTTP/2 write to its clients through a coalescer. keepScheme has to come before.
func (s *Server) coalesce(server *http.Server) {
	serve := server.TLSNextProto[unencryptedHTTP2]
	if serve == nil {
		return
	}
	server.TLSNextProto["h2"] = func(server *http.Server, c *tls.Conn, h http.Handler) {
		var preface [len(http2Preface)]byte
		_ = c.SetReadDeadline(time.Now().Add(s.limits.headerTimeout))
		if _, err := io.ReadFull(c, preface[:]); err != nil || string(preface[:]) != http2Preface {
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
		serve(server, tls.Client(handedOver{through}, nil), h)
	}
}
