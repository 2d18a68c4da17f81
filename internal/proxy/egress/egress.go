// Package egress is the end of every chain: it resolves, checks and dials, keeps connections, speaks TLS, HTTP and parent proxies' protocols
// upstream, and says exactly what went wrong where no answer came.
package egress

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/state"
)

// Resolver is what names are resolved with; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options are what an Egress needs from the process.
type Options struct {
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	Reached    func(host string)               // a connection for host was made; nil: nobody wants to know
	Label      func(*exchange.Exchange) string // the host label as of now; nil: the exchange's Host
	Own        func(netip.AddrPort) bool       // the daemon's own listeners, which are never dialled; nil: none
	Resolver   Resolver                        // nil: the system's
	Held       func(string, state.Key) bool    // requests of a policy are held back now, so that no connection is made ahead; nil: never
	Standard   bool                            // net/http speaks HTTP/1.1 to upstreams, in the place of the project's own wire
}

// Egress owns what all upstream connections share.
type Egress struct {
	log     *slog.Logger
	metrics *metrics
	names   *names
	reached func(string)
	label   func(*exchange.Exchange) string
	own     func(netip.AddrPort) bool
	held    func(policy string, k state.Key) bool
	warming chan struct{}
	wire    bool
	offers  sync.Map // net.Conn: *offered
}

// New makes an Egress.
func New(o Options) *Egress {
	e := &Egress{log: o.Logger, metrics: newMetrics(o.Registerer), reached: o.Reached, label: o.Label, own: o.Own, wire: !o.Standard,
		held: o.Held, warming: make(chan struct{}, warming)}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.reached == nil {
		e.reached = func(string) {}
	}
	if e.label == nil {
		e.label = func(x *exchange.Exchange) string { return x.Host }
	}
	if e.own == nil {
		e.own = func(netip.AddrPort) bool { return false }
	}
	if e.held == nil {
		e.held = func(string, state.Key) bool { return false }
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	e.names = newNames(o.Resolver)
	return e
}

// Requests is the end of a policy's chain for requests. Connections are kept across reloads while neither the settings, nor the files that they
// name, nor the destinations changed; an error says which file cannot be used.
func (e *Egress) Requests(scope state.Scope, up upstream.Config, t timeout.Config, rules *destination.Rules) (http.RoundTripper, error) {
	p, err := e.pool(scope, up, t, rules)
	if err != nil {
		return nil, err
	}
	return exchange.RoundTripperFunc(p.roundTrip), nil
}

// Tunnels is the end of a policy's chain for CONNECT: its answer is a 200 whose Body is the connection.
func (e *Egress) Tunnels(scope state.Scope, up upstream.Config, t timeout.Config, rules *destination.Rules) (http.RoundTripper, error) {
	p, err := e.pool(scope, up, t, rules)
	if err != nil {
		return nil, err
	}
	return exchange.RoundTripperFunc(p.tunnel), nil
}
