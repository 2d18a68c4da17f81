package state

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestBudgetStatus: what is left is what Reserve gives, and a budget that is used up is said so once, until there is room again.
func TestBudgetStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(0.5, 1, 10*time.Second)
		for range 10 {
			b.First()
		}
		for left := 15.0; left > 0; left-- {
			if s := b.Status(); s.Left != left || s.Firsts != 10 || s.Retries != uint64(15-left) || s.TTL != 10 || s.Floor != 10 || len(s.Changes) != 0 {
				t.Fatalf("%+v; want %v left", s, left)
			}
			if _, ok := b.Reserve(); !ok {
				t.Fatalf("refused with %v left", left)
			}
		}
		for range 5 {
			if _, ok := b.Reserve(); ok {
				t.Fatal("there is more than it said")
			}
		}
		s := b.Status()
		if s.Left != 0 || len(s.Changes) != 1 || s.Changes[0].To != Exhausted || s.Changes[0].Reason != "15 retries for 10 first attempts" {
			t.Errorf("%+v", s)
		}
		b.First() // half a retry more
		b.First()
		if _, ok := b.Reserve(); !ok || len(b.Status().Changes) != 1 {
			t.Errorf("with one retry left it is as good as used up: %+v", b.Status())
		}
		time.Sleep(12 * time.Second)
		if _, ok := b.Reserve(); !ok {
			t.Error("nothing came back")
		}
		if s := b.Status(); s.Firsts != 0 || s.Left != 9 || len(s.Changes) != 2 || s.Changes[1].To != Available {
			t.Errorf("%+v", s)
		}
	})
}
