package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/proxy/wire"
)

const (
	stagger       = 250 * time.Millisecond // RFC 8305 section 5
	maxCandidates = 6
)

// dialPlain is the transports' dialer for plaintext connections.
func (p *pool) dialPlain(ctx context.Context, _, addr string) (net.Conn, error) {
	target, err := exchange.ParseAuthority(addr, 0)
	if err != nil {
		return nil, err
	}
	c, err := p.dial(ctx, target)
	if err != nil {
		return nil, err
	}
	return &answers{Conn: p.track(ctx, c)}, nil
}

// dialTLS is the transports' dialer for https.
func (p *pool) dialTLS(ctx context.Context, addr string, config *tls.Config) (net.Conn, error) {
	protocol, d, err := p.dialSecure(ctx, addr, config)
	if err != nil {
		return nil, err
	}
	if protocol == "h2" {
		return d.Conn, nil // the transport looks for a *tls.Conn
	}
	return &answers{Conn: d.Conn}, nil
}

// handshake closes c where it fails.
func (p *pool) handshake(ctx context.Context, c net.Conn, host string, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.tls, errTLSTimeout)
	defer cancel()
	config = config.Clone()
	config.ServerName = strings.Clone(host) // sessions are kept by it, and it may be a part of a request's head
	secure := tls.Client(c, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, tlsFailure(ctx, err)
	}
	return secure, nil
}

// dial makes a connection to the target, by way of the parent proxy where there is one. Its errors are Refusals, Failures that were not sent, or ctx's.
func (p *pool) dial(ctx context.Context, target exchange.Authority) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.connect, errConnectTimeout)
	defer cancel()
	var c net.Conn
	var err error
	if p.parent == nil {
		c, err = p.direct(ctx, target)
	} else {
		c, err = p.throughParent(ctx, target)
	}
	if err != nil {
		return nil, dialFailure(ctx, err)
	}
	p.reached(target.Host)
	return c, nil
}

// direct connects to one of the target's checked addresses.
func (p *pool) direct(ctx context.Context, target exchange.Authority) (*net.TCPConn, error) {
	if err := p.rules.CheckPort(target.Port); err != nil {
		return nil, err
	}
	addrs, port, err := p.addresses(ctx, target)
	if err != nil {
		return nil, err
	}
	if err := p.check(addrs, port); err != nil {
		return nil, err
	}
	return p.race(ctx, addrs, port)
}

// addresses resolves the target, or takes what the configuration says in place of a name server.
func (p *pool) addresses(ctx context.Context, target exchange.Authority) ([]netip.Addr, uint16, error) {
	if o, ok := p.resolve[target.Host]; ok {
		if o.port == 0 {
			return []netip.Addr{o.addr}, target.Port, nil
		}
		return []netip.Addr{o.addr}, o.port, p.rules.CheckPort(o.port)
	}
	if addr, ok := target.Addr(); ok {
		return []netip.Addr{addr}, target.Port, nil
	}
	addrs, err := p.names.lookup(ctx, target.Host)
	return addrs, target.Port, err
}

// check refuses when any of the addresses is forbidden: a name that points both ways is more likely an attack than a mistake.
func (p *pool) check(addrs []netip.Addr, port uint16) error {
	for _, addr := range addrs {
		if err := p.checkOwn(addr, port); err != nil {
			return err
		}
		if err := p.rules.CheckAddr(addr); err != nil {
			return err
		}
	}
	return nil
}

func (p *pool) checkOwn(addr netip.Addr, port uint16) error {
	if p.own(netip.AddrPortFrom(addr, port)) {
		return exchange.Refuse(exchange.Loop, "the request aims at one of this proxy's own listeners")
	}
	return nil
}

