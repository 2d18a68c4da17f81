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
	made   atomic.Pointer[cancellable] // nil: nobody waits yet, and it was not cancelled
	armed  atomic.Bool                 // it hears of its parent's end
	heirs  Heirs                       // their lock is the branch's
	up     Heir                        // of the parent, where there are heirs
}

type cancellable struct {
	context.Context
	cancel context.CancelCauseFunc
}

// left is what becomes of a branch that is cancelled for no cause of its own before anybody waited: nearly all end like this.
var left = func() *cancellable {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(nil)
	return &cancellable{ctx, cancel}
}()

// From makes b a branch of ctx. It comes before everything else.
func (b *Branch) From(ctx context.Context) { b.parent = ctx }

// make makes what can be waited for. The lock is held.
func (b *Branch) make() *cancellable {
	ctx, cancel := context.WithCancelCause(b.parent)
	c := &cancellable{ctx, cancel}
	b.made.Store(c)
	return c
}

// Cancel ends the branch; without a cause it is context.Canceled. What has ended before, or whose parent has, stays as it is.
func (b *Branch) Cancel(cause error) {
	c := b.made.Load()
	if c == nil {
		b.heirs.mu.Lock()
		if c = b.made.Load(); c == nil {
			if cause == nil && b.parent.Err() == nil {
				c = left
				b.made.Store(c)
			} else {
				c = b.make()
			}
		}
		b.heirs.mu.Unlock()
	}
	c.cancel(cause)
	if b.armed.Load() {
		b.up.Leave()
		b.heirs.End()
	}
}

// Heirs are those who hear of the branch's end.
func (b *Branch) Heirs() *Heirs {
	if !b.armed.Load() {
		b.heirs.mu.Lock()
		if !b.armed.Load() {
			b.up.Follow(b.parent, b)
			b.armed.Store(true)
		}
		ended := b.made.Load() != nil && b.Err() != nil
		b.heirs.mu.Unlock()
		if ended {
			b.up.Leave()
			b.heirs.End()
		}
	}
	return &b.heirs
}

// ParentEnded is for the parent.
func (b *Branch) ParentEnded() { b.heirs.End() }

// Done implements context.Context.
func (b *Branch) Done() <-chan struct{} {
	c := b.made.Load()
	if c == nil {
		b.heirs.mu.Lock()
		if c = b.made.Load(); c == nil {
			c = b.make()
		}
		b.heirs.mu.Unlock()
	}
	return c.Done()
}

// Err implements context.Context.
func (b *Branch) Err() error {
	if c := b.made.Load(); c != nil {
		return c.Err()
	}
	return b.parent.Err()
}

// Deadline implements context.Context.
func (b *Branch) Deadline() (time.Time, bool) { return b.parent.Deadline() }

// Value implements context.Context. The cause of its end is one that package context asks for.
func (b *Branch) Value(key any) any {
	switch c := b.made.Load(); c {
	case nil:
		return b.parent.Value(key)
	case left:
		if v := c.Value(key); v != nil {
			return v
		}
		return b.parent.Value(key)
	default:
		return c.Value(key)
	}
}
