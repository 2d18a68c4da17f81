package hedge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

const ms = time.Millisecond

// attempts is the story's attempts, as "200 | hedge:superseded".
func attempts(x *exchange.Exchange) string {
	var all []string
	for _, a := range x.Story().Attempts {
		text := string(a.Error)
		if a.Status != 0 {
			text = fmt.Sprint(a.Status)
		}
		if a.Reason != "" {
			text = a.Reason + ":" + text
		}
		all = append(all, text)
	}
	return strings.Join(all, " | ")
}

func TestRaces(t *testing.T) {
	slow, ok := step{takes: time.Hour, status: 200, body: "slow"}, func(after time.Duration, body string) step { return step{takes: after, status: 200, body: body} }
	bad := func(after time.Duration, status int) step { return step{takes: after, status: status, body: "bad"} }
	for name, c := range map[string]struct {
		extra   int
		steps   []step
		want    string // "": an error
		err     string
		at      time.Duration
		sent    int
		spent   int
		counted string
		story   string
		waited  time.Duration // for the upstream; 0: as long as it took
	}{
		"in time": {1, []step{ok(99*ms, "a")}, "OK a", "", 99 * ms, 1, 0, "", "200", 0},
		"the hedge wins": {1, []step{slow, ok(20*ms, "b")}, "OK b", "", 120 * ms, 2, 1, "won=1",
			"superseded | hedge:200", 0},
		"the first wins": {1, []step{ok(150*ms, "a"), slow}, "OK a", "", 150 * ms, 2, 1, "lost=1",
			"200 | hedge:superseded", 0},
		"the hedge fails":                     {1, []step{ok(500*ms, "a"), bad(10*ms, 503)}, "OK a", "", 500 * ms, 2, 1, "failed=1", "200 | hedge:503", 0},
		"the hedge is throttled":              {3, []step{ok(900*ms, "a"), bad(10*ms, 429)}, "OK a", "", 900 * ms, 2, 1, "failed=1", "200 | hedge:429", 0},
		"the hedge times out at its upstream": {1, []step{ok(500*ms, "a"), bad(10*ms, 408)}, "OK a", "", 500 * ms, 2, 1, "failed=1", "200 | hedge:408", 0},
		"the hedge breaks":                    {1, []step{ok(500*ms, "a"), {takes: 10 * ms, err: errReset}}, "OK a", "", 500 * ms, 2, 1, "failed=1", "200 | hedge:", 0},
		"the hedge is not found":              {1, []step{slow, bad(10*ms, 404)}, "Not Found bad", "", 110 * ms, 2, 1, "won=1", "superseded | hedge:404", 0},
		"the first fails, the hedge does not": {1, []step{bad(200*ms, 503), ok(250*ms, "b")}, "OK b", "", 350 * ms, 2, 1, "won=1",
			"503 | hedge:200", 0},
		"the first breaks, the hedge does not": {1, []step{{takes: 200 * ms, err: errReset}, ok(250*ms, "b")}, "OK b", "", 350 * ms, 2, 1, "won=1",
			" | hedge:200", 0},
		"both fail, the first first": {1, []step{bad(200*ms, 503), bad(250*ms, 500)}, "Service Unavailable bad", "", 350 * ms, 2, 1, "failed=1",
			"503 | hedge:500", 0},
		"both fail, the first last": {1, []step{bad(400*ms, 503), bad(10*ms, 500)}, "Service Unavailable bad", "", 400 * ms, 2, 1, "failed=1",
			"503 | hedge:500", 0},
		"both fail, the first without an answer": {1, []step{{takes: 200 * ms, err: errReset}, bad(250*ms, 500)}, "", "upstream_reset: ", 350 * ms, 2, 1,
			"failed=1", " | hedge:500", 0},
		"the first fails before": {1, []step{bad(50*ms, 503), slow}, "Service Unavailable bad", "", 50 * ms, 1, 0, "", "503", 0},
		"the hedge is refused": {3, []step{ok(900*ms, "a"), {refused: refusal(exchange.ConcurrencyLimited)}}, "OK a", "", 900 * ms, 2, 0,
			"refused=1", "200", 0},
		"the hedge is refused, the first fails": {1, []step{bad(200*ms, 503), {held: 150 * ms, refused: refusal(exchange.RateLimited)}},
			"Service Unavailable bad", "", 250 * ms, 2, 0, "refused=1", "503", 200 * ms},
		"the hedge is refused by a breaker that it opened": {1, []step{{takes: 200 * ms, err: errReset}, {held: 150 * ms, refused: refusal(exchange.BreakerOpen)}},
			"", "upstream_reset: ", 250 * ms, 2, 0, "refused=1", "", 200 * ms},
		"the hedge is held": {1, []step{ok(150*ms, "a"), {held: time.Hour, status: 200}}, "OK a", "", 150 * ms, 2, 0, "lost=1", "200", 0},
		"the hedge is held, nothing follows it": {3, []step{ok(time.Second, "a"), {held: time.Hour, status: 200}}, "OK a", "", time.Second, 2, 0,
			"lost=1", "200", 0},
		"the first is held": {1, []step{{held: time.Second, takes: 99 * ms, status: 200, body: "a"}}, "OK a", "", 1099 * ms, 1, 0, "", "200", 99 * ms},
		"the first is held, then slow": {1, []step{{held: time.Second, takes: time.Hour, status: 200}, ok(20*ms, "b")}, "OK b", "", 1120 * ms, 2, 1,
			"won=1", "superseded | hedge:200", 120 * ms},
		"the first is refused": {1, []step{{held: time.Second, refused: refusal(exchange.RateLimited)}}, "", "rate_limited: no", time.Second, 1, 0, "", "",
			-1},
		"the third wins": {2, []step{slow, slow, ok(20*ms, "c")}, "OK c", "", 220 * ms, 3, 2, "lost=1 won=1",
			"superseded | hedge:superseded | hedge:200", 0},
		"the second wins while a third is out": {2, []step{slow, ok(150*ms, "b"), slow}, "OK b", "", 250 * ms, 3, 2, "lost=1 won=1",
			"superseded | hedge:200 | hedge:superseded", 0},
		"the first wins against three": {3, []step{ok(450*ms, "a"), slow}, "OK a", "", 450 * ms, 4, 3, "lost=3",
			"200 | hedge:superseded | hedge:superseded | hedge:superseded", 0},
		"three fail, one does not": {2, []step{bad(250*ms, 500), {takes: 200 * ms, err: errReset}, ok(300*ms, "c")}, "OK c", "", 500 * ms, 3, 2,
			"failed=1 won=1", "500 | hedge: | hedge:200", 0},
		"all three fail": {2, []step{bad(250*ms, 500), bad(200*ms, 502), bad(300*ms, 503)}, "Internal Server Error bad", "", 500 * ms, 3, 2, "failed=2",
			"500 | hedge:502 | hedge:503", 0},
		"another protocol that nobody asked for": {1, []step{ok(500*ms, "a"), bad(10*ms, 101)}, "OK a", "", 500 * ms, 2, 1, "failed=1", "200 | hedge:101", 0},
		"the hedge panics": {3, []step{ok(900*ms, "a"), {takes: 10 * ms, panics: true}}, "OK a", "", 900 * ms, 2, 1, "panicked=1",
			"200 | hedge:superseded", 0},
		"the hedge's goroutine ends": {1, []step{bad(200*ms, 503), {takes: 300 * ms, exits: true}}, "Service Unavailable bad", "", 400 * ms, 2, 1,
			"panicked=1", "503 | hedge:superseded", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, fixed(100*ms, c.extra), c.steps...)
				got, err := r.send(t.Context())
				took := time.Since(r.begin)
				if err == nil {
					took -= ms
				}
				if c.want != got || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
					t.Errorf("got %q, %v; want %q, %q", got, err, c.want, c.err)
				}
				if took != c.at {
					t.Errorf("it took %v; want %v", took, c.at)
				}
				s := r.x.Story()
				if wait := max(0, c.waited); c.waited == 0 && s.Upstream != c.at || c.waited != 0 && s.Upstream != wait {
					t.Errorf("waited %v for the upstream", s.Upstream)
				}
				if rest := c.at - s.Upstream - s.LimitWait - s.Backoff; rest != 0 {
					t.Errorf("%v are neither the upstream's nor a limit's (%v)", rest, s.LimitWait)
				}
				r.finished()
				if n := r.sent(); n != c.sent {
					t.Errorf("sent %d; want %d", n, c.sent)
				}
				if n := r.spent(); n != c.spent {
					t.Errorf("spent %d of the budget; want %d", n, c.spent)
				}
				if got := r.counted(); got != c.counted {
					t.Errorf("counted %q; want %q", got, c.counted)
				}
				if got := attempts(r.x); got != c.story {
					t.Errorf("the story says %q; want %q", got, c.story)
				}
			})
		})
	}
}

