package retry

import (
	"testing"
	"testing/synctest"

	"httpowerd/internal/exchange"
)

// TestStaleConnection: a kept connection that was dead costs no wait, but a retry from the budget, in metric and Proxy-Status; the second one waits as always.
func TestStaleConnection(t *testing.T) {
	stale := &exchange.Failure{Code: exchange.UpstreamReset, Sent: true, Stale: true}
	synctest.Test(t, func(t *testing.T) {
		r := scene{steps: []step{{err: stale}, {err: stale}, {status: 200}}}.play(t)
		if a := r.story.Attempts; len(a) != 3 || r.status() != 200 || a[1].Wait != 0 || a[1].Reason != exchange.ReasonReset || a[2].Wait == 0 {
			t.Fatalf("%+v", a)
		}
		if n := r.count("httpowerd_retries_total", exchange.ReasonReset); n != 2 {
			t.Errorf("%v retries are counted", n)
		}
		if r.resp.Header.Get("Proxy-Status") == "" {
			t.Error("Proxy-Status is missing")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := scene{steps: []step{{err: stale}}, config: func(c *Config) { c.Budget.Ratio, c.Budget.Floor = 0, 0 }}.play(t)
		if len(r.requests) != 1 || r.story.NotRetried != whyBudget {
			t.Errorf("%d attempts, not retried because of %q", len(r.requests), r.story.NotRetried)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if r := (scene{method: "POST", steps: []step{{err: stale}}}).play(t); len(r.requests) != 1 {
			t.Errorf("a POST was sent %d times", len(r.requests))
		}
	})
}
