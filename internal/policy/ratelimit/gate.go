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

// account is the gate of one tenant, authority and credential, with what changed of it lately.
type account struct {
	quota.Gate
	key    state.Key
	recent state.Recent
	told   atomic.Pointer[told]
	asked  atomic.Int64 // when others were last asked what they know, in ticks
}

// gates are what one policy learnt, for each tenant, authority and credential.
type gates struct {
	room    *Room
	policy  string
	options quota.Options
	table   *state.Table[*account]
	horizon atomic.Int64 // none of them is closed after this, in ticks
	known   atomic.Int64 // none of them knows of a quota of requests after this
	held    atomic.Int64 // how many requests are at one of them that was not open
}

// open tells at no cost that all of them are open, and nobody waits in a line: then nobody need ask whose gate is which.
func (g *gates) open() bool {
	h := g.horizon.Load()
	return g.held.Load() == 0 && (h == 0 || exchange.Ticks() >= h)
}

// knows tells at no cost whether one of them may know of a quota of requests.
func (g *gates) knows() bool {
	h := g.known.Load()
	return h != 0 && exchange.Ticks() < h
}

// extend moves a horizon to the time after d.
func extend(horizon *atomic.Int64, d time.Duration) { extendTo(horizon, exchange.Ticks()+int64(d)) }

func extendTo(horizon *atomic.Int64, until int64) {
	for {
		old := horizon.Load()
		if until <= old || horizon.CompareAndSwap(old, until) {
			return
		}
	}
}

// reckon notes for how long somebody must look at a gate.
func (g *gates) reckon(a *account) {
	a.Each(func(l quota.Learnt, _ string, closed time.Duration) {
		if closed > 0 {
			extend(&g.horizon, closed)
		}
		if left := time.Until(l.Reset); left > 0 {
			extend(&g.known, left)
		}
	})
}

func (r *Room) keepGates(scope state.Scope, o quota.Options) *gates {
	return state.Keep(scope, "gate", o, func() *gates {
		g := &gates{room: r, policy: scope.Policy, options: o}
		g.table = state.NewTable(state.MaxEntries, func(k state.Key) *account {
			a := &account{key: k}
			r.pending.restore(g, a)
			return a
		})
		r.pending.announce(g)
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
	config Config
}

// gateOf is nil where nothing is learnt.
func (r *Room) gateOf(scope state.Scope, levels []Level) *gate {
	if len(levels) == 0 || !levels[len(levels)-1].Config.Learn {
		return nil
	}
	last := levels[len(levels)-1]
	return &gate{r.keepGates(scope, last.options()), last.Config}
}

// of is the gate of a request's account. What others learnt about it is asked for now and then.
func (g *gate) of(x *exchange.Exchange, r *http.Request) *account {
	a := g.table.Get(state.Key{Tenant: x.Tenant, Authority: x.Target, Credential: g.room.credential(r.Header)})
	if s := g.room.shared; s != nil {
		s.refresh(g.gates, a)
	}
	return a
}

// idle tells at no cost that a request need not look for its gate.
func (g *gate) idle() bool { return g.room.shared == nil && g.open() }

func (g *gate) observes() bool { return g.config.Mode == setting.Observe }

// Look refuses at once while a quota that the upstream announced is used up for longer than the request may wait.
func (r *Room) Look(scope state.Scope, levels []Level) exchange.Stage {
	g := r.gateOf(scope, levels)
	return exchange.Stage{Name: "gate", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if g == nil || g.observes() {
			return next
		}
		return exchange.RoundTripperFunc(func(req *http.Request) (*http.Response, error) {
			if g.idle() {
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
func (p *passage) ownGate() *account {
	if p.gate == nil {
		p.gate = p.stage.gate.of(p.x, p.request)
	}
	return p.gate
}

// passGate waits until the gate is open, where there is one.
func (p *passage) passGate() error {
	if !p.learns || p.stage.gate.idle() {
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
	if err == nil {
		return nil
	}
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

// noticeable is by how much a closing must grow to be told as a change.
const noticeable = 2 * time.Second

// learn takes in what an answer says of quotas, and tells the client what holds. Beside an announcement that is not understood nothing is said: it
// could only be taken for a looser word on the same quota.
func (p *passage) learn(resp *http.Response) {
	p.fields = quota.FieldsOf(resp.Header)
	fields, now := &p.fields, p.stage.room.now()
	standing, announced := p.scratch.standing[:0], false
	if p.learns && (fields.Speaks() || quota.Refuses(resp)) {
		a, g := p.ownGate(), p.stage.gate
		before := a.Closed(p.request)
		announced, standing = a.Learn(quota.Answer{Response: resp, To: p.request, Fields: fields, Now: now, Label: p.x.Label()}, g.options, standing)
		if d := a.Closed(p.request); d > 0 {
			extend(&g.horizon, d)
			if d > before+noticeable {
				g.closed(a, before, d, resp.StatusCode, p.x.Label())
			}
		}
		g.room.watch.heard(g.gates, a)
		for i := range standing {
			if at := standing[i].Reset; at.After(now) {
				extendTo(&g.known, (exchange.Ticks()+int64(at.Sub(now)))/int64(time.Second)*int64(time.Second)+int64(time.Second)) // whole seconds: seldom a later one
			}
		}
	}
	switch observes := p.learns && p.stage.gate.observes(); {
	case announced && !observes:
	case fields.Announces(resp.Header):
		return
	case p.learns && !observes && len(p.taken) > 0 && p.stage.gate.knows():
		standing = p.ownGate().Standing(standing[:0], p.request, now)
		if t := tightest(standing); t != nil {
			standing[0] = *t
			standing = standing[:1]
		} else {
			standing = nil
		}
	}
	p.tell(resp, now, standing)
}

// closed notes that a gate closed, or stays closed for longer than it would have before, and tells others.
func (g *gates) closed(a *account, before, d time.Duration, status int, host string) {
	from, reason := "open", "an announced quota is used up"
	if before > 0 {
		from = "closed for " + before.Round(time.Second).String()
	}
	if status == http.StatusTooManyRequests || status == http.StatusForbidden {
		reason = "the upstream refused a request (" + http.StatusText(status) + ")"
	}
	a.recent.Add(from, "closed for "+d.Round(time.Second).String(), reason)
	g.room.watch.closed(g, a, host, reason)
	if s := g.room.shared; s != nil {
		s.publish(g, a, d)
	}
}
