//go:build unix

package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// rawPair is a RawWriter to a socket, and the other end.
func rawPair(t *testing.T) (*RawWriter, *net.TCPConn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	socket := c.(*net.TCPConn)
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	w := new(RawWriter)
	w.Bind(raw)
	return w, socket, far
}

// TestRawWriter: all of it arrives in order, however little the socket takes at a time and whoever writes beside.
func TestRawWriter(t *testing.T) {
	w, c, far := rawPair(t)
	const size, writers = 3 << 20, 4
	errs := make(chan error, writers)
	for i := range writers {
		go func() {
			n, err := w.Write(bytes.Repeat([]byte{'a' + byte(i)}, size))
			if err == nil && n != size {
				err = io.ErrShortWrite
			}
			errs <- err
		}()
	}
	time.Sleep(20 * time.Millisecond) // the socket is full by now
	got := make([]byte, writers*size)
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for i := range writers {
		if part := got[i*size : (i+1)*size]; bytes.Count(part, part[:1]) != size {
			t.Error("what two wrote is mixed")
		}
	}

	much := make([]byte, 64<<20)
	_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := w.Write(much)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(much) {
		t.Errorf("%d bytes of a write that nobody reads, %v", n, err)
	}
}

// TestRawWriterGone: a peer that has gone is an error and no signal.
func TestRawWriterGone(t *testing.T) {
	w, _, far := rawPair(t)
	_ = far.(*net.TCPConn).SetLinger(0)
	_ = far.Close()
	var err error
	for range 100 {
		if _, err = w.Write([]byte("x")); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}
