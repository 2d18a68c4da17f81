package ratelimit

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
	"httpowerd/internal/state/quota"
)

const usedUp = exchange.QuotaExhausted

// learner only learns.
func learner(edit func(*Config)) Level { return level("defaults", 0, 0, edit) }

func TestAClosedGate(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		lines  []string
		wait   time.Duration // of the configuration
		held   time.Duration // of the next request; below 0: refused at once, and told to come back after so long
	}{
		"nothing said":               {200, nil, 5 * second, 0},
		"something left":             {200, []string{"X-RateLimit-Remaining: 1", "X-RateLimit-Reset: 3"}, 5 * second, 0},
		"none left":                  {200, []string{"X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 3"}, 5 * second, 3 * second},
		"none left for long":         {200, []string{"X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 30"}, 5 * second, -30 * second},
		"just within":                {429, []string{"Retry-After: 5"}, 5 * second, 5 * second},
		"just beyond":                {429, []string{"retry-after-ms: 5001"}, 5 * second, -5001 * ms},
		"nothing is held":            {429, []string{"Retry-After: 1"}, 0, -second},
		"429":                        {429, []string{"Retry-After: 2"}, 5 * second, 2 * second},
		"403 that asks for a pause":  {403, []string{"Retry-After: 60"}, 5 * second, -time.Minute},
		"403 that none is left":      {403, []string{"X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60"}, 5 * second, -time.Minute},
		"403 of another kind":        {403, nil, 5 * second, 0},
		"503 concerns the breaker":   {503, []string{"Retry-After: 60"}, 5 * second, 0},
		"a day is held for an hour":  {429, []string{"Retry-After: 86400"}, 5 * second, -time.Hour},
		"a stored answer is no news": {429, []string{"Age: 10", "Retry-After: 60"}, 5 * second, 0},
		"output tokens": {200, []string{"anthropic-ratelimit-requests-remaining: 9", "anthropic-ratelimit-output-tokens-remaining: 0",
			"anthropic-ratelimit-output-tokens-reset: 2000-01-01T00:00:02Z"}, 5 * second, 2 * second},
	} {
		synctest.Test(t, func(t *testing.T) { // it is 2000-01-01T00:00:00Z
			r := newRig(t)
			chain := r.load(learner(wait(c.wait)))
			r.replies(c.status, c.lines...)
			r.pass(chain, api)
			r.replies(200)
			if c.held < 0 {
				if after := r.refused(chain, usedUp, api); after != -c.held {
					t.Errorf("%s: Retry-After %v; want %v", name, after, -c.held)
				}
				r.decisions(api, 1, 0, 1, 0)
				time.Sleep(-c.held)
				r.pass(chain, api)
				return
			}
			r.join(t.Context(), chain, "next", api)
			time.Sleep(time.Minute)
			r.wants(turn{"", 0}, turn{"next", c.held})
			if got := r.end("next").x.Story().LimitWait; got != c.held {
				t.Errorf("%s: the story says it waited %v", name, got)
			}
		})
	}
}

// Those who were held go one after the other, first come first served, within queue.
func TestAnOpenedGateIsNoDam(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(learner(func(c *Config) { c.Queue = 3 }))
		r.replies(429, "Retry-After: 2")
		r.pass(chain, api)
		r.replies(200)
		for _, who := range []string{"a", "b", "c"} {
			r.join(t.Context(), chain, who, api)
		}
		r.refused(chain, usedUp, api)
		time.Sleep(2*second + 5*ms)
		r.join(t.Context(), chain, "d", api) // the gate is open, and two are before it
		time.Sleep(time.Minute)
		r.wants(turn{"", 0}, turn{"a", 2 * second}, turn{"b", 2*second + 10*ms}, turn{"c", 2*second + 20*ms}, turn{"d", 2*second + 30*ms})
	})
}

