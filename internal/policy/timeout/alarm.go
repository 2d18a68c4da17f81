package timeout

import (
	"sync"
	"sync/atomic"
	"time"
)

// ringer is told that its time is up.
type ringer interface{ ring() }

// alarms are timers that go from one exchange to the next: nearly all are stopped long before they ring. They are stopped indeed: one that ran on, and that the
// pool dropped, would stay in memory for the minutes that it was set to.
type alarms struct{ pool sync.Pool }

// alarm is a timer for one ringer at a time.
type alarm struct {
	*time.Timer
	whom ringer
	rang atomic.Bool // somebody may still be about it: it is not used again
}

// set makes an alarm ring after d.
func (as *alarms) set(d time.Duration, whom ringer) *alarm {
	if a, ok := as.pool.Get().(*alarm); ok {
		a.whom = whom
		a.Reset(d)
		return a
	}
	a := &alarm{whom: whom}
	a.Timer = time.AfterFunc(d, func() {
		a.rang.Store(true)
		a.whom.ring()
	})
	return a
}

// stop ends an alarm, which its ringer may not touch any more.
func (as *alarms) stop(a *alarm) {
	if a.Stop() && !a.rang.Load() {
		a.whom = nil
		as.pool.Put(a)
	}
}
