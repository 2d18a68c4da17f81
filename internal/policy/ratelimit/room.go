// Package ratelimit holds requests to the configured rates and to the quotas that upstreams announce.
package ratelimit

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
	"httpowerd/internal/state/memory"
	"httpowerd/internal/state/quota"
)

// Level is the block of one level of the configuration; each adds a limiter, and all of them must admit.
type Level struct {
	Name   string // of the level that wrote it; policies that inherit from it share its limiters
	Config Config
	Unit   string // of a bare number in Retry-After, as the policy's retry block says: s (also where it is empty) or ms
}

func (l Level) options() quota.Options {
	return quota.Options{Dialect: l.Config.Dialect, Reset: l.Config.Reset, Unit: l.Unit}
}

// Room owns the metrics, and knows every limiter and gate there is.
type Room struct {
	metrics *metrics
	secret  [secretSize]byte // of fingerprints, for as long as the process lives

	mu     sync.Mutex
	limits map[*limits]struct{}
	gates  map[*gates]struct{}
}

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer) *Room {
	r := &Room{limits: map[*limits]struct{}{}, gates: map[*gates]struct{}{}}
	_, _ = rand.Read(r.secret[:]) // never fails
	r.metrics = newMetrics(reg, r)
	return r
}

// Stage holds a request until the gate is open and every level's limiter has a token for it, and learns from the answer.
func (r *Room) Stage(scope state.Scope, levels []Level) exchange.Stage {
	s := stage{room: r, gate: r.gateOf(scope, levels)}
	var policies []string
	for _, l := range levels {
		if l.Config.Limits() {
			s.limits = append(s.limits, r.limitOf(scope, l))
			if l.Config.Mode != setting.Observe {
				policies = append(policies, s.limits[len(s.limits)-1].policy)
			}
		}
	}
	s.policies = strings.Join(policies, ", ")
	return exchange.Stage{Name: "rate_limit", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if s.gate == nil && len(s.limits) == 0 {
			return next
		}
		linked := s
		linked.next = next
		return &linked
	}}
}

type stage struct {
	room     *Room
	gate     *gate
	limits   []limit
	policies string // the RateLimit-Policy of all that are enforced
	next     http.RoundTripper
}

// passage is the way of one attempt through the stage.
type passage struct {
	*stage
	request  *http.Request
	x        *exchange.Exchange
	metrics  *hostMetrics
	learns   bool
	gate     *quota.Gate // nil: not looked up yet
	taken    []taken
	first    [2]taken
	waited   time.Duration
	observed bool
}

// taken is what a limiter gave.
type taken struct {
	limiter *memory.Limiter
	limit   *limit
	free    bool // nothing was charged
}

func (s *stage) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchange.From(r.Context())
	p := passage{stage: s, request: r, x: x, metrics: s.room.metrics.host(x.Label())}
	p.taken = p.first[:0]
	tunnel := r.Method == http.MethodConnect
	p.learns = s.gate != nil && !tunnel
	err := p.pass()
	p.note()
	if err != nil {
		p.giveBack()
		if isRefusal(err) {
			p.metrics.refused.Inc()
		}
		return nil, err
	}
	p.metrics.decision(p.waited > 0, p.observed).Inc()
	resp, err := s.next.RoundTrip(r)
	if err != nil {
		if isRefusal(err) {
			p.giveBack() // by a stage below: nothing was sent
		}
		return nil, err
	}
	if tunnel {
		return resp, nil
	}
	p.learn(resp)
	return resp, nil
}

// learn takes in what an answer says of quotas. Where it says nothing, in any dialect, what we have to say is added: beside the upstream's own
// it could only be taken for a looser word on the same quota.
func (p *passage) learn(resp *http.Response) {
	speaks := quota.Speaks(resp.Header)
	if p.learns && (speaks || quota.Refuses(resp)) {
		gate := p.ownGate()
		announced := gate.Learn(p.request, resp, p.stage.gate.options, p.x.Label())
		if d := gate.Closed(p.request); d > 0 {
			p.stage.gate.closed(d)
		}
		if announced {
			return
		}
	}
	if len(p.taken) > 0 && !(speaks && quota.Announces(resp.Header)) {
		p.announce(resp)
	}
}

func isRefusal(err error) bool { return errors.As(err, new(*exchange.Refusal)) }

// note adds a wait to the story and the metrics.
func (p *passage) note() {
	if p.waited > 0 {
		p.x.Waited(p.waited)
		p.metrics.wait.Observe(p.waited.Seconds())
	}
}

// pass waits for the gate, then for the limiters, outermost level first. Every wait counts towards those that follow.
func (p *passage) pass() error {
	if err := p.passGate(); err != nil {
		return err
	}
	before := p.waited
	for i := range p.limits {
		if err := p.passLimit(&p.limits[i]); err != nil {
			return err
		}
	}
	if p.waited > before && p.learns && !p.stage.gate.observes() {
		return p.passGate() // it may have closed meanwhile
	}
	return nil
}

func (p *passage) passLimit(l *limit) error {
	t := taken{limiter: l.of(p.room, p.x, p.request), limit: l}
	if l.config.Charge == ChargeExchange && retried(p.x) {
		t.free = true
		p.taken = append(p.taken, t)
		return nil
	}
	bounds := memory.Bounds{Wait: max(0, l.config.Wait.D()-p.waited), Queue: l.config.Queue}
	if l.config.Mode == setting.Observe {
		if wait, ok := t.limiter.Pretend(l.config.Cost, bounds); !ok || wait > 0 {
			p.x.Observe(observation(ok))
			p.observed = true
		}
		return nil // nothing to give back, and nothing to announce: a limit that only watches is not on
	}
	waited, err := t.limiter.Take(p.request.Context(), l.config.Cost, bounds)
	p.waited += waited
	var refused *memory.Refused
	if errors.As(err, &refused) {
		detail := "more requests than " + l.text + " allows, for longer than a request may wait"
		if refused.Full {
			detail = "more requests than " + l.text + " allows, and too many wait already"
		}
		return &exchange.Refusal{Code: exchange.RateLimited, Detail: detail, RetryAfter: refused.After}
	}
	if err != nil {
		return p.leaving(err, exchange.RateLimited)
	}
	p.taken = append(p.taken, t)
	return nil
}

// observation is what an audit record says of a limit in observe mode.
func observation(delayedOnly bool) string {
	if delayedOnly {
		return "rate_limit_delayed"
	}
	return string(exchange.RateLimited)
}

// retried tells whether an attempt was made already.
func retried(x *exchange.Exchange) (yes bool) {
	x.Read(func(s *exchange.Story) { yes = len(s.Attempts) > 0 })
	return yes
}

// leaving names a deadline that passed while the request was held. A client that left stays what it is.
func (p *passage) leaving(err error, code exchange.Code) error {
	if err == nil || !errors.As(err, new(*exchange.Failure)) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &exchange.Refusal{Code: code, Detail: "the request's turn did not come before its deadline", RetryAfter: time.Second}
}

// giveBack returns the tokens of a request that is not sent.
func (p *passage) giveBack() {
	for _, t := range p.taken {
		if !t.free {
			t.limiter.Return(t.limit.config.Cost)
		}
	}
}
