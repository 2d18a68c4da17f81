package wire

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// atRestNow is how many connections wait without a goroutine.
func (s *Server) atRestNow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.atRest
}

// rests makes n clients that have each made a request, and waits until all but one rest.
func rests(t *testing.T, s *Server, addr string, n int) []*client {
	t.Helper()
	var clients []*client
	for range n {
		c := dial(t, addr)
		c.send("GET /first HTTP/1.1\r\n" + at + "\r\n")
		c.answer(http.MethodGet)
		clients = append(clients, c)
	}
	eventually(t, "they rest", func() bool { return s.atRestNow() == n-1 })
	return clients
}

func oneWaits(s *Server) { s.restless = 1 }

func needsRest(t *testing.T) {
	t.Helper()
	if !canRest {
		t.Skip("connections do not rest here")
	}
}

// TestRest: a connection that rests is served as any other, whatever comes and in which pieces, and rests again.
func TestRest(t *testing.T) {
	needsRest(t)
	s, addr := serve(t, echo, oneWaits)
	clients := rests(t, s, addr, 5)
	for i := range 2 {
		for _, c := range clients {
			c.send("GET /again HTTP/1.1\r\n" + at + "\r\nPOST /body HTTP/1.1\r\n" + at + "Content-Length: 5\r\n\r\nhel")
			if _, body := c.answer(http.MethodGet); !strings.Contains(body, "/again") {
				t.Errorf("%q", body)
			}
			c.send("lo")
			if _, body := c.answer(http.MethodPost); !strings.Contains(body, "hello") {
				t.Errorf("%q", body)
			}
			c.send("GET /sl")
			time.Sleep(time.Millisecond)
			c.send("ow HTTP/1.1\r\n" + at + "\r\n")
			if _, body := c.answer(http.MethodGet); !strings.Contains(body, "/slow") {
				t.Errorf("%q", body)
			}
		}
		if i == 0 { // later the second time
			eventually(t, "they rest again", func() bool { return s.atRestNow() == len(clients)-1 })
		}
	}
	for _, c := range clients {
		_ = c.Close()
	}
	eventually(t, "they are gone", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) == 0 && len(s.awake) == 0 && s.atRest == 0
	})
}

// TestRestLater: who comes back soon is let rest later the next time.
func TestRestLater(t *testing.T) {
	needsRest(t)
	s, addr := serve(t, echo, oneWaits)
	for _, c := range rests(t, s, addr, 3) {
		c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
		c.answer(http.MethodGet)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	later := 0
	for c := range s.conns {
		if c.patience == restLater {
			later++
		}
	}
	if later < 2 || s.atRest > 1 {
		t.Errorf("%d will rest later, %d rest", later, s.atRest)
	}
}

// TestRestOfGoodbye: a client that sends its last request and closes its side at once still has its answer.
func TestRestOfGoodbye(t *testing.T) {
	needsRest(t)
	s, addr := serve(t, echo, oneWaits)
	for _, c := range rests(t, s, addr, 5) {
		c.send("GET /last HTTP/1.1\r\n" + at + "\r\n")
		_ = c.CloseWrite()
		if got := c.rest(); !strings.Contains(got, "/last") {
			t.Errorf("%q", got)
		}
	}
}

// TestRestLeaving: a client that leaves in the middle of a request is noticed on a connection that has rested.
func TestRestLeaving(t *testing.T) {
	needsRest(t)
	began, ended := make(chan struct{}), make(chan struct{})
	s, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- struct{}{}
			<-r.Context().Done()
			ended <- struct{}{}
			return
		}
		echo(w, r)
	}, oneWaits)
	for _, c := range rests(t, s, addr, 3) {
		c.send("GET /slow HTTP/1.1\r\n" + at + "\r\n")
		<-began
		_ = c.Close()
		<-ended
	}
}

// overtaken is a socket of which a watcher would tell before the call that asks it to has returned.
type overtaken struct {
	syscall.RawConn
	tell atomic.Pointer[func()] // once, in the place of the call
}

func (o *overtaken) Control(f func(uintptr)) error {
	if tell := o.tell.Swap(nil); tell != nil {
		(*tell)()
		return nil
	}
	return o.RawConn.Control(f)
}

// TestRestMeetsRequest: a request that comes while its connection is let rest is heard, though the watcher is faster than who asked it.
func TestRestMeetsRequest(t *testing.T) {
	needsRest(t)
	s, _ := serve(t, echo)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := dial(t, l.Addr().String())
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := s.enter(accepted, true)
	socket := &overtaken{RawConn: c.raw}
	c.raw = socket
	s.start(c)
	client.send("GET /first HTTP/1.1\r\n" + at + "\r\n")
	client.answer(http.MethodGet)
	eventually(t, "it waits", func() bool { return c.state.Load() == parked })
	tell := func() {
		_, _ = io.WriteString(client.TCPConn, "GET /second HTTP/1.1\r\n"+at+"\r\n")
		told := make(chan bool, 1)
		go func() { told <- s.rouse(c) }()
		if c.state.Load() != rested { // else it waits for its turn
			<-told
		}
	}
	socket.tell.Store(&tell)
	c.nudge()
	if _, body := client.answer(http.MethodGet); !strings.Contains(body, "/second") {
		t.Errorf("%q", body)
	}
}

// reluctant is a connection whose end takes until somebody lets it, as within TLS where a client reads nothing.
type reluctant struct {
	net.Conn
	let chan struct{}
}

