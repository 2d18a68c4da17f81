package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

const (
	limited = exchange.RateLimited
	second  = time.Second
	ms      = time.Millisecond
)

// Whoever asks all the time gets burst + rate × time, to the request.
func TestAdmitsExactly(t *testing.T) {
	for name, c := range map[string]struct {
		requests, burst int
		per, during     time.Duration
		want            int
	}{
		"burst is requests":    {10, 0, second, 10 * second, 110},
		"evenly":               {10, 1, second, 10 * second, 101},
		"a burst":              {10, 5, second, 10 * second, 105},
		"more than a second's": {2, 50, second, 10 * second, 70},
		"per minute":           {60, 1, time.Minute, 5 * time.Minute, 301},
		"less than one":        {1, 1, 250 * ms, 5 * second, 21},
		"a day's":              {100, 100, 24 * time.Hour, 24 * time.Hour, 200},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			chain := r.load(level("defaults", c.requests, c.per, func(l *Config) { l.Wait, l.Burst = 0, c.burst }))
			token := c.per / time.Duration(c.requests)
			for at := time.Duration(0); at <= c.during; at += token / 4 {
				_, _ = chain.RoundTrip(request(t.Context(), api))
				time.Sleep(token / 4)
			}
			if n := r.sent(); n != c.want {
				t.Errorf("%s: %d went in %v; want %d", name, n, c.during, c.want)
			}
		})
	}
}

func TestHeldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 2, second, func(c *Config) { c.Burst, c.Queue = 1, 3 }))
		for i := range 4 {
			r.join(t.Context(), chain, fmt.Sprint(i), api)
		}
		if after := r.refused(chain, limited, api); after != 2*second { // three wait; the next would be the fourth
			t.Errorf("a full queue says %v", after)
		}
		time.Sleep(time.Minute)
		r.wants(turn{"0", 0}, turn{"1", 500 * ms}, turn{"2", second}, turn{"3", 1500 * ms})
		if w := r.end("3").x.Story().LimitWait; w != 1500*ms {
			t.Errorf("the story says it waited %v", w)
		}
		r.decisions(api, 1, 3, 1, 0)
		if n := r.metric("rate_limit_wait_seconds", api); n != 3 {
			t.Errorf("%v waits were counted", n)
		}
	})
}

func TestRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 1, 10*second, wait(9*second)))
		r.pass(chain, api)
		if after := r.refused(chain, limited, api); after != 10*second {
			t.Errorf("Retry-After %v", after)
		}
		time.Sleep(4 * second)
		soon, cancel := context.WithTimeout(t.Context(), 5*second)
		defer cancel()
		r.join(soon, chain, "deadline", api)
		if e := r.end("deadline"); !refusal(e.err, limited) || e.at != 4*second {
			t.Errorf("6s before a deadline in 5s: %v after %v", e.err, e.at)
		}
		r.join(t.Context(), chain, "fits", api)
		time.Sleep(time.Minute)
		if e := r.end("fits"); e.err != nil || e.at != 10*second {
			t.Errorf("6s within 9s: %v after %v", e.err, e.at)
		}
	})
}

func refusal(err error, code exchange.Code) bool {
	var r *exchange.Refusal
	return errors.As(err, &r) && r.Code == code && r.RetryAfter > 0
}

func TestAClientThatLeavesGivesItsTurnBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 1, second, nil))
		r.pass(chain, api)
		ctx, leave := context.WithCancel(t.Context())
		late, end := context.WithCancelCause(t.Context())
		r.join(ctx, chain, "leaves", api)
		r.join(late, chain, "late", api)
		r.join(t.Context(), chain, "stays", api)
		time.Sleep(500 * ms)
		leave()
		end(&exchange.Failure{Code: exchange.UpstreamTimeout})
		time.Sleep(time.Minute)
		r.wants(turn{"", 0}, turn{"stays", second})
		if e := r.end("leaves"); !errors.Is(e.err, context.Canceled) || refusal(e.err, limited) || e.x.Story().LimitWait != 500*ms {
			t.Errorf("a client that left: %v", e.err)
		}
		if e := r.end("late"); !refusal(e.err, limited) {
			t.Errorf("a deadline that passed: %v", e.err)
		}
		r.decisions(api, 1, 1, 1, 0) // who left was not refused
	})
}

func TestAReloadReachesThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		rate := func(per time.Duration) Level { return level("defaults", 1, per, wait(20*time.Minute)) }
		chain := r.load(rate(time.Minute))
		r.pass(chain, api)
		for i := range 3 {
			r.join(t.Context(), chain, fmt.Sprint(i), api)
		}
		time.Sleep(second)
		g := r.keeper.Begin()
		r.link(g, policy, rate(second))
		g.Abort()
		time.Sleep(9 * second)
		r.wants(turn{"", 0}) // a configuration that was given up changed nothing
		r.load(rate(second))
		time.Sleep(time.Minute)
		r.mu.Lock()
		turns := slices.Clone(r.passed)
		r.mu.Unlock()
		if len(turns) != 3 || turns[0].who != "0" || turns[2].who != "2" || turns[2].at > 13*second || turns[2].at-turns[1].at != second {
			t.Errorf("a raised rate let go %v", turns)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 1, second, nil))
		r.pass(chain, api)
		r.join(t.Context(), chain, "waits", api)
		time.Sleep(100 * ms)
		r.load(level("defaults", 1, time.Hour, nil))
		synctest.Wait()
		if e := r.end("waits"); !refusal(e.err, limited) || e.at != 100*ms {
			t.Errorf("a lowered rate: %v after %v; want a refusal at once", e.err, e.at)
		}
	})
}

func TestWhatAReloadKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		one := func(edit func(*Config)) Level {
			return level("defaults", 1, time.Hour, func(c *Config) {
				c.Wait = 0
				edit(c)
			})
		}
		r.pass(r.load(one(func(*Config) {})), api)
		for name, edit := range map[string]func(*Config){
			"wait": wait(second), "queue": func(c *Config) { c.Queue = 1 }, "mode, per": func(c *Config) { c.Per = setting.Duration(2 * time.Hour) },
		} {
			chain := r.load(one(edit))
			if after := r.refused(chain, limited, api); after <= 0 {
				t.Errorf("a reload of %s forgot what was spent", name)
			}
		}
		chain := r.load(one(func(c *Config) { c.Requests = 3 }))
		for range 3 {
			r.pass(chain, "new.example.com") // limits that are made later have the new numbers
		}
		r.refused(chain, limited, "new.example.com")
		r.pass(r.load(one(func(c *Config) { c.Key = []string{"path"} })), api) // counts somebody else now
		r.load()
		if n, _ := r.room.everything(); len(n) != 0 {
			t.Errorf("the room still knows %d limits of a configuration that is gone", len(n))
		}
	})
}

func TestLevelsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		wide := level("defaults", 3, time.Hour, func(c *Config) { c.Wait, c.Scope = 0, ScopePattern })
		narrow := level(`hosts["*.example.com"]`, 2, time.Hour, wait(0))
		chain := r.load(wide, narrow)
		r.pass(chain, api)
		r.pass(chain, api)
		for range 5 {
			r.refused(chain, limited, api) // by its own level; what it took of the other is given back
		}
		r.pass(chain, "other.example.com") // the third of the pattern
		r.refused(chain, limited, "x.example.com")
	})
	synctest.Test(t, func(t *testing.T) { // waits add up too
		for name, c := range map[string]struct {
			second time.Duration // of the second level
			err    bool
			at     time.Duration
		}{
			"4s, then all that is left of 5s":  {5 * second, false, 5 * second},
			"4s, then more than is left of 5s": {6 * second, true, 4 * second},
		} {
			r := newRig(t)
			chain := r.load(level("defaults", 1, 4*second, nil), level("hosts", 1, c.second, nil))
			r.pass(chain, api)
			r.join(t.Context(), chain, "both", api)
			time.Sleep(time.Minute)
			if e := r.end("both"); refusal(e.err, limited) != c.err || e.at != c.at || e.x.Story().LimitWait != c.at {
				t.Errorf("%s: %v after %v", name, e.err, e.at)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) { // each policy that inherits a level shares its limiters
		r := newRig(t)
		l := level("defaults", 1, time.Hour, wait(0))
		g := r.keeper.Begin()
		one, two := r.link(g, "a", l), r.link(g, "b", l)
		g.Commit()
		r.pass(one, api)
		r.refused(two, limited, api)
	})
}

func TestARefusalBelowCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 1, time.Hour, wait(0)))
		r.answer = func(*http.Request) (*http.Response, error) { return nil, exchange.Refuse(exchange.BreakerOpen, "open") }
		for range 3 {
			if _, err := chain.RoundTrip(request(t.Context(), api)); !errors.As(err, new(*exchange.Refusal)) || refusal(err, limited) {
				t.Fatalf("%v", err)
			}
		}
		r.answer = func(*http.Request) (*http.Response, error) {
			return nil, &exchange.Failure{Code: exchange.UpstreamReset, Sent: true}
		}
		_, _ = chain.RoundTrip(request(t.Context(), api))
		r.refused(chain, limited, api) // an attempt that failed was an attempt
	})
}

