package audit

import (
	"sync"
	"time"
)

// The queue's bounds: what may wait for the writer, or be in its hands.
const (
	maxRecords = 8192
	maxBytes   = 16 << 20
)

// patience is how long a record that is no exchange waits for room, when the reserve is full too: a shutdown or a reload must not hang on it for ever.
const patience = 5 * time.Second

type limits struct{ records, bytes int }

// queue holds encoded records, one after another in one buffer, until the writer takes them all at once.
type queue struct {
	limits limits
	wake   chan struct{} // the writer sleeps and there is something to do
	hurry  chan struct{} // a quarter full: no more waiting for company
	gate   gate          // shut while the queue is full, and for what the writer knows of

	mu      sync.Mutex
	space   sync.Cond
	pending batch
	records int // pending and taken
	bytes   int
	closed  bool
	through uint64 // all that were ever written
}

// batch is records end to end.
type batch struct {
	data []byte
	ends []int
}

func (b *batch) add(rec []byte) {
	b.data = append(b.data, rec...)
	b.ends = append(b.ends, len(b.data))
}

func newQueue(lim limits) *queue {
	q := &queue{limits: lim, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
	q.space.L = &q.mu
	return q
}

// manner is what a record does that finds the queue full.
type manner int

const (
	wait   manner = iota
	giveUp        // it is lost
	// reserve waits too, though not for longer than patience, and has as much room again: the few records that are no exchanges find a place when
	// exchanges fill the queue, so that a daemon whose output is stuck can still be told to stop.
	reserve
	// brief has the same room and does not wait: whoever hands it in may be an exchange that is to go on whatever becomes of records.
	brief
	// spare gives up where the queue is half full: what was refused leaves the room to what is under way.
	spare
)

// put copies rec into the queue. While there is no room it waits or gives up. False means that the record is lost.
func (q *queue) put(rec []byte, how manner) bool {
	lim := q.limits
	switch how {
	case reserve, brief:
		lim = limits{2 * lim.records, 2 * lim.bytes}
	case spare:
		lim = limits{(lim.records + 1) / 2, lim.bytes / 2}
	}
	q.mu.Lock()
	var late *time.Timer
	expired := false
	for !q.closed && q.full(len(rec), lim) {
		if how != spare {
			q.gate.set(queueFull)
		}
		if how != wait && how != reserve || expired {
			q.mu.Unlock()
			return false
		}
		if how == reserve && late == nil {
			late = time.AfterFunc(patience, func() {
				q.mu.Lock()
				expired = true
				q.space.Broadcast()
				q.mu.Unlock()
			})
			defer late.Stop()
		}
		poke(q.hurry)
		q.space.Wait()
	}
	if q.closed {
		q.mu.Unlock()
		return false
	}
	first, urgent := q.append(rec)
	q.mu.Unlock()
	if first {
		poke(q.wake)
	}
	if urgent {
		poke(q.hurry)
	}
	return true
}

// full holds for what would pass a bound; a record larger than the whole queue goes through an empty one.
func (q *queue) full(n int, lim limits) bool {
	return q.records >= lim.records || q.records > 0 && q.bytes+n > lim.bytes
}

func (q *queue) append(rec []byte) (first, urgent bool) {
	first = len(q.pending.ends) == 0
	q.pending.add(rec)
	q.records++
	q.bytes += len(rec)
	if q.full(1, q.limits) {
		q.gate.set(queueFull)
	}
	return first, q.records == q.limits.records/4 || q.bytes > q.limits.bytes/4
}

// last adds one more record whatever the bounds, made under the lock so that no record that is accepted comes after it, and closes the queue.
func (q *queue) last(form func() []byte) {
	q.mu.Lock()
	q.append(form())
	q.closed = true
	q.mu.Unlock()
}

// close refuses what comes from now on, also from those who wait for room.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.space.Broadcast()
	q.mu.Unlock()
	poke(q.wake)
	poke(q.hurry)
}

// take exchanges what is pending for the empty batch. open is false when nothing will come any more.
func (q *queue) take(empty batch) (full batch, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	full, q.pending = q.pending, batch{empty.data[:0], empty.ends[:0]}
	return full, !q.closed
}

// done makes room for as much as was written.
func (q *queue) done(records, bytes int) {
	q.mu.Lock()
	q.records -= records
	q.through += uint64(records)
	q.bytes -= bytes
	if q.gate.has(queueFull) && !q.full(1, limits{max(1, 3*q.limits.records/4), 3 * q.limits.bytes / 4}) {
		q.gate.clear(queueFull)
	}
	q.space.Broadcast()
	q.mu.Unlock()
}

// accepted is how many were ever taken.
func (q *queue) accepted() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.through + uint64(q.records)
}

// past tells whether so many were written.
func (q *queue) past(n uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.through >= n
}

// left is how many records were accepted and not written.
func (q *queue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.records
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