func (r reluctant) Close() error {
	<-r.let
	return r.Conn.Close()
}

func (r reluctant) NetConn() net.Conn { return r.Conn }
func (r reluctant) Transparent() bool { return true }

// reluctantly serves a listener of such connections.
func reluctantly(t *testing.T, s *Server) (addr string, let func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	letting := make(chan struct{})
	let = sync.OnceFunc(func() { close(letting) })
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.Take(reluctant{c, letting})
		}
	})
	t.Cleanup(func() { let(); _ = l.Close(); wg.Wait() })
	return l.Addr().String(), let
}

// TestRestEndsReluctantly: a connection whose end takes long, after the idle time, holds nobody else up.
func TestRestEndsReluctantly(t *testing.T) {
	needsRest(t)
	s, other := serve(t, echo, oneWaits, func(s *Server) { s.Idle = 500 * time.Millisecond })
	addr, _ := reluctantly(t, s)
	rests(t, s, addr, 3)
	eventually(t, "they are let go", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.atRest == 0 && s.closing > 0
	})
	c := dial(t, other)
	c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
	c.answer(http.MethodGet)
}

// TestDrainOfReluctant: nor does one that waits hold up a drain, which waits for its end as long as it may.
func TestDrainOfReluctant(t *testing.T) {
	s, _ := serve(t, echo)
	addr, let := reluctantly(t, s)
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
	c.answer(http.MethodGet)
	eventually(t, "it waits", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			if c.state.Load() != parked {
				return false
			}
		}
		return true
	})
	drained := make(chan struct{})
	go func() {
		s.Drain()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(patience):
		t.Error("the drain waits for it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("before it has ended: %v", err)
	}
	let()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRestExpiry: however often all of those that rest came back, one timer lets them go.
func TestRestExpiry(t *testing.T) {
	needsRest(t)
	const rounds, looks = 40, 3
	s, addr := serve(t, echo, func(s *Server) { s.Idle = 4 * time.Second })
	c := dial(t, addr)
	for range rounds {
		c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
		c.answer(http.MethodGet)
		eventually(t, "it rests", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			for c := range s.conns {
				c.nudge()
			}
			return s.atRest == 1
		})
	}
	made := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	metrics.Read(made)
	before := made[0].Value.Uint64()
	time.Sleep(looks * s.Idle / 8) // what is counted is what happens in some time
	metrics.Read(made)
	if n := made[0].Value.Uint64() - before; n > rounds {
		t.Errorf("%d goroutines began while one connection rested", n)
	}
}

// TestRestDeadlines: a connection that rests is let go after the idle time, and one that then drips after the header timeout.
func TestRestDeadlines(t *testing.T) {
	needsRest(t)
	s, addr := serve(t, echo, oneWaits, func(s *Server) { s.HeaderTimeout, s.Idle = 200*time.Millisecond, 2*time.Second })
	clients := rests(t, s, addr, 5)
	began := time.Now()
	clients[0].send("GET / HTT")
	if got := clients[0].rest(); strings.Contains(got, " 200 ") || time.Since(began) > s.Idle/2 {
		t.Errorf("%q after %v", got, time.Since(began))
	}
	for _, c := range clients[1:] {
		if got := c.rest(); got != "" {
			t.Errorf("%q", got)
		}
	}
	eventually(t, "they are gone", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 0 && s.atRest == 0 })
}

// TestRestShutdown: connections that rest are closed at once.
func TestRestShutdown(t *testing.T) {
	needsRest(t)
	s, addr := serve(t, echo, oneWaits)
	clients := rests(t, s, addr, 5)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for _, c := range clients {
		if got := c.rest(); got != "" {
			t.Errorf("%q", got)
		}
	}
}

// TestRestTLS: what is said within TLS is heard on a connection that rests, in whatever pieces a record comes.
func TestRestTLS(t *testing.T) {
	needsRest(t)
	s, open := serveTLS(t, 1, echo)
	s.mu.Lock()
	s.restless = 1
	s.mu.Unlock()
	for range 3 {
		_, c := open()
		for range 2 {
			for _, piece := range []string{"GET /one HTTP/1.1\r\n", at, "\r\n"} {
				if _, err := io.WriteString(c, piece); err != nil {
					t.Fatal(err)
				}
			}
			b := make([]byte, 4<<10)
			if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
				t.Fatalf("%q, %v", b[:n], err)
			}
			time.Sleep(3 * restAfter) // what is tested is a client that takes its time
		}
	}
	eventually(t, "they rest", func() bool { return s.atRestNow() == 2 })
}

// TestRestMemory: many connections that wait have no goroutines, and what each keeps is bounded.
func TestRestMemory(t *testing.T) {
	needsRest(t)
	const n, most = 500, 6 << 10 // bytes, the client's included; 1,200 to 2,200 are usual, and 5,200 under the race detector
	s, addr := serve(t, echo, oneWaits)
	rests(t, s, addr, 10)
	used := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	before, goroutines := used(), runtime.NumGoroutine()
	for range n {
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
		c.answer(http.MethodGet)
		c.r = nil
	}
	eventually(t, "they rest", func() bool { return s.atRestNow() == n+9 })
	eventually(t, "spare goroutines end", func() bool { return s.spare.Load() == 0 })
	if each := (used() - before) / n; each > most {
		t.Errorf("%d bytes for each connection that waits", each)
	}
	if more := runtime.NumGoroutine() - goroutines; more > 10 {
		t.Errorf("%d goroutines more", more)
	}
}
