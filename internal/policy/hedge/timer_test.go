package hedge

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
)

// A timer that is stopped runs on for the next course, which fires at its own time whatever the one before it waited for.
func TestTimerIsUsedAgain(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct{ stopped, last time.Duration }{
		"the next is due later":   {2 * s, 5 * s},
		"the next is due earlier": {9 * s, 3 * s},
		"the next is due then":    {4 * s, 4 * s},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				room, begin, used := New(nil), time.Now(), &timer{}
				var fired []time.Duration
				p := &plan{metrics: room.metrics, timers: &room.timers, scarce: func(*exchange.Exchange, *http.Request) bool {
					fired = append(fired, time.Since(begin))
					return true
				}}
				first := &course{plan: p, x: newExchange(), timer: used}
				used.set(begin, c.stopped, first)
				p.timers.stop(&first.timer)
				next := &course{plan: p, x: newExchange(), timer: used}
				used.set(begin, c.last, next)
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(fired) != 1 || fired[0] != c.last || !next.closed || first.closed {
					t.Errorf("fired at %v; want once, at %v", fired, c.last)
				}
				idle := &course{plan: p, x: newExchange(), timer: used}
				used.set(time.Now(), s, idle)
				p.timers.stop(&idle.timer)
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(fired) != 1 {
					t.Errorf("it fired although it was stopped")
				}
			})
		})
	}
}
