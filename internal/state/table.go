package state

import (
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"httpowerd/internal/exchange"
)

// MaxEntries is how many authorities one table remembers; the least recently used goes first.
const MaxEntries = 10_000

// Key is what a policy's state is kept apart by.
type Key struct {
	Tenant     string
	Authority  exchange.Authority
	Credential string // fingerprint, where the state is an upstream's answer to a credential; "" elsewhere
}

// KeyOf is the key of x without a credential.
func KeyOf(x *exchange.Exchange) Key { return Key{Tenant: x.Tenant, Authority: x.Target} }

const shards = 16

// Table is a bounded map that makes what it is asked for. It forgets what was used least recently, approximately: a look costs one shared
// lock and no allocation. Its values must stay usable by those who hold them after they were forgotten.
type Table[V any] struct {
	seed  maphash.Seed
	limit int
	clock atomic.Uint64
	fill  func(Key) V
	last  atomic.Pointer[entry[V]] // one that was asked for lately: most policies have a single key, and its hash costs more than it does to compare it
	shard [shards]tableShard[V]
}

type tableShard[V any] struct {
	mu sync.RWMutex
	m  map[Key]*entry[V]
}

type entry[V any] struct {
	key   Key
	used  atomic.Uint64
	value V
}

// NewTable makes a table of at most limit entries (MaxEntries where limit is 0).
func NewTable[V any](limit int, fill func(Key) V) *Table[V] {
	if limit <= 0 {
		limit = MaxEntries
	}
	return &Table[V]{seed: maphash.MakeSeed(), limit: max(1, limit/shards), fill: fill}
}

// Get returns the key's value, made on first use.
func (t *Table[V]) Get(k Key) V {
	e := t.last.Load()
	if e == nil || e.key != k {
		e = t.find(k)
	}
	if now := t.clock.Load(); e.used.Load() != now {
		e.used.Store(now)
	}
	return e.value
}

func (t *Table[V]) find(k Key) *entry[V] {
	s := &t.shard[maphash.Comparable(t.seed, k)%shards]
	s.mu.RLock()
	e := s.m[k]
	if e != nil && rand.Uint32()%8 == 0 { // seldom, or those who ask for many keys would fight over it
		t.last.Store(e)
	}
	s.mu.RUnlock()
	if e == nil {
		e = t.add(s, k)
	}
	return e
}

func (t *Table[V]) add(s *tableShard[V], k Key) *entry[V] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.m[k]; e != nil {
		return e
	}
	if s.m == nil {
		s.m = map[Key]*entry[V]{}
	}
	if len(s.m) >= t.limit {
		var oldest Key
		age := ^uint64(0)
		for key, e := range s.m {
			if u := e.used.Load(); u <= age {
				oldest, age = key, u
			}
		}
		t.last.CompareAndSwap(s.m[oldest], nil)
		delete(s.m, oldest)
	}
	k.Authority.Host = strings.Clone(k.Authority.Host) // or all of the request's head would stay with it
	e := &entry[V]{key: k, value: t.fill(k)}
	e.used.Store(t.clock.Add(1)) // only additions move the clock: recency matters only between them
	s.m[k] = e
	return e
}

// Peek returns the key's value where there is one, without counting as a use.
func (t *Table[V]) Peek(k Key) (V, bool) {
	s := &t.shard[maphash.Comparable(t.seed, k)%shards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.m[k]; e != nil {
		return e.value, true
	}
	var zero V
	return zero, false
}

// Each calls f for every entry, in no order. f must not call the table.
func (t *Table[V]) Each(f func(Key, V)) {
	for i := range t.shard {
		s := &t.shard[i]
		s.mu.RLock()
		for k, e := range s.m {
			f(k, e.value)
		}
		s.mu.RUnlock()
	}
}

// Len is how many entries there are.
func (t *Table[V]) Len() int {
	n := 0
	for i := range t.shard {
		s := &t.shard[i]
		s.mu.RLock()
		n += len(s.m)
		s.mu.RUnlock()
	}
	return n
}
