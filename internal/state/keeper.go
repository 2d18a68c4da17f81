// Package state holds what outlives a request, and the Keeper that carries it across reloads.
package state

import (
	"io"
	"reflect"
	"sync"
)

// Keeper carries limiters, breakers, pools and the like from one configuration to the next, by value: what asks for the same room, policy
// and settings gets what was there; everything else starts fresh. Its zero value is ready.
type Keeper struct {
	mu      sync.Mutex
	current map[slot]kept
}

type slot struct{ room, policy string }

type kept struct {
	settings any
	value    any
}

// Generation collects what one compilation asks for. Nothing changes in the Keeper until Commit.
type Generation struct {
	keeper   *Keeper
	previous map[slot]kept
	next     map[slot]kept
	fresh    []any
	settle   []func()
}

// OnCommit calls f when this generation becomes the current one, and never where it is given up: the place to give kept values new settings.
func (g *Generation) OnCommit(f func()) { g.settle = append(g.settle, f) }

// Begin starts a compilation.
func (k *Keeper) Begin() *Generation {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Generation{keeper: k, previous: k.current, next: make(map[slot]kept, len(k.current))}
}

// Scope is the place in which a policy's rooms keep their state.
type Scope struct {
	Generation *Generation
	Policy     string // its name: pattern and route
}

// Keep returns the value that room had for this policy under deeply equal settings, or makes one.
func Keep[T any](s Scope, room string, settings any, create func() T) T {
	key := slot{room, s.Policy}
	g := s.Generation
	if k, ok := g.next[key]; ok && reflect.DeepEqual(k.settings, settings) {
		return k.value.(T)
	}
	if k, ok := g.previous[key]; ok && reflect.DeepEqual(k.settings, settings) {
		if v, ok := k.value.(T); ok {
			g.next[key] = k
			return v
		}
	}
	v := create()
	g.next[key] = kept{settings, v}
	g.fresh = append(g.fresh, v)
	return v
}

// Commit makes this generation the current one and closes (io.Closer) what it no longer asks for.
func (g *Generation) Commit() {
	g.keeper.mu.Lock()
	g.keeper.current = g.next
	g.keeper.mu.Unlock()
	for _, f := range g.settle {
		f()
	}
	for key, k := range g.previous {
		if now, ok := g.next[key]; ok && same(now.value, k.value) {
			continue
		}
		closeValue(k.value)
	}
}

// Abort closes what was made for this generation alone.
func (g *Generation) Abort() {
	for _, v := range g.fresh {
		closeValue(v)
	}
}

// Close closes what the current generation keeps and forgets it; a second Close has nothing left to do.
func (k *Keeper) Close() {
	k.mu.Lock()
	kept := k.current
	k.current = nil
	k.mu.Unlock()
	for _, v := range kept {
		closeValue(v.value)
	}
}

func same(a, b any) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && a == b
}

func closeValue(v any) {
	if c, ok := v.(io.Closer); ok {
		_ = c.Close() // nobody is left who could act on it
	}
}
