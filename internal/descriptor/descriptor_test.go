package descriptor

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// full is a listener of a process without a free descriptor: accept fails unless the reserve has given one up.
type full struct {
	net.Listener
	reserve  *Reserve
	waiting  []net.Conn // clients in the queue
	calls    int
	deadline time.Time
	taken    atomic.Bool // by somebody else, whatever the reserve gives up
	err      error       // of a listener that is broken in another way
}

func (f *full) Accept() (net.Conn, error) {
	f.calls++
	f.reserve.mu.Lock()
	free := f.reserve.size - len(f.reserve.held)
	f.reserve.mu.Unlock()
	switch {
	case f.err != nil:
		return nil, f.err
	case free == 0 || f.taken.Load():
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	case len(f.waiting) == 0:
		time.Sleep(time.Until(f.deadline))
		return nil, os.ErrDeadlineExceeded
	}
	c := f.waiting[0]
	f.waiting = f.waiting[1:]
	return c, nil
}

func (f *full) SetDeadline(t time.Time) error { f.deadline = t; return nil }

func TestListenerBorrows(t *testing.T) {
	r := NewReserve(1)
	defer r.Close()
	one, peer := net.Pipe()
	defer peer.Close()
	f := &full{reserve: r, waiting: []net.Conn{one}}
	c, err := Keep(f, r).Accept()
	if err != nil || !Borrowed(c) {
		t.Fatal(c, err)
	}
	if r.Release() {
		t.Error("the descriptor is the client's")
	}
	if !f.deadline.IsZero() {
		t.Error("a deadline stands: the next accept would fail")
	}
	_ = c.Close()
	_ = c.Close()
	if !r.Release() {
		t.Error("the descriptor did not come back")
	}
}

// TestListenerRests: without anybody in the queue the loop neither spins nor ends, and what is used up is told to the server behind, which waits.
func TestListenerRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewReserve(1)
		f := &full{reserve: r}
		l, ended := Keep(f, r), make(chan error, 1)
		go func() {
			_, err := l.Accept()
			ended <- err
		}()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatal(err)
		default:
		}
		if most := int(10*time.Second/patience)*2 + 2; f.calls > most || f.calls < 10 {
			t.Errorf("accept was called %d times in ten seconds, at most %d", f.calls, most)
		}
		f.taken.Store(true)
		r.Close()
		if err := <-ended; !Exhausted(err) {
			t.Errorf("%v", err)
		}
	})
}

func TestListenerEnds(t *testing.T) {
	r := NewReserve(1)
	defer r.Close()
	if _, err := Keep(&full{reserve: r, err: net.ErrClosed}, r).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestReserve(t *testing.T) {
	r := NewReserve(2)
	for i := range 3 {
		if r.Release() != (i < 2) {
			t.Error("it holds two")
		}
	}
	r.Refill()
	r.Close()
	if r.Refill(); r.Release() {
		t.Error("a closed reserve holds nothing")
	}
	var none *Reserve
	none.Refill()
	none.Close()
	if none.Release() {
		t.Error("no reserve holds nothing")
	}
}

func TestMost(t *testing.T) {
	for _, c := range []struct {
		connections, limit, fit int
		tight                   bool
	}{
		{10_000, 0, 10_000, false}, {10_000, 1 << 20, 10_000, false}, {10_000, 20_000, 10_000, false}, {10_000, 19_999, 10_000, true},
		{10_000, 4096, 3584, true}, {10_000, 64, 56, true}, {10, 64, 10, false}, {5, 1, 1, true},
	} {
		if fit, tight := Most(c.connections, c.limit); fit != c.fit || tight != c.tight {
			t.Errorf("%d of %d: %d %v", c.connections, c.limit, fit, tight)
		}
	}
	if n := Limit(); n < 0 {
		t.Errorf("%d descriptors", n)
	}
}

func TestExhausted(t *testing.T) {
	for _, err := range []error{
		os.NewSyscallError("accept4", syscall.EMFILE), &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.ENFILE)},
		&net.DNSError{Err: "dial udp 192.0.2.1:53: socket: too many open files", Name: "api.example.com"},
	} {
		if !Exhausted(err) {
			t.Errorf("%v", err)
		}
	}
	for _, err := range []error{nil, syscall.ECONNREFUSED, &net.DNSError{Err: "no such host", IsNotFound: true}} {
		if Exhausted(err) {
			t.Errorf("%v", err)
		}
	}
}