// TestFailuresInside: what is a failure although its status is none does not win against an attempt that is out, and is taken where there is nothing better.
func TestFailuresInside(t *testing.T) {
	ok := func(after time.Duration, body string) step { return step{takes: after, status: 200, body: body} }
	slow := step{takes: time.Hour, status: 200, body: "slow"}
	for name, c := range map[string]struct {
		extra   int
		steps   []step
		want    string
		at      time.Duration // of the head; the body of each takes 10 ms more to judge
		judged  int
		counted string
	}{
		"in time, not judged here":            {1, []step{ok(50*ms, "no a")}, "OK no a", 50 * ms, 0, ""},
		"the hedge fails":                     {1, []step{ok(500*ms, "a"), ok(10*ms, "no b")}, "OK a", 500 * ms, 1, "failed=1"},
		"the hedge wins":                      {1, []step{slow, ok(20*ms, "b")}, "OK b", 130 * ms, 1, "won=1"},
		"the first fails, the hedge does not": {1, []step{ok(150*ms, "no a"), ok(200*ms, "b")}, "OK b", 310 * ms, 2, "won=1"},
		"the first is good":                   {1, []step{ok(150*ms, "a"), slow}, "OK a", 160 * ms, 1, "lost=1"},
		"the first is judged, the hedge wins": {1, []step{ok(125*ms, "no a"), ok(20*ms, "b")}, "OK b", 130 * ms, 2, "won=1"},
		"both fail":                           {1, []step{ok(200*ms, "no a"), ok(150*ms, "no b")}, "OK no a", 260 * ms, 2, "failed=1"},
		"two fail, one does not":              {2, []step{ok(250*ms, "no a"), ok(300*ms, "no b"), ok(150*ms, "c")}, "OK c", 360 * ms, 2, "lost=1 won=1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, fixed(100*ms, c.extra), c.steps...)
				var judged atomic.Int32
				r.fails = func(req *http.Request, resp *http.Response) bool {
					judged.Add(1)
					b, err := io.ReadAll(resp.Body)
					resp.Body = struct {
						io.Reader
						io.Closer
					}{strings.NewReader(string(b)), resp.Body}
					select {
					case <-time.After(10 * ms):
					case <-req.Context().Done():
					}
					return err != nil || strings.HasPrefix(string(b), "no")
				}
				got, err := r.send(t.Context())
				if took := time.Since(r.begin) - ms; got != c.want || err != nil || took != c.at || int(judged.Load()) != c.judged {
					t.Errorf("got %q, %v after %v, %d were judged; want %q after %v, %d", got, err, took, judged.Load(), c.want, c.at, c.judged)
				}
				r.finished()
				if got := r.counted(); got != c.counted {
					t.Errorf("counted %q; want %q", got, c.counted)
				}
			})
		})
	}
}

