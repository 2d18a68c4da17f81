package egress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/state"
)

// maxHead bounds the head of an upstream's answer.
const maxHead = 1 << 20

// streamRoom is how much of an answer by HTTP/2 may lie here because its client does not read: net/http's own 4 MiB for each would go far beyond any limit of memory.
// Upstreams that are far away send no more than that in a round trip.
const streamRoom = 1 << 20

// An HTTP/2 connection by which nothing comes for pingAfter is asked for a sign of life, and closed where that takes longer than pingWithin.
const (
	pingAfter  = 30 * time.Second
	pingWithin = 15 * time.Second
)

// settings are what connections are kept by. Rules are among them, so that none outlives the rules under which it was made.
type settings struct {
	upstream     upstream.Config
	connect, tls time.Duration
	files        fingerprints
	rules        *destination.Rules
}

// pool is the connections of one policy.
type pool struct {
	*Egress
	settings
	parent    *upstream.Parent
	resolve   map[string]override
	bind      netip.Addr
	tlsConfig *tls.Config // without a server name

	one, two protocols                      // what upstreams choose where HTTP/1.1 alone is offered, and where HTTP/2 is
	http1    *http.Transport                // HTTP/1.1 where there are no lanes
	http2    atomic.Pointer[http.Transport] // nil: not wanted; see retire
	absolute *http.Transport                // plaintext requests through an HTTP parent, in absolute form; nil: no such parent
	lanes    *lanes                         // nil: net/http speaks HTTP/1.1 too
	warmer   *warmer                        // nil: connections are made when they are needed
	closed   atomic.Bool
}

type override struct {
	addr netip.Addr
	port uint16 // 0: the request's own
}

func (e *Egress) pool(scope state.Scope, up upstream.Config, t timeout.Config, rules *destination.Rules) (*pool, error) {
	p := &pool{Egress: e, settings: settings{upstream: up, connect: t.Connect.D(), tls: t.TLS.D(), rules: rules}}
	var err error
	if p.parent, err = up.Parent(); err != nil {
		return nil, err
	}
	if p.tlsConfig, p.files, err = tlsConfig(up); err != nil {
		return nil, err
	}
	if up.Bind != "" {
		if p.bind, err = netip.ParseAddr(up.Bind); err != nil {
			return nil, err
		}
	}
	p.resolve = make(map[string]override, len(up.Resolve))
	for name, target := range up.Resolve {
		host, err := exchange.CanonicalHost(name)
		if err != nil {
			return nil, err
		}
		var o override
		if o.addr, o.port, err = upstream.ParseAddress(target); err != nil {
			return nil, err
		}
		p.resolve[host] = o
	}
	p = state.Keep(scope, "egress", p.settings, func() *pool { p.open(scope.Policy); return p })
	if p.warmer != nil {
		scope.Generation.OnCommit(p.warmer.begin)
	}
	return p, nil
}

// open makes the transports.
func (p *pool) open(policy string) {
	if p.upstream.InsecureSkipVerify {
		p.log.Warn("upstream.insecure_skip_verify: certificates of upstreams are not verified, so whoever is on the path can read and change everything",
			"policy", policy)
	}
	p.one.config, p.two.config = p.offering("http/1.1"), p.offering("h2", "http/1.1")
	p.http1 = p.transport(false)
	if p.upstream.HTTP2 {
		p.http2.Store(p.openHTTP2())
	}
	if p.parent != nil && !p.parent.Socks() {
		p.absolute = p.transport(false)
		p.absolute.Proxy = http.ProxyURL(p.parentURL())
		p.absolute.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dialParent(ctx) }
		p.absolute.DialTLSContext = p.absolute.DialContext
	}
	if p.wire {
		p.lanes = p.openLanes()
	}
	p.openWarmer(policy)
}

// parentURL is the parent as the transport that speaks absolute-form needs it: the connection to it is made by dialParent, TLS included.
func (p *pool) parentURL() *url.URL {
	u := &url.URL{Scheme: p.parent.Scheme, Host: p.parent.Authority.String()}
	if p.parent.HasUser {
		u.User = url.UserPassword(p.parent.User, p.parent.Password())
	}
	return u
}

func (p *pool) transport(http2 bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(http2)
	choices := &p.one
	if http2 {
		choices = &p.two
	}
	maxIdle, unlimited := p.upstream.MaxIdle, 0
	if maxIdle == 0 {
		maxIdle = -1 // none, where 0 is the library's own default
	}
	return &http.Transport{
		DialContext: p.dialPlain,
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			k := choices.of(addr)
			if c := k.take(); c != nil {
				return c, nil
			}
			c, err := p.dialTLS(ctx, addr, choices.config)
			if _, one := c.(*answers); one && http2 {
				k.set(false)
			}
			return c, err
		},
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: streamRoom, SendPingTimeout: pingAfter, PingTimeout: pingWithin,
			WriteByteTimeout: pingAfter + pingWithin}, // whoever waits for one write, to grant room for another answer too, has no clock of his own
		DisableCompression:     true,
		MaxIdleConns:           unlimited,
		MaxIdleConnsPerHost:    maxIdle,
		MaxConnsPerHost:        p.upstream.MaxConnections,
		IdleConnTimeout:        p.upstream.Idle.D(),
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHead,
		WriteBufferSize:        8 << 10,
		ReadBufferSize:         8 << 10,
	}
}

func (p *pool) openHTTP2() *http.Transport {
	t := p.transport(true)
	watchObjections(t)
	return t
}

// retire has requests from now on find connections of their own. t's may be dead, which net/http finds out by a ping or a write after 45 seconds, and nobody can be kept
// from one of them alone. What runs there goes on.
func (p *pool) retire(t *http.Transport) {
	if p.http2.Load() == t && p.http2.CompareAndSwap(t, p.openHTTP2()) {
		t.CloseIdleConnections()
	}
}

// Close lets go of idle connections; those in use end with their exchanges.
func (p *pool) Close() error {
	if p.warmer != nil {
		p.warmer.close()
	}
	p.closed.Store(true)
	p.closeIdle()
	if p.lanes != nil {
		p.lanes.close()
	}
	p.one.close()
	p.two.close()
	return nil
}

func (p *pool) closeIdle() {
	for _, t := range []*http.Transport{p.http1, p.http2.Load(), p.absolute} {
		if t != nil {
			t.CloseIdleConnections()
		}
	}
}

// choose is the transport for a request where there are no lanes.
func (p *pool) choose(ctx context.Context, r *http.Request, x *exchange.Exchange) (*http.Transport, error) {
	if r.URL.Scheme == "http" {
		if o := p.offeredFor(r.Context(), x.Target); o != nil {
			return o.transport, nil
		}
		if p.absolute != nil {
			return p.absolute, nil
		}
		return p.http1, nil
	}
	two, err := p.inHTTP2(ctx, r)
	if two {
		return p.http2.Load(), nil
	}
	return p.http1, err
}
