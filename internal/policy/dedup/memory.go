package dedup

import (
	"container/heap"
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"httpowerd/internal/state"
)

// memoryStore is a Store in this process. What is expired goes first, then what was used least recently; never a claim that runs.
type memoryStore struct {
	mu         sync.Mutex
	maxEntries int
	maxBytes   int64
	bytes      int64
	entries    map[string]*entry
	recent     list.List // of finished ones, the least recently used in front
	expiry     expiries
	timer      *time.Timer
	closed     bool
}

type entry struct {
	key, fingerprint string
	owner            string // "": it is finished
	record           []byte // nil: its outcome is not known
	expires          time.Time
	again            bool
	place            int           // in expiry
	used             *list.Element // nil: it runs
}

var errFull = fmt.Errorf("every key that may be remembered belongs to a write that runs: %w", ErrUnclaimed)

// overhead is about what an entry takes besides its record.
const overhead = 512

// keepMemory is the policy's store, which other settings do not empty.
func keepMemory(scope state.Scope, c Writes, observe bool) *memoryStore {
	room := "dedup writes"
	if observe { // whose records are none that could be repeated
		room = "dedup writes observed"
	}
	s := state.Keep(scope, room, nil, func() *memoryStore { return newMemoryStore(c) })
	scope.Generation.OnCommit(func() { s.resize(c) })
	return s
}

func newMemoryStore(c Writes) *memoryStore {
	return &memoryStore{maxEntries: c.MaxEntries, maxBytes: int64(c.MaxBytes), entries: map[string]*entry{}}
}

func (m *memoryStore) resize(c Writes) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.maxEntries, m.maxBytes = c.MaxEntries, int64(c.MaxBytes)
	m.sweep(time.Now())
	m.fit(0, 0)
}

// Begin implements Store.
func (m *memoryStore) Begin(_ context.Context, claim Claim, lease time.Duration) (Standing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.sweep(now)
	e := m.entries[claim.Key]
	switch {
	case e == nil:
		if !m.fit(1, overhead) {
			return Standing{}, errFull
		}
		e = &entry{key: claim.Key, fingerprint: claim.Fingerprint, owner: claim.Owner, expires: now.Add(lease)}
		m.entries[e.key] = e
		m.bytes += overhead
		heap.Push(&m.expiry, e)
		m.arm(now)
		return Standing{State: Claimed}, nil
	case e.fingerprint != claim.Fingerprint:
		return Standing{State: Mismatch}, nil
	case e.owner == claim.Owner, e.owner == "" && e.record == nil:
		e.again = e.again || e.owner == ""
		m.unused(e)
		e.owner = claim.Owner
		m.until(e, now.Add(lease))
		return Standing{State: Claimed}, nil
	case e.owner != "":
		return Standing{State: Running}, nil
	}
	m.recent.MoveToBack(e.used)
	return Standing{State: Finished, Record: e.record}, nil
}

// Finish implements Store.
func (m *memoryStore) Finish(_ context.Context, claim Claim, record []byte, keep time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.sweep(now)
	e := m.entries[claim.Key]
	if e == nil || e.owner != claim.Owner {
		return nil
	}
	if m.closed || !m.fit(0, int64(len(record))) {
		record = nil
	}
	m.finish(e, record, now.Add(keep))
	return nil
}

// finish ends a claim. mu is held.
func (m *memoryStore) finish(e *entry, record []byte, expires time.Time) {
	e.owner, e.record = "", record
	m.bytes += int64(len(record))
	e.used = m.recent.PushBack(e)
	m.until(e, expires)
}

// Release implements Store.
func (m *memoryStore) Release(_ context.Context, claim Claim, keep time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e := m.entries[claim.Key]; {
	case e == nil || e.owner != claim.Owner:
	case e.again:
		m.finish(e, nil, time.Now().Add(keep))
	default:
		m.remove(e)
	}
	return nil
}

// Close forgets everything.
func (m *memoryStore) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, e := range m.entries {
		if e.owner == "" {
			m.remove(e)
		}
	}
	if m.timer != nil {
		m.timer.Stop()
	}
	return nil
}

// fit makes room, at the cost of what was used least recently, or says that there is none. mu is held.
func (m *memoryStore) fit(entries int, bytes int64) bool {
	if bytes > m.maxBytes {
		return false
	}
	for len(m.entries)+entries > m.maxEntries || m.bytes+bytes > m.maxBytes {
		oldest := m.recent.Front()
		if oldest == nil {
			return false
		}
		m.remove(oldest.Value.(*entry))
	}
	return true
}

// sweep removes what is expired. mu is held.
func (m *memoryStore) sweep(now time.Time) {
	for len(m.expiry) > 0 && !now.Before(m.expiry[0].expires) {
		m.remove(m.expiry[0])
	}
}

// remove takes an entry out. mu is held.
func (m *memoryStore) remove(e *entry) {
	delete(m.entries, e.key)
	m.bytes -= overhead + int64(len(e.record))
	m.unused(e)
	heap.Remove(&m.expiry, e.place)
}

// unused takes an entry out of those that may go. mu is held.
func (m *memoryStore) unused(e *entry) {
	if e.used != nil {
		m.recent.Remove(e.used)
		e.used = nil
	}
}

// until changes when an entry expires. mu is held.
func (m *memoryStore) until(e *entry, at time.Time) {
	e.expires = at
	heap.Fix(&m.expiry, e.place)
	m.arm(time.Now())
}

// arm makes the timer forget what expires while nobody comes by. mu is held.
func (m *memoryStore) arm(now time.Time) {
	if m.closed || len(m.expiry) == 0 {
		return
	}
	// Not for each entry by itself: a busy store sweeps as it goes.
	rest := max(m.expiry[0].expires.Sub(now), time.Second)
	if m.timer == nil {
		m.timer = time.AfterFunc(rest, m.tick)
		return
	}
	m.timer.Reset(rest)
}

func (m *memoryStore) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.sweep(now)
	m.arm(now)
}

// expiries is a heap, what expires first on top.
type expiries []*entry

func (h expiries) Len() int           { return len(h) }
func (h expiries) Less(i, j int) bool { return h[i].expires.Before(h[j].expires) }
func (h expiries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push implements heap.Interface.
func (h *expiries) Push(v any) {
	e := v.(*entry)
	e.place = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *expiries) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
