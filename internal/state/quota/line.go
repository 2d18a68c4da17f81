package quota

import (
	"container/list"
	"context"
	"net/http"
	"time"
)

// Bounds of the time between two of those who waited: when a gate opens they go one after the other, so that the first answers can close it
// again before all have gone.
const (
	usualPace   = 10 * time.Millisecond
	slowestPace = 100 * time.Millisecond
)

// line is who waits for a group: first come, first served.
type line struct {
	waiters list.List // of *waiter
	timer   *time.Timer
	next    time.Time // nobody goes before; the last one went a pace earlier
	opens   time.Time // what those who wait were told last
}

func (l *line) len() int { return l.waiters.Len() }

// waiter is a request in a line. Its fields are guarded by the gate's lock until ready is closed.
type waiter struct {
	in      *group
	place   *list.Element // nil: in no line any more
	until   time.Time     // the latest time for its turn
	ready   chan struct{} // closed with its turn, or with its refusal
	refused *Exhausted
}

// Exhausted says that a gate stays closed for longer than a request may wait.
type Exhausted struct {
	After time.Duration // until the request's turn
	Full  bool          // too many wait already
}

func (e *Exhausted) Error() string { return "the announced quota is used up" }

// Pass waits until the gate is open and those who came before have gone, at most for wait and together with at most queue others. It refuses
// with *Exhausted as soon as the turn is known to come later; otherwise the error is the cause of ctx.
func (g *Gate) Pass(ctx context.Context, r *http.Request, wait time.Duration, queue int) (waited time.Duration, err error) {
	if g.open() {
		return 0, nil
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	begin := time.Now()
	until := begin.Add(wait)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	w, refused := g.enter(r, begin, until, queue)
	if refused != nil {
		return 0, refused
	}
	if w == nil {
		return 0, nil
	}
	select {
	case <-w.ready:
	case <-ctx.Done():
		g.leave(w)
		return time.Since(begin), context.Cause(ctx)
	}
	if w.refused != nil {
		return time.Since(begin), w.refused
	}
	return time.Since(begin), nil
}

// enter lets a request pass, or takes a place in a line for it.
func (g *Gate) enter(r *http.Request, now, until time.Time, queue int) (*waiter, *Exhausted) {
	g.mu.Lock()
	defer g.mu.Unlock()
	in := g.of(r)
	left := g.left(in, now)
	if in == nil {
		if in = g.all; in == nil {
			return nil, nil // nothing was said of all requests
		}
	}
	if left <= 0 && in.line.len() == 0 {
		return nil, nil
	}
	turn := in.turn(left, now, in.line.len())
	if full := g.waiting >= queue; full || now.Add(turn).After(until) {
		return nil, &Exhausted{After: turn, Full: full}
	}
	w := &waiter{in: in, until: until, ready: make(chan struct{})}
	w.place = in.line.waiters.PushBack(w)
	g.waiting++
	if in.line.len() == 1 {
		in.line.opens = now.Add(left)
		g.alarm(in, turn)
		g.settle(now)
	}
	return w, nil
}

// turn is the time until the turn of who has n before it.
func (in *group) turn(left time.Duration, now time.Time, n int) time.Duration {
	return max(left, in.line.next.Sub(now), 0) + time.Duration(n)*in.pace()
}

// pace is the time between two of a line: what the upstream's own rate allows, within bounds.
func (in *group) pace() time.Duration {
	d := usualPace
	for i := range in.quotas {
		if q := &in.quotas[i]; q.Unit == Requests && q.Limit > 0 {
			d = max(d, q.Window/time.Duration(q.Limit))
		}
	}
	return min(d, slowestPace)
}

// leave gives up a place.
func (g *Gate) leave(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.place != nil {
		g.remove(w)
		now := time.Now()
		g.advance(w.in, now)
		g.settle(now)
	}
}

func (g *Gate) remove(w *waiter) {
	w.in.line.waiters.Remove(w.place)
	w.place = nil
	g.waiting--
}

// release ends a wait, with a refusal or, where that is nil, with a turn.
func (g *Gate) release(w *waiter, refused *Exhausted) {
	g.remove(w)
	w.refused = refused
	close(w.ready)
}

// advance lets the first of a line go where it may, and sets the alarm for the next.
func (g *Gate) advance(in *group, now time.Time) {
	l := &in.line
	left := g.left(in, now)
	if head := l.waiters.Front(); head != nil && in.turn(left, now, 0) <= 0 {
		g.release(head.Value.(*waiter), nil)
		if now.Sub(l.next) > slowestPace {
			l.next = now // the first to go, or the timer was late; else what is late does not add up
		}
		l.next = l.next.Add(in.pace())
	}
	if l.len() > 0 {
		g.alarm(in, in.turn(left, now, 0))
	} else if l.timer != nil {
		l.timer.Stop()
	}
}

func (g *Gate) alarm(in *group, d time.Duration) {
	if in.line.timer != nil {
		in.line.timer.Reset(d)
		return
	}
	in.line.timer = time.AfterFunc(d, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		g.advance(in, now)
		g.settle(now)
	})
}

// tellLines tells those who wait what is new: some may go earlier, and those who would wait too long are refused at once.
func (g *Gate) tellLines(now time.Time) {
	for _, in := range g.groups {
		if in.line.len() == 0 {
			continue
		}
		if left := g.left(in, now); left > 0 {
			opens, promised := now.Add(left), in.line.opens
			if in.line.opens = opens; opens.After(promised) {
				g.thin(in, now)
			}
		}
		g.advance(in, now)
	}
}

// thin refuses those of a line whose turn comes too late now.
func (g *Gate) thin(in *group, now time.Time) {
	left, before := g.left(in, now), 0
	for e := in.line.waiters.Front(); e != nil; {
		w := e.Value.(*waiter)
		e = e.Next()
		if turn := in.turn(left, now, before); now.Add(turn).After(w.until) {
			g.release(w, &Exhausted{After: turn})
			continue
		}
		before++
	}
}
