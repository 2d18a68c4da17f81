package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"sync"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
)

// conn is a client's connection as an HTTP server of ours reads it: on a listener, inside an intercepted tunnel, or inside a tunnel that
// turned out to carry plaintext HTTP.
type conn struct {
	net.Conn
	server *Server
	tunnel *tunnel     // nil on a listener
	guard  *wire.Guard // nil: the server behind reads by itself, or what is read is not HTTP

	secure *tls.Conn // above it, where the client speaks HTTP/2 to an HTTPS listener; nil: it does not

	answers *coalescer // above that, where the client speaks HTTP/2; nil: it does not

	refusal *exchange.Refusal // why the head that the marker stands for was refused

	mu       sync.Mutex
	deadline time.Time // of reads, as the HTTP server set it
	last     time.Time // no read may last longer; zero: no such limit
	onClose  func()
	closed   bool
}

type connKey struct{}

// connOf is the client's connection of a request served by one of our servers.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// withConn is the ConnContext of our servers.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok { // HTTP/2: the server needs the *tls.Conn itself
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// Read reads what the guard lets through.
func (c *conn) Read(p []byte) (int, error) {
	if c.guard == nil {
		return c.Conn.Read(p)
	}
	return c.guard.Read((*headReader)(c), p, c.refuse)
}

// headReader reads from below the guard. A head that has begun must be complete within the header timeout, even where the server behind still
// waits with the longer idle timeout.
type headReader conn

func (r *headReader) Read(p []byte) (int, error) {
	c := (*conn)(r)
	if c.guard.Waiting() {
		c.mu.Lock()
		limit := time.Now().Add(c.server.limits.headerTimeout)
		if c.guard.Due.IsZero() {
			c.guard.Due = limit
		}
		if limit = c.guard.Due; c.deadline.IsZero() || limit.Before(c.deadline) {
			_ = c.Conn.SetReadDeadline(limit)
		}
		c.mu.Unlock()
	}
	return c.Conn.Read(p)
}

// endBy bounds what is still read of a connection that ends with its answer, whatever the HTTP server sets.
func (c *conn) endBy(t time.Time) {
	c.mu.Lock()
	c.last = t
	c.mu.Unlock()
	_ = c.SetReadDeadline(t)
}

// SetReadDeadline keeps the deadline for headReader.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.last.IsZero() && (t.IsZero() || t.After(c.last)) {
		t = c.last
	}
	c.deadline = t
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// marker is a request that nobody outside can send: it stands for a refused head, so that the server answers it in its turn and the handler
// makes the same kind of answer and record as for any other refusal.
var marker = func() (m struct{ host, request string }) {
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	m.host = hex.EncodeToString(secret[:]) + ".invalid"
	m.request = "GET http://" + m.host + "/ HTTP/1.1\r\nHost: " + m.host + "\r\nConnection: close\r\n\r\n"
	return m
}()

func (c *conn) refuse(refusal *exchange.Refusal) []byte {
	c.refusal = refusal
	return []byte(marker.request)
}

// lingerTime and lingerBytes bound what is still read from a client whose request was refused, so that the answer reaches it before a reset does
// (RFC 9112 section 9.6).
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// Close closes the connection, gently where unread bytes of a refused request are on their way.
func (c *conn) Close() error {
	c.mu.Lock()
	done, closed := c.onClose, c.closed
	c.onClose, c.closed = nil, true
	c.mu.Unlock()
	if done != nil {
		defer done()
	}
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if closed || !ok || c.guard == nil || !c.guard.Lost() {
		return c.Conn.Close()
	}
	_ = half.CloseWrite()
	_ = c.Conn.SetReadDeadline(time.Now().Add(lingerTime))
	go func() {
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
		_ = c.Conn.Close()
	}()
	return nil
}

// CloseWrite half-closes where the connection can.
func (c *conn) CloseWrite() error { return closeWrite(c.Conn) }

// opaque ends the guard: what follows is not HTTP. It returns what was read ahead.
func (c *conn) opaque() []byte {
	if c.guard == nil {
		return nil
	}
	ahead := c.guard.Opaque()
	c.guard = nil
	return ahead
}

// NetConn is the connection below.
func (c *conn) NetConn() net.Conn { return c.Conn }

// Transparent tells whether nothing stands between the connection and the one below.
func (c *conn) Transparent() bool { return c.guard == nil }

// prefixed is a connection of which some bytes were read already.
type prefixed struct {
	net.Conn
	ahead []byte
}

// Read gives the bytes read ahead first.
func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.ahead) > 0 {
		n := copy(b, p.ahead)
		if p.ahead = p.ahead[n:]; len(p.ahead) == 0 {
			p.ahead = nil
		}
		return n, nil
	}
	return p.Conn.Read(b)
}

// CloseWrite half-closes where the connection can.
func (p *prefixed) CloseWrite() error { return closeWrite(p.Conn) }

// NetConn is the connection below.
func (p *prefixed) NetConn() net.Conn { return p.Conn }

// Transparent tells whether all that was read already has been given.
func (p *prefixed) Transparent() bool { return len(p.ahead) == 0 }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// feed is a listener that connections are pushed into.
type feed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newFeed() *feed { return &feed{conns: make(chan net.Conn), done: make(chan struct{})} }

func (f *feed) push(c net.Conn) bool {
	select {
	case f.conns <- c:
		return true
	case <-f.done:
		return false
	}
}

// Accept waits for the next pushed connection.
func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and push.
func (f *feed) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

// Addr is a stand-in: the connections come from other listeners.
func (f *feed) Addr() net.Addr { return &net.TCPAddr{} }
