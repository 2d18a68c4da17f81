package wire

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestEndBehindRequest: a client that closes its side together with its request is not waited for, whether it said so before the request was read, while it was
// served, or after.
func TestEndBehindRequest(t *testing.T) {
	for _, kept := range []bool{false, true} {
		for _, pause := range []time.Duration{0, 100 * time.Microsecond, time.Millisecond} {
			s, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(pause)
				echo(w, r)
			})
			var wg sync.WaitGroup
			for range 100 {
				c := dial(t, addr)
				wg.Go(func() {
					if kept {
						c.send("GET /first HTTP/1.1\r\n" + at + "\r\n")
						c.answer(http.MethodGet)
					}
					c.send("GET /last HTTP/1.1\r\n" + at + "\r\n")
					_ = c.CloseWrite()
					_, _ = io.ReadAll(c.r) // the answer, perhaps: it was free to leave
				})
			}
			wg.Wait()
			eventually(t, fmt.Sprintf("all have gone; kept %v, %s", kept, pause), func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 0 })
		}
	}
}

// TestPipelined: requests that come at once, however many and whatever is among them, are answered in order.
func TestPipelined(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			echo(w, r)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		ahead, _ := rw.Reader.Peek(rw.Reader.Buffered())
		_, _ = c.Write([]byte("taken with " + string(ahead)))
	})
	c := dial(t, addr)
	var all strings.Builder
	const n = 1000
	for i := range n {
		switch i % 10 {
		case 3:
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\n%sContent-Length: 4\r\n\r\nbody", i, at)
		case 5:
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", i, at)
		default:
			fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\n%s\r\n", i, at)
		}
	}
	all.WriteString("CONNECT a.example.com:443 HTTP/1.1\r\n" + at + "\r\nthis")
	go func() { _, _ = io.WriteString(c.TCPConn, all.String()) }()
	for i := range n {
		if _, body := c.answer(http.MethodGet); !strings.Contains(body, fmt.Sprintf(" /%d ", i)) && !strings.Contains(body, fmt.Sprintf(" /%d\n", i)) {
			t.Fatalf("answer %d: %q", i, body)
		}
	}
	if got := c.rest(); got != "taken with this" {
		t.Errorf("%q", got)
	}
}

// TestNoHijack: the connection of an ordinary request is not to be had, and goes on.
func TestNoHijack(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
		echo(w, r)
	})
	c := dial(t, addr)
	for range 2 {
		c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
		c.answer(http.MethodGet)
	}
}

// TestCloseMeanwhile: Close does not wait for handlers, but they and their clients hear of it.
func TestCloseMeanwhile(t *testing.T) {
	began, gate, ended := make(chan struct{}, 2), make(chan struct{}), make(chan struct{}, 2)
	s, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
		<-gate
		echo(w, r)
		ended <- struct{}{}
	})
	one, two := dial(t, addr), dial(t, addr)
	for _, c := range []*client{one, two} {
		c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
		<-began
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	close(gate)
	<-ended
	<-ended
	for _, c := range []*client{one, two} {
		if b, _ := io.ReadAll(c.r); len(b) > 0 {
			t.Errorf("%q behind Close", b)
		}
	}
}

// TestLongerThanItsDeadline: the time for a head is not the handler's.
func TestLongerThanItsDeadline(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(600 * time.Millisecond)
		echo(w, r)
	}, func(s *Server) { s.HeaderTimeout = 500 * time.Millisecond })
	c := dial(t, addr)
	for range 2 {
		c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
		c.answer(http.MethodGet)
		time.Sleep(600 * time.Millisecond)
	}
}
