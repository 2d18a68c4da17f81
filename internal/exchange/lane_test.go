package exchange

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lane is a Lane that says what it was made with.
type lane struct {
	reason string
	wait   time.Duration
	own    bool
	begun  []time.Time
}

func (l *lane) Begin(now time.Time) (string, time.Duration, bool) {
	l.begun = append(l.begun, now)
	return l.reason, l.wait, l.own
}

func TestLanes(t *testing.T) {
	x, now := &Exchange{}, time.Unix(1000, 0)
	first, hedge := &lane{}, &lane{reason: ReasonHedge, wait: time.Second, own: true}
	firstCtx, hedgeCtx := laneOf(x, first), laneOf(x, hedge)
	x.NextAttempt(ReasonStatus, 2*time.Second) // by whoever tries again above
	// The hedge overtakes: what was said of the next attempt is not for it.
	h := x.BeginAttemptIn(hedgeCtx, now)
	f := x.BeginAttemptIn(firstCtx, now)
	again := x.BeginAgain(ReasonReset, now)
	plain := x.BeginAttemptIn(context.Background(), now)
	s := x.Story()
	for _, c := range []struct {
		index  int
		reason string
		wait   time.Duration
	}{{h, ReasonHedge, time.Second}, {f, ReasonStatus, 2 * time.Second}, {again, ReasonReset, 0}, {plain, "", 0}} {
		if a := s.Attempts[c.index]; a.N != c.index+1 || a.Reason != c.reason || a.Wait != c.wait {
			t.Errorf("attempt %d: %+v; want reason %q after %v", c.index, a, c.reason, c.wait)
		}
	}
	if s.Backoff != 2*time.Second {
		t.Errorf("the backoff is %v", s.Backoff)
	}
	if len(first.begun) != 1 || len(hedge.begun) != 1 || !first.begun[0].Equal(now) {
		t.Errorf("told %v and %v", first.begun, hedge.begun)
	}
}

// TestBeginAgain leaves to the coming attempt what was said of it.
func TestBeginAgain(t *testing.T) {
	x, now := &Exchange{}, time.Unix(1000, 0)
	x.NextAttempt(ReasonStatus, time.Second)
	again, next := x.BeginAgain(ReasonReset, now), x.BeginAttempt(now)
	if a := x.Story().Attempts; a[again].Reason != ReasonReset || a[again].Wait != 0 || a[next].Reason != ReasonStatus || a[next].Wait != time.Second {
		t.Errorf("%+v", a)
	}
}

// TestOverlap: the upstream was waited for only once at a time.
func TestOverlap(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	type event struct {
		at, end int // end: the index of the attempt that ends; -1: one begins; -2: all that are open end
	}
	for name, c := range map[string]struct {
		events []event
		want   int
	}{
		"one after the other":      {[]event{{0, -1}, {3, 0}, {5, -1}, {6, 1}}, 4},
		"one within the other":     {[]event{{0, -1}, {2, -1}, {3, 1}, {9, 0}}, 9},
		"one beyond the other":     {[]event{{0, -1}, {2, -1}, {5, 0}, {7, 1}}, 7},
		"overlap, then another":    {[]event{{0, -1}, {2, -1}, {3, 0}, {4, 1}, {10, -1}, {11, 2}}, 5},
		"losers":                   {[]event{{0, -1}, {2, -1}, {3, 1}, {3, -2}, {8, 0}}, 3},
		"losers, then another":     {[]event{{0, -1}, {2, -1}, {3, -2}, {4, -1}, {8, 0}, {9, 1}, {10, 2}}, 9},
		"a clock read too early":   {[]event{{0, -1}, {0, -1}, {5, 1}, {4, 0}}, 5},
		"nothing left to be ended": {[]event{{0, -1}, {2, 0}, {9, -2}}, 2},
	} {
		x := &Exchange{}
		for _, e := range c.events {
			switch e.end {
			case -1:
				x.BeginAttempt(at(e.at))
			case -2:
				x.EndOpen(at(e.at), Superseded)
			default:
				x.EndAttempt(e.end, at(e.at), 200, "")
			}
		}
		if got := x.Story().Upstream; got != time.Duration(c.want)*time.Second {
			t.Errorf("%s: waited %v for the upstream; want %ds", name, got, c.want)
		}
	}
}

func TestEndOpen(t *testing.T) {
	x, now := &Exchange{}, time.Unix(1000, 0)
	loser, winner := x.BeginAttempt(now), x.BeginAttempt(now.Add(time.Second))
	x.EndAttempt(winner, now.Add(2*time.Second), 200, "")
	x.EndOpen(now.Add(2*time.Second), Superseded)
	// What the loser still does is no part of the story.
	x.Connected(loser, "192.0.2.1:443", true)
	if took := x.EndAttempt(loser, now.Add(5*time.Second), 0, ClientGone); took != 5*time.Second {
		t.Errorf("the loser took %v", took)
	}
	a := x.Story().Attempts
	if a[loser].Error != Superseded || a[loser].Duration != 2*time.Second || a[loser].Address != "" || a[winner].Status != 200 || a[winner].Error != "" {
		t.Errorf("%+v", a)
	}
}

func TestSupersededIsNobodysFailure(t *testing.T) {
	if !errors.Is(ErrSuperseded, context.Canceled) || errors.As(ErrSuperseded, new(*Failure)) || errors.As(ErrSuperseded, new(*Refusal)) {
		t.Error(ErrSuperseded)
	}
}

// TestWaitsBesideAttempts: a hedge that waits for a limit while the first attempt runs takes no time of its own.
func TestWaitsBesideAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &Exchange{}
		sleep := func(n int) { time.Sleep(time.Duration(n) * time.Second) }
		sleep(1)
		x.Waited(time.Second) // before there are lanes: what the room says
		ctx := laneOf(x, &lane{})
		sleep(1)
		x.Waited(time.Second) // nothing has run yet
		first := x.BeginAttemptIn(ctx, time.Now())
		sleep(5)
		x.Waited(4 * time.Second) // beside the first
		sleep(1)
		x.EndAttempt(first, time.Now(), 503, "")
		sleep(2)
		x.Waited(6 * time.Second) // four of them beside the first
		x.Waited(6 * time.Second) // another one, at the same time
		if s := x.Story(); s.LimitWait != 4*time.Second || s.Upstream != 6*time.Second {
			t.Errorf("waited %v for limits, %v for the upstream", s.LimitWait, s.Upstream)
		}
	})
}

// TestStoryBesideAttempts is for the race detector: a copy of the story is read while an attempt that lost still writes.
func TestStoryBesideAttempts(t *testing.T) {
	x := &Exchange{}
	ctx := laneOf(x, &lane{reason: ReasonHedge, own: true})
	first := x.BeginAttempt(time.Now())
	var wg sync.WaitGroup
	wg.Go(func() {
		index := x.BeginAttemptIn(ctx, time.Now())
		x.Connected(index, "192.0.2.1:443", true)
		x.EndAttempt(index, time.Now(), 200, "")
		x.EndAttempt(first, time.Now(), 200, "")
	})
	for range 100 {
		for _, a := range x.Story().Attempts {
			if a.Status != 0 && a.Status != 200 {
				t.Errorf("%+v", a)
			}
		}
	}
	wg.Wait()
	if a := x.Story().Attempts; len(a) != 2 || a[0].Reason != "" || a[1].Reason != ReasonHedge {
		t.Errorf("%+v", a)
	}
}

func laneOf(x *Exchange, l Lane) context.Context {
	return x.WithLaneIn(new(LaneContext), context.Background(), l)
}
