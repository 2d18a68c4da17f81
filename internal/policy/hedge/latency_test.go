package hedge

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/state"
)

// TestBuckets: every time lies within its bucket, and a bucket is at most an eighth of its times wide.
func TestBuckets(t *testing.T) {
	last := ceiling(nBuckets - 1)
	if last < 15*time.Minute {
		t.Errorf("the last bucket ends at %v", last)
	}
	for i := range nBuckets - 1 {
		floor, top := time.Duration(0), ceiling(i)
		if i > 0 {
			floor = ceiling(i - 1)
		}
		if top <= floor || bucketOf(floor) != i || bucketOf(top-1) != i || bucketOf(top) != i+1 {
			t.Fatalf("bucket %d is from %v to %v: %d, %d, %d", i, floor, top, bucketOf(floor), bucketOf(top-1), bucketOf(top))
		}
		if floor >= perTwo*unit && top-floor > floor/perTwo {
			t.Errorf("bucket %d is from %v to %v", i, floor, top)
		}
	}
	for _, d := range []time.Duration{last, 1<<63 - 1} {
		if bucketOf(d) != nBuckets-1 {
			t.Errorf("%v is in bucket %d", d, bucketOf(d))
		}
	}
	if bucketOf(-time.Second) != 0 {
		t.Error("a clock that goes back is not 0")
	}
}

func FuzzBucketOf(f *testing.F) {
	for _, n := range []int64{-1, 0, 15_999, 16_000, 128_000, 1e6, 1e9, 1<<63 - 1, -1 << 63} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		i, d := bucketOf(time.Duration(n)), time.Duration(max(0, n))
		if i < 0 || i >= nBuckets || i < nBuckets-1 && d >= ceiling(i) || i > 0 && d < ceiling(i-1) {
			t.Errorf("%v is in bucket %d", d, i)
		}
	})
}

func TestQuantile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLatency()
		for i := range 1000 {
			if _, known := l.quantile(time.Now(), 950, 100); known != (i >= 100) {
				t.Fatalf("known after %d answers: %v", i, known)
			}
			l.add(time.Now(), time.Duration(i*617%1000+1)*ms) // 1ms to 1s, each once, in no order
		}
		for _, c := range []struct {
			permille int
			exact    time.Duration
		}{{500, 500 * ms}, {950, 950 * ms}, {990, 990 * ms}, {999, 999 * ms}} {
			if q, _ := l.quantile(time.Now(), c.permille, 100); q < c.exact || q > c.exact*9/8 {
				t.Errorf("p%d is %v; want %v and at most an eighth more", c.permille/10, q, c.exact)
			}
		}
	})
}

// TestQuantileIsRenewed often enough for what is new to be felt, and not for each request.
func TestQuantileIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLatency()
		for range 1000 {
			l.add(time.Now(), 10*ms)
		}
		q, _ := l.quantile(time.Now(), 950, 50)
		for range 100 {
			l.add(time.Now(), time.Second)
		}
		if next, _ := l.quantile(time.Now(), 950, 50); q > 12*ms || next < time.Second {
			t.Errorf("%v, then %v", q, next)
		}
		for range 30 {
			l.add(time.Now(), time.Second)
		}
		if l.fresh != 30 {
			t.Fatalf("%d are new", l.fresh)
		}
		if _, _ = l.quantile(time.Now(), 950, 50); l.fresh != 30 {
			t.Error("the quantile was taken again for 30 answers in 1130")
		}
	})
}

func TestOldAnswersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for wait, want := range map[time.Duration]int{half - 1: 60, half: 60, 2*half - 1: 60, 2 * half: 0, 24 * time.Hour: 0} {
			l := newLatency()
			for range 60 {
				l.add(time.Now(), 10*ms)
			}
			time.Sleep(wait)
			if _, known := l.quantile(time.Now(), 950, 60); known != (want == 60) {
				t.Errorf("after %v they are known: %v", wait, known)
			}
		}
		l := newLatency()
		var known []bool
		for range 4 { // ten answers a minute
			for range 20 {
				time.Sleep(6 * time.Second)
				l.add(time.Now(), 10*ms)
			}
			_, enough := l.quantile(time.Now(), 950, 41)
			known = append(known, enough)
		}
		if !slices.Equal(known, []bool{false, false, false, false}) {
			t.Errorf("more than four minutes are remembered: %v", known)
		}
	})
}

