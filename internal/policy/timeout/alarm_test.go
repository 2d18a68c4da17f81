package timeout

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type bell struct{ n atomic.Int32 }

func (b *bell) ring() { b.n.Add(1) }

// TestAlarms: an alarm that was stopped in time rings for whoever has it next, and for nobody else; one that has rung is not used again.
func TestAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var as alarms
		var first, second, third bell
		a := as.set(time.Second, &first)
		time.Sleep(time.Second / 2)
		as.stop(a)
		b := as.set(time.Minute, &second)
		time.Sleep(time.Hour)
		if first.n.Load() != 0 || second.n.Load() != 1 {
			t.Errorf("they rang %d and %d times; want 0 and 1", first.n.Load(), second.n.Load())
		}
		b.Reset(time.Minute)
		as.stop(b)
		if c := as.set(time.Minute, &third); c == b {
			t.Error("an alarm that had rung was used again")
		}
		time.Sleep(time.Hour)
		if second.n.Load() != 1 || third.n.Load() != 1 {
			t.Errorf("they rang %d and %d times; want 1 and 1", second.n.Load(), third.n.Load())
		}
	})
}
