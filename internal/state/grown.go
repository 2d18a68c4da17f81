package state

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Grown is a map for what is looked up by every exchange and added to seldom, such as a metric's counters by label: a look takes no lock and
// allocates nothing, an addition copies the map. Nothing is ever taken out: its keys must be bounded by whoever makes them. Its zero value is empty.
type Grown[K comparable, V any] struct {
	now atomic.Pointer[map[K]V]
	mu  sync.Mutex // one addition at a time
}

// Get is the value of a key, which fill makes on first use.
func (g *Grown[K, V]) Get(k K, fill func(K) V) V {
	if m := g.now.Load(); m != nil {
		if v, ok := (*m)[k]; ok {
			return v
		}
	}
	return g.add(k, fill)
}

func (g *Grown[K, V]) add(k K, fill func(K) V) V {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := map[K]V{}
	if m := g.now.Load(); m != nil {
		if v, ok := (*m)[k]; ok {
			return v
		}
		next = maps.Clone(*m)
	}
	v := fill(k)
	next[k] = v
	g.now.Store(&next)
	return v
}