// An answer that was under way closes the gate while others wait for tokens: what they wait for next is the gate.
func TestAGateThatClosesWhileALimitHolds(t *testing.T) {
	for name, c := range map[string]struct {
		per, takes time.Duration // of the limit; of the answer that closes the gate
		line       string
		at         time.Duration // the end of the second request
		refused    bool
	}{
		"it opens in time":                 {second, 500 * ms, "Retry-After: 3", 3500 * ms, false},
		"it opens too late":                {second, 500 * ms, "Retry-After: 30", second, true},
		"it opens in time but for a limit": {4 * second, 3900 * ms, "Retry-After: 2", 4 * second, true},
		"the limit takes longer":           {4 * second, 500 * ms, "Retry-After: 2", 4 * second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			chain := r.load(level("defaults", 1, c.per, nil))
			r.answer = func(req *http.Request) (*http.Response, error) {
				if req.Header.Get("X-Who") != "first" {
					return reply(200), nil
				}
				time.Sleep(c.takes)
				return reply(429, c.line), nil
			}
			r.join(t.Context(), chain, "first", api)
			r.join(t.Context(), chain, "second", api)
			time.Sleep(time.Minute)
			if e := r.end("second"); refusal(e.err, usedUp) != c.refused || e.at != c.at {
				t.Errorf("%s: %v after %v", name, e.err, e.at)
			}
			r.pass(chain, api)
		})
	}
}

func TestALearntQuotaBelongsToACredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(learner(wait(0)))
		a, b := header("Authorization", "Bearer a"), header("Authorization", "Bearer b")
		r.replies(429, "Retry-After: 60")
		r.pass(chain, api, a)
		r.replies(200)
		r.refused(chain, usedUp, api, a)
		r.pass(chain, api, b)
		r.pass(chain, api)
		r.pass(chain, "other.example.com", a)
		r.pass(chain, api, a, tenant("b"))
		if n, err := chain.RoundTrip(request(t.Context(), api, a, path("/elsewhere"))); !refusal(err, usedUp) {
			t.Errorf("another path of the same account: %v, %v", n, err)
		}
	})
}

func TestTheGateAndTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(learner(nil))
		r.replies(429, "Retry-After: 4")
		r.pass(chain, api)
		soon, cancel := context.WithTimeout(t.Context(), 3*second)
		defer cancel()
		r.join(soon, chain, "soon", api)
		if e := r.end("soon"); !refusal(e.err, usedUp) || e.at != 0 {
			t.Errorf("4s before a deadline in 3s: %v after %v", e.err, e.at)
		}
		late, end := context.WithCancelCause(t.Context())
		r.join(late, chain, "late", api)
		time.Sleep(second)
		end(&exchange.Failure{Code: exchange.UpstreamTimeout})
		synctest.Wait()
		if e := r.end("late"); !refusal(e.err, usedUp) || e.at != second {
			t.Errorf("a deadline that passed meanwhile: %v after %v", e.err, e.at)
		}
	})
}

func TestWhoLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		off := func(c *Config) { c.Learn = false }
		for name, c := range map[string]struct {
			levels []Level
			learns bool
		}{
			"learn only":               {[]Level{learner(nil)}, true},
			"beside a limit":           {[]Level{level("defaults", 100, second, nil)}, true},
			"off":                      {[]Level{level("defaults", 100, second, off)}, false},
			"the innermost level says": {[]Level{level("defaults", 100, second, off), learner(nil)}, true},
			"and the other way round":  {[]Level{learner(nil), level("hosts", 100, second, off)}, false},
		} {
			r := newRig(t)
			chain := r.load(c.levels...)
			r.replies(429, "Retry-After: 60")
			r.pass(chain, api)
			_, err := chain.RoundTrip(request(t.Context(), api))
			if refusal(err, usedUp) != c.learns {
				t.Errorf("%s: after a 429: %v", name, err)
			}
		}
	})
}

func TestAnObservedGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(learner(func(c *Config) { c.Mode = setting.Observe }))
		r.replies(429, "Retry-After: 60")
		r.pass(chain, api)
		req := request(t.Context(), api)
		if _, err := chain.RoundTrip(req); err != nil {
			t.Error(err)
		}
		if got := exchange.From(req.Context()).Story().Observed; !slices.Equal(got, []string{"quota_exhausted"}) {
			t.Errorf("observed %q", got)
		}
		r.decisions(api, 1, 0, 0, 1)
	})
}

// What changed is told from what was left to what is to come.
func TestChangesOfAGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(learner(func(c *Config) { c.Mode = setting.Observe })) // so that answers come although it is closed
		for _, line := range []string{"Retry-After: 10", "Retry-After: 60", "Retry-After: 60"} {
			r.replies(429, line)
			r.pass(chain, api)
			time.Sleep(second)
		}
		var got []string
		r.room.Limits(func(l LimitStatus) {
			for _, c := range l.Changes {
				got = append(got, c.From+" to "+c.To)
			}
		})
		if want := []string{"open to closed for 10s", "closed for 9s to closed for 1m0s"}; !slices.Equal(got, want) {
			t.Errorf("the changes are %q; want %q", got, want)
		}
	})
}

// The first look neither holds nor takes: it only refuses what could not go anyway.
func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		l := []Level{learner(nil)}
		g := r.keeper.Begin()
		scope := state.Scope{Generation: g, Policy: policy}
		end := exchange.RoundTripperFunc(r.upstream)
		look, stage := exchange.Chain(end, r.room.Look(scope, l)), exchange.Chain(end, r.room.Stage(scope, l, nil))
		g.Commit()
		r.pass(look, api)
		r.replies(429, "Retry-After: 8")
		r.pass(stage, api)
		r.replies(200)
		if after := r.refused(look, usedUp, api); after != 8*second {
			t.Errorf("Retry-After %v", after)
		}
		r.decisions(api, 1, 0, 1, 0)
		r.pass(look, api, header("Authorization", "another"))
		time.Sleep(4 * second)
		r.pass(look, api) // it opens within wait
		soon, cancel := context.WithTimeout(t.Context(), 3*second)
		defer cancel()
		if _, err := look.RoundTrip(request(soon, api)); !refusal(err, usedUp) {
			t.Errorf("4s before a deadline in 3s: %v", err)
		}
		time.Sleep(4 * second)
		r.pass(look, api)
	})
}

// A dialect and units that somebody named hold, and what was learnt by others is not believed any more.
func TestNamedDialects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		lines := []string{"X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60"}
		chain := r.load(learner(wait(0)))
		r.replies(200, lines...)
		r.pass(chain, api)
		if after := r.refused(chain, usedUp, api); after != time.Minute {
			t.Errorf("auto: %v", after)
		}
		chain = r.load(learner(func(c *Config) { c.Wait, c.Reset = 0, quota.Milliseconds }))
		r.pass(chain, api)
		if after := r.refused(chain, usedUp, api); after != 60*ms {
			t.Errorf("milliseconds: %v", after)
		}
		chain = r.load(learner(func(c *Config) { c.Wait, c.Dialect = 0, quota.OpenAI }))
		r.pass(chain, api)
		r.pass(chain, api)
		inMilliseconds := learner(wait(0))
		inMilliseconds.Unit = "ms"
		chain = r.load(inMilliseconds)
		r.replies(429, "Retry-After: 1500")
		r.pass(chain, api)
		if after := r.refused(chain, usedUp, api); after != 1500*ms {
			t.Errorf("Retry-After in milliseconds: %v", after)
		}
	})
}

// A reload of something else does not open a closed gate; the end of the block does.
func TestAReloadKeepsTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(learner(wait(0)))
		r.replies(429, "Retry-After: 60")
		r.pass(chain, api)
		r.refused(r.load(level("defaults", 50, second, wait(second))), usedUp, api)
		r.pass(r.load(), api)
		if _, gates := r.room.everything(); len(gates) != 0 {
			t.Errorf("the room still knows %d gates", len(gates))
		}
		r.pass(r.load(learner(wait(0))), api)
	})
}
