// Package memory holds limits in this process: a token bucket and a semaphore, each with a bounded queue that keeps its order.
package memory

import (
	"context"
	"time"
)

// Bounds are what one request may be put through. They belong to the request: those in a queue keep the ones they came with.
type Bounds struct {
	Wait   time.Duration // the longest that it may be held; 0 refuses whatever cannot go at once
	Queue  int           // how many may wait; a request that finds as many is refused, or takes the place of one whose tenant has more
	Tenant string        // requests of one tenant go in the order in which they came, tenants by turns; "" is one as well
}

// Refused says that a request did not get its turn.
type Refused struct {
	After time.Duration // when the same request would have got it; 0 where nobody can tell
	Full  bool          // the queue was full
	Away  bool          // the tokens are kept elsewhere, and whoever keeps them does not answer
}

func (r *Refused) Error() string {
	switch {
	case r.Full:
		return "the queue is full"
	case r.Away:
		return "the shared state does not answer"
	}
	return "the wait is too long"
}

// waiter is a request in a queue. Its fields are guarded by the lock of whoever owns the queue, until ready is closed.
type waiter struct {
	previous, next *waiter
	lane           *lane         // nil: it waits no more
	ready          chan struct{} // closed with its turn, or with its refusal
	refused        *Refused
	until          time.Time // the latest time for its turn
	tokens         float64   // what it is charged
	places         int       // how many may wait, as it was told
	judged         bool      // it is known that its turn comes in time
	held           bool      // it did not get its turn at once
}

// queue is first in, first out for each tenant, and takes the tenants by turns; anybody may leave it. Where nobody has a tenant it is one list.
type queue struct {
	turn *lane // whose first waiter is the next; nil: nobody waits
	len  int
	cost float64

	lanes map[string]*lane // nil before there was a second one
}

// lane is one tenant's waiters. Lanes form a ring in the order of their turns.
type lane struct {
	previous, next *lane
	tenant         string
	head, tail     *waiter
	len            int
	cost           float64
}

// head is who is next; nil: nobody.
func (q *queue) head() *waiter {
	if q.turn == nil {
		return nil
	}
	return q.turn.head
}

// find is a tenant's lane, nil where it has nobody waiting.
func (q *queue) find(tenant string) *lane {
	if q.turn == nil || q.turn.tenant == tenant {
		return q.turn
	}
	return q.lanes[tenant]
}

// open is a tenant's lane; a new one comes last in the round.
func (q *queue) open(tenant string) *lane {
	if l := q.find(tenant); l != nil {
		return l
	}
	l := &lane{tenant: tenant}
	if q.turn == nil {
		l.previous, l.next, q.turn = l, l, l
	} else {
		if len(q.lanes) == 0 {
			q.lanes = map[string]*lane{q.turn.tenant: q.turn}
		}
		l.previous, l.next = q.turn.previous, q.turn
		l.previous.next, l.next.previous = l, l
	}
	if q.lanes != nil {
		q.lanes[tenant] = l
	}
	return l
}

func (q *queue) push(w *waiter, tenant string) {
	l := q.open(tenant)
	w.lane, w.previous = l, l.tail
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
	l.len++
	l.cost += w.tokens
	q.len++
	q.cost += w.tokens
}

func (q *queue) remove(w *waiter) {
	l := w.lane
	if w.previous == nil {
		l.head = w.next
	} else {
		w.previous.next = w.next
	}
	if w.next == nil {
		l.tail = w.previous
	} else {
		w.next.previous = w.previous
	}
	w.previous, w.next, w.lane = nil, nil, nil
	l.len--
	l.cost -= w.tokens
	q.len--
	q.cost -= w.tokens
	if l.head == nil {
		q.drop(l)
	}
	if q.len == 0 {
		q.cost = 0 // what rounding left
	}
}

func (q *queue) drop(l *lane) {
	delete(q.lanes, l.tenant)
	if l.next == l {
		q.turn, q.lanes = nil, nil
		return
	}
	l.previous.next, l.next.previous = l.next, l.previous
	if q.turn == l {
		q.turn = l.next
	}
}

// release ends a waiter's wait, with a refusal or, where that is nil, with its turn: then it is the next tenant's.
func (q *queue) release(w *waiter, refused *Refused) {
	if next := w.lane.next; refused == nil && q.turn == w.lane {
		q.turn = next
	}
	q.remove(w)
	w.refused = refused
	close(w.ready)
}

// before is what is owed to those who would go before a newcomer of that tenant, as far as can be told: other tenants' may still come in between.
func (q *queue) before(tenant string) float64 {
	if q.turn == nil || q.turn.next == q.turn && q.turn.tenant == tenant {
		return q.cost
	}
	own, sum, ahead := q.find(tenant), 0.0, 1
	if own != nil {
		sum, ahead = own.cost, own.len+1
	}
	for l := q.turn; ; {
		if l != own {
			sum += l.cost * min(1, float64(ahead)/float64(l.len))
		}
		if l = l.next; l == q.turn {
			return sum
		}
	}
}

// yields is who must give up its place in a full queue to a newcomer of that tenant: the last of the tenant that has most, where that has at least
// two more. nil: nobody.
func (q *queue) yields(tenant string) *waiter {
	if q.turn == nil {
		return nil
	}
	most, own := q.turn, 0
	if l := q.find(tenant); l != nil {
		own = l.len
	}
	for l := q.turn.next; l != q.turn; l = l.next {
		if l.len > most.len {
			most = l
		}
	}
	if most.len < own+2 {
		return nil
	}
	return most.tail
}

// full tells whether there is no place for a newcomer; where there is one only if somebody yields, that is who.
func (q *queue) full(b Bounds) (yes bool, yields *waiter) {
	if q.len < b.Queue {
		return false, nil
	}
	if b.Queue > 0 {
		yields = q.yields(b.Tenant)
	}
	return yields == nil, yields
}

// order lists everybody in the order of their turns.
func (q *queue) order() []*waiter {
	out := make([]*waiter, 0, q.len)
	if q.turn == nil {
		return out
	}
	var next []*waiter
	for l := q.turn; ; {
		next = append(next, l.head)
		if l = l.next; l == q.turn {
			break
		}
	}
	for len(next) > 0 {
		left := next[:0]
		for _, w := range next {
			out = append(out, w)
			if w.next != nil {
				left = append(left, w.next)
			}
		}
		next = left
	}
	return out
}

// latest is when a request must have its turn: by its bounds and by its context.
func latest(ctx context.Context, now time.Time, b Bounds) time.Time {
	until := now.Add(b.Wait)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		return deadline
	}
	return until
}
