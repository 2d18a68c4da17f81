package egress

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/http"
	"sync"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
)

// lanes are a policy's HTTP/1.1 connections by the project's own wire. What speaks HTTP/2 goes by the standard transport.
type lanes struct {
	plain    *wire.Transport
	secure   *wire.Transport // https where HTTP/2 is not wanted or not spoken, and what asks to switch protocols
	absolute *wire.Transport // plaintext requests through an HTTP parent, in absolute form; nil: no such parent
	speaks   protocols
}

func (p *pool) openLanes() *lanes {
	l := &lanes{plain: p.lane(), secure: p.lane()}
	l.plain.Dial = p.dialLane
	config := p.tlsConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	l.secure.Dial = func(ctx context.Context, addr string) (wire.Dialled, error) {
		_, d, err := p.dialSecure(ctx, addr, config)
		return d, err
	}
	if p.parent != nil && !p.parent.Socks() {
		l.absolute = p.lane()
		l.absolute.Dial = func(ctx context.Context, _ string) (wire.Dialled, error) {
			c, err := p.parentConn(ctx)
			if err != nil {
				return wire.Dialled{}, err
			}
			return dialled(p.track(ctx, c), c), nil
		}
		if p.parent.HasUser {
			pair := p.parent.User + ":" + p.parent.Password()
			l.absolute.Extra = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) + "\r\n"
		}
	}
	return l
}

func (p *pool) lane() *wire.Transport {
	return &wire.Transport{MaxHead: maxHead, MaxIdle: p.upstream.MaxIdle, MaxOpen: p.upstream.MaxConnections, Idle: p.upstream.Idle.D()}
}

func (l *lanes) close() {
	for _, t := range []*wire.Transport{l.plain, l.secure, l.absolute} {
		if t != nil {
			t.Retire()
		}
	}
}

func (p *pool) dialLane(ctx context.Context, addr string) (wire.Dialled, error) {
	target, err := exchange.ParseAuthority(addr, 0)
	if err != nil {
		return wire.Dialled{}, err
	}
	c, err := p.dial(ctx, target)
	if err != nil {
		return wire.Dialled{}, err
	}
	return dialled(p.track(ctx, c), c), nil
}

// dialled is what the wire is told of c, made over raw.
func dialled(c, raw net.Conn) wire.Dialled {
	d := wire.Dialled{Conn: c}
	d.Socket, d.Bare = raw.(*net.TCPConn)
	for inner := raw; d.Socket == nil; {
		below, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		inner = below.NetConn()
		d.Socket, _ = inner.(*net.TCPConn)
	}
	return d
}

// dialSecure makes a TLS connection and says which protocol the upstream chose.
func (p *pool) dialSecure(ctx context.Context, addr string, config *tls.Config) (protocol string, d wire.Dialled, err error) {
	target, err := exchange.ParseAuthority(addr, 0)
	if err != nil {
		return "", d, err
	}
	raw, err := p.dial(ctx, target)
	if err != nil {
		return "", d, err
	}
	c := p.track(ctx, raw)
	secure, err := p.handshake(ctx, c, target.Host, config)
	if err != nil {
		return "", d, err
	}
	d = dialled(secure, raw)
	d.Bare = false
	protocol = secure.ConnectionState().NegotiatedProtocol
	c.http2 = protocol == "h2"
	return protocol, d, nil
}

// laneFor is the lane of a request and the address that it knows the upstream by; nil: the request goes by the standard transport, in HTTP/2.
func (p *pool) laneFor(ctx context.Context, r *http.Request, x *exchange.Exchange) (*wire.Transport, string, error) {
	addr := r.URL.Host
	if r.URL.Scheme == "http" {
		if t := p.offeredFor(r.Context(), x.Target); t != nil {
			return t.lane, addr, nil
		}
		if p.lanes.absolute != nil {
			return p.lanes.absolute, parentPlace, nil
		}
		return p.lanes.plain, addr, nil
	}
	if !p.upstream.HTTP2 || len(r.Header["Upgrade"]) > 0 {
		return p.lanes.secure, addr, nil
	}
	two, _, err := p.ask(ctx, addr, false)
	if err != nil || two {
		return nil, "", err
	}
	return p.lanes.secure, addr, nil
}

// parentPlace is the one address that a parent proxy's connections are kept by: they serve all targets.
const parentPlace = "parent"

// ask tells whether the upstream speaks HTTP/2. The first to ask makes the connection that answers the question, and which is used afterwards; one that is
// made ahead may be dead by then, and one of HTTP/2 cannot be kept ahead.
func (p *pool) ask(ctx context.Context, addr string, ahead bool) (two, asked bool, err error) {
	k := p.lanes.speaks.of(addr)
	if two, known := k.get(); known {
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
	config := p.tlsConfig.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	protocol, d, err := p.dialSecure(ctx, addr, config)
	if err != nil {
		return false, true, err
	}
	two = protocol == "h2"
	switch {
	case two && ahead:
		_ = d.Close()
	case two:
		k.leave(d.Conn)
	default:
		p.lanes.secure.Adopt(addr, d, ahead)
	}
	k.set(two)
	return two, true, nil
}

// speaking is how long an upstream's choice of protocol is believed, and maxSpeakers how many are remembered.
const (
	speaking    = 10 * time.Minute
	maxSpeakers = 4096
)

// protocols remembers which upstreams speak HTTP/2.
type protocols struct {
	mu sync.Mutex
	m  map[string]*speaker
}

type speaker struct {
	turn chan struct{} // held by whoever finds out

	mu    sync.Mutex
	until time.Time
	two   bool
	left  net.Conn // an HTTP/2 connection for the standard transport to take
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
	s.m[addr] = k
	return k
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

func (k *speaker) leave(c net.Conn) {
	k.mu.Lock()
	old := k.left
	k.left = c
	k.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
}

func (k *speaker) take() net.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.left
	k.left = nil
	return c
}
