// Package ratelimit holds requests to the configured rates and to the quotas that upstreams announce.
package ratelimit

import (
	"context"
	"crypto/rand"
	"errors"
	"hash/maphash"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
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
	metrics   *metrics
	log       *slog.Logger
	sometimes sometimes
	secret    atomic.Pointer[[secretSize]byte] // of fingerprints; it outlives the process only in an export, or where daemons share it
	prints    fingerprints
	passages  sync.Pool                 // *passage
	spread    float64                   // of wake-ups
	clock     atomic.Pointer[time.Time] // see now
	shared    *sharing                  // nil: everything is this process's own
	pending   pending
	watch     watch

	mu     sync.Mutex
	limits map[*limits]struct{}
	gates  map[*gates]struct{}
}

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer) *Room {
	r := &Room{limits: map[*limits]struct{}{}, gates: map[*gates]struct{}{}, log: slog.New(slog.DiscardHandler), spread: memory.Spread}
	begun := time.Now()
	r.clock.Store(&begun)
	var secret [secretSize]byte
	_, _ = rand.Read(secret[:]) // never fails
	r.secret.Store(&secret)
	r.prints.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	r.passages.New = func() any { return &passage{scratch: new(scratch)} }
	r.metrics = newMetrics(reg, r)
	return r
}

// now is the time. Only the monotonic clock is read for it, which costs half of what time.Now does; what day it is, is looked up each second.
func (r *Room) now() time.Time {
	last := r.clock.Load()
	since := time.Since(*last)
	if since < time.Second {
		return last.Add(since)
	}
	now := time.Now()
	r.clock.Store(&now)
	return now
}

// Log makes the room write what operators should know to a log. It is called once, before traffic.
func (r *Room) Log(log *slog.Logger) { r.log = log }

// sometimes writes at most once a minute.
type sometimes struct{ last atomic.Int64 } // in ticks

func (s *sometimes) warn(log *slog.Logger, message string, attributes ...any) {
	now, last := exchange.Ticks(), s.last.Load()
	if now-last >= int64(time.Minute) && s.last.CompareAndSwap(last, now) {
		log.Warn(message, attributes...)
	}
}

// Stage holds a request until the gate is open and every level's limiter has a token for it, and learns from the answer. factor is the share of the
// configured rates that an exchange's upstream should get now; nil: all.
func (r *Room) Stage(scope state.Scope, levels []Level, factor func(*exchange.Exchange) float64) exchange.Stage {
	s := stage{room: r, gate: r.gateOf(scope, levels), factor: factor}
	var items []string
	for _, l := range levels {
		if l.Config.Limits() {
			s.limits = append(s.limits, r.limitOf(scope, l))
			own := &s.limits[len(s.limits)-1]
			s.settles = s.settles || own.price.after != nil
			if l.Config.Mode != setting.Observe {
				s.reads = s.reads || own.price.wantsResponse
				items = append(items, own.policy)
			}
		}
	}
	s.policies = &policies{text: [1]string{strings.Join(items, ", ")}}
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
	factor   func(*exchange.Exchange) float64
	limits   []limit
	policies *policies // of all that are enforced
	reads    bool      // a cost is found in answers' bodies, which are asked for without a coding; those that are only watched come as they come
	settles  bool      // a cost is found in answers
	next     http.RoundTripper
}

// passage is the way of one attempt through the stage.
type passage struct {
	*stage
	request  *http.Request
	x        *exchange.Exchange
	metrics  *hostMetrics
	learns   bool
	gate     *account // nil: not looked up yet
	taken    []taken  // at limits that are enforced
	first    [2]taken
	billed   []taken // at those too that observe, where the answer corrects it
	waited   time.Duration
	observed bool

	fields quota.Fields // of the answer

	looked, whole bool // at the request's body
	body          []byte

	scratch *scratch
}

// scratch is room that passages use one after the other, and that need not be cleared between them.
type scratch struct {
	standing [4]quota.Learnt
	state    [192]byte
}

// taken is what a limiter gave.
type taken struct {
	limiter  *counted
	limit    *limit
	charged  float64 // 0: nothing
	estimate float64
	factor   float64
}

func (s *stage) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchange.From(r.Context())
	p := s.room.passages.Get().(*passage)
	p.stage, p.request, p.x, p.metrics = s, r, x, s.room.metrics.host(x.Label())
	p.taken = p.first[:0]
	p.learns = s.gate != nil && r.Method != http.MethodConnect
	resp, err := p.through()
	*p = passage{scratch: p.scratch} // nobody keeps it: what outlives the attempt has a copy
	s.room.passages.Put(p)
	return resp, err
}

// through waits for the limits, makes the attempt and learns from its answer.
func (p *passage) through() (*http.Response, error) {
	s, tunnel := p.stage, p.request.Method == http.MethodConnect
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
	if s.reads && !tunnel {
		p.plain()
	}
	resp, err := s.next.RoundTrip(p.request)
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
	if s.settles {
		p.settle(resp)
	}
	return resp, nil
}

// plain asks for an answer that can be read.
func (p *passage) plain() {
	if len(p.request.Header["Accept-Encoding"]) == 0 {
		return
	}
	clone := *p.request // the caller's is not ours to change
	clone.Header = p.request.Header.Clone()
	clone.Header["Accept-Encoding"] = []string{"identity"}
	p.request = &clone
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
	t := taken{limiter: l.of(p.stage.room, p.x, p.request), limit: l}
	if l.config.Charge == ChargeExchange && retried(p.x) {
		p.taken = append(p.taken, t)
		return nil
	}
	t.estimate, t.factor = p.tokensBefore(l)
	t.charged = t.estimate / t.factor
	bounds := memory.Bounds{Wait: max(0, l.config.Wait.D()-p.waited), Queue: l.config.Queue}
	if l.turns {
		bounds.Tenant = p.x.Tenant
	}
	if l.config.Mode == setting.Observe {
		wait, ok := t.limiter.Pretend(t.charged, bounds)
		if !ok || wait > 0 {
			p.x.Observe(observation(ok))
			p.observed = true
		}
		if ok && l.price.after != nil {
			p.billed = append(p.billed, t)
		}
		return nil // nothing to give back, and nothing to tell: a limit that only watches is not on
	}
	waited, err := t.limiter.Take(p.request.Context(), t.charged, bounds)
	p.waited += waited
	if err != nil {
		return p.refused(l, err)
	}
	p.taken = append(p.taken, t)
	if l.price.after != nil {
		p.billed = append(p.billed, t)
	}
	return nil
}

// refused says why a limiter gave nothing.
func (p *passage) refused(l *limit, err error) error {
	var refused *memory.Refused
	if errors.As(err, &refused) {
		return &exchange.Refusal{Code: exchange.RateLimited, Detail: l.detail(refused), RetryAfter: refused.After}
	}
	return p.leaving(err, exchange.RateLimited)
}

func (l *limit) detail(r *memory.Refused) string {
	switch {
	case r.Away:
		return "whoever keeps " + l.text + " does not answer"
	case r.Full:
		return "more requests than " + l.text + " allows, and too many wait already"
	}
	return "more requests than " + l.text + " allows, for longer than a request may wait"
}

// observation is what an audit record says of a limit in observe mode.
func observation(delayedOnly bool) string {
	if delayedOnly {
		return "rate_limit_delayed"
	}
	return string(exchange.RateLimited)
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
	for i := range p.taken {
		if t := &p.taken[i]; t.charged > 0 {
			t.limiter.Charge(-t.charged)
		}
	}
}
