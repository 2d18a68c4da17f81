package wire

import (
	"errors"
	"io"
	"net"
	"sync"
)

// Raw is c with reads and writes that the scheduler is not told of, for who has none of his own, such as TLS. It is c itself where that is no plain socket, or
// something stands between that has bytes of its own.
func Raw(c net.Conn) net.Conn {
	socket, bare := socketOf(c)
	if socket == nil || !bare || !rawCalls {
		return c
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return c
	}
	r := &rawConn{Conn: c}
	r.in.bind(raw)
	r.out.Bind(raw)
	return r
}

type rawConn struct {
	net.Conn
	reads sync.Mutex
	in    rawIO
	out   RawWriter

	mu     sync.Mutex
	stance stance
	held   *buffer // what waits to be written; nil: nothing
	sent   int     // of what the last trade had to write
}

// stance is what a rawConn does with writes.
type stance uint8

const (
	passes stance = iota
	holds         // they wait
	trades        // they wait for the next read, which writes them and waits for the answer in one call of the poller
)

// Read is a net.Conn's. Where it was to write first and may not, the error is errUnasked or errDead, and all waits as before.
func (c *rawConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.reads.Lock()
	defer c.reads.Unlock()
	out := c.traded()
	if out == nil {
		n, err := c.in.read(p)
		return n, c.named("read", err)
	}
	n, sent, err := c.in.exchange(out.b, p)
	c.sent = max(sent, 0)
	if sent < 0 {
		return 0, err
	}
	c.mu.Lock()
	c.stance, c.held = passes, nil
	c.mu.Unlock()
	if sent < len(out.b) && err == nil {
		var more int
		if more, err = c.out.Write(out.b[sent:]); err == nil {
			n, err = c.in.read(p)
		}
		c.sent += more
	}
	putBuffer(out)
	return n, c.named("read", err)
}

func (c *rawConn) traded() *buffer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stance != trades {
		return nil
	}
	return c.held
}

// Write is a net.Conn's.
func (c *rawConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.stance != passes {
		defer c.mu.Unlock()
		if c.held == nil {
			c.held = getBuffer()
			c.held.b = c.held.b[:0]
		}
		c.held.b = append(c.held.b, p...)
		return len(p), nil
	}
	c.mu.Unlock()
	n, err := c.out.Write(p)
	return n, c.named("write", err)
}

func (c *rawConn) take(s stance) {
	c.mu.Lock()
	c.stance = s
	c.mu.Unlock()
}

// waits tells whether something is still to be written.
func (c *rawConn) waits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held != nil
}

// release writes what waits, and all from now on. Something has to wait.
func (c *rawConn) release() (int, error) {
	c.mu.Lock()
	out := c.held
	c.stance, c.held = passes, nil
	c.mu.Unlock()
	n, err := c.out.Write(out.b)
	putBuffer(out)
	return n, c.named("write", err)
}

// named makes of an error what net makes of it.
func (c *rawConn) named(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var known *net.OpError
	if errors.As(err, &known) { // of the deadline, or of a connection that is closed
		err = known.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// NetConn is the connection below.
func (c *rawConn) NetConn() net.Conn { return c.Conn }

// Transparent tells that it adds nothing.
func (c *rawConn) Transparent() bool { return true }

// CloseWrite half-closes where the connection can.
func (c *rawConn) CloseWrite() error { return closeWrite(c.Conn) }

// rawBelow finds it below TLS; nil: there is none.
func rawBelow(c net.Conn) *rawConn {
	for {
		switch v := c.(type) {
		case *rawConn:
			return v
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
		default:
			return nil
		}
	}
}