func TestCharge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempt := func(r *rig, chain http.RoundTripper, req *http.Request) error {
			_, err := chain.RoundTrip(req)
			exchange.From(req.Context()).BeginAttempt(time.Now()) // as the end of the chain does
			return err
		}
		for charge, want := range map[string]int{ChargeAttempt: 1, ChargeExchange: 3} {
			r := newRig(t)
			chain := r.load(level("defaults", 1, time.Hour, func(c *Config) { c.Wait, c.Charge = 0, charge }))
			req := request(t.Context(), api)
			sent := 0
			for range 3 {
				if attempt(r, chain, req) == nil {
					sent++
				}
			}
			if sent != want {
				t.Errorf("%s: %d of three attempts went", charge, sent)
			}
			r.refused(chain, limited, api)
		}
	})
}

func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 10, 10*second, func(c *Config) { c.Cost = Tokens(4) }))
		r.pass(chain, api)
		r.pass(chain, api)
		r.join(t.Context(), chain, "third", api) // two tokens are left
		time.Sleep(time.Minute)
		r.wants(turn{"", 0}, turn{"", 0}, turn{"third", 2 * second})
		r.answer = func(*http.Request) (*http.Response, error) { return nil, exchange.Refuse(exchange.Denied, "no") }
		for range 9 {
			_, _ = chain.RoundTrip(request(t.Context(), api))
		}
		r.answer = nil
		r.pass(chain, api) // all four came back each time
		r.pass(chain, api)
	})
}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 1, second, func(c *Config) { c.Wait, c.Mode = setting.Duration(second), setting.Observe }))
		for i, want := range []string{"", "rate_limit_delayed", "rate_limited"} {
			req := request(t.Context(), api)
			resp, err := chain.RoundTrip(req)
			var observed []string
			if want != "" {
				observed = []string{want}
			}
			if got := exchange.From(req.Context()).Story().Observed; err != nil || !slices.Equal(got, observed) {
				t.Errorf("request %d: %v, observed %q; want %q", i, err, got, observed)
			}
			if len(resp.Header) != 0 {
				t.Errorf("a limit that only watches tells the client %v", resp.Header)
			}
		}
		if time.Since(r.begin) != 0 {
			t.Error("something was held")
		}
		r.decisions(api, 1, 0, 0, 2)
		if n := r.metric("rate_limit_wait_seconds", api); n > 0 {
			t.Errorf("%v waits were counted", n)
		}
	})
}

func TestObservedAndEnforcedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 1, time.Hour, func(c *Config) { c.Mode = setting.Observe }), level("hosts", 2, time.Hour, wait(0)))
		r.pass(chain, api)
		resp := r.pass(chain, api)
		if got := resp.Header.Get("RateLimit-Policy"); got != `"hosts";q=2;w=3600` {
			t.Errorf("the client is told %q", got)
		}
		r.refused(chain, limited, api)
		r.decisions(api, 1, 0, 1, 1)
	})
}
