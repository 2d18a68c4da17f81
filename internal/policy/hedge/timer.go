package hedge

import (
	"sync"
	"time"
)

// timers are used again, and one that is stopped runs on: nearly all courses end long before their time, and the next one's comes later than the last
// one's would have. A timer of the runtime is set once in that time, and not by each course.
type timers struct{ pool sync.Pool }

// timer is for one course at a time.
type timer struct {
	mu     sync.Mutex
	course *course     // nil: nobody waits for it
	due    time.Time   // the course's time
	rings  time.Time   // when the runtime's does, no later than due; zero: it is not set
	clock  *time.Timer // nil: not made yet
}

// start lets c fire after d from now.
func (ts *timers) start(now time.Time, d time.Duration, c *course) *timer {
	t, _ := ts.pool.Get().(*timer)
	if t == nil {
		t = &timer{}
	}
	t.set(now, d, c)
	return t
}

// stop ends a course's timer, where it has one.
func (ts *timers) stop(t **timer) {
	if *t == nil {
		return
	}
	(*t).mu.Lock()
	(*t).course = nil
	(*t).mu.Unlock()
	ts.pool.Put(*t)
	*t = nil
}

func (t *timer) set(now time.Time, d time.Duration, c *course) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.course, t.due = c, now.Add(d)
	if t.rings.IsZero() || t.due.Before(t.rings) {
		t.wind(d)
	}
}

// wind makes it ring after d, when it is due. mu is held.
func (t *timer) wind(d time.Duration) {
	if t.rings = t.due; t.clock == nil {
		t.clock = time.AfterFunc(d, t.ring)
		return
	}
	t.clock.Reset(d)
}

// ring lets the course fire that is due; for a later one it rings again.
func (t *timer) ring() {
	t.mu.Lock()
	c := t.course
	t.rings = time.Time{}
	if c != nil {
		if d := time.Until(t.due); d > 0 {
			t.wind(d)
			c = nil
		} else {
			t.course = nil
		}
	}
	t.mu.Unlock()
	if c != nil {
		c.fire()
	}
}
