package exchange

import (
	"context"
	"fmt"
	"time"
)

// Lane is one of several ways to an answer that are tried at once.
type Lane interface {
	// Begin is called when the lane's attempt begins, before anything of it is sent, and must not wait. It returns why the attempt is made and
	// after which wait; own is false where NextAttempt says so, as for the lane that would be there without the others.
	Begin(now time.Time) (reason string, wait time.Duration, own bool)
}

type laneKey struct{}

// WithLaneIn makes c, for which the caller has room, a context whose attempt is l's, and which it may cancel. From now on attempts of x may overlap.
func (x *Exchange) WithLaneIn(c *LaneContext, ctx context.Context, l Lane) context.Context {
	x.lanes.Store(true)
	c.From(ctx)
	c.lane = l
	return c
}

// LaneContext is the context of a lane's attempt.
type LaneContext struct {
	Branch
	lane Lane
}

// Value implements context.Context.
func (c *LaneContext) Value(key any) any {
	if key == (laneKey{}) {
		return c.lane
	}
	return c.Branch.Value(key)
}

// BeginAttemptIn is BeginAttempt for the request whose context ctx is: where that is a lane's, the attempt has the lane's own reason.
func (x *Exchange) BeginAttemptIn(ctx context.Context, now time.Time) int {
	if x.lanes.Load() { // else nobody need walk up the context
		if l, ok := ctx.Value(laneKey{}).(Lane); ok {
			if reason, wait, own := l.Begin(now); own {
				x.mu.Lock()
				defer x.mu.Unlock()
				return x.begin(Attempt{Reason: reason, Wait: wait}, now)
			}
		}
	}
	return x.BeginAttempt(now)
}

// BeginAgain opens an attempt that takes the place of another one at once, and leaves alone what NextAttempt said.
func (x *Exchange) BeginAgain(reason string, now time.Time) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.begin(Attempt{Reason: reason}, now)
}

// EndOpen closes all attempts that still run, for a reason that is not their own: what becomes of them is no part of the story any more.
func (x *Exchange) EndOpen(now time.Time, code Code) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running == 0 {
		return
	}
	x.count(now)
	x.running = 0
	for i := range x.story.Attempts {
		if a := &x.story.Attempts[i]; !a.ended {
			a.ended, a.Error, a.Duration = true, code, now.Sub(a.begin)
		}
	}
}

// alone is the part of a wait of d, just over, that no attempt and no other wait shared. x.mu is held.
func (x *Exchange) alone(d time.Duration) time.Duration {
	switch {
	case !x.lanes.Load():
		return d
	case x.running > 0:
		return 0
	}
	at := x.Now().Sub(origin)
	if x.upTo != 0 {
		d = max(0, min(d, at-x.upTo))
	}
	x.upTo = at
	return d
}

// ErrSuperseded is the cause with which an attempt's context is cancelled when the answer of another one was taken. It is a context.Canceled, so
// that nobody takes it for a failure of the upstream.
var ErrSuperseded = fmt.Errorf("the answer of another attempt was taken: %w", context.Canceled)
