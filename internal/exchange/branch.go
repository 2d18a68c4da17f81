package exchange

import (
	"context"
	"sync/atomic"
	"time"
)

// Branch is a context that can be cancelled with a cause, as context.WithCancelCause makes one, for those who have room for it. What can be waited for is
// made when somebody waits: until then the branch costs nothing, and its parent does not know of it. Like any other it must be cancelled in the end.
type Branch struct {
	parent context.Context
	ended  atomic.Pointer[ended] // nil: it was not cancelled, or its parent ended before
	armed  atomic.Bool           // it hears of its parent's end
	heirs  Heirs                 // their lock is the branch's
	up     Heir                  // of the parent, where there are heirs or somebody waits
	done   chan struct{}         // nil: nobody waits
}

// ended is a context that ended for a cause, as package context keeps it. It has no values but what that package asks for.
type ended struct{ context.Context }

func endedBy(cause error) *ended {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return &ended{ctx}
}

// left is what becomes of a branch that is cancelled for no cause of its own: nearly all end like this.
var left = endedBy(nil)

// From makes b a branch of ctx. It comes before everything else.
func (b *Branch) From(ctx context.Context) { b.parent = ctx }

// Cancel ends the branch; without a cause it is context.Canceled. What has ended before, or whose parent has, stays as it is.
func (b *Branch) Cancel(cause error) {
	if b.Err() == nil {
		end := left
		if cause != nil {
			end = endedBy(cause)
		}
		b.ended.CompareAndSwap(nil, end)
	}
	if b.armed.Load() {
		b.end()
	}
}

// end tells everybody that the branch has ended.
func (b *Branch) end() {
	b.up.Leave()
	b.ParentEnded()
}

// ParentEnded is for the parent.
func (b *Branch) ParentEnded() {
	b.heirs.mu.Lock()
	if b.done != nil && b.heirs.first != over {
		close(b.done)
	}
	tell(b.heirs.end())
}

// arm makes the branch hear of its parent's end. The lock is held.
func (b *Branch) arm() {
	if !b.armed.Load() {
		b.up.Follow(b.parent, b)
		b.armed.Store(true) // before whoever armed it looks whether it has ended: Cancel looks the other way round
	}
}

// Heirs are those who hear of the branch's end.
func (b *Branch) Heirs() *Heirs {
	if !b.armed.Load() {
		b.heirs.mu.Lock()
		b.arm()
		b.heirs.mu.Unlock()
		if b.Err() != nil {
			b.end()
		}
	}
	return &b.heirs
}

// Done implements context.Context.
func (b *Branch) Done() <-chan struct{} {
	b.heirs.mu.Lock()
	open := b.heirs.first != over
	if b.done == nil {
		if b.done = make(chan struct{}); !open {
			close(b.done)
		}
	}
	done := b.done
	b.arm()
	b.heirs.mu.Unlock()
	if open && b.Err() != nil {
		b.end() // what it follows may not have told it yet
	}
	return done
}

// AfterFunc is what package context asks for where it makes a child of a context that is not its own.
func (b *Branch) AfterFunc(f func()) (stop func() bool) { return b.Heirs().AfterFunc(f) }

// Err implements context.Context.
func (b *Branch) Err() error {
	if e := b.ended.Load(); e != nil {
		return e.Err()
	}
	return b.parent.Err()
}

// Deadline implements context.Context.
func (b *Branch) Deadline() (time.Time, bool) { return b.parent.Deadline() }

// Value implements context.Context. The cause of its end is one that package context asks for.
func (b *Branch) Value(key any) any {
	if e := b.ended.Load(); e != nil {
		if v := e.Value(key); v != nil {
			return v
		}
	}
	return b.parent.Value(key)
}