// TestLosers are cancelled with a cause that nobody takes for the upstream's fault, and at once.
func TestLosers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fixed(100*ms, 2), step{takes: time.Hour}, step{takes: time.Hour}, step{takes: 5 * ms, status: 200})
		if _, err := r.send(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, cause := range r.causes[:2] {
			if !errors.Is(cause, exchange.ErrSuperseded) || !errors.Is(cause, context.Canceled) {
				t.Errorf("attempt %d was cancelled with %v", i+1, cause)
			}
		}
		if want := []time.Duration{0, 100 * ms, 200 * ms}; !slices.Equal(r.came, want) {
			t.Errorf("sent at %v; want %v", r.came, want)
		}
		for i, a := range r.x.Story().Attempts {
			if want := []time.Duration{0, 100 * ms, 100 * ms}[i]; a.Wait != want {
				t.Errorf("attempt %d waited %v; want %v", i+1, a.Wait, want)
			}
		}
		r.finished()
	})
}

// TestRequestsOfTheirOwn: a hedge may outlive the exchange, so it shares no field with the request.
func TestRequestsOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fixed(100*ms, 1), step{takes: 150 * ms, status: 200}, step{takes: time.Hour})
		if _, err := r.send(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.requests[0].Header.Set("X-Late", "1")
		r.requests[0].URL.Path = "/other"
		if h := r.requests[1]; h.Header.Get("X-Late") != "" || h.URL.Path != "/things" || h.Method != "GET" {
			t.Errorf("the hedge is %+v", h)
		}
		r.finished()
	})
}

