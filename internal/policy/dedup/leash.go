package dedup

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// leash is the context of work that may go on without the client that began it. It keeps the client's deadline up to the head of the answer. What can
// be cancelled is made only when somebody waits for that.
type leash struct {
	parent  context.Context
	owner   owner
	follows bool // the parent; mu guards it, and the next two
	closed  bool // done is, or is to be
	lent    bool // heirs are known to somebody
	headed  atomic.Bool
	over    atomic.Bool
	decide  sync.Once // whether the work goes on
	tied    atomic.Pointer[tie]
	heirs   exchange.Heirs

	mu    sync.Mutex
	up    exchange.Heir // of the parent
	timer *time.Timer
	done  chan struct{} // nil: nobody waits
}

// owner has a leash.
type owner interface {
	clientLeft() bool // is called when the client leaves, and tells whether the work goes on
	value(any) any    // of the work's context
}

// tie is what keeps the cause of an end.
type tie struct {
	context.Context
	cancel context.CancelCauseFunc
}

// hold makes the leash of work whose client's context is parent.
func (l *leash) hold(parent context.Context, o owner) { l.parent, l.owner = parent, o }

// Heirs are those who hear of the work's end.
func (l *leash) Heirs() *exchange.Heirs {
	l.mu.Lock()
	l.lent = true
	l.follow()
	over := l.over.Load()
	l.mu.Unlock()
	if over {
		l.heirs.End()
	}
	return &l.heirs
}

// AfterFunc is for package context.
func (l *leash) AfterFunc(f func()) (stop func() bool) { return l.Heirs().AfterFunc(f) }

// follow hears of the parent's end from now on. l.mu is held.
func (l *leash) follow() {
	if !l.follows && !l.over.Load() {
		l.follows = true
		l.up.Follow(l.parent, l)
	}
}

// tie makes the leash one that can end.
func (l *leash) tie() *tie {
	if t := l.tied.Load(); t != nil {
		return t
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.tied.Load(); t != nil {
		return t
	}
	t := &tie{}
	t.Context, t.cancel = context.WithCancelCause((*endless)(l))
	if l.over.Load() {
		t.cancel(nil)
	}
	l.tied.Store(t)
	return t
}

// Done implements context.Context.
func (l *leash) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		if l.done = make(chan struct{}); l.closed || l.over.Load() {
			l.closed = true
			close(l.done)
		}
		l.follow()
	}
	return l.done
}

// end tells everybody that the work has ended.
func (l *leash) end() {
	l.mu.Lock()
	l.close()
	l.mu.Unlock()
	l.heirs.End()
}

// close tells those who wait by the channel. l.mu is held.
func (l *leash) close() {
	if !l.closed {
		if l.closed = true; l.done != nil {
			close(l.done)
		}
	}
}

// Err implements context.Context.
func (l *leash) Err() error { return l.now().Err() }

// Value implements context.Context.
func (l *leash) Value(key any) any { return l.now().Value(key) }

// now is the context as it is. Where nobody has waited yet and the parent has ended, whoever looks must hear what that means.
func (l *leash) now() context.Context {
	if t := l.tied.Load(); t != nil {
		return t
	}
	if l.parent.Err() == nil && !l.over.Load() {
		return (*endless)(l)
	}
	t := l.tie()
	if !l.over.Load() {
		l.parentEnded()
	}
	return t
}

// endless is a leash's context as if it had no end.
type endless leash

// Done implements context.Context.
func (*endless) Done() <-chan struct{} { return nil }

// Err implements context.Context.
func (*endless) Err() error { return nil }

// Deadline implements context.Context.
func (*endless) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context.
func (e *endless) Value(key any) any { return e.owner.value(key) }

// Deadline is what stages below plan their waits by. It is lifted with the head, as timeout.total is.
func (l *leash) Deadline() (time.Time, bool) {
	if l.headed.Load() {
		return time.Time{}, false
	}
	return l.parent.Deadline()
}

// cancel ends the work.
func (l *leash) cancel(cause error) {
	l.tie().cancel(cause)
	l.end()
}

// longest is how long work goes on without its client where no deadline says so.
const longest = 10 * time.Minute

// ParentEnded is for the parent, which does not wait.
func (l *leash) ParentEnded() { go l.parentEnded() }

// parentEnded runs when the client's context has ended, and waits where it runs already.
func (l *leash) parentEnded() { l.decide.Do(l.gone) }

// gone decides what becomes of the work: because the client left, or because its time is over.
func (l *leash) gone() {
	cause := context.Cause(l.parent)
	if timeIsOver(cause) || !l.owner.clientLeft() {
		l.cancel(cause)
		return
	}
	rest := longest
	if deadline, bounded := l.parent.Deadline(); bounded {
		rest = time.Until(deadline)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over.Load() {
		l.timer = time.AfterFunc(rest, func() {
			if !l.headed.Load() {
				l.cancel(errLate)
			}
		})
	}
}

var errLate = &exchange.Failure{Code: exchange.UpstreamTimeout, Detail: "the upstream did not answer in time", Sent: true, Overall: true}

// timeIsOver tells a deadline from a client that left.
func timeIsOver(cause error) bool {
	return errors.As(cause, new(*exchange.Failure)) || errors.As(cause, new(*exchange.Refusal)) || errors.Is(cause, context.DeadlineExceeded)
}

// loose frees what the leash holds.
func (l *leash) loose() {
	l.mu.Lock()
	l.over.Store(true)
	if l.timer != nil {
		l.timer.Stop()
	}
	t, follows, lent := l.tied.Load(), l.follows, l.lent
	if t == nil {
		l.close() // whoever looks sees that it is over; else the tie must end first
	}
	l.mu.Unlock()
	if follows {
		l.up.Leave()
	}
	switch {
	case t != nil:
		t.cancel(nil)
		l.end()
	case lent:
		l.heirs.End()
	}
}
