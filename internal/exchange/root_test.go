package exchange

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestRoot: a server's own context carries one exchange, and ends like any other.
func TestRoot(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var root Root
		root.From(context.WithValue(context.Background(), key{}, "the connection's"))
		if root.Value(contextKey{}) != nil {
			t.Error("there is an exchange that nobody made")
		}
		first, second := new(Exchange), new(Exchange)
		if ctx := NewContext(&root, first); ctx != &root || From(ctx) != first || ctx.Value(key{}) != "the connection's" {
			t.Errorf("the first exchange is not the root's own: %v", ctx)
		}
		if ctx := NewContext(&root, second); ctx == &root || From(ctx) != second || From(&root) != first {
			t.Error("a second exchange took the place of the first")
		}
		child, cancel := context.WithCancelCause(&root)
		defer cancel(nil)
		var h Heir
		var told heard
		h.Follow(&root, &told)
		if root.Err() != nil || child.Err() != nil || told.n.Load() != 0 {
			t.Error("it has ended before it was cancelled")
		}
		root.Cancel(nil)
		synctest.Wait()
		if root.Err() != context.Canceled || !errors.Is(child.Err(), context.Canceled) || told.n.Load() != 1 || From(&root) != first {
			t.Errorf("after the end: %v, %v, %d told", root.Err(), child.Err(), told.n.Load())
		}
	})
}

// TestRootCostsNothing: neither an exchange nor a branch below it is memory of its own.
func TestRootCostsNothing(t *testing.T) {
	type request struct {
		root   Root
		branch Branch
		x      Exchange
	}
	base := context.Background()
	n := testing.AllocsPerRun(100, func() {
		r := &request{}
		r.root.From(base)
		r.branch.From(NewContext(&r.root, &r.x))
		From(&r.branch)
		r.branch.Heirs()
		r.branch.Cancel(nil)
		r.root.Cancel(nil)
	})
	if n > 1 {
		t.Errorf("%v allocations; want 1", n)
	}
}
