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

// leash is the context of work that may go on without the client that began it. It carries an exchange of its own, so that nobody writes to the
// client's once that has ended, and keeps the client's deadline up to the head of the answer.
type leash struct {
	context.Context
	parent   context.Context
	cancel   context.CancelCauseFunc
	stop     func() bool
	left     func() bool // called when the client leaves: whether the work goes on
	deadline time.Time
	bounded  bool
	headed   atomic.Bool

	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

// hold makes the leash, and the request and the exchange that go with it.
func (l *leash) hold(r *http.Request, x *exchange.Exchange, left func() bool) (*http.Request, *exchange.Exchange) {
	own := x.Detach()
	l.parent, l.left = r.Context(), left
	l.deadline, l.bounded = l.parent.Deadline()
	l.Context, l.cancel = context.WithCancelCause(exchange.NewContext(context.WithoutCancel(l.parent), own))
	l.stop = context.AfterFunc(l.parent, l.gone)
	return r.WithContext(l), own
}

// Deadline is what stages below plan their waits by. It is lifted with the head, as timeout.total is.
func (l *leash) Deadline() (time.Time, bool) {
	return l.deadline, l.bounded && !l.headed.Load()
}

// longest is how long work goes on without its client where no deadline says so.
const longest = 10 * time.Minute

// gone runs when the client's context has ended: because the client left, or because its time is over.
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
	if !l.over {
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
	l.stop()
	l.mu.Lock()
	l.over = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	l.cancel(nil)
}
