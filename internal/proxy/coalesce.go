package proxy

import (
	"crypto/tls"
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

	mu     sync.Mutex
	frames frameScan
	held   *[copyBuffer]byte // nil: nothing waits; else held[:n]
	n      int
	timer  *time.Timer
	armed  bool  // it will ring
	err    error // of what the timer wrote
}

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
}

// pass tells whether the bytes end with HEADERS behind which more of their stream must come.
func (f *frameScan) pass(p []byte) bool {
	for len(p) > 0 {
		if f.left == 0 {
			n := copy(f.header[f.n:], p)
			p = p[n:]
			if f.n += n; f.n < len(f.header) {
				return false
			}
			f.n = 0
			f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
		}
		n := min(f.left, len(p))
		f.left -= n
		p = p[n:]
	}
	const headers, endStream, endHeaders = 1, 1, 4
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
		if below, ok := c.NetConn().(*conn); ok {
			below.answers = through
		}
		serve(server, tls.Client(handedOver{through}, nil), h)
	}
}
