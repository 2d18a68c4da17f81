package ratelimit

import (
	"encoding/hex"
	"time"

	"httpowerd/internal/state"
	"httpowerd/internal/state/quota"
)

// LimitStatus is how one limit stands: a configured one, or a quota that an upstream announced.
type LimitStatus struct {
	Kind      string    `json:"kind"`             // configured or announced
	Level     string    `json:"level,omitempty"`  // that wrote the limit
	Policy    string    `json:"policy,omitempty"` // that learnt the quota
	Tenant    string    `json:"tenant,omitempty"`
	Authority string    `json:"authority,omitempty"`
	Pattern   string    `json:"pattern,omitempty"` // in place of Authority, with scope: pattern
	Key       string    `json:"key,omitempty"`     // tells credentials or other parts of the key apart; not reversible
	Name      string    `json:"name,omitempty"`    // the upstream's own for the quota
	Unit      string    `json:"unit"`
	Limit     int64     `json:"limit"` // -1: not known
	Per       float64   `json:"per_seconds,omitempty"`
	Burst     int       `json:"burst,omitempty"`
	Remaining float64   `json:"remaining"`      // -1: not known
	Debt      float64   `json:"debt,omitempty"` // tokens that were spent beyond what there was
	Waiting   int       `json:"waiting,omitempty"`
	Away      bool      `json:"on_its_own,omitempty"` // the shared state does not answer
	Reset     time.Time `json:"reset,omitzero"`
	Closed    float64   `json:"closed_seconds,omitempty"` // how long requests are held or refused

	Changes []state.Event `json:"changes,omitempty"` // the last ones, oldest first; of an announced quota: those of its gate, with the first quota of that alone
}

// The kinds of limits.
const (
	Configured = "configured"
	Announced  = "announced"
)

// Limits calls f for every limit there is now, in no order. f must not use the Room.
func (r *Room) Limits(f func(LimitStatus)) {
	all, gates := r.everything()
	for _, l := range all {
		l.table.Each(func(k state.Key, limiter *counted) { f(l.status(k, limiter)) })
	}
	for _, g := range gates {
		g.table.Each(func(k state.Key, a *account) {
			changes := a.recent.List()
			a.Each(func(l quota.Learnt, _ string, closed time.Duration) {
				s := g.status(k, l, closed)
				s.Changes, changes = changes, nil // a gate may have two thousand quotas
				f(s)
			})
		})
	}
}

func (r *Room) everything() (all []*limits, learnt []*gates) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.limits {
		all = append(all, l)
	}
	for g := range r.gates {
		learnt = append(learnt, g)
	}
	return all, learnt
}

func (l *limits) status(k state.Key, c *counted) LimitStatus {
	s := c.Status()
	out := LimitStatus{Kind: Configured, Level: l.level, Tenant: k.Tenant, Key: hex.EncodeToString([]byte(k.Credential)), Unit: quota.Requests,
		Limit: int64(s.Rate.Requests), Per: s.Rate.Per.Seconds(), Burst: s.Rate.Burst, Remaining: max(0, s.Tokens), Debt: max(0, -s.Tokens),
		Waiting: s.Waiting, Away: s.Away, Changes: c.recent.List()}
	if k.Authority.Port == 0 {
		out.Pattern = k.Authority.Host
	} else {
		out.Authority = k.Authority.String()
	}
	return out
}

func (g *gates) status(k state.Key, l quota.Learnt, closed time.Duration) LimitStatus {
	return LimitStatus{Kind: Announced, Policy: g.policy, Tenant: k.Tenant, Authority: k.Authority.String(), Key: hex.EncodeToString([]byte(k.Credential)),
		Name: l.Name, Unit: l.Unit, Limit: l.Limit, Remaining: float64(l.Remaining), Reset: l.Reset, Per: l.Window.Seconds(), Closed: closed.Seconds()}
}
