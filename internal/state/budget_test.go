package state

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// takes is how many retries a budget still allows.
func takes(b *Budget) int {
	n := 0
	for {
		if _, ok := b.Reserve(); !ok {
			return n
		}
		n++
	}
}

func TestBudgetAllows(t *testing.T) {
	for _, c := range []struct {
		ratio, floor float64
		ttl          time.Duration
		firsts, want int
	}{
		{0.2, 3, 10 * time.Second, 0, 30}, {0.2, 3, 10 * time.Second, 100, 50}, {0.2, 0, 10 * time.Second, 4, 0}, {0.2, 0, 10 * time.Second, 5, 1},
		{0.1, 0, time.Second, 1000, 100}, {0, 0, time.Second, 1000, 0}, {2, 0, time.Second, 3, 6}, {0, 0.5, time.Second, 0, 0}, {0, 0.5, 2 * time.Second, 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := NewBudget(c.ratio, c.floor, c.ttl)
			for range c.firsts {
				b.First()
			}
			if got := takes(b); got != c.want {
				t.Errorf("%+v: %d retries", c, got)
			}
		})
	}
}

func TestBudgetForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(0.5, 0, 10*time.Second)
		time.Sleep(time.Hour)
		for range 10 {
			b.First()
		}
		time.Sleep(8 * time.Second)
		if got := takes(b); got != 5 {
			t.Errorf("after 8s: %d retries", got)
		}
		time.Sleep(3 * time.Second)
		for range 10 {
			b.First() // the first ten are forgotten, the five retries are not
		}
		if got := takes(b); got != 0 {
			t.Errorf("after 11s: %d retries", got)
		}
		time.Sleep(8 * time.Second)
		if got := takes(b); got != 5 {
			t.Errorf("after 19s: %d retries", got)
		}
		time.Sleep(time.Hour)
		if got := takes(b); got != 0 {
			t.Errorf("after an hour: %d retries", got)
		}
	})
}

func TestBudgetReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(0, 1, time.Second)
		r, ok := b.Reserve()
		if !ok || takes(b) != 0 {
			t.Fatal("one retry was to be had")
		}
		b.Return(r)
		if r, ok = b.Reserve(); !ok {
			t.Error("what was returned cannot be had")
		}
		time.Sleep(time.Minute)
		b.Return(r) // too late to matter
		if got := takes(b); got != 1 {
			t.Errorf("a late return made it %d retries", got)
		}
	})
}

func TestBudgetIsExactUnderConcurrency(t *testing.T) {
	b := NewBudget(0.1, 0, time.Hour)
	var wg sync.WaitGroup
	var taken atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				b.First()
				if _, ok := b.Reserve(); ok {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got := taken.Load() + int64(takes(b)); got != 800 {
		t.Errorf("%d retries for 8000 first attempts", got)
	}
}

// A slot that is full stays full: it neither wraps nor spills into its neighbours.
func TestBudgetSaturates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(1, 0, time.Hour)
		tick := b.tick()
		b.add(tick, maxFirst, maxRetry)
		b.add(tick, 1, 1)
		if gotTick, first, retry := unpack(b.slots[tick%budgetSlots].Load()); gotTick != tick || first != maxFirst || retry != maxRetry {
			t.Errorf("the slot became %d, %d, %d", gotTick, first, retry)
		}
	})
}

func BenchmarkBudgetFirst(b *testing.B) {
	budget := NewBudget(0.2, 3, 10*time.Second)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			budget.First()
		}
	})
}
