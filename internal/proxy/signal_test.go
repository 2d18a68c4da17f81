package proxy

import (
	"net/http"
	"testing"
	"time"

	"httpowerd/internal/exchange"
)

// TestRetriedOut: what was retried out says so, in the vendor's own field too; a failure that was only hedged, or tried once, does not.
func TestRetriedOut(t *testing.T) {
	failing := exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
		x := exchange.From(r.Context())
		x.EndAttempt(x.BeginAttempt(time.Now()), time.Now(), 0, exchange.UpstreamReset)
		if r.URL.Path == "/hedged" {
			x.EndAttempt(x.BeginAgain(exchange.ReasonHedge, time.Now()), time.Now(), 0, exchange.UpstreamReset)
		}
		return nil, &exchange.Failure{Code: exchange.UpstreamReset, Sent: true}
	})
	r := newRig(t, `hosts: {"*": {retry: {backoff: {base: 0s, throttled: 0s}, signal: vendor-should-retry}, breaker: off}}`, ends{requests: failing}, standardLimits())
	for _, c := range []struct{ method, path, want string }{{"GET", "/", "false"}, {"POST", "/", ""}, {"POST", "/hedged", ""}, {"GET", "/hedged", "false"}} {
		p := r.dial()
		p.send(c.method + " http://192.0.2.1" + c.path + " HTTP/1.1\r\nHost: 192.0.2.1\r\nContent-Length: 0\r\n\r\n")
		resp, _ := p.answer(c.method)
		if got := []string{resp.Header.Get("X-Should-Retry"), resp.Header.Get("Vendor-Should-Retry")}; resp.StatusCode != 502 || got[0] != c.want || got[1] != c.want {
			t.Errorf("%s %s: %s, %q; want %q", c.method, c.path, resp.Status, got, c.want)
		}
	}
}
