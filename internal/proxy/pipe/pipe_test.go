//go:build linux

package pipe

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// pair is the two ends of a connection.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

func raw(t *testing.T, c *net.TCPConn) syscall.RawConn {
	t.Helper()
	r, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMove: what goes in comes out, no more than was asked for is taken, and the end is told.
func TestMove(t *testing.T) {
	from, in := pair(t)
	out, to := pair(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	go func(data []byte) {
		_, _ = from.Write(data)
		_ = from.CloseWrite()
	}(data)
	got := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(to)
		got <- b
	}()
	for _, s := range []*Splicer{New(new(atomic.Int64)), Lasting()} {
		total := 0
		for total < len(data)/2 {
			n, err := s.Move(raw(t, in), 1000)
			if n == 0 || n > 1000 || err != nil || s.Held() != n {
				t.Fatal(n, err, s.Held())
			}
			if m, err := s.Drain(raw(t, out)); m != n || err != nil || s.Held() != 0 {
				t.Fatal(m, err, s.Held())
			}
			total += n
		}
		if s.moved != nil && s.moved.Load() != int64(total) {
			t.Errorf("%d bytes were counted of %d", s.moved.Load(), total)
		}
		data = data[total:]
		s.Close()
	}
	s := New(nil)
	for {
		n, err := s.Move(raw(t, in), Size)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		if _, err := s.Drain(raw(t, out)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	_ = out.CloseWrite()
	if b := <-got; !bytes.Equal(b, bytes.Repeat([]byte("0123456789abcdef"), 100_000)) {
		t.Errorf("%d bytes came out, or others", len(b))
	}
}

// TestDeadlines: a wait on either side ends with its socket's deadline, and what the pipe holds then serves nobody else.
func TestDeadlines(t *testing.T) {
	from, in := pair(t)
	out, _ := pair(t)
	s := Lasting()
	defer s.Close()
	_ = in.SetReadDeadline(time.Unix(1, 0))
	if n, err := s.Move(raw(t, in), Size); n != 0 || err == nil {
		t.Errorf("moved %d: %v", n, err)
	}
	_ = in.SetReadDeadline(time.Time{})
	go func() {
		for {
			if _, err := from.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	_ = out.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for {
		if _, err := s.Move(raw(t, in), Size); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Drain(raw(t, out)); err != nil { // nobody reads there
			break
		}
	}
	if s.Held() == 0 {
		t.Error("nothing is left")
	}
	kept := s.pipe
	s.Close()
	for range cap(idle) {
		p, err := get()
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		if n, err := splice(p.r, p.w, 1); p == kept && n > 0 {
			t.Errorf("a pipe holds bytes of another: %d %v", n, err)
		}
	}
}

// TestLastingIsBounded: those who keep a pipe while they wait are few, and what they had is free again.
func TestLastingIsBounded(t *testing.T) {
	var all []*Splicer
	for range most {
		s := Lasting()
		if s == nil {
			t.Fatalf("there are %d", len(all))
		}
		all = append(all, s)
	}
	if Lasting() != nil {
		t.Error("there is one more")
	}
	for _, s := range all {
		s.Close()
		s.Close()
	}
	if n := kept.Load(); n != 0 {
		t.Errorf("%d count as kept", n)
	}
	s := Lasting()
	if s == nil {
		t.Fatal("there is none when all were given up")
	}
	s.Close()
}
