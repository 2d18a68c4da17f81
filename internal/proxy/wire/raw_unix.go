//go:build unix

package wire

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawMost bounds what is copied by one call that the scheduler is not told of, to some 20 µs.
const rawMost = 64 << 10

// RawWriter writes to a plain socket. Its zero value is bound to none.
type RawWriter struct {
	mu   sync.Mutex
	raw  syscall.RawConn
	call func(fd uintptr) bool // one func for each connection, not for each call
	p    []byte
	n    int
	err  error
}

// Bind makes it write to that socket.
func (w *RawWriter) Bind(raw syscall.RawConn) {
	w.raw = raw
	w.call = w.run
}

// run is called by the poller with the descriptor; false: call again when the socket takes more.
func (w *RawWriter) run(fd uintptr) bool {
	for w.n < len(w.p) {
		n, err := send(int(fd), w.p[w.n:min(len(w.p), w.n+rawMost)])
		w.n += n
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			w.err = named("write", err)
			return true
		}
	}
	return true
}

// Write writes all of p, as a net.Conn does.
func (w *RawWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.p, w.n, w.err = p, 0, nil
	err := w.raw.Write(w.call)
	w.p = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// ReadRaw reads what a plain socket has without waiting; the error is EAGAIN where that is nothing.
func ReadRaw(fd uintptr, p []byte) (int, error) { return recv(int(fd), p, 0) }

// Raw is c with reads and writes that the scheduler is not told of, for who has none of his own, such as TLS. It is c itself where that is no plain socket, or
// something stands between that has bytes of its own.
func Raw(c net.Conn) net.Conn {
	socket, bare := socketOf(c)
	if socket == nil || !bare {
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
}

// Read is a net.Conn's.
func (c *rawConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.reads.Lock()
	n, err := c.in.read(p)
	c.reads.Unlock()
	return n, c.named("read", err)
}

// Write is a net.Conn's.
func (c *rawConn) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
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
