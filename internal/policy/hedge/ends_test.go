package hedge

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// TestEnds: whoever ends the exchange ends all of its attempts.
func TestEnds(t *testing.T) {
	deadline := &exchange.Failure{Code: exchange.UpstreamTimeout}
	for name, c := range map[string]struct {
		cause error
		code  exchange.Code
		first step
		deaf  bool   // the hedges take their time to end
		want  string // of the error; "": the first attempt's answer
	}{
		"the client leaves":                           {errLeft, exchange.ClientGone, step{takes: time.Hour}, false, errLeft.Error()},
		"the deadline passes":                         {deadline, exchange.UpstreamTimeout, step{takes: time.Hour}, false, deadline.Error()},
		"the client leaves after a failure":           {errLeft, exchange.ClientGone, step{takes: 150 * ms, err: errReset}, false, errReset.Error()},
		"the deadline passes after an answer":         {deadline, exchange.UpstreamTimeout, step{takes: 150 * ms, status: 503}, false, ""},
		"the client leaves, and a hedge does not end": {errLeft, exchange.ClientGone, step{takes: 150 * ms, err: errReset}, true, errReset.Error()},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, fixed(100*ms, 2), c.first, step{takes: 10 * time.Second, deaf: c.deaf})
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(250*ms, func() { cancel(c.cause) })
			r.begin, r.x = time.Now(), newExchange()
			resp, err := r.stage.RoundTrip(newRequest(ctx, r.x, "GET"))
			if took := time.Since(r.begin); took != 250*ms {
				t.Errorf("%s: it took %v", name, took)
			}
			if c.want != "" && (err == nil || err.Error() != c.want) || c.want == "" && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if a := r.x.Story().Attempts; a[len(a)-1].Error != c.code || a[len(a)-1].Duration == 0 {
				t.Errorf("%s: the last attempt is %+v", name, a[len(a)-1])
			}
			if resp != nil {
				_ = resp.Body.Close()
			}
			r.finished()
		})
	}
}

// TestPanic of the first attempt goes to the caller, and takes the hedges with it.
func TestPanic(t *testing.T) {
	for name, hedged := range map[string]step{"the hedge runs": {takes: time.Hour}, "the hedge has failed": {takes: ms, status: 500},
		"the hedge wins at the same time": {takes: 100 * ms, status: 200}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, fixed(100*ms, 1), step{takes: 200 * ms, panics: true}, hedged)
			r.x = newExchange()
			caught := any(nil)
			func() {
				defer func() { caught = recover() }()
				if resp, _ := r.stage.RoundTrip(newRequest(t.Context(), r.x, "GET")); resp != nil {
					caught = "a defect" // the hedge was taken: which of the two is first is open
					_ = resp.Body.Close()
				}
			}()
			if caught != "a defect" {
				t.Errorf("%s: caught %v", name, caught)
			}
			r.finished()
		})
	}
}

// TestCrowd is for the race detector: whatever meets whom, each answer is whole and nothing is left over.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, fixed(10*ms, 3))
		for range 4000 { // few different times, so that much happens at once
			s := step{takes: time.Duration(rand.IntN(8)) * 5 * ms, status: []int{200, 200, 503, 0}[rand.IntN(4)], body: "x", err: errReset}
			if rand.IntN(8) == 0 {
				s.held = time.Duration(rand.IntN(5)) * 5 * ms
			}
			r.steps = append(r.steps, s)
		}
		r.budgets = state.NewTable(0, func(state.Key) *state.Budget { return state.NewBudget(0, 10_000, time.Second) })
		r.load(fixed(10*ms, 3))
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if rand.IntN(10) == 0 {
					time.AfterFunc(time.Duration(rand.IntN(8))*5*ms, cancel)
				}
				x, start := newExchange(), time.Now()
				resp, err := r.stage.RoundTrip(newRequest(ctx, x, "GET"))
				if err == nil {
					b := make([]byte, 2)
					if n, err := resp.Body.Read(b); ctx.Err() == nil && (n != 1 || err != nil) {
						t.Errorf("read %d, %v", n, err)
					}
					_ = resp.Body.Close()
				}
				if s, took := x.Story(), time.Since(start); s.Upstream+s.LimitWait > took {
					t.Errorf("waited %v and %v in %v", s.Upstream, s.LimitWait, took)
				}
			})
		}
		wg.Wait()
		r.finished()
	})
}
