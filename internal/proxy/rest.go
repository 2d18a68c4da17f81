package proxy

import (
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

// A tunnel that waits costs two goroutines and their stacks. Where many wait, the directions of those that have waited for a while rest: they have none, and the
// lot starts one when something comes. That costs a little, so a few tunnels keep theirs, and directions that go on soon are let rest ever later.
const (
	restAfter = 100 * time.Millisecond // at least; up to three times as long
	restless  = 64                     // while there are no more tunnels with goroutines, all may keep them
	restSoon  = 10 * time.Second       // who rests for less than this might as well not have
	restLater = 8                      // by so many times longer waits who went on soon
	restMost  = 256                    // sweeps that a direction is waited for, and no longer
)

// wakeful are the tunnels that have a goroutine.
type wakeful struct {
	mu       sync.Mutex
	links    map[*link]struct{}
	sweeping bool // sweep will come
	restless int  // in the place of the constant; 0: that
}

func (w *wakeful) many() bool {
	few := restless
	if w.restless > 0 {
		few = w.restless
	}
	return len(w.links) > few
}

func (w *wakeful) add(l *link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.links == nil {
		w.links = map[*link]struct{}{}
	}
	w.links[l] = struct{}{}
	if !w.sweeping && w.many() {
		w.sweeping = true
		time.AfterFunc(restAfter, w.sweep)
	}
}

func (w *wakeful) remove(l *link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.links, l)
}

// sweep nudges tunnels, for as long as there are more than a few.
func (w *wakeful) sweep() {
	began := time.Now()
	w.mu.Lock()
	w.sweeping = w.many()
	again, links := w.sweeping, slices.Collect(maps.Keys(w.links))
	w.mu.Unlock()
	if again {
		for _, l := range links {
			l.nudge()
		}
		time.AfterFunc(max(restAfter, 100*time.Since(began)), w.sweep) // a hundredth of a core at most
	}
}

// nudge wakes the goroutines of directions that have moved nothing for a while, so that they give up.
func (l *link) nudge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done || l.why != "" {
		return
	}
	for i, p := range l.pumps {
		moved := p.moved.Load()
		if r := &l.rests[i]; r.may && !r.nudged && r.ticket == 0 {
			if moved != r.moved {
				r.moved, r.quiet = moved, 0
			} else if r.quiet++; r.quiet > r.patience {
				r.nudged = true
				_ = p.src.SetReadDeadline(time.Unix(1, 0))
			}
		}
	}
}

// resting is a direction's.
type resting struct {
	may      bool      // nothing is lost where it gives up its goroutine
	nudged   bool      // it is to do so
	moved    int64     // at the last sweep
	quiet    int       // sweeps at which that was the same
	patience int       // how many there may be
	since    time.Time // when it last began to rest
	ticket   uint64    // of the lot; 0: it is not there
	ready    func(ticket uint64)
}

// mayRest says whether a direction may. Where it may not it has no deadline of a nudge either.
func (l *link) mayRest(i int, may bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.rests[i]
	r.may, r.moved, r.quiet = may && l.pumps[i].in != nil, -1, 0
	if !may && r.nudged && l.why == "" {
		r.nudged = false
		_ = l.pumps[i].src.SetReadDeadline(noDeadline)
	}
}

// nudged tells whether a read's error comes of a nudge. Then there is no deadline any more.
func (l *link) nudged(i int, err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.rests[i]
	if !r.nudged || l.why != "" || l.use.Load() == governed {
		return false
	}
	r.nudged = false
	_ = l.pumps[i].src.SetReadDeadline(noDeadline)
	return true
}

// rest lets a direction wait without a goroutine; false: it cannot.
func (l *link) rest(i int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.rests[i]
	if l.why != "" || l.use.Load() == governed {
		return false
	}
	if r.ready == nil {
		r.ready = func(ticket uint64) { l.rouse(i, ticket) }
	}
	if in := l.pumps[i].in; in != nil {
		r.ticket = l.v.server.lot.wait(in, r.ready)
	}
	if r.ticket == 0 {
		r.may = false
		return false
	}
	r.since = time.Now()
	l.stopped()
	return true
}

// stopped: a direction has no goroutine any more. l.mu is held.
func (l *link) stopped() {
	if l.running--; l.running == 0 {
		l.v.server.wakeful.remove(l)
	}
}

// rouse runs a direction on that rests, when something has come.
func (l *link) rouse(i int, ticket uint64) {
	l.mu.Lock()
	rests := l.rests[i].ticket == ticket
	if rests {
		l.roused(i)
	}
	l.mu.Unlock()
	if rests {
		l.side(i)
	}
}

// wake runs a direction on if it rests. l.mu is held.
func (l *link) wake(i int) {
	if ticket := l.rests[i].ticket; ticket != 0 {
		l.v.server.lot.leave(ticket)
		l.roused(i)
		go l.side(i)
	}
}

// roused: a direction has a goroutine again. l.mu is held.
func (l *link) roused(i int) {
	r := &l.rests[i]
	r.ticket, r.moved, r.quiet = 0, -1, 0
	if time.Since(r.since) < restSoon {
		r.patience = min(max(1, restLater*r.patience), restMost)
	} else {
		r.patience = 0
	}
	if l.running++; l.running == 1 {
		l.v.server.wakeful.add(l)
	}
}
