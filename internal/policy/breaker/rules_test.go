package breaker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// TestRatioCountsFailuresSlowerThanTheWindow: an upstream that hangs is what a breaker is for.
func TestRatioCountsFailuresSlowerThanTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Consecutive, c.Window = 0, setting.Duration(time.Second) })
		r.next = func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Minute)
			return nil, errReset
		}
		for range 30 {
			go r.get(1)
		}
		time.Sleep(time.Minute + time.Millisecond)
		synctest.Wait()
		r.is(Open)
	})
}

// TestTally: what is counted leaves after the window, step by step.
func TestTally(t *testing.T) {
	tally := newTally(10 * time.Second)
	second := int64(time.Second)
	for s := range int64(10) {
		tally.add(s*second, &verdict{kind: hard, local: s%2 == 0})
	}
	tally.add(9*second, success)
	tally.add(9*second, &verdict{kind: soft, slow: true})
	if tally.sum != (counts{good: 1, local: 5, upstream: 6, slow: 1}) {
		t.Errorf("%+v", tally.sum)
	}
	tally.roll(12 * second)
	if tally.sum != (counts{good: 1, local: 3, upstream: 5, slow: 1}) {
		t.Errorf("after two more steps %+v", tally.sum)
	}
	tally.roll(11 * second) // a clock that was read before the lock was had
	tally.roll(19 * second)
	if tally.sum != (counts{}) {
		t.Errorf("after the window %+v", tally.sum)
	}
	tally.add(20*second, success)
	tally.roll(1000 * second)
	if tally.sum != (counts{}) || tally.steps != [windowSteps]counts{} {
		t.Errorf("after a long rest %+v", tally)
	}
}

func TestLocalAndUpstreamFailures(t *testing.T) {
	local := &exchange.Failure{Code: exchange.UpstreamConnect}
	for _, row := range []struct {
		fails  []error
		reason string
		want   Streak
	}{
		{[]error{local, local, local}, "3 failures in a row before anything was sent, the last: upstream_connect", Streak{Local: 2}},
		{[]error{errReset, errReset, errReset}, "3 failures in a row, the last: upstream_reset", Streak{Upstream: 2}},
		{[]error{&exchange.Failure{Code: exchange.UpstreamDNS}, errReset, &exchange.Failure{Code: exchange.UpstreamTLS}},
			"3 failures in a row (2 before anything was sent, 1 of the upstream), the last: upstream_tls", Streak{Local: 1, Upstream: 1}},
		{[]error{&exchange.Failure{Code: exchange.UpstreamTimeout, Sent: true}, local, &exchange.Failure{Code: exchange.UpstreamTimeout}},
			"3 failures in a row (2 before anything was sent, 1 of the upstream), the last: upstream_timeout", Streak{Local: 1, Upstream: 1}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Consecutive = 3 })
			for i, err := range row.fails {
				if i == 2 {
					if s := r.room.Status()[0]; s.Streak != row.want || s.Window.FailuresLocal != row.want.Local || s.Window.FailuresUpstream != row.want.Upstream {
						t.Errorf("%+v; want a streak of %+v", s, row.want)
					}
				}
				r.fail(err)
				r.get(1)
			}
			r.is(Open)
			if s := r.room.Status()[0]; s.Reason != row.reason || s.Opened != 1 || s.Streak != (Streak{}) {
				t.Errorf("%+v; want %q", s, row.reason)
			}
		})
	}
}

func TestWindowInStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Slow = setting.OptionalDuration{On: true, Duration: time.Second} })
		r.status(200)
		r.get(3)
		r.status(500)
		r.get(2)
		r.next = func(req *http.Request) (*http.Response, error) {
			exchange.Written(req.Context())
			time.Sleep(2 * time.Second)
			return answer(200), nil
		}
		r.get(1)
		r.status(429)
		r.get(7)
		if s := r.room.Status()[0]; s.Window != (Window{Successes: 3, FailuresUpstream: 3, Slow: 1}) || s.Mode != "enforce" {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		if s := r.room.Status()[0]; s.Window != (Window{}) {
			t.Errorf("after the window %+v", s.Window)
		}
	})
}

func TestRecentChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Probes, c.Consecutive, c.Ramp = 1, 1, 0 })
		for range 9 {
			r.fail(errReset)
			r.get(1)
			r.wait()
			r.status(200)
			r.get(1)
		}
		changes := r.room.Status()[0].Changes
		if len(changes) != maxRecent || len(r.change) != 27 {
			t.Fatalf("%d remembered of %d", len(changes), len(r.change))
		}
		for i, c := range changes {
			if told := r.change[27-maxRecent+i]; c != (Transition{told.Time, told.From, told.To, told.Reason}) {
				t.Errorf("change %d is remembered as %+v, told as %+v", i, c, told)
			}
		}
	})
}

// TestRetryAfterOfAnEarlierFailure: the upstream's word holds although it was not the last that it said.
func TestRetryAfterOfAnEarlierFailure(t *testing.T) {
	for name, row := range map[string]struct {
		between func(*rig)
		least   time.Duration
		most    time.Duration
	}{
		"still asked": {func(r *rig) { time.Sleep(20 * time.Second) }, 100 * time.Second, 110 * time.Second},
		"over":        {func(r *rig) { time.Sleep(121 * time.Second) }, 27 * time.Second, 33 * time.Second},
		"taken back":  {func(r *rig) { r.status(200); r.get(1) }, 27 * time.Second, 33 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.status(503, "Retry-After", "120")
			r.get(1)
			row.between(r)
			r.fail(errReset)
			r.get(5)
			if left := r.room.Status()[0].RetryAfter; left < row.least || left > row.most {
				t.Errorf("%s: open for %v", name, left)
			}
		})
	}
}

func TestProbeDeadlineIsTheAttemptsTimeout(t *testing.T) {
	c := Default()
	if faults := c.Derive(7*time.Second, Written{}); len(faults) > 0 || c.probeDeadline() != 7*time.Second {
		t.Errorf("%v %v", faults, c.probeDeadline())
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Probes, c.Attempt = 1, 7*time.Second })
		r.fail(errReset)
		r.get(5)
		r.wait()
		release := make(chan struct{})
		r.next = func(*http.Request) (*http.Response, error) { <-release; return answer(200), nil }
		go r.get(1)
		time.Sleep(7*time.Second - time.Millisecond)
		r.is(HalfOpen)
		time.Sleep(2 * time.Millisecond)
		r.is(Open)
		close(release)
		synctest.Wait()
	})
}

// outcome is what becomes of an attempt; leave cancels its context.
type outcome func(leave context.CancelCauseFunc) (*http.Response, error)

func fails(err error) outcome {
	return func(context.CancelCauseFunc) (*http.Response, error) { return nil, err }
}

func answers(status int, body io.Reader) outcome {
	return func(context.CancelCauseFunc) (*http.Response, error) {
		resp := answer(status)
		if body != nil {
			resp.ContentLength, resp.Body = -1, stream{body, new(atomic.Bool)}
		}
		return resp, nil
	}
}

func panics(v any) outcome {
	return func(context.CancelCauseFunc) (*http.Response, error) { panic(v) }
}

func cancels(cause, err error) outcome {
	return func(leave context.CancelCauseFunc) (*http.Response, error) { leave(cause); return nil, err }
}

// usage is what the caller does with the answer.
type usage func(*http.Response, context.CancelCauseFunc)

func reads(resp *http.Response, _ context.CancelCauseFunc) {
	_, _ = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	_ = resp.Body.Close()
}

func closes(resp *http.Response, _ context.CancelCauseFunc) { _ = resp.Body.Close() }

func loses(then usage) usage {
	return func(resp *http.Response, leave context.CancelCauseFunc) {
		leave(exchange.ErrSuperseded)
		then(resp, nil)
	}
}

