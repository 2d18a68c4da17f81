package timeout

import (
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// ringer is told that its time is up. It may ask to be told again.
type ringer interface{ ring(a *alarm) }

// alarms are timers that go from one exchange to the next. To move a timer costs, and nearly all exchanges end long before theirs: so it runs on from one to
// the next, and looks when it fires whose it is by now and when that one's time is up.
type alarms struct {
	pool sync.Pool
	idle atomic.Int64 // timers that run for nobody; the pool may have dropped their alarms
}

// mostIdle is how many timers may run for nobody, each until the time that it was last set to: they stay in memory until then.
const mostIdle = 1024

// alarm is a timer for one ringer at a time.
type alarm struct {
	alarms *alarms

	mu    sync.Mutex
	timer *time.Timer
	whom  ringer    // nil: nobody's
	at    time.Time // when whom is told
	fires time.Time // never later than at where there is a whom; zero: the timer does not run
	rang  bool      // somebody may still be about it: it is not used again
}

// set makes an alarm ring at that time.
func (as *alarms) set(at time.Time, whom ringer) *alarm {
	a, ok := as.pool.Get().(*alarm)
	if !ok {
		a = &alarm{alarms: as}
	}
	a.serve(at, whom)
	return a
}

// serve makes it a new ringer's.
func (a *alarm) serve(at time.Time, whom ringer) {
	a.mu.Lock()
	if !a.fires.IsZero() {
		a.alarms.idle.Add(-1)
	}
	a.whom = whom
	a.aim(at)
	a.mu.Unlock()
}

// sooner makes an alarm that is in use ring by then, if it would not before.
func (a *alarm) sooner(at time.Time) {
	a.mu.Lock()
	if a.whom != nil && (a.fires.IsZero() || at.Before(a.at)) {
		a.aim(at)
	}
	a.mu.Unlock()
}

// aim sees to it that the timer fires by then. a.mu is held.
func (a *alarm) aim(at time.Time) {
	a.at = at
	if a.fires.IsZero() || a.fires.After(at) {
		a.run(at.Sub(exchange.Now()))
	}
}

// run makes the timer fire when a.at comes. a.mu is held.
func (a *alarm) run(d time.Duration) {
	a.fires = a.at
	if a.timer == nil {
		a.timer = time.AfterFunc(d, a.fire)
		return
	}
	a.timer.Reset(d)
}

// fire is the timer's. A firing that comes late, after the alarm was set again, finds that it is too early.
func (a *alarm) fire() {
	a.mu.Lock()
	if a.whom == nil {
		if !a.fires.IsZero() {
			a.fires = time.Time{}
			a.alarms.idle.Add(-1)
		}
		a.mu.Unlock()
		return
	}
	if d := a.at.Sub(exchange.Now()); d > 0 {
		a.run(d)
		a.mu.Unlock()
		return
	}
	a.fires, a.rang = time.Time{}, true
	whom := a.whom
	a.mu.Unlock()
	whom.ring(a)
}

// stop ends an alarm, which its ringer may not touch any more.
func (a *alarm) stop() {
	a.mu.Lock()
	a.whom = nil
	if !a.fires.IsZero() && (a.alarms.idle.Add(1) > mostIdle || a.rang) {
		a.alarms.idle.Add(-1)
		a.timer.Stop()
		a.fires = time.Time{}
	}
	rang := a.rang
	a.mu.Unlock()
	if !rang {
		a.alarms.pool.Put(a)
	}
}
