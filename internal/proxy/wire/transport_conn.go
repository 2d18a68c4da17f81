package wire

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// upConn is a connection to an upstream. While an exchange has it, it has a buffer; while it is kept, none.
type upConn struct {
	net.Conn
	t      *Transport
	place  *place // it is there as long as the connection counts as open
	bare   bool
	reused bool
	since  time.Time       // kept since then
	raw    syscall.RawConn // of the socket below; nil: unknown
	io     rawIO           // what the callback of raw needs
	under  *rawConn        // below TLS; nil: there is none
	proven bool            // it has brought an answer

	failed   error   // what the next fill returns
	in       *buffer // nil while nothing is read
	r, w     int     // what is read and not consumed: in.b[r:w]
	aborted  atomic.Bool
	isClosed atomic.Bool
}

func newUpConn(t *Transport, p *place, d Dialled) *upConn {
	c := &upConn{Conn: d.Conn, t: t, place: p}
	if d.Socket != nil {
		c.raw, _ = d.Socket.SyscallConn()
		c.bare = d.Bare && c.raw != nil && rawCalls
		c.io.bind(c.raw)
		if !c.bare {
			c.under = rawBelow(d.Conn)
		}
	}
	return c
}

// begin readies the connection for an exchange.
func (c *upConn) begin() {
	if c.in == nil {
		c.in = getBuffer()
		c.in.b = c.in.b[:cap(c.in.b)]
	}
	c.r, c.w, c.failed = 0, 0, nil
}

// errDead is for a kept connection that its upstream has closed.
var errDead = errors.New("the kept connection is dead")

// errUnasked is for one on which something came that nobody asked for. In crypto/tls only an error that is temporary does not end the connection.
var errUnasked error = unasked{}

type unasked struct{}

func (unasked) Error() string   { return "something came on the kept connection that nobody asked for" }
func (unasked) Timeout() bool   { return true }
func (unasked) Temporary() bool { return true }

// trades tells whether write looks by itself whether a kept connection lives. Below TLS that is for those that have been read from: others may have session tickets to give
// before.
func (c *upConn) trades(more bool) bool {
	return c.reused && !more && (c.bare || c.under != nil && c.proven)
}

// write sends the head and what stands behind it. wrote is false only where nothing of it can have reached the upstream. Where no more follows, it may read
// the first of the answer too.
func (c *upConn) write(b []byte, more bool) (wrote bool, err error) {
	switch {
	case !c.trades(more):
		n, err := c.Write(b)
		return n > 0, err
	case !c.bare:
		return c.tradeUnderTLS(b)
	}
	n, sent, err := c.io.exchange(b, c.in.b)
	switch {
	case sent < 0 || err != nil && sent < len(b):
		return sent > 0, err
	case sent < len(b):
		m, err := c.Write(b[sent:])
		return sent+m > 0, err
	}
	c.w, c.failed = n, err
	return true, nil
}

// tradeUnderTLS is write for a kept connection below whose TLS there is a socket of ours: it encrypts, and lets the read that follows write.
func (c *upConn) tradeUnderTLS(b []byte) (wrote bool, err error) {
	u := c.under
	u.take(holds)
	if _, err := c.Write(b); err != nil {
		u.take(passes)
		return false, err
	}
	u.take(trades)
	n, err := c.read(c.in.b)
	if !u.waits() {
		if err != nil && u.sent == 0 {
			return false, err
		}
		c.w, c.failed = n, err
		return true, nil
	}
	u.take(holds)
	if !errors.Is(err, errUnasked) || !c.lives() {
		return false, errDead
	}
	n, err = u.release()
	return n > 0, err
}

// fill reads more behind what is there. It returns io.EOF where the upstream has closed.
func (c *upConn) fill() error {
	if err := c.failed; err != nil {
		c.failed = nil
		return err
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.w == len(c.in.b) {
		if c.r > 0 {
			c.w = copy(c.in.b, c.in.b[c.r:c.w])
			c.r = 0
		} else {
			c.in.b = append(c.in.b, make([]byte, len(c.in.b))...)
			c.in.b = c.in.b[:cap(c.in.b)]
		}
	}
	n, err := c.read(c.in.b[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// read reads from the connection itself.
func (c *upConn) read(p []byte) (int, error) {
	if c.bare {
		return c.io.read(p)
	}
	for {
		n, err := c.Read(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// more reads what is there already. What goes wrong shows at the next fill.
func (c *upConn) more(p []byte) (n int) {
	n, c.failed = c.io.more(p)
	return n
}

var longAgo = time.Unix(1, 0)

// abort makes all reads and writes fail, now and later.
func (c *upConn) abort() {
	c.aborted.Store(true)
	_ = c.SetDeadline(longAgo)
}

// ParentEnded is for the context of the request that is under way.
func (c *upConn) ParentEnded() { c.abort() }

// close ends the connection, once.
func (c *upConn) close() {
	if c.isClosed.Swap(true) {
		return
	}
	_ = c.Conn.Close()
	c.t.closed(c.place.addr)
}

// free gives the buffer back.
func (c *upConn) free() {
	if c.in != nil {
		putBuffer(c.in)
		c.in = nil
	}
}

// lives asks a kept connection whether its upstream has closed it, or said something unasked, without waiting.
func (c *upConn) lives() bool {
	if c.raw == nil || !rawCalls {
		return true
	}
	state := c.io.peek()
	if state == ended || c.bare {
		return state == silent
	}
	// TLS may hold what came behind the last answer, which is no answer to anything, or have something of its own to say, such as a session ticket; the library reads that and
	// goes on waiting.
	until := longAgo
	if state == somethingWaits {
		until = time.Now().Add(time.Millisecond)
	}
	if c.SetReadDeadline(until) != nil {
		return false
	}
	var b [1]byte
	_, err := c.Read(b[:])
	if !timedOut(err) {
		return false
	}
	return c.SetReadDeadline(time.Time{}) == nil
}

type waiting uint8

const (
	silent waiting = iota
	somethingWaits
	ended
)

// buffer is what heads are written to and answers read into.
type buffer struct{ b []byte }

const (
	bufferSize = 8 << 10
	copySize   = 32 << 10
	keepSize   = 64 << 10 // a buffer that grew beyond is not kept
)

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, bufferSize)} }}

func getBuffer() *buffer { return buffers.Get().(*buffer) }

func putBuffer(b *buffer) {
	if cap(b.b) <= keepSize {
		buffers.Put(b)
	}
}

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}
