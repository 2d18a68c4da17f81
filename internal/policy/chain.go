package policy

import (
	"errors"
	"net/http"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/dedup"
	"httpowerd/internal/policy/hedge"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
	"httpowerd/internal/policy/sanitize"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/state"
)

// link is one place in the order, and whether the policy switches it on.
type link struct {
	name  string
	on    bool
	stage func(Rooms, state.Scope) exchange.Stage
}

// requestOrder is THE ORDER: what a request passes, outermost first. A stage feels what is below it and does not care what is above.
func requestOrder(c stageSettings) []link {
	return on(
		// The whole budget, waits included.
		link{"timeout", c.hasTimeout, func(r Rooms, _ state.Scope) exchange.Stage { return r.Timeout.Total(c.timeout) }},
		// What may not leave does not, and what is let through is what is shared, kept and sent again.
		link{"sanitize request", c.hasSanitize && c.sanitize.Request.On(), func(r Rooms, _ state.Scope) exchange.Stage { return r.Sanitize.Request(c.sanitize) }},
		// Everything below runs once for requests that share an answer; whoever leads is detached from its client.
		link{"dedup", c.hasDedup, func(r Rooms, s state.Scope) exchange.Stage {
			k := c.retry.IdempotencyKey
			return r.Dedup.Stage(s, c.dedup, dedup.Key{Header: k.Header, Quoted: k.Quoted})
		}},
		// What may not come in is never shared.
		link{"sanitize response", c.hasSanitize && c.sanitize.Response.On(), func(r Rooms, _ state.Scope) exchange.Stage { return r.Sanitize.Response(c.sanitize) }},
		// Everything below runs once for each attempt.
		link{"retry", c.hasRetry, func(r Rooms, s state.Scope) exchange.Stage { return r.Retry.Stage(s, c.retry) }},
		link{"hedge", c.hasHedge, func(r Rooms, s state.Scope) exchange.Stage {
			var budgets *state.Table[*state.Budget] // nil: one of its own
			if b := c.retry.Budget; c.hasRetry {
				budgets = state.Budgets(s, b.Ratio, b.Floor, b.TTL.D())
			}
			return r.Hedge.Stage(s, c.hedge, budgets, r.RateLimit.Scarce(s, c.limits), retry.Fails(c.retry)) //nolint:bodyclose // there is no body yet
		}},
		// Open, or announced quota used up: refused before a token is spent or a queue entered.
		link{"breaker look", c.hasBreaker, func(r Rooms, s state.Scope) exchange.Stage { return r.Breaker.Look(s, c.breaker) }},
		link{"gate", len(c.limits) > 0, func(r Rooms, s state.Scope) exchange.Stage { return r.RateLimit.Look(s, c.limits) }},
		// Waits are outside the attempt's timeout.
		link{"concurrency", len(c.places) > 0, func(r Rooms, s state.Scope) exchange.Stage { return r.Concurrency.Stage(s, c.places) }},
		link{"rate_limit", len(c.limits) > 0, c.rateLimit},
		// The probe slot is taken only when the attempt really starts.
		link{"breaker", c.hasBreaker, func(r Rooms, s state.Scope) exchange.Stage { return r.Breaker.Admit(s, c.breaker) }},
		// Released by the body's Close.
		link{"attempt timeout", c.hasTimeout, func(r Rooms, _ state.Scope) exchange.Stage { return r.Timeout.Attempt(c.timeout) }},
	)
}

// tunnelOrder is the same for CONNECT: there are no answers to learn from, and connecting has deadlines of its own.
func tunnelOrder(c stageSettings) []link {
	return on(
		link{"timeout", c.hasTimeout, func(r Rooms, _ state.Scope) exchange.Stage { return r.Timeout.Total(c.timeout) }},
		link{"retry", c.hasRetry, func(r Rooms, s state.Scope) exchange.Stage { return r.Retry.TunnelStage(s, c.retry) }},
		link{"breaker look", c.hasBreaker, func(r Rooms, s state.Scope) exchange.Stage { return r.Breaker.Look(s, c.breaker) }},
		link{"concurrency", len(c.places) > 0, func(r Rooms, s state.Scope) exchange.Stage { return r.Concurrency.Stage(s, c.places) }},
		link{"rate_limit", len(c.limits) > 0, c.rateLimit},
		link{"breaker", c.hasBreaker, func(r Rooms, s state.Scope) exchange.Stage { return r.Breaker.Admit(s, c.breaker) }},
	)
}

// endName is the last link of every chain.
const endName = "egress"

// whole makes an error of an answer that is none: a stage above would wrap a body that is not there, and nobody could tell any more.
type whole struct{ end http.RoundTripper }

var errNotWhole = errors.New("the end of a chain returned neither a whole answer nor an error")

func (w whole) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.end.RoundTrip(r)
	if err == nil && (resp == nil || resp.Body == nil) {
		return nil, errNotWhole
	}
	return resp, err
}

// on keeps the links that the policy switches on: what is off costs nothing.
func on(all ...link) []link {
	out := make([]link, 0, len(all))
	for _, l := range all {
		if l.on {
			out = append(out, l)
		}
	}
	return out
}

// names lists a chain for explain.
func names(links []link) []string {
	out := make([]string, 0, len(links)+1)
	for _, l := range links {
		out = append(out, l.name)
	}
	return append(out, endName)
}

// forge makes the stages of a chain.
func forge(links []link, rooms Rooms, scope state.Scope) []exchange.Stage {
	out := make([]exchange.Stage, len(links))
	for i, l := range links {
		out[i] = l.stage(rooms, scope)
	}
	return out
}

// stageSettings are the blocks that stages are made of.
type stageSettings struct {
	timeout                          timeout.Config
	retry                            retry.Config
	breaker                          breaker.Config
	hedge                            hedge.Config
	dedup                            dedup.Config
	hasTimeout, hasRetry, hasBreaker bool
	hasHedge, hasDedup               bool
	sanitize                         sanitize.Config
	hasSanitize                      bool
	limits                           []ratelimit.Level
	places                           []concurrency.Level
}

// rateLimit makes the stage of the limits, whose rates follow the breaker where there is one.
func (c stageSettings) rateLimit(r Rooms, s state.Scope) exchange.Stage {
	var factor func(*exchange.Exchange) float64
	if c.hasBreaker {
		factor = r.Breaker.Factor(s, c.breaker)
	}
	return r.RateLimit.Stage(s, c.limits, factor)
}

func settingsOf(p *plan) stageSettings {
	var c stageSettings
	c.timeout, c.hasTimeout = config[timeout.Config](p, "timeout")
	c.retry, c.hasRetry = config[retry.Config](p, "retry")
	c.breaker, c.hasBreaker = config[breaker.Config](p, "breaker")
	c.breaker.Unit = c.retry.RetryAfter.Unit
	c.hedge, c.hasHedge = config[hedge.Config](p, "hedge")
	c.dedup, c.hasDedup = config[dedup.Config](p, "dedup")
	c.retry.Kept = c.hasDedup
	c.sanitize, c.hasSanitize = config[sanitize.Config](p, "sanitize")
	for _, l := range p.blocks["rate_limit"].levels {
		c.limits = append(c.limits, ratelimit.Level{Name: l.name, Config: *l.config.(*ratelimit.Config), Unit: c.retry.RetryAfter.Unit})
	}
	for _, l := range p.blocks["concurrency"].levels {
		c.places = append(c.places, concurrency.Level{Name: l.name, Config: *l.config.(*concurrency.Config)})
	}
	return c
}
