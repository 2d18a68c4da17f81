package state

import (
	"sync"
	"sync/atomic"
	"time"
)

// Budget bounds retries against first attempts: over the last ttl there may be ratio retries for each first attempt, and floor for each second
// besides. Counting a first attempt takes no lock; reserving a retry is exact.
type Budget struct {
	ratio float64
	floor float64 // over the whole ttl
	step  time.Duration
	start time.Time
	mu    sync.Mutex // one reservation at a time
	slots [budgetSlots]atomic.Uint64
}

// budgetSlots is how many parts of the ttl are counted apart: a count is forgotten after between nine and ten tenths of the ttl.
const budgetSlots = 10

// A slot is one word, so that it changes as a whole: the number of its part of time, the first attempts and the retries in it.
const (
	retryBits = 18
	firstBits = 22
	maxRetry  = 1<<retryBits - 1
	maxFirst  = 1<<firstBits - 1
	tickMask  = 1<<(64-retryBits-firstBits) - 1
)

func pack(tick, first, retry uint64) uint64 {
	return tick<<(retryBits+firstBits) | first<<retryBits | retry
}

func unpack(w uint64) (tick, first, retry uint64) {
	return w >> (retryBits + firstBits), w >> retryBits & maxFirst, w & maxRetry
}

// NewBudget makes a budget of ratio retries for each first attempt and floor retries a second, counted over ttl.
func NewBudget(ratio, floor float64, ttl time.Duration) *Budget {
	return &Budget{ratio: ratio, floor: floor * ttl.Seconds(), step: max(1, ttl/budgetSlots), start: time.Now()}
}

// tick numbers the parts of time from 1, so that an untouched slot is never current.
func (b *Budget) tick() uint64 { return uint64(time.Since(b.start)/b.step)%tickMask + 1 }

// First counts a first attempt.
func (b *Budget) First() { b.add(b.tick(), 1, 0) }

func (b *Budget) add(tick, first, retry uint64) {
	s := &b.slots[tick%budgetSlots]
	for {
		old := s.Load()
		t, f, r := unpack(old)
		if t != tick {
			f, r = 0, 0
		}
		if s.CompareAndSwap(old, pack(tick, min(f+first, maxFirst), min(r+retry, maxRetry))) {
			return
		}
	}
}

// Budgets are one policy's, kept apart by Key. Whatever sends a request again draws on the same ones: the rooms that do ask with equal settings.
func Budgets(s Scope, ratio, floor float64, ttl time.Duration) *Table[*Budget] {
	type settings struct {
		ratio, floor float64
		ttl          time.Duration
	}
	return Keep(s, "retry budget", settings{ratio, floor, ttl}, func() *Table[*Budget] {
		return NewTable(MaxEntries, func(Key) *Budget { return NewBudget(ratio, floor, ttl) })
	})
}

// Reservation is one retry taken from a budget.
type Reservation struct{ tick uint64 }

// Reserve takes a retry from the budget, before the wait for it: whoever reserves after the wait lets everybody wait who will be refused.
func (b *Budget) Reserve() (Reservation, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.tick()
	var firsts, retries uint64
	for i := range b.slots {
		if t, f, r := unpack(b.slots[i].Load()); t+budgetSlots > now && t <= now {
			firsts, retries = firsts+f, retries+r
		}
	}
	// A hair more, because 0.2 × 5 need not be 1 in floating point.
	if float64(retries)+1 > b.ratio*float64(firsts)+b.floor+1e-9 {
		return Reservation{}, false
	}
	b.add(now, 0, 1)
	return Reservation{now}, true
}

// Return gives back a retry that was not made.
func (b *Budget) Return(r Reservation) {
	s := &b.slots[r.tick%budgetSlots]
	for {
		old := s.Load()
		tick, first, retry := unpack(old)
		if tick != r.tick || retry == 0 || s.CompareAndSwap(old, pack(tick, first, retry-1)) {
			return
		}
	}
}