// TestEveryAttemptReportsOnce: whatever way an attempt ends, the breaker hears of it, and no more than once.
func TestEveryAttemptReportsOnce(t *testing.T) {
	good, bad, nothing := gobreaker.Counts{TotalSuccesses: 1}, gobreaker.Counts{TotalFailures: 1}, gobreaker.Counts{TotalExclusions: 1}
	for name, row := range map[string]struct {
		method string
		next   outcome
		use    usage
		want   gobreaker.Counts
	}{
		"success":                {"GET", answers(200, nil), reads, good},
		"failure":                {"GET", fails(errReset), nil, bad},
		"server error":           {"GET", answers(500, nil), reads, bad},
		"throttled":              {"GET", answers(429, nil), reads, nothing},
		"refused below":          {"GET", fails(exchange.Refuse(exchange.DestinationDenied, "no")), nil, nothing},
		"panic":                  {"GET", panics("a defect"), nil, nothing},
		"abort":                  {"GET", panics(http.ErrAbortHandler), nil, nothing},
		"tunnel":                 {"CONNECT", answers(200, broken{}), nil, good},
		"no tunnel":              {"CONNECT", fails(errReset), nil, bad},
		"upgrade":                {"GET", answers(101, broken{}), nil, good},
		"client left":            {"GET", cancels(nil, errReset), nil, nothing},
		"superseded":             {"GET", cancels(exchange.ErrSuperseded, exchange.ErrSuperseded), nil, nothing},
		"superseded, with error": {"GET", cancels(exchange.ErrSuperseded, errReset), nil, nothing},
		"body to its end":        {"GET", answers(200, strings.NewReader("x")), reads, good},
		"body closed early":      {"GET", answers(200, strings.NewReader("x")), closes, good},
		"body breaks off":        {"GET", answers(200, broken{}), reads, bad},
		"superseded in its body": {"GET", answers(200, broken{}), loses(reads), nothing},
		"superseded and closed":  {"GET", answers(200, strings.NewReader("x")), loses(closes), nothing},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			ctx, leave := context.WithCancelCause(t.Context())
			defer leave(nil)
			r.next = func(*http.Request) (*http.Response, error) { return row.next(leave) }
			req, _ := request(ctx, row.method)
			func() {
				defer func() { _ = recover() }()
				if resp, err := r.chain.RoundTrip(req); err == nil && row.use != nil {
					row.use(resp, leave)
				}
			}()
			got := r.circuit().counts.Counts()
			got = gobreaker.Counts{TotalSuccesses: got.TotalSuccesses, TotalFailures: got.TotalFailures, TotalExclusions: got.TotalExclusions}
			if got != row.want {
				t.Errorf("the breaker heard %+v; want %+v", got, row.want)
			}
		})
	}
}

// TestHedgeLosersGiveTheirPlaceBack: a probe that another attempt's answer cut off says nothing.
func TestHedgeLosersGiveTheirPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.fail(errReset)
		r.get(5)
		r.wait()
		for range 20 {
			ctx, lose := context.WithCancelCause(t.Context())
			r.next = func(*http.Request) (*http.Response, error) {
				lose(exchange.ErrSuperseded)
				return nil, &exchange.Failure{Code: exchange.UpstreamReset, Sent: true}
			}
			req, _ := request(ctx, http.MethodGet)
			if _, err := r.chain.RoundTrip(req); errors.As(err, new(*exchange.Refusal)) {
				t.Fatal("the places are used up")
			}
		}
		r.is(HalfOpen)
	})
}

// TestTripBeforeAdmission: who has seen a closed gate, and comes to gobreaker after it tripped, is no probe before its time.
func TestTripBeforeAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Probes = 1 })
		r.fail(errReset)
		r.get(5)
		c := r.circuit()
		open := c.gate.Load()
		time.Sleep(time.Second) // longer than gobreaker's own open time
		// The race, by hand: the gate looks closed until after gobreaker was asked.
		c.gate.Store(gateClosed)
		done, err := c.counts.Allow()
		c.gate.Store(open)
		if err != nil {
			t.Fatal(err)
		}
		done(neutral)
		r.status(200)
		if r.get(1) == nil {
			t.Error("a request passed an open breaker")
		}
		r.is(Open)
		r.wait()
		r.get(1)
		r.is(Closed)
	})
}

