package ratelimit

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
	"httpowerd/internal/state/quota"
)

// gates are what one policy learnt, for each tenant, authority and credential.
type gates struct {
	room    *Room
	policy  string
	table   *state.Table[*quota.Gate]
	horizon atomic.Int64 // none of them is closed after this, in nanoseconds since 1970
	held    atomic.Int64 // how many requests are at one of them that was not open
}

// open tells at no cost that all of them are open, and nobody waits in a line: then nobody need ask whose gate is which.
func (g *gates) open() bool {
	h := g.horizon.Load()
	return g.held.Load() == 0 && (h == 0 || time.Now().UnixNano() >= h)
}

// closed notes that one of them is closed for so long.
func (g *gates) closed(d time.Duration) {
	until := time.Now().Add(d).UnixNano()
	for {
		old := g.horizon.Load()
		if until <= old || g.horizon.CompareAndSwap(old, until) {
			return
		}
	}
}

func (r *Room) keepGates(scope state.Scope, o quota.Options) *gates {
	return state.Keep(scope, "gate", o, func() *gates {
		g := &gates{room: r, policy: scope.Policy, table: state.NewTable(state.MaxEntries, func(state.Key) *quota.Gate { return &quota.Gate{} })}
		r.mu.Lock()
		r.gates[g] = struct{}{}
		r.mu.Unlock()
		return g
	})
}

// Close forgets the gates; requests that still use them may go on doing so.
func (g *gates) Close() error {
	g.room.mu.Lock()
	delete(g.room.gates, g)
	g.room.mu.Unlock()
	return nil
}

// gate is what a request must pass beside the limiters: the settings are those of the last level.
type gate struct {
	*gates
	config  Config
	options quota.Options
}

// gateOf is nil where nothing is learnt.
func (r *Room) gateOf(scope state.Scope, levels []Level) *gate {
	if len(levels) == 0 || !levels[len(levels)-1].Config.Learn {
		return nil
	}
	last := levels[len(levels)-1]
	return &gate{r.keepGates(scope, last.options()), last.Config, last.options()}
}

func (g *gate) of(x *exchange.Exchange, r *http.Request) *quota.Gate {
	return g.table.Get(state.Key{Tenant: x.Tenant, Authority: x.Target, Credential: g.room.credential(r.Header)})
}

func (g *gate) observes() bool { return g.config.Mode == setting.Observe }

// Look refuses at once while a quota that the upstream announced is used up for longer than the request may wait.
func (r *Room) Look(scope state.Scope, levels []Level) exchange.Stage {
	g := r.gateOf(scope, levels)
	return exchange.Stage{Name: "gate", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if g == nil || g.observes() {
			return next
		}
		return exchange.RoundTripperFunc(func(req *http.Request) (*http.Response, error) {
			if g.open() {
				return next.RoundTrip(req)
			}
			x := exchange.From(req.Context())
			if closed := g.of(x, req).Closed(req); closed > g.config.Wait.D() || closed > 0 && closed > left(req.Context()) {
				r.metrics.host(x.Label()).refused.Inc()
				return nil, exhausted(&quota.Exhausted{After: closed})
			}
			return next.RoundTrip(req)
		})
	}}
}

// left is the time until the deadline.
func left(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 1<<63 - 1
	}
	return time.Until(deadline)
}

// ownGate is the gate of this request's account, looked up on first use.
func (p *passage) ownGate() *quota.Gate {
	if p.gate == nil {
		p.gate = p.stage.gate.of(p.x, p.request)
	}
	return p.gate
}

// passGate waits until the gate is open, where there is one.
func (p *passage) passGate() error {
	if !p.learns || p.stage.gate.open() {
		return nil
	}
	g, gate := p.stage.gate, p.ownGate()
	if g.observes() {
		if gate.Closed(p.request) > 0 {
			p.x.Observe(string(exchange.QuotaExhausted))
			p.observed = true
		}
		return nil
	}
	g.held.Add(1)
	waited, err := gate.Pass(p.request.Context(), p.request, max(0, g.config.Wait.D()-p.waited), g.config.Queue)
	g.held.Add(-1)
	p.waited += waited
	var e *quota.Exhausted
	if errors.As(err, &e) {
		return exhausted(e)
	}
	return p.leaving(err, exchange.QuotaExhausted)
}

func exhausted(e *quota.Exhausted) *exchange.Refusal {
	detail := "the quota that the upstream announced is used up for longer than a request may wait"
	if e.Full {
		detail = "the quota that the upstream announced is used up, and too many requests wait already"
	}
	return &exchange.Refusal{Code: exchange.QuotaExhausted, Detail: detail, RetryAfter: e.After}
}