// race connects to the addresses in turn, families alternating, each a little after the one before (RFC 8305), and takes the first that answers.
func (p *pool) race(ctx context.Context, addrs []netip.Addr, port uint16) (*net.TCPConn, error) {
	addrs = p.candidates(addrs)
	switch len(addrs) {
	case 0:
		return nil, &exchange.Failure{Code: exchange.UpstreamConnect, Permanent: true,
			Detail: "the upstream has no address of the family that connections are bound to", ProxyStatus: unroutable}
	case 1:
		return p.connectTo(ctx, addrs[0], port)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		c   *net.TCPConn
		err error
	}
	results := make(chan result)
	started, ended := 0, 0
	next := func() {
		addr := addrs[started]
		started++
		go func() {
			c, err := p.connectTo(ctx, addr, port)
			select {
			case results <- result{c, err}:
			case <-ctx.Done():
				if c != nil {
					_ = c.Close()
				}
			}
		}()
	}
	next()
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	var first error
	for ended < len(addrs) {
		select {
		case r := <-results:
			if r.err == nil {
				return r.c, nil
			}
			ended++
			if first == nil {
				first = r.err
			}
			if started < len(addrs) {
				next()
				timer.Reset(stagger)
			}
		case <-timer.C:
			if started < len(addrs) {
				next()
				timer.Reset(stagger)
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, first
}

// candidates alternates the families, beginning with the one that the resolver put first, and drops those that the bind address cannot reach.
func (p *pool) candidates(addrs []netip.Addr) []netip.Addr {
	if len(addrs) == 1 && !p.bind.IsValid() {
		return addrs
	}
	var one, other []netip.Addr
	for _, a := range addrs {
		switch {
		case p.bind.IsValid() && p.bind.Is4() != a.Is4():
		case a.Is4() == addrs[0].Is4():
			one = append(one, a)
		default:
			other = append(other, a)
		}
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(one), len(other)) {
		if i < len(one) {
			out = append(out, one[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	return out[:min(len(out), maxCandidates)]
}

// connectTo connects to exactly this address: no name is involved any more. Dialer.DialTCP will not do: without an address to bind to it binds all the same, and
// a socket that is bound before it is connected has a local port for itself, of which there are some 28,000 for all upstreams together.
func (p *pool) connectTo(ctx context.Context, addr netip.Addr, port uint16) (*net.TCPConn, error) {
	var d net.Dialer
	to := netip.AddrPortFrom(addr, port)
	if p.bind.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.bind, 0))
		d.Control = bindWithoutPort
	} else {
		d.Control = wire.ConnectAhead(to)
	}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// dialParent connects to the parent proxy for requests in absolute form.
func (p *pool) dialParent(ctx context.Context) (net.Conn, error) {
	c, err := p.parentConn(ctx)
	if err != nil {
		return nil, err
	}
	return &answers{Conn: p.track(ctx, c)}, nil
}

// parentConn connects to the parent proxy, which no rule of destinations is asked about, but our own listeners are.
func (p *pool) parentConn(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.connect, errConnectTimeout)
	defer cancel()
	c, err := p.connectParent(ctx)
	if err != nil {
		return nil, dialFailure(ctx, err)
	}
	p.reached(exchange.From(ctx).Target.Host)
	return c, nil
}

func (p *pool) connectParent(ctx context.Context) (net.Conn, error) {
	c, err := p.toParent(ctx)
	if err == nil {
		return c, nil
	}
	return nil, ofParent(dialFailure(ctx, err))
}

// ofParent tells a failure as the parent's.
func ofParent(err error) error {
	failure := own[*exchange.Failure](err)
	if failure == nil {
		return err
	}
	f := *failure // that of a name is everybody's who asked for it
	f.Detail = strings.ReplaceAll(f.Detail, "the upstream", "the parent proxy")
	return &f
}

func (p *pool) toParent(ctx context.Context) (net.Conn, error) {
	a := p.parent.Authority
	addrs, port, err := p.parentAddresses(ctx, a)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		if err := p.checkOwn(addr, port); err != nil {
			return nil, err
		}
	}
	raw, err := p.race(ctx, addrs, port)
	if err != nil {
		return nil, err
	}
	if p.parent.Scheme != "https" {
		return raw, nil
	}
	config := p.tlsConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	config.Certificates = nil // they are for upstreams
	return p.handshake(ctx, raw, a.Host, config)
}

func (p *pool) parentAddresses(ctx context.Context, a exchange.Authority) ([]netip.Addr, uint16, error) {
	if addr, ok := a.Addr(); ok {
		return []netip.Addr{addr}, a.Port, nil
	}
	addrs, err := p.names.lookup(ctx, a.Host)
	return addrs, a.Port, err
}

// askable is the target as the parent is asked for it, checked as far as it can be here.
func (p *pool) askable(ctx context.Context, target exchange.Authority) (exchange.Authority, error) {
	if err := p.rules.CheckHost(target); err != nil {
		return target, err
	}
	_, overridden := p.resolve[target.Host]
	if p.upstream.DNS != upstream.DNSLocal && !overridden {
		return target, nil
	}
	addrs, port, err := p.addresses(ctx, target)
	if err != nil {
		return target, err
	}
	for _, addr := range addrs {
		if err := p.rules.CheckAddr(addr); err != nil {
			return target, err
		}
	}
	return exchange.Authority{Host: addrs[0].String(), Port: port}, nil
}

var (
	errConnectTimeout = errors.New("the connect timeout passed")
	errTLSTimeout     = errors.New("the TLS timeout passed")
)