// trained is a rig whose upstream has answered n times: 19 of 20 within 50ms, the twentieth after 200ms.
func trained(t *testing.T, c Config, n int) *rig {
	r := newRig(t, c)
	for i := range n {
		r.steps = append(r.steps, step{takes: 50 * ms, status: 200})
		if i%20 == 19 {
			r.steps[i].takes = 200 * ms
		}
	}
	for range n {
		if _, err := r.send(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestQuantileOfTheAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := trained(t, Default(), 49)
		r.steps = append(r.steps, step{takes: time.Hour, status: 200}, step{status: 200, body: "b"})
		if got := r.sent(); got != 49 {
			t.Fatalf("hedged %d times before there were enough answers", got-49)
		}
		// What fails says nothing about how long an answer takes.
		r.steps = append(r.steps[:49], step{takes: ms, status: 503}, step{takes: ms, err: errReset})
		_, _ = r.send(t.Context())
		_, _ = r.send(t.Context())
		r.steps = append(r.steps, step{takes: 50 * ms, status: 200}, step{takes: time.Hour, status: 200}, step{status: 200, body: "b"})
		if _, err := r.send(t.Context()); err != nil || r.sent() != 52 {
			t.Fatalf("sent %d, %v", r.sent(), err)
		}
		begin := time.Now()
		got, err := r.send(t.Context())
		if took := time.Since(begin); got != "OK b" || err != nil || took < 50*ms || took > 50*ms*9/8+ms {
			t.Errorf("%q, %v after %v", got, err, took)
		}
		// Another authority has yet to be known.
		x := newExchange()
		x.Target.Host = "other.example.com"
		r.steps = append(r.steps, step{takes: time.Second, status: 200})
		resp, err := r.stage.RoundTrip(newRequest(t.Context(), x, "GET"))
		if err != nil || r.sent() != 55 {
			t.Errorf("sent %d, %v", r.sent(), err)
		}
		_ = resp.Body.Close()
		r.finished()
	})
}

// TestWaitsForLimitsAreNotTheUpstreams: they move no quantile.
func TestWaitsForLimitsAreNotTheUpstreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Default(), step{held: time.Second, takes: 50 * ms, status: 200})
		for range 60 {
			if _, err := r.send(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		r.steps = append(slices.Repeat(r.steps, 60), step{takes: time.Hour}, step{status: 200})
		begin := time.Now()
		if _, err := r.send(t.Context()); err != nil || time.Since(begin) > 60*ms {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		r.finished()
	})
}

// TestHedgesDoNotSinkTheQuantile: what a hedge cuts off still counts as slow, else each quantile would make the next one lower.
func TestHedgesDoNotSinkTheQuantile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Default()
		c.After = AfterQuantile(900)
		r := newRig(t, c)
		r.budgets = state.NewTable(0, func(state.Key) *state.Budget { return state.NewBudget(1, 1000, time.Minute) })
		r.load(c)
		// Each fourth first attempt hangs, so p90 lies where those are; hedges answer at once.
		for range 60 {
			r.steps = append(r.steps, step{takes: 50 * ms, status: 200}, step{takes: 50 * ms, status: 200}, step{takes: 50 * ms, status: 200},
				step{takes: 400 * ms, status: 200})
		}
		for range 60 {
			_, _ = r.send(t.Context())
		}
		first := r.sent()
		delay := func() time.Duration {
			q, _ := r.times().quantile(time.Now(), 900, 50)
			return q
		}
		before := delay()
		for i := range 300 {
			n := r.sent()
			r.steps = append(r.steps[:n], step{takes: []time.Duration{50 * ms, 50 * ms, 50 * ms, time.Second}[i%4], status: 200}, step{takes: ms, status: 200})
			_, _ = r.send(t.Context())
		}
		if n := r.sent() - first; n != 300+75 {
			t.Fatalf("sent %d; want each fourth to be hedged", n)
		}
		if after := delay(); before < 400*ms || after < before {
			t.Errorf("p90 was %v and is %v", before, after)
		}
		r.finished()
	})
}

// TestReload: the times are the upstream's, whatever the block says.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Default()
		c.Minimum = 1000
		r := trained(t, c, 60)
		c.After, c.Extra, c.Minimum = AfterQuantile(990), 2, 60
		r.load(c)
		r.steps = append(r.steps, step{takes: time.Hour}, step{status: 200})
		begin := time.Now()
		_, err := r.send(t.Context())
		if took := time.Since(begin); err != nil || took < 200*ms || took > 200*ms*9/8+ms {
			t.Errorf("%v after %v; want the new quantile of the old answers", err, took)
		}
		r.finished()
	})
}
