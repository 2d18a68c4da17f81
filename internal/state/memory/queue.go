// Package memory holds limits in this process: a token bucket and a semaphore, each with a bounded queue that keeps its order.
package memory

import (
	"context"
	"time"
)

// Bounds are what one request may be put through. They belong to the request: those in a queue keep the ones they came with.
type Bounds struct {
	Wait  time.Duration // the longest that it may be held; 0 refuses whatever cannot go at once
	Queue int           // how many may wait; a request that finds as many is refused
}

// Refused says that a request did not get its turn.
type Refused struct {
	After time.Duration // when the same request would have got it; 0 where nobody can tell
	Full  bool          // the queue was full
}

func (r *Refused) Error() string {
	if r.Full {
		return "the queue is full"
	}
	return "the wait is too long"
}

// waiter is a request in a queue. Its fields are guarded by the lock of whoever owns the queue, until ready is closed.
type waiter struct {
	previous, next *waiter
	queued         bool
	ready          chan struct{} // closed with its turn, or with its refusal
	refused        *Refused
	until          time.Time // the latest time for its turn
	tokens, cost   int       // what it asks for, and what it is charged: never more than a bucket can hold
}

// queue is first in, first out; anybody may leave it.
type queue struct {
	head, tail *waiter
	len, cost  int
}

func (q *queue) push(w *waiter) {
	w.queued, w.previous = true, q.tail
	if q.tail == nil {
		q.head = w
	} else {
		q.tail.next = w
	}
	q.tail = w
	q.len++
	q.cost += w.cost
}

func (q *queue) remove(w *waiter) {
	if w.previous == nil {
		q.head = w.next
	} else {
		w.previous.next = w.next
	}
	if w.next == nil {
		q.tail = w.previous
	} else {
		w.next.previous = w.previous
	}
	w.previous, w.next, w.queued = nil, nil, false
	q.len--
	q.cost -= w.cost
}

// release ends a waiter's wait, with a refusal or, where that is nil, with its turn.
func (q *queue) release(w *waiter, refused *Refused) {
	q.remove(w)
	w.refused = refused
	close(w.ready)
}

// latest is when a request must have its turn: by its bounds and by its context.
func latest(ctx context.Context, now time.Time, b Bounds) time.Time {
	until := now.Add(b.Wait)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		return deadline
	}
	return until
}