func TestNotHedged(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"POST":          func(r *http.Request) { r.Method = "POST" },
		"PUT":           func(r *http.Request) { r.Method = "PUT" },
		"DELETE":        func(r *http.Request) { r.Method = "DELETE" },
		"TRACE":         func(r *http.Request) { r.Method = "TRACE" },
		"CONNECT":       func(r *http.Request) { r.Method = "CONNECT" },
		"get":           func(r *http.Request) { r.Method = "get" },
		"a body":        func(r *http.Request) { r.Body = http.MaxBytesReader(nil, http.NoBody, 1) },
		"Upgrade":       func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"Expect":        func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"event streams": func(r *http.Request) { r.Header["Accept"] = []string{"text/html", "text/event-stream; q=1"} },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, fixed(100*ms, 1), step{takes: time.Second, status: 200})
			r.x = newExchange()
			req := newRequest(t.Context(), r.x, "GET")
			change(req)
			resp, err := r.stage.RoundTrip(req)
			if err != nil || resp.StatusCode != 200 || r.sent() != 1 || r.requests[0] != req {
				t.Errorf("%s: sent %d: %v", name, r.sent(), err)
			}
			_ = resp.Body.Close()
		})
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS", ""} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, fixed(100*ms, 1), step{takes: time.Second, status: 200})
			req := newRequest(t.Context(), newExchange(), "GET")
			req.Method, req.Body = method, http.NoBody
			resp, err := r.stage.RoundTrip(req)
			if err != nil || r.sent() != 2 {
				t.Fatalf("%q: sent %d: %v", method, r.sent(), err)
			}
			_ = resp.Body.Close()
			r.finished()
		})
	}
}

func TestScarce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fixed(100*ms, 3), step{takes: time.Second, status: 200})
		asked := 0
		r.scarce = func(x *exchange.Exchange, req *http.Request) bool {
			if asked++; x != r.x || req.URL.Path != "/things" {
				t.Errorf("asked of %v", req)
			}
			return true
		}
		if got, err := r.send(t.Context()); got != "OK " || err != nil || r.sent() != 1 || asked != 1 {
			t.Errorf("%q, %v, sent %d, asked %d times", got, err, r.sent(), asked)
		}
		r.scarce = func(*exchange.Exchange, *http.Request) bool { panic("a defect") }
		if got, err := r.send(t.Context()); got != "OK " || err != nil || r.sent() != 2 {
			t.Errorf("%q, %v, sent %d", got, err, r.sent())
		}
		if got := r.counted(); got != "panicked=1 scarce=1" {
			t.Errorf("counted %q", got)
		}
		r.finished()
		if n := r.spent(); n != 0 {
			t.Errorf("spent %d", n)
		}
	})
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fixed(100*ms, 1), step{takes: 200 * ms, status: 200})
		for range allowed + 2 {
			if _, err := r.send(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		r.finished()
		if got, n := r.counted(), r.sent(); got != fmt.Sprintf("budget=2 lost=%d", allowed) || n != 2*allowed+2 {
			t.Errorf("counted %q, sent %d", got, n)
		}
	})
}

// TestOwnBudget: without a retry block the stage counts first attempts itself.
func TestOwnBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fixed(100*ms, 1), step{takes: 150 * ms, status: 200})
		r.budgets = nil
		r.load(fixed(100*ms, 1))
		r.steps = []step{{status: 200}}
		for range 50 { // ten hedges' worth, and thirty from the floor
			_, _ = r.send(t.Context())
		}
		r.steps, r.requests, r.came, r.causes = []step{{takes: 150 * ms, status: 200}}, nil, nil, nil
		var wg sync.WaitGroup
		for range 50 { // and ten for these
			wg.Go(func() {
				resp, err := r.stage.RoundTrip(newRequest(t.Context(), newExchange(), "GET"))
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
			})
		}
		wg.Wait()
		if n := r.sent(); n != 50+50 {
			t.Errorf("sent %d", n)
		}
		resp, err := r.stage.RoundTrip(newRequest(t.Context(), newExchange(), "GET"))
		if err != nil || r.sent() != 101 {
			t.Errorf("sent %d, %v", r.sent(), err)
		}
		_ = resp.Body.Close()
		if got := r.counted(); got != "budget=1 lost=50" {
			t.Errorf("counted %q", got)
		}
		r.finished()
	})
}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fixed(100*ms, 3)
		c.Mode = setting.Observe
		r := newRig(t, c, step{takes: time.Second, status: 200})
		if _, err := r.send(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := r.x.Story(); !slices.Equal(s.Observed, []string{"hedge"}) || r.sent() != 1 || r.counted() != "observed=1" {
			t.Errorf("observed %v, sent %d, counted %q", s.Observed, r.sent(), r.counted())
		}
		r.scarce = func(*exchange.Exchange, *http.Request) bool { return true }
		if _, err := r.send(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := r.x.Story(); len(s.Observed) != 0 || r.counted() != "observed=1 scarce=1" {
			t.Errorf("observed %v, counted %q", s.Observed, r.counted())
		}
		r.finished()
		if n := r.spent(); n != 0 {
			t.Errorf("spent %d", n)
		}
	})
}
