// Package breaker stops sending to an upstream that fails, and finds out carefully whether it is well again.
package breaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// The states of a breaker, as metrics, records and the admin API name them.
const (
	Closed   = "closed"
	HalfOpen = "half_open"
	Open     = "open"
)

// Auto takes back a forced state.
const Auto = "auto"

// Room owns the metrics, and knows every breaker there is.
type Room struct {
	log     *slog.Logger
	metrics *metrics
	change  func(Change)

	mu     sync.Mutex
	groups map[*group]struct{}
	forced map[string]string // authority: Open or Closed
	left   map[place]*restored

	telling sync.Mutex // held while changes are told, so that they are told in order
}

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer, log *slog.Logger) *Room {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Room{log: log, groups: map[*group]struct{}{}, forced: map[string]string{}, left: map[place]*restored{}}
	r.metrics = newMetrics(reg, r)
	return r
}

// OnChange makes f hear of every transition, one after the other. It is set once, before traffic; f must not call Force.
func (r *Room) OnChange(f func(Change)) { r.change = f }

// group is the breakers of one policy under one block. Close ends its part in metrics and Status.
type group struct {
	room   *Room
	policy string
	config atomic.Pointer[Config] // in use
	table  *state.Table[*circuit]
}

// group is kept while the block is the same, whoever is told, and whatever other blocks say.
func (r *Room) group(scope state.Scope, c Config) *group {
	g := state.Keep(scope, "breaker", c.kept(), func() *group {
		g := &group{room: r, policy: scope.Policy}
		g.config.Store(&c)
		g.table = state.NewTable(state.MaxEntries, g.circuit)
		r.mu.Lock()
		r.groups[g] = struct{}{}
		r.mu.Unlock()
		return g
	})
	scope.Generation.OnCommit(func() { g.config.Store(&c) })
	return g
}

func (g *group) circuit(k state.Key) *circuit {
	c := newCircuit(g, k)
	g.room.mu.Lock()
	defer g.room.mu.Unlock()
	at := place{g.policy, k}
	if left := g.room.left[at]; left != nil {
		delete(g.room.left, at)
		c.restore(left)
	}
	if forced, ok := g.room.forced[c.authority]; ok {
		c.begin(forced)
	}
	return c
}

// Close forgets the group; requests that still use it may go on doing so.
func (g *group) Close() error {
	g.room.mu.Lock()
	delete(g.room.groups, g)
	g.room.mu.Unlock()
	return nil
}

// all lists every breaker there is now.
func (r *Room) all() []*circuit {
	r.mu.Lock()
	groups := make([]*group, 0, len(r.groups))
	for g := range r.groups {
		groups = append(groups, g)
	}
	r.mu.Unlock()
	var all []*circuit
	for _, g := range groups {
		g.table.Each(func(_ state.Key, c *circuit) { all = append(all, c) })
	}
	return all
}

// Status lists every breaker, in no order.
func (r *Room) Status() []Status {
	all := r.all()
	out := make([]Status, 0, len(all))
	for _, c := range all {
		out = append(out, c.status())
	}
	return append(out, r.waiting()...)
}

// ErrUnknown is the error of Force for an authority that no breaker was made for yet.
var ErrUnknown = errors.New("no breaker has seen this authority")

// Force sets every breaker of an authority (host:port) to open or closed, whatever happens, also those that are made later; auto lets them
// decide by themselves again. It outlives reloads. The error is ErrUnknown, or says that the state is none of these.
func (r *Room) Force(authority, to string) error {
	if to != Open && to != Closed && to != Auto {
		return fmt.Errorf("state must be open, closed or auto, is %q", to)
	}
	a, err := exchange.ParseAuthority(authority, 0)
	if err != nil {
		return err
	}
	name, known := a.String(), false
	all := r.all()
	for _, c := range all {
		known = known || c.authority == name
	}
	r.mu.Lock()
	for at := range r.left {
		known = known || at.key.Authority == a
	}
	_, was := r.forced[name]
	switch {
	case !known && !was:
		r.mu.Unlock()
		return ErrUnknown
	case to == Auto:
		delete(r.forced, name)
	default:
		r.forced[name] = to
	}
	r.mu.Unlock()
	for _, c := range r.all() { // once more: those made in between
		if c.authority == name {
			c.force(to)
		}
	}
	return nil
}

// tell logs and counts a transition, and hands it on.
func (r *Room) tell(c Change) {
	level := slog.LevelInfo
	if c.To == Open {
		level = slog.LevelWarn
	}
	r.log.Log(context.Background(), level, "circuit breaker "+c.To, "authority", c.Authority, "policy", c.Policy, "tenant", c.Tenant,
		"from", c.From, "reason", c.Reason, "retry_after", c.RetryAfter.Round(time.Millisecond).String())
	r.metrics.moved(c)
	if r.change != nil {
		r.change(c)
	}
}

// Look refuses at once while the breaker is open. It takes no probe's place.
func (r *Room) Look(scope state.Scope, c Config) exchange.Stage {
	g := r.group(scope, c)
	return exchange.Stage{Name: "breaker look", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if c.Mode != setting.Enforce {
			return next
		}
		return exchange.RoundTripperFunc(func(req *http.Request) (*http.Response, error) {
			x := exchange.From(req.Context())
			if refusal := g.table.Get(state.KeyOf(x)).look(); refusal != nil {
				x.Update(noteOpen)
				r.metrics.refused(x, c.Mode)
				return nil, refusal
			}
			return next.RoundTrip(req)
		})
	}}
}

// Admit lets an attempt through, as a probe where the breaker is half open, and learns from how it ends.
func (r *Room) Admit(scope state.Scope, c Config) exchange.Stage {
	g := r.group(scope, c)
	return exchange.Stage{Name: "breaker", Wrap: func(next http.RoundTripper) http.RoundTripper {
		return &admission{group: g, next: next}
	}}
}

// Factor is the share of a configured rate that an exchange's upstream should get now: a half while it is probed, growing to all after the breaker
// closed. It is 1 where the breaker only observes.
func (r *Room) Factor(scope state.Scope, c Config) func(*exchange.Exchange) float64 {
	if c.Mode != setting.Enforce {
		return func(*exchange.Exchange) float64 { return 1 }
	}
	g := r.group(scope, c)
	return func(x *exchange.Exchange) float64 { return g.table.Get(state.KeyOf(x)).factor() }
}

type admission struct {
	group *group
	next  http.RoundTripper
}

func (a *admission) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchange.From(req.Context())
	c := a.group.table.Get(state.KeyOf(x))
	c.label(x.Label())
	p, refusal := c.admit(x)
	switch {
	case refusal != nil && c.config().Mode == setting.Enforce:
		x.Update(noteOpen)
		a.group.room.metrics.refused(x, setting.Enforce)
		return nil, refusal
	case refusal != nil:
		x.Update(noteOpen)
		a.group.room.metrics.refused(x, setting.Observe)
		x.Observe(string(exchange.BreakerOpen))
		return a.next.RoundTrip(req)
	case p == nil: // forced closed
		x.Update(noteClosed)
		return a.next.RoundTrip(req)
	case p.probe:
		x.Update(noteHalfOpen)
	default:
		x.Update(noteClosed)
	}
	return p.send(a.next, req)
}

func noteOpen(s *exchange.Story)     { s.Breaker = Open }
func noteHalfOpen(s *exchange.Story) { s.Breaker = HalfOpen }
func noteClosed(s *exchange.Story)   { s.Breaker = Closed }
