package egress

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
)

// Tunnel is the body of the answer to a CONNECT: the connection itself, and its part in the metrics.
type Tunnel struct {
	net.Conn
	active   prometheus.Gauge
	detached atomic.Bool
	closed   atomic.Bool
}

// Close closes the connection, unless it was detached.
func (b *Tunnel) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.active.Dec()
	if b.detached.Load() {
		return nil
	}
	return b.Conn.Close()
}

type tunnelKey struct{}

// tunnel is the end of a CONNECT's chain.
func (p *pool) tunnel(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	x := exchange.From(ctx)
	index := x.BeginAttempt(x.Now())
	c, err := p.dial(p.dialContext(ctx, r), x.Target)
	if err != nil {
		p.ended(x, index, 0, err)
		return nil, err
	}
	x.Connected(index, c.RemoteAddr().String(), false)
	p.ended(x, index, http.StatusOK, nil)
	body := &Tunnel{Conn: c, active: p.metrics.host(p.label(x)).active}
	body.active.Inc()
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: body, ContentLength: -1,
		Request: r.WithContext(context.WithValue(ctx, tunnelKey{}, body)),
	}, nil
}

// TunnelOf finds the Tunnel in the answer to a CONNECT, whatever stages have wrapped its body in; nil: there is none. Closing is that body's matter: it gives
// back what the chain holds.
func TunnelOf(resp *http.Response) *Tunnel {
	if resp.Request == nil {
		return nil
	}
	b, _ := resp.Request.Context().Value(tunnelKey{}).(*Tunnel)
	return b
}

// Detach makes closing leave the connection open for another use.
func (b *Tunnel) Detach() { b.detached.Store(true) }
