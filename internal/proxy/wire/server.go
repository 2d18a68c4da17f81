package wire

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// Server serves HTTP/1.1 clients, each in one goroutine. Its handler may use all that http.ResponseController offers; it may take over the connection of a request
// that asks for that, by CONNECT or Upgrade. A request that could be read in two
// ways is not shown to the handler. The fields may not be changed once it serves.
type Server struct {
	Handler http.Handler
	// Refused answers a head that must not be served, as the handler would answer a request; the connection ends behind it.
	Refused       func(w http.ResponseWriter, r *http.Request, why *exchange.Refusal)
	Context       func(context.Context, net.Conn) context.Context // of a connection's requests; nil: nothing is added
	MaxHead       int                                             // bytes of a request's head
	HeaderTimeout time.Duration                                   // for a head from its first byte, and for a new connection's first
	Idle          time.Duration                                   // a kept connection without a request, give or take an eighth
	Log           *slog.Logger

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*serverConn]struct{}
	awake     map[*serverConn]struct{} // those of conns that have a goroutine and may do without
	atRest    int                      // how many have none
	closing   int                      // how many hangUp has not closed yet
	draining  atomic.Bool
	cause     atomic.Pointer[error] // of Cut; settled before any connection is told that it is gone
	watch     watcher

	expiring bool          // expire will come
	sweeping bool          // sweep will come
	sweeps   atomic.Uint32 // how many there were
	restless int           // in the place of the constant; 0: that
	spare    atomic.Int32  // goroutines without a connection
	jobs     chan *serverConn
	quit     chan struct{} // closed: they end
}

// Serve accepts clients until Shutdown or Close, and then returns http.ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		_ = l.Close()
		return http.ErrServerClosed
	}
	if s.listeners == nil {
		s.listeners = map[net.Listener]struct{}{}
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	var pause time.Duration
	for {
		c, err := l.Accept()
		if err == nil {
			pause = 0
			s.Take(c)
			continue
		}
		if s.draining.Load() {
			return http.ErrServerClosed
		}
		var t interface{ Temporary() bool }
		if !errors.As(err, &t) || !t.Temporary() {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second) // no descriptor is free, or the client left before it was accepted
		time.Sleep(pause)
	}
}

// States of a connection.
const (
	fresh    int32 = iota // no request came yet
	active                // a request is served
	parked                // waiting for another one
	nudged                // the same, and its goroutine is to end
	rested                // waiting without one
	finished              // closed by Shutdown
)

// ServeConn serves one client until it leaves.
func (s *Server) ServeConn(c net.Conn) { s.run(s.enter(c, false)) }

// Take serves one client in a goroutine of its own, which it may do without while it waits. Shutdown waits for it from now on.
func (s *Server) Take(c net.Conn) { s.start(s.enter(c, true)) }

// run serves a connection until it ends, is taken over, or rests.
func (s *Server) run(c *serverConn) {
	rests := false
	defer func() {
		if p := recover(); p != nil { // a defect of this package, not of a handler
			s.logger().Error("a client connection panicked", "panic", p, "stack", string(debug.Stack()))
			_ = c.Conn.Close()
		}
		if !rests {
			s.leave(c)
		}
	}()
	rests = c.serve()
}

func (s *Server) enter(c net.Conn, mayRest bool) *serverConn {
	sc := newServerConn(s, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[*serverConn]struct{}{}
		s.jobs, s.quit = make(chan *serverConn), make(chan struct{})
	}
	s.conns[sc] = struct{}{}
	if mayRest && canRest {
		s.wakeful(sc)
	}
	return sc
}

func (s *Server) leave(c *serverConn) {
	s.watch.remove(c.id)
	s.mu.Lock()
	delete(s.conns, c)
	delete(s.awake, c)
	s.mu.Unlock()
}

func (s *Server) logger() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// Drain accepts nobody any more, closes connections that wait for another request, and makes every answer from now on its connection's last.
func (s *Server) Drain() {
	again := s.draining.Swap(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		_ = l.Close()
		delete(s.listeners, l)
	}
	for c := range s.conns {
		s.dismiss(c, false)
	}
	if s.quit != nil && !again {
		close(s.quit)
	}
}

// dismiss closes a connection that waits for a request; one that never had one only if silent. s.mu is held.
func (s *Server) dismiss(c *serverConn, silent bool) {
	if c.state.Load() == rested {
		s.drop(c)
		return
	}
	if c.dismiss(silent) {
		s.hangUp(c)
	}
}

// hangUp closes a connection that waits for a request, which nobody waits for but Shutdown: within TLS that is a write too, and its client may be reading nothing. s.mu is held.
func (s *Server) hangUp(c *serverConn) {
	s.closing++
	go func() {
		_ = c.Conn.Close()
		s.mu.Lock()
		s.closing--
		s.mu.Unlock()
	}()
}

// neverSpoke is how long a connection without a request may still send its first one during Shutdown.
const neverSpoke = 5 * time.Second

// Shutdown drains, and waits for requests that run until ctx ends. Connections that were taken over are none of its business.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	pause := time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		s.mu.Lock()
		left := len(s.conns) + s.closing
		for c := range s.conns {
			s.dismiss(c, time.Since(c.since) > neverSpoke)
		}
		s.mu.Unlock()
		if left == 0 {
			s.watch.close()
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			pause = min(2*pause, 100*time.Millisecond)
			timer.Reset(pause)
		}
	}
}

// Cut ends the requests that are under way, for a cause that their contexts are given. They may still be answered: Shutdown waits for that, and Close does not. A client
// that is not served is not read from any more.
func (s *Server) Cut(cause error) {
	s.Drain()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cause.Store(&cause)
	for c := range s.conns {
		c.leave(cause)
		_ = c.SetReadDeadline(longAgo) // behind the cause: whoever reads a body must not take this for the client's doing
	}
}

// cutBy is the cause of Cut, nil before that.
func (s *Server) cutBy() error {
	if cause := s.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

// Close ends all connections at once.
func (s *Server) Close() error {
	s.Drain()
	s.mu.Lock()
	for c := range s.conns {
		c.left()
		_ = c.SetDeadline(longAgo)
		go func() { _ = c.Conn.Close() }() // which waits for turn
	}
	s.mu.Unlock()
	s.watch.close()
	return nil
}
