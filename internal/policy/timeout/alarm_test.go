package timeout

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
)

// bell notes when it was rung.
type bell struct {
	mu    sync.Mutex
	times []time.Time
	again time.Duration // it sets its alarm again, once
}

func (b *bell) ring(a *alarm) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times = append(b.times, time.Now())
	if b.again > 0 {
		a.sooner(exchange.Now().Add(b.again))
		b.again = 0
	}
}

func (b *bell) rangAt(t *testing.T, times ...time.Time) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.times) != len(times) {
		t.Errorf("it rang %d times; want %d", len(b.times), len(times))
		return
	}
	for i, at := range times {
		if !b.times[i].Equal(at) {
			t.Errorf("ringing %d came at %s; want %s", i, b.times[i], at)
		}
	}
}

func in(d time.Duration) time.Time { return exchange.Now().Add(d) }

// TestAlarms: an alarm rings for whoever has it, at that one's time, wherever its timer stood; one that has rung is not used again.
func TestAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var as alarms
		begin := time.Now()
		bells := [5]bell{3: {again: time.Second}}
		a := as.set(in(time.Minute), &bells[0])
		time.Sleep(time.Second)
		a.stop()
		if as.idle.Load() != 1 {
			t.Errorf("%d timers run for nobody; want 1", as.idle.Load())
		}
		as.pool.Get()                         // a, but the race detector's pool does not always keep it
		a.serve(in(2*time.Minute), &bells[1]) // its timer fires before
		if as.idle.Load() != 0 {
			t.Errorf("%d timers run for nobody; want none", as.idle.Load())
		}
		time.Sleep(time.Hour)
		bells[0].rangAt(t)
		bells[1].rangAt(t, begin.Add(2*time.Minute+time.Second))
		a.stop()

		begin = time.Now()
		c := as.set(in(time.Hour), &bells[2])
		if c == a {
			t.Error("an alarm that had rung was used again")
		}
		c.sooner(in(time.Minute))
		time.Sleep(time.Second)
		d := as.set(in(time.Minute), &bells[3])
		c.sooner(in(2 * time.Minute)) // it is not
		time.Sleep(time.Hour)
		bells[2].rangAt(t, begin.Add(time.Minute))
		bells[3].rangAt(t, begin.Add(time.Minute+time.Second), begin.Add(time.Minute+2*time.Second))
		c.stop()
		d.stop()

		e := as.set(in(time.Minute), &bells[4])
		e.stop()
		e.sooner(in(time.Second)) // by a ringer that was about to
		time.Sleep(time.Hour)
		bells[4].rangAt(t)
		if as.idle.Load() != 0 {
			t.Errorf("%d timers run for nobody; want none", as.idle.Load())
		}
	})
}

// TestAlarmsIdle: of very many alarms that end together most have their timers stopped. None runs for ever.
func TestAlarmsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var as alarms
		var b bell
		all := make([]*alarm, 3*mostIdle)
		for i := range all {
			all[i] = as.set(in(time.Minute), &b)
		}
		for _, a := range all {
			a.stop()
		}
		running := 0
		for _, a := range all {
			a.mu.Lock()
			if !a.fires.IsZero() {
				running++
			}
			a.mu.Unlock()
		}
		if running != mostIdle || as.idle.Load() != mostIdle {
			t.Errorf("%d run for nobody, by count %d; want %d", running, as.idle.Load(), mostIdle)
		}
		time.Sleep(time.Hour)
		if as.idle.Load() != 0 {
			t.Errorf("%d run after an hour", as.idle.Load())
		}
		b.rangAt(t)
	})
}

// TestAlarmsAtOnce sets, resets and stops alarms while their timers fire.
func TestAlarmsAtOnce(t *testing.T) {
	var as alarms
	var wg sync.WaitGroup
	var early atomic.Int32
	for range 8 {
		wg.Go(func() {
			for range 300 {
				d := time.Duration(rand.IntN(300)) * time.Microsecond
				w := &due{at: in(d), early: &early}
				a := as.set(w.at, w)
				time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
				a.stop()
			}
		})
	}
	wg.Wait()
	if n := early.Load(); n != 0 {
		t.Errorf("%d rang too early", n)
	}
	for as.idle.Load() != 0 { // the last of them fire
		time.Sleep(time.Millisecond)
	}
}

// due counts a ringing before its time.
type due struct {
	at    time.Time
	early *atomic.Int32
}

func (d *due) ring(*alarm) {
	if exchange.Now().Before(d.at) {
		d.early.Add(1)
	}
}
