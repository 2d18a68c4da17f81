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

	"golang.org/x/sys/unix"
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

// TestRaw: a connection that the scheduler is not told of reads, writes and fails as net's own does.
func TestRaw(t *testing.T) {
	type result struct {
		n    int
		text string
		op   string
		late bool
	}
	does := func(n int, err error) result {
		r := result{n: n}
		var op *net.OpError
		if errors.As(err, &op) {
			r.op, r.late, r.text = op.Op+" "+op.Net, op.Timeout(), op.Err.Error()
			if op.Source == nil || op.Addr == nil {
				t.Error("an error without addresses:", err)
			}
		} else if err != nil {
			r.text = err.Error()
		}
		return r
	}
	run := func(wrap func(net.Conn) net.Conn) (all []result) {
		_, socket, far := rawPair(t)
		c := wrap(socket)
		b := make([]byte, 16)
		note := func(n int, err error) { all = append(all, does(n, err)) }
		note(c.Write([]byte("hello")))
		note(far.Read(b))
		note(c.Read(nil))
		_, _ = far.Write([]byte("answer"))
		note(c.Read(b))
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		note(c.Read(b))
		_ = c.SetDeadline(time.Unix(1, 0))
		note(c.Write(b))
		_ = c.SetDeadline(time.Time{})
		_ = far.(*net.TCPConn).CloseWrite()
		note(c.Read(b))
		_ = far.(*net.TCPConn).SetLinger(0)
		_ = far.Close()
		time.Sleep(20 * time.Millisecond)
		note(c.Read(b))
		note(c.Write(b))
		_ = c.Close()
		note(c.Read(b))
		note(c.Write(b))
		return all
	}
	plain := run(func(c net.Conn) net.Conn { return c })
	raw := run(Raw)
	for i, want := range plain {
		if raw[i] != want {
			t.Errorf("call %d: %+v, and net's %+v", i, raw[i], want)
		}
	}
	_, socket, _ := rawPair(t)
	if found, bare := socketOf(Raw(socket)); found != socket || !bare {
		t.Error("its socket is not found")
	}
	other, _ := net.Pipe()
	if Raw(other) != other {
		t.Error("what is no socket is wrapped")
	}
}

// TestRawConnTrade: what waits is written by the next read, all of it and in order, however little the socket takes at a time.
func TestRawConnTrade(t *testing.T) {
	_, socket, far := rawPair(t)
	c := Raw(socket).(*rawConn)
	const size = 32 << 20
	c.take(holds)
	for i := range 32 {
		if n, err := c.Write(bytes.Repeat([]byte{byte(i)}, size/32)); n != size/32 || err != nil {
			t.Fatal(n, err)
		}
	}
	received := make(chan []byte)
	go func() {
		b := make([]byte, size)
		_, _ = io.ReadFull(far, b)
		_, _ = far.Write([]byte("answer"))
		received <- b
	}()
	c.take(trades)
	got := make([]byte, 10)
	n, err := c.Read(got)
	if string(got[:n]) != "answer" || err != nil || c.waits() || c.sent == 0 {
		t.Errorf("%q %v", got[:n], err)
	}
	for i, b := range <-received {
		if b != byte(i/(size/32)) {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
	if n, err := c.Write([]byte("more")); n != 4 || err != nil {
		t.Error(n, err)
	}
	_ = far.SetReadDeadline(time.Now().Add(patience))
	if n, err := io.ReadFull(far, got[:4]); n != 4 || err != nil {
		t.Error("later writes still wait:", err)
	}
}

// fullSocket is a socket that takes nothing more and has nothing to read.
type fullSocket struct {
	syscall.RawConn
	fd int
}

func (f fullSocket) Read(call func(uintptr) bool) error {
	call(uintptr(f.fd))
	return nil
}

// TestRawConnTradeInPart: of a trade that began when the socket took nothing, and ended before it took all, it is known that something was written.
func TestRawConnTradeInPart(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(ends[0]); _ = unix.Close(ends[1]) }()
	if err := unix.SetNonblock(ends[0], true); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = unix.Write(ends[0], make([]byte, 4<<10))
	}
	_, socket, _ := rawPair(t)
	c := Raw(socket).(*rawConn)
	c.in.bind(fullSocket{fd: ends[0]})
	c.take(holds)
	if _, err := c.Write(make([]byte, 64<<20)); err != nil { // more than fits between the two
		t.Fatal(err)
	}
	c.take(trades)
	_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) || c.sent == 0 {
		t.Errorf("%d bytes were written, %v", c.sent, err)
	}
}
