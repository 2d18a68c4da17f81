package ratelimit

import (
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// Where the upstream is probed, or comes back, its requests count for more: the limit's rate is smaller by the factor, and never nothing.
func TestFactor(t *testing.T) {
	for factor, want := range map[float64]int{1: 60, 0.5: 30, 0.75: 45, 0: 3, -1: 3, math.NaN(): 3, 7: 60} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.factor = func(*exchange.Exchange) float64 { return factor }
			chain := r.load(level("defaults", 1, time.Second, wait(time.Hour)))
			end := time.Now().Add(time.Minute)
			n := 0
			for time.Now().Before(end) {
				if _, err := chain.RoundTrip(request(t.Context(), api)); err != nil {
					t.Fatal(err)
				}
				n++
			}
			if n < want-1 || n > want+2 {
				t.Errorf("%v: %d in a minute; want %d", factor, n, want)
			}
		})
	}
	// What is given back is what was taken, whatever the factor is by then; and a limit that several share slows down only for whom it is about.
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ill := 0.5
		r.factor = func(x *exchange.Exchange) float64 {
			if x.Target.Host == api {
				return ill
			}
			return 1
		}
		r.answer = func(*http.Request) (*http.Response, error) {
			ill = 1
			return nil, exchange.Refuse(exchange.BreakerOpen, "no")
		}
		chain := r.load(level("defaults", 100, 100*second, func(c *Config) { c.Scope = ScopePattern }))
		_, _ = chain.RoundTrip(request(t.Context(), api))
		if got := r.left(); got != 100 {
			t.Errorf("%v left", got)
		}
		ill, r.answer = 0.5, nil
		r.pass(chain, api)
		r.pass(chain, "other.example.com")
		if got := r.left(); got != 97 {
			t.Errorf("%v left", got)
		}
	})
}

func TestScarce(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		spent int
		want  bool
	}{
		"plenty":               {nil, 0, false},
		"the last but one":     {nil, 3, false},
		"no token":             {nil, 4, true},
		"a tenth of the quota": {[]string{"X-RateLimit-Limit: 100", "X-RateLimit-Remaining: 10", "X-RateLimit-Reset: 60"}, 0, false},
		"less than a tenth":    {[]string{"X-RateLimit-Limit: 100", "X-RateLimit-Remaining: 9", "X-RateLimit-Reset: 60"}, 0, true},
		"one is left":          {[]string{"X-RateLimit-Remaining: 1", "X-RateLimit-Reset: 60"}, 0, true},
		"used up":              {[]string{"X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60"}, 0, true},
		"few tokens":           {[]string{"anthropic-ratelimit-tokens-limit: 1000", "anthropic-ratelimit-tokens-remaining: 50", "anthropic-ratelimit-tokens-reset: 2000-01-01T00:01:00Z"}, 0, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			levels := []Level{level("defaults", 5, time.Hour, nil)}
			g := r.keeper.Begin()
			scarce := r.room.Scarce(state.Scope{Generation: g, Policy: policy}, levels)
			chain := r.link(g, policy, levels...)
			g.Commit()
			r.replies(200, c.lines...)
			r.pass(chain, api)
			for range c.spent {
				r.pass(chain, api)
			}
			req := request(t.Context(), api)
			if got := scarce(exchange.From(req.Context()), req); got != c.want {
				t.Errorf("%s: %v", name, got)
			}
			other := request(t.Context(), "other.example.com")
			if scarce(exchange.From(other.Context()), other) {
				t.Errorf("%s: of another host too", name)
			}
		})
	}
}
