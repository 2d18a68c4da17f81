package egress

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/http"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
)

// lanes are a policy's HTTP/1.1 connections by the project's own wire. What speaks HTTP/2 goes by the standard transport.
type lanes struct {
	plain    *wire.Transport
	secure   *wire.Transport // https in HTTP/1.1
	absolute *wire.Transport // plaintext requests through an HTTP parent, in absolute form; nil: no such parent
}

func (p *pool) openLanes() *lanes {
	l := &lanes{plain: p.lane(), secure: p.lane()}
	l.plain.Dial = p.dialLane
	l.secure.Dial = func(ctx context.Context, addr string) (wire.Dialled, error) {
		_, d, err := p.dialSecure(ctx, addr, p.one.config)
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
	c := p.track(ctx, wire.Raw(raw))
	secure, err := p.handshake(ctx, c, target.Host, config)
	if err != nil {
		if onlyHTTP2(err) {
			p.one.of(addr).forget() // what was known of it holds no more
		}
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
	two, err := p.inHTTP2(ctx, r)
	if err != nil || two {
		return nil, "", err
	}
	return p.lanes.secure, addr, nil
}

// parentPlace is the one address that a parent proxy's connections are kept by: they serve all targets.
const parentPlace = "parent"
