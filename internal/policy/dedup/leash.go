package dedup

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// leash is the context of work that may go on without the client that began it. It keeps the client's deadline up to the head of the answer. What can
// be cancelled is made only when somebody waits for that.
type leash struct {
	parent   context.Context
	values   context.Context // the request's, and no end
	left     func() bool     // called when the client leaves: whether the work goes on
	deadline time.Time
	bounded  bool
	headed   atomic.Bool
	over     atomic.Bool
	decide   sync.Once // whether the work goes on
	tied     atomic.Pointer[tie]
	room     tie // for tied

	mu    sync.Mutex
	timer *time.Timer
}

// tie is what can be waited for.
type tie struct {
	context.Context
	cancel context.CancelCauseFunc
	stop   func() bool
}

// hold makes the leash, and the request that goes with it. values are that request's, and have no end.
func (l *leash) hold(r *http.Request, values context.Context, left func() bool) *http.Request {
	l.parent, l.values, l.left = r.Context(), values, left
	l.deadline, l.bounded = l.parent.Deadline()
	return r.WithContext(l)
}

// tie makes the leash one that can be waited for.
func (l *leash) tie() *tie {
	if t := l.tied.Load(); t != nil {
		return t
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.tied.Load(); t != nil {
		return t
	}
	t := &l.room
	t.Context, t.cancel = context.WithCancelCause(l.values)
	if l.over.Load() {
		t.cancel(nil)
		t.stop = func() bool { return false }
	} else {
		t.stop = context.AfterFunc(l.parent, l.parentEnded)
	}
	l.tied.Store(t)
	return t
}

// Done implements context.Context.
func (l *leash) Done() <-chan struct{} { return l.tie().Done() }

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
		return l.values
	}
	t := l.tie()
	if !l.over.Load() {
		l.parentEnded()
	}
	return t
}

// Deadline is what stages below plan their waits by. It is lifted with the head, as timeout.total is.
func (l *leash) Deadline() (time.Time, bool) {
	return l.deadline, l.bounded && !l.headed.Load()
}

// cancel ends the work.
func (l *leash) cancel(cause error) { l.tie().cancel(cause) }

// longest is how long work goes on without its client where no deadline says so.
const longest = 10 * time.Minute

// parentEnded runs when the client's context has ended, and waits where it runs already.
func (l *leash) parentEnded() { l.decide.Do(l.gone) }

// gone decides what becomes of the work: because the client left, or because its time is over.
func (l *leash) gone() {
	cause := context.Cause(l.parent)
	if timeIsOver(cause) || !l.left() {
		l.cancel(cause)
		return
	}
	rest := longest
	if l.bounded {
		rest = time.Until(l.deadline)
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

var errLate = &exchange.Failure{Code: exchange.UpstreamTimeout, Detail: "the upstream did not answer in time", Sent: true}

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
	t := l.tied.Load()
	l.mu.Unlock()
	if t != nil {
		t.stop()
		t.cancel(nil)
	}
}
