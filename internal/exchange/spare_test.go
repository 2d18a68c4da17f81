package exchange

import (
	"sync"
	"sync/atomic"
	"testing"
)

// TestBorrow: a piece is for one alone, and no other one's.
func TestBorrow(t *testing.T) {
	var x Exchange
	memory, other := new(int), new(string)
	x.Lend(memory, other)
	if got := Borrow[bool](&x); got == nil {
		t.Error("nothing where nothing was lent")
	}
	var got atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if Borrow[int](&x) == memory {
				got.Add(1)
			}
		})
	}
	all.Wait()
	if got.Load() != 1 {
		t.Error("it was taken", got.Load(), "times")
	}
	if d := x.Detach(); Borrow[string](d) == other || Borrow[string](&x) != other {
		t.Error("what is detached has the memory of the other one's door")
	}
}
