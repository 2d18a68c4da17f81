package audit

import (
	"sync"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// The queue's bounds: what may wait for the writer, or be in its hands.
const (
	maxRecords = 8192
	maxBytes   = 16 << 20

	maxLate  = 1024 // exchanges whose records are not made yet: each holds on to all of its request
	lateSize = 1024 // what one counts for besides its URL
	warmLate = 64   // of them are made before the processor's cache has forgotten them
)

// patience is how long a record that is no exchange waits for room, when the reserve is full too: a shutdown or a reload must not hang on it for ever.
const patience = 5 * time.Second

type limits struct{ records, bytes int }

// queue holds encoded records, one after another in one buffer, until the writer takes them all at once.
type queue struct {
	limits limits
	wake   chan struct{} // the writer sleeps and there is something to do
	hurry  chan struct{} // no more waiting for company
	gate   gate          // shut while the queue is full, and for what the writer knows of

	mu      sync.Mutex
	space   sync.Cond
	pending batch
	late    int // pending
	records int // pending and taken
	bytes   int
	closed  bool
	through uint64 // all that were ever written
}

// late is an exchange whose record is yet to be made. Whoever makes many in a row makes them in half of the time: the tables and code of redaction are at hand.
type late struct {
	x        *exchange.Exchange // nil: the record is made
	end      time.Time
	redactor *redact.Redactor
}

// entry is a place in the order of records.
type entry struct {
	end  int // of its bytes in the batch's data
	size int // what it counts for in the queue
	late late
}

// batch is records end to end.
type batch struct {
	data    []byte
	entries []entry
}

func (b *batch) add(rec []byte) {
	b.data = append(b.data, rec...)
	b.entries = append(b.entries, entry{end: len(b.data), size: len(rec)})
}

// size is what n entries from the given one on count for.
func (b *batch) size(from, n int) (bytes int) {
	for _, e := range b.entries[from : from+n] {
		bytes += e.size
	}
	return bytes
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
	q.pending.add(rec)
	q.added()
	return true
}

// putLate queues an exchange whose record the writer makes. False means that it did not: there is little room, and its record has to be put.
func (q *queue) putLate(l late) bool {
	size := lateSize + len(l.x.URL)
	q.mu.Lock()
	if q.closed || q.late >= maxLate || q.full(size, q.limits) {
		q.mu.Unlock()
		return false
	}
	q.late++
	q.pending.entries = append(q.pending.entries, entry{end: len(q.pending.data), size: size, late: l})
	q.added()
	return true
}

// added accounts for the last entry, unlocks, and tells the writer.
func (q *queue) added() {
	first, urgent := q.account()
	q.mu.Unlock()
	if first {
		poke(q.wake)
	}
	if urgent {
		poke(q.hurry)
	}
}

// full holds for what would pass a bound; a record larger than the whole queue goes through an empty one.
func (q *queue) full(n int, lim limits) bool {
	return q.records >= lim.records || q.records > 0 && q.bytes+n > lim.bytes
}

func (q *queue) account() (first, urgent bool) {
	n := len(q.pending.entries)
	q.records++
	q.bytes += q.pending.entries[n-1].size
	if q.full(1, q.limits) {
		q.gate.set(queueFull)
	}
	return n == 1, q.late == warmLate || q.records == q.limits.records/4 || q.bytes > q.limits.bytes/4
}

// last adds one more record whatever the bounds, made under the lock so that no record that is accepted comes after it, and closes the queue.
func (q *queue) last(form func() []byte) {
	q.mu.Lock()
	q.pending.add(form())
	q.account()
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
	full, q.pending, q.late = q.pending, batch{empty.data[:0], empty.entries[:0]}, 0
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
