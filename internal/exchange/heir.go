package exchange

import (
	"context"
	"sync"
)

// Heirs are those who hear of a context's end at once. Package context needs a channel, a map and a goroutine for that, and most of what one exchange
// stacks upon another is never waited for otherwise. Its zero value has none.
type Heirs struct {
	mu    sync.Mutex
	first *Heir // over: the end has come
}

var over = new(Heir)

// Heir is one of them, with room of its own.
type Heir struct {
	hearer Hearer
	heirs  *Heirs // nil: it follows none, or a context of package context
	next   *Heir
	stop   func() bool // of package context
}

// Hearer hears of the end of the context that it follows. It must not wait.
type Hearer interface{ ParentEnded() }

// ancestor is a context that has heirs, which it tells from the first call on.
type ancestor interface{ Heirs() *Heirs }

// Follow lets hearer hear, once, of the end of ctx, which may have come already; it is false where there is none to come. It is called once.
func (h *Heir) Follow(ctx context.Context, hearer Hearer) bool {
	a, ok := ctx.(ancestor)
	if !ok {
		if ctx.Done() == nil {
			return false
		}
		h.stop = context.AfterFunc(ctx, hearer.ParentEnded)
		return true
	}
	h.join(a.Heirs(), hearer)
	return true
}

func (h *Heir) join(heirs *Heirs, hearer Hearer) {
	heirs.mu.Lock()
	defer heirs.mu.Unlock()
	h.hearer = hearer
	if heirs.first == over {
		go hearer.ParentEnded() // the caller may hold what it wants
		return
	}
	h.heirs, h.next, heirs.first = heirs, heirs.first, h
}

// AfterFunc calls f, which must not wait, when the end comes, unless it is stopped before. A context that has this method as its own spares package
// context a goroutine for each child that is made of it.
func (hs *Heirs) AfterFunc(f func()) (stop func() bool) {
	c := &calling{call: f}
	c.join(hs, c)
	return c.Leave
}

// calling is an heir that calls a function.
type calling struct {
	Heir
	call func()
}

// ParentEnded is for the parent.
func (c *calling) ParentEnded() { c.call() }

// Leave lets nobody hear any more. It is false where that is too late, or was done before.
func (h *Heir) Leave() bool {
	if h.stop != nil {
		return h.stop()
	}
	heirs := h.heirs
	if heirs == nil {
		return false
	}
	heirs.mu.Lock()
	defer heirs.mu.Unlock()
	for at := &heirs.first; *at != nil; at = &(*at).next { // there are few: an attempt or two
		if *at == h {
			*at = h.next
			return true
		}
	}
	return false
}

// End tells all heirs, and those who come later. Whoever calls it holds nothing that they could want.
func (hs *Heirs) End() {
	hs.mu.Lock()
	tell(hs.end())
}

// end takes all heirs away, and lets go of the lock.
func (hs *Heirs) end() *Heir {
	h := hs.first
	hs.first = over
	hs.mu.Unlock()
	return h
}

// tell tells those who were taken away.
func tell(h *Heir) {
	for h != nil && h != over {
		next := h.next // of a list that is this call's alone
		h.hearer.ParentEnded()
		h = next
	}
}