func TestFactor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		var keeper state.Keeper
		g := keeper.Begin()
		c := Default()
		scope := state.Scope{Generation: g, Policy: "api.example.com"}
		r.chain = r.link(g, c)
		factor := r.room.Factor(scope, c)
		observed := c
		observed.Mode = setting.Observe
		watching := r.room.Factor(scope, observed)
		g.Commit()
		_, x := request(t.Context(), http.MethodGet)
		at := func(want float64) {
			t.Helper()
			if got := factor(x); got < want-0.01 || got > want+0.01 {
				t.Errorf("the factor is %v; want %v", got, want)
			}
			if got := watching(x); got != 1 {
				t.Errorf("observing, the factor is %v", got)
			}
		}
		at(1)
		r.fail(errReset)
		r.get(5)
		at(0.5)
		for _, s := range r.room.Status() {
			time.Sleep(s.RetryAfter)
		}
		r.status(200)
		r.get(2)
		at(0.5)
		r.get(1)
		at(0.5)
		time.Sleep(15 * time.Second)
		at(0.75)
		time.Sleep(15 * time.Second)
		at(1)
		for to, want := range map[string]float64{Open: 0.5, Closed: 1} {
			if err := r.room.Force("api.example.com:443", to); err != nil {
				t.Fatal(err)
			}
			at(want)
		}
	})
}

// TestNotifyIsNoReasonToForget: whom to tell may change without the state being lost.
func TestNotifyIsNoReasonToForget(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Consecutive = 2 })
	var keeper state.Keeper
	load := func(targets ...string) {
		g := keeper.Begin()
		c := Default()
		c.Consecutive, c.Notify = 2, targets
		r.chain = r.link(g, c)
		g.Commit()
	}
	load("ops")
	r.fail(errReset)
	r.get(1)
	load("oncall", "ops")
	r.get(1)
	if len(r.change) != 1 || fmt.Sprint(r.change[0].Notify) != "[oncall ops]" {
		t.Errorf("%+v", r.change)
	}
}

// TestOtherBlocksAreNoReasonToForget: a reload that changes timeout.attempt, or the unit of Retry-After, keeps a breaker that is open, and acts.
func TestOtherBlocksAreNoReasonToForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		var keeper state.Keeper
		load := func(commit bool, attempt time.Duration, edit func(*Config)) {
			g := keeper.Begin()
			c := Default()
			edit(&c)
			if faults := c.Derive(attempt, Written{}); len(faults) > 0 {
				t.Fatal(faults)
			}
			chain := r.link(g, c)
			if commit {
				r.chain = chain
				g.Commit()
			} else {
				g.Abort()
			}
		}
		rules := func(c *Config) { c.Consecutive, c.Minimum = 0, 4 }
		load(true, 5*time.Minute, rules)
		r.fail(errReset)
		r.get(3)
		time.Sleep(5 * time.Minute) // within twice the attempt
		load(true, time.Second, rules)
		time.Sleep(50 * time.Second)
		load(false, 5*time.Minute, rules)
		r.get(1)
		if len(r.change) != 1 || !strings.Contains(r.change[0].Reason, "4 of 4 answers within 1m failed") {
			t.Fatalf("%+v", r.change)
		}
		load(true, 20*time.Minute, func(c *Config) { rules(c); c.Unit = "ms" })
		if r.get(1) == nil {
			t.Error("a change of other blocks closed the breaker")
		}
		r.wait()
		release := make(chan struct{})
		r.next = func(*http.Request) (*http.Response, error) { <-release; return answer(200), nil }
		go r.get(1)
		time.Sleep(19 * time.Minute)
		r.is(HalfOpen) // a probe has the time that an attempt has now
		close(release)
		synctest.Wait()
		r.status(200)
		r.get(2)
		r.status(503, "Retry-After", "90000")
		r.get(4)
		if refusal := r.get(1); refusal == nil || refusal.RetryAfter < 90*time.Second || refusal.RetryAfter > 100*time.Second {
			t.Errorf("%+v; want a minute and a half", refusal)
		}
		load(true, 20*time.Minute, func(c *Config) { rules(c); c.Window *= 2 })
		if r.get(1) != nil {
			t.Error("a change of this block kept the breaker")
		}
	})
}

func TestObserveIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Mode = setting.Observe })
		r.fail(errReset)
		r.get(7)
		if got := gather(t, r.reg)["httpowerd_breaker_refusals_total host=api.example.com mode=observe"]; got != 2 {
			t.Errorf("%v refusals were observed; want 2", got)
		}
	})
}

// A busy upstream that fails now and then is not taken for one that is down; one that really goes down is cut off soon.
func TestStreaksByChance(t *testing.T) {
	for _, c := range []struct {
		good, bad uint32 // before the streak
		want      int    // the streak that opens, with consecutive: 5
	}{{0, 0, 5}, {3, 2, 5}, {300, 199, 5}, {300, 200, 12}, {1_000_000, 0, 5}, {45, 5, 5}, {4500, 500, 6}, {45_000, 5000, 7}, {999_000, 1000, 5}, {6000, 4000, 16}} {
		streak := 5
		for ; chance(counts{good: c.good, upstream: c.bad + uint32(streak)}, streak); streak++ {
		}
		if streak != c.want {
			t.Errorf("%d good and %d bad ones: opens after %d in a row, want %d", c.good, c.bad, streak, c.want)
		}
	}
}

// TestCutShort: an attempt that the time of all attempts together ended early, because the proxy itself had waited, says nothing of an upstream that answers
// others. One that answers nobody is found out all the same.
func TestCutShort(t *testing.T) {
	overall := &exchange.Failure{Code: exchange.UpstreamTimeout, Sent: true, Overall: true}
	for name, c := range map[string]struct {
		before   func(*exchange.Exchange)
		had      time.Duration
		failure  *exchange.Failure
		answered bool // others are, in between
		opens    bool
	}{
		"it waited for a limit":            {before: func(x *exchange.Exchange) { x.Waited(time.Second) }, had: 200 * time.Millisecond, failure: overall, answered: true},
		"it waited for nearly nothing":     {before: func(x *exchange.Exchange) { x.Waited(time.Millisecond) }, had: 999 * time.Millisecond, failure: overall, answered: true},
		"there was a backoff":              {before: func(x *exchange.Exchange) { x.NextAttempt(exchange.ReasonStatus, time.Second) }, had: 200 * time.Millisecond, failure: overall, answered: true},
		"there were attempts before":       {before: func(x *exchange.Exchange) { x.BeginAttempt(x.Now()); x.BeginAttempt(x.Now()) }, had: 200 * time.Millisecond, failure: overall, answered: true},
		"it waited, and had all its time":  {before: func(x *exchange.Exchange) { x.Waited(time.Second) }, had: time.Second, failure: overall, answered: true, opens: true},
		"it was the first and did not":     {before: func(*exchange.Exchange) {}, had: 500 * time.Millisecond, failure: overall, answered: true, opens: true},
		"it waited, and ended by itself":   {before: func(x *exchange.Exchange) { x.Waited(time.Second) }, had: 200 * time.Millisecond, failure: errReset, answered: true, opens: true},
		"it waited, and nobody has answer": {before: func(x *exchange.Exchange) { x.Waited(time.Second) }, had: 200 * time.Millisecond, failure: overall, opens: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(c *Config) { c.Consecutive, c.Ratio, c.Attempt = 0, 0.3, time.Second })
				for range 60 {
					if c.answered {
						r.status(200)
						r.get(1)
					}
					r.next = func(*http.Request) (*http.Response, error) {
						time.Sleep(c.had)
						return nil, fmt.Errorf("wrapped: %w", c.failure)
					}
					req, x := request(t.Context(), http.MethodGet)
					c.before(x)
					_, _ = r.chain.RoundTrip(req)
				}
				if got := r.room.Status()[0]; (got.State == Open) != c.opens {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}
