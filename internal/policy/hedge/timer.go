package hedge

import (
	"sync"
	"sync/atomic"
	"time"
)

// timers are used again: nearly all are stopped before they fire, and making one costs more than all else that is done with it.
type timers struct{ pool sync.Pool }

// timer fires for one course at a time.
type timer struct {
	*time.Timer
	course atomic.Pointer[course]
}

func (ts *timers) start(d time.Duration, c *course) *timer {
	t, _ := ts.pool.Get().(*timer)
	if t == nil {
		t = &timer{}
		t.course.Store(c)
		t.Timer = time.AfterFunc(d, func() { t.course.Load().fire() })
		return t
	}
	t.course.Store(c)
	t.Reset(d)
	return t
}

// stop ends a course's timer, where it has one. One that has fired may still be about to, and is not used again.
func (ts *timers) stop(t **timer) {
	if *t == nil {
		return
	}
	if (*t).Stop() {
		(*t).course.Store(nil)
		ts.pool.Put(*t)
	}
	*t = nil
}
