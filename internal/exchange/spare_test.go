package exchange

import (
	"sync"
	"sync/atomic"
	"testing"
)

// TestTake: a piece is for one alone, and no other one's.
func TestTake(t *testing.T) {
	var x Exchange
	memory := new(int)
	x.Lend(SpareSending, memory)
	if got := x.Take(SpareReport); got != nil {
		t.Error("a piece that nobody lent:", got)
	}
	var got atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if m, ok := x.Take(SpareSending).(*int); ok && m == memory {
				got.Add(1)
			}
		})
	}
	all.Wait()
	if got.Load() != 1 {
		t.Error("it was taken", got.Load(), "times")
	}
	x.Lend(SpareSending, memory)
	if d := x.Detach(); d.Take(SpareSending) != nil || x.Take(SpareSending) != memory {
		t.Error("what is detached has the memory of the other one's door")
	}
}
