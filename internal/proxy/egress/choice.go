package egress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// inHTTP2 tells whether an https request is sent by HTTP/2. Upstreams are spoken to as the client speaks: it chose its protocol for that server, and requests of
// HTTP/1.1 that shared a connection would all wait for one lost packet. An upstream that speaks HTTP/2 alone gets that from everybody.
func (p *pool) inHTTP2(ctx context.Context, r *http.Request) (bool, error) {
	if !p.upstream.HTTP2 || len(r.Header["Upgrade"]) > 0 {
		return false, nil
	}
	choices := &p.one
	if r.ProtoMajor == 2 {
		choices = &p.two
	}
	two, _, err := p.ask(ctx, choices, r.URL.Host, false)
	return two, err
}

// ask tells whether the upstream is spoken to in HTTP/2. The first to ask makes the connection that answers the question, and which is used afterwards; one that is
// made ahead may be dead by then, and one of HTTP/2 cannot be kept ahead.
func (p *pool) ask(ctx context.Context, choices *protocols, addr string, ahead bool) (two, asked bool, err error) {
	k := choices.of(addr)
	if two, known := k.get(); known || two && choices == &p.two { // there whoever dials next is told when that has changed
		return two, false, nil
	}
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return false, false, interrupted(ctx, context.Cause(ctx), false)
	}
	if two, known := k.get(); known {
		return two, false, nil
	}
	protocol, d, err := p.dialSecure(ctx, addr, choices.config)
	switch {
	case choices == &p.one && onlyHTTP2(err):
		two = true
	case err != nil:
		return false, true, err
	case protocol != "h2" && p.lanes == nil:
		p.one.of(addr).leave(&answers{Conn: d.Conn})
	case protocol != "h2":
		p.lanes.secure.Adopt(addr, d, ahead)
	case ahead:
		two = true
		_ = d.Close()
	default:
		two = true
		k.leave(d.Conn)
	}
	k.set(two)
	return two, true, nil
}

// onlyHTTP2 tells whether a handshake failed because the upstream speaks none of the protocols that it was offered (RFC 7301 section 3.2): HTTP/1.1 alone.
func onlyHTTP2(err error) bool {
	number, ok := alertOf(err)
	return ok && number == alertNoProtocol
}

const (
	speaking    = 10 * time.Minute // how long an upstream's choice of protocol is believed
	maxSpeakers = 4096             // how many are remembered
	leaving     = time.Second      // how long a connection is there to be taken
)

// protocols remembers which upstreams chose HTTP/2.
type protocols struct {
	config *tls.Config // with what is offered

	mu sync.Mutex
	m  map[string]*speaker
}

type speaker struct {
	turn chan struct{} // held by whoever finds out

	mu    sync.Mutex
	until time.Time
	two   bool
	left  net.Conn // a connection for the standard transport to take
}

func (s *protocols) of(addr string) *speaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.m[addr]
	if k != nil {
		return k
	}
	if len(s.m) >= maxSpeakers || s.m == nil {
		s.drop()
		s.m = map[string]*speaker{}
	}
	k = &speaker{turn: make(chan struct{}, 1)}
	s.m[strings.Clone(addr)] = k // it may be a part of a request's head
	return k
}

// close forgets everything.
func (s *protocols) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	s.m = nil
}

// drop closes what was left for the standard transport and not taken. s.mu is held.
func (s *protocols) drop() {
	for _, k := range s.m {
		if c := k.take(); c != nil {
			_ = c.Close()
		}
	}
}

func (k *speaker) get() (two, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.two, !k.until.IsZero() && time.Now().Before(k.until)
}

func (k *speaker) set(two bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.two, k.until = two, time.Now().Add(speaking)
}

// forget has the upstream asked again.
func (k *speaker) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = time.Time{}
}

// leave offers c to the standard transport. Whoever asked may be gone by then, or have found another one: later c could be dead.
func (k *speaker) leave(c net.Conn) {
	k.mu.Lock()
	old := k.left
	k.left = c
	k.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	time.AfterFunc(leaving, func() {
		if k.takeBack(c) {
			_ = c.Close()
		}
	})
}

func (k *speaker) take() net.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.left
	k.left = nil
	return c
}

// takeBack tells whether nobody has taken c.
func (k *speaker) takeBack(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left != c {
		return false
	}
	k.left = nil
	return true
}

// offering is the TLS configuration that offers the upstream these protocols.
func (p *pool) offering(protocols ...string) *tls.Config {
	config := p.tlsConfig.Clone()
	config.NextProtos = protocols
	return config
}
