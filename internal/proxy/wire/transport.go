// Package wire speaks HTTP/1.1 with upstreams and clients, one goroutine for a whole exchange, with one strict parser.
package wire

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

// Dialled is a new connection to an upstream.
type Dialled struct {
	net.Conn              // what HTTP is spoken over
	Socket   *net.TCPConn // the socket below; nil: unknown, then a kept connection cannot be asked whether it still lives
	Bare     bool         // Conn adds nothing to the socket's bytes: no TLS, nothing read ahead
}

// Transport sends requests over HTTP/1.1 connections that it keeps, in the caller's own goroutine: one more runs only while a long body is sent. The fields
// may not be changed once it is used. Nothing is added to a request but what frames it, and nothing is sent twice.
type Transport struct {
	Dial    func(ctx context.Context, addr string) (Dialled, error)
	MaxHead int           // bytes of an answer's head, and of its trailers
	MaxIdle int           // kept connections for each address; 0: none
	MaxOpen int           // connections for each address, more requests wait; 0: no bound
	Idle    time.Duration // how long a kept connection may lie unused
	Extra   string        // header lines for every request, each with its CRLF; for a parent proxy's credentials

	mu      sync.Mutex
	places  map[string]*place
	retired bool
	sweeper *time.Timer // nil: nothing is kept
}

// Watch learns what becomes of a request while it is sent. Its methods are called from Send's goroutine, but Written may be called from another.
type Watch interface {
	Connected(c net.Conn, reused bool)                  // before a byte is written
	Written()                                           // the whole request was
	Informational(status int, header http.Header) error // a 1xx answer but 101; an error ends the attempt
}

// Error is why no answer came.
type Error struct {
	Err    error
	Sent   bool // something of the request may have reached the upstream
	Stale  bool // a kept connection turned out dead before a byte of the answer came
	Client bool // it was the request's own body that could not be read
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// place is the connections of one address.
type place struct {
	addr    string    // a copy: the caller's may be a part of a request's head, and this one stays
	idle    []*upConn // the last one used is the last
	open    int       // being dialled, in use or idle
	waiting []chan *upConn
}

// Send sends the request to addr and returns the answer once its head is here. The request's body is closed in any case, perhaps after Send returned. Its errors
// are *Error, but for those of Dial and of the context, which come before anything was sent.
//
// room, which may be nil, is memory for one answer that the caller had to allocate anyway; a second one finds its own.
func (t *Transport) Send(r *http.Request, addr string, w Watch, room *Room) (*http.Response, error) {
	s := &sending{t: t, r: r, watch: w, room: room}
	if err := s.prepare(); err != nil {
		s.closeBody()
		return nil, err
	}
	ctx := r.Context()
	for {
		c, err := t.get(ctx, addr)
		if err != nil {
			s.closeBody()
			s.release()
			return nil, err
		}
		resp, again, err := s.over(ctx, c)
		if again { // it was dead before anything was written
			continue
		}
		s.release()
		return resp, err
	}
}

// get takes the youngest kept connection, waits for one where no more may be opened, or dials.
func (t *Transport) get(ctx context.Context, addr string) (*upConn, error) {
	t.mu.Lock()
	p := t.place(addr)
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		t.mu.Unlock()
		return c, nil
	}
	if t.MaxOpen > 0 && p.open >= t.MaxOpen {
		turn := make(chan *upConn, 1)
		p.waiting = append(p.waiting, turn)
		t.mu.Unlock()
		select {
		case c := <-turn:
			if c != nil {
				return c, nil
			}
		case <-ctx.Done():
			t.leave(addr, turn)
			return nil, context.Cause(ctx)
		}
	} else {
		p.open++
		t.mu.Unlock()
	}
	d, err := t.Dial(ctx, addr)
	if err != nil {
		t.closed(addr)
		return nil, err
	}
	return newUpConn(t, p, d), nil
}

// Adopt keeps a connection to addr that somebody has dialled; ahead: for a request that may be long in coming.
func (t *Transport) Adopt(addr string, d Dialled, ahead bool) {
	t.mu.Lock()
	p := t.place(addr)
	p.open++
	t.mu.Unlock()
	c := newUpConn(t, p, d)
	c.reused = ahead
	t.put(c)
}

// place is the place of an address. t.mu is held.
func (t *Transport) place(addr string) *place {
	p := t.places[addr]
	if p == nil {
		if t.places == nil {
			t.places = map[string]*place{}
		}
		p = &place{addr: strings.Clone(addr)}
		t.places[p.addr] = p
	}
	return p
}

// leave takes a waiter out of the queue. What it was given at the last moment goes to the next.
func (t *Transport) leave(addr string, turn chan *upConn) {
	t.mu.Lock()
	p := t.places[addr]
	for i, w := range p.waiting {
		if w == turn {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			t.mu.Unlock()
			return
		}
	}
	t.mu.Unlock()
	if c := <-turn; c != nil {
		t.put(c)
	} else {
		t.closed(addr)
	}
}

// put keeps a connection for the next request, or hands it to the one that waits longest.
func (t *Transport) put(c *upConn) {
	c.since = exchange.Now()
	t.mu.Lock()
	p := c.place
	switch {
	case t.retired:
	case len(p.waiting) > 0:
		next := p.waiting[0]
		p.waiting = p.waiting[1:]
		t.mu.Unlock()
		next <- c
		return
	case len(p.idle) < t.MaxIdle:
		p.idle = append(p.idle, c)
		if t.sweeper == nil {
			t.sweeper = time.AfterFunc(t.interval(), t.sweep)
		}
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	c.close()
}

// closed counts a connection that is no more, and lets a waiter dial in its place.
func (t *Transport) closed(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.places[addr]
	if len(p.waiting) > 0 {
		next := p.waiting[0]
		p.waiting = p.waiting[1:]
		next <- nil
		return
	}
	if p.open--; p.open == 0 {
		delete(t.places, addr)
	}
}

// interval is how often kept connections are looked after: those that their upstream has closed need not hold a descriptor for long.
func (t *Transport) interval() time.Duration {
	return min(max(t.Idle/4, 100*time.Millisecond), 5*time.Second)
}

// sweep closes what has been kept for too long, and what is dead.
func (t *Transport) sweep() {
	var spent []*upConn
	t.mu.Lock()
	kept := false
	for _, p := range t.places {
		n := 0
		for _, c := range p.idle {
			if time.Since(c.since) > t.Idle || !c.lives() {
				spent = append(spent, c)
				continue
			}
			p.idle[n] = c
			n++
		}
		clear(p.idle[n:])
		p.idle = p.idle[:n]
		kept = kept || n > 0
	}
	t.sweeper = nil
	if kept {
		t.sweeper = time.AfterFunc(t.interval(), t.sweep)
	}
	t.mu.Unlock()
	for _, c := range spent {
		c.close()
	}
}

// Retire closes what is kept, and from now on keeps nothing; requests under way end as they would.
func (t *Transport) Retire() {
	var spent []*upConn
	t.mu.Lock()
	t.retired = true
	for _, p := range t.places {
		spent = append(spent, p.idle...)
		p.idle = nil
	}
	if t.sweeper != nil {
		t.sweeper.Stop()
		t.sweeper = nil
	}
	t.mu.Unlock()
	for _, c := range spent {
		c.close()
	}
}

func malformed(detail string) error {
	return &exchange.Failure{Code: exchange.UpstreamProtocol, Sent: true, Detail: detail}
}
