package state

import (
	"fmt"
	"math"
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
	spent bool       // it refused, and has not had much left since
	slots [budgetSlots]atomic.Uint64

	recent Recent
}

// Counts are kept for each tenth of the ttl apart, and forgotten after between ten and eleven tenths: never early, or floor retries a second would
// become more.
const (
	budgetParts = 10
	budgetSlots = budgetParts + 1
)

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
	return &Budget{ratio: ratio, floor: floor * ttl.Seconds(), step: max(1, ttl/budgetParts), start: time.Now()}
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
		switch {
		case t > tick && t-tick < tickMask/2:
			return // the slot has a later part of time by now, and this one is forgotten
		case t != tick:
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
	firsts, retries := b.counts(now)
	allowed := b.allowed(firsts)
	if float64(retries)+1 > allowed {
		b.refuses(firsts, retries)
		return Reservation{}, false
	}
	if b.spent && float64(retries)+1 < allowed*enough {
		b.spent = false
		b.recent.Add(Exhausted, Available, "")
	}
	b.add(now, 0, 1)
	return Reservation{now}, true
}

// enough is the part of a budget that may be in use when it counts as available again.
const enough = 0.9

// What Changes calls a budget that has something left, and one that has not.
const (
	Available = "available"
	Exhausted = "exhausted"
)

// refuses notes the first refusal. b.mu is held.
func (b *Budget) refuses(firsts, retries uint64) {
	if !b.spent {
		b.spent = true
		b.recent.Add(Available, Exhausted, fmt.Sprintf("%d retries for %d first attempts", retries, firsts))
	}
}

// counts are those of the last ttl.
func (b *Budget) counts(now uint64) (firsts, retries uint64) {
	for i := range b.slots {
		if t, f, r := unpack(b.slots[i].Load()); t+budgetSlots > now && t <= now {
			firsts, retries = firsts+f, retries+r
		}
	}
	return firsts, retries
}

// allowed is how many retries there may be; a hair more, because 0.2 × 5 need not be 1 in floating point.
func (b *Budget) allowed(firsts uint64) float64 { return b.ratio*float64(firsts) + b.floor + 1e-9 }

// BudgetStatus is how a budget stands.
type BudgetStatus struct {
	Ratio   float64 `json:"ratio"`
	Floor   float64 `json:"floor"` // over the whole ttl
	TTL     float64 `json:"ttl_seconds"`
	Firsts  uint64  `json:"firsts"` // within the ttl
	Retries uint64  `json:"retries"`
	Left    float64 `json:"left"` // retries that may be made now
	Changes []Event `json:"changes,omitempty"`
}

// Status is how the budget stands now.
func (b *Budget) Status() BudgetStatus {
	firsts, retries := b.counts(b.tick())
	left := math.Floor(max(0, b.allowed(firsts)-float64(retries)))
	return BudgetStatus{Ratio: b.ratio, Floor: b.floor, TTL: (b.step * budgetParts).Seconds(), Firsts: firsts, Retries: retries, Left: left,
		Changes: b.recent.List()}
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
