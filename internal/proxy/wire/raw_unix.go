//go:build unix

package wire

import (
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
