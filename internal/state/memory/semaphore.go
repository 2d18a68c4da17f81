package memory

import (
	"context"
	"sync"
	"time"
)

// Semaphore bounds how many hold a place at once. Those who find none wait in the order in which they came. A changed bound holds for those
// who wait already; nobody loses a place to it.
type Semaphore struct {
	mu    sync.Mutex
	max   int
	held  int
	queue queue
	timer *time.Timer
	next  time.Time // of the timer; zero: not set
}

// NewSemaphore makes a semaphore of that many places.
func NewSemaphore(places int) *Semaphore { return &Semaphore{max: places} }

// Acquire takes a place, waiting for it within b. The error is a *Refused, or the cause of ctx; then there is nothing to release.
func (s *Semaphore) Acquire(ctx context.Context, b Bounds) (waited time.Duration, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	now := time.Now()
	w, refused := s.enter(now, b)
	if refused != nil {
		return 0, refused
	}
	if w == nil {
		return 0, nil
	}
	select {
	case <-w.ready:
	case <-ctx.Done():
		s.leave(w)
		return time.Since(now), context.Cause(ctx)
	}
	if w.refused != nil {
		return time.Since(now), w.refused
	}
	return time.Since(now), nil
}

func (s *Semaphore) enter(now time.Time, b Bounds) (*waiter, *Refused) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held < s.max && s.queue.head == nil {
		s.held++
		return nil, nil
	}
	if full := s.queue.len >= b.Queue; full || b.Wait <= 0 {
		return nil, &Refused{Full: full}
	}
	w := &waiter{ready: make(chan struct{}), until: now.Add(b.Wait)}
	s.queue.push(w)
	if s.next.IsZero() || w.until.Before(s.next) {
		s.alarm(now, w.until)
	}
	return w, nil
}

// leave gives up a place in the queue, or the place that came in the same moment.
func (s *Semaphore) leave(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case w.queued:
		s.queue.remove(w)
	case w.refused == nil:
		s.held--
	}
	s.advance()
}

// Enter takes a place whether there is one or not, and tells whether there was.
func (s *Semaphore) Enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held++
	return s.held <= s.max
}

// Release gives a place back.
func (s *Semaphore) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held--
	s.advance()
}

// SetMax changes how many places there are.
func (s *Semaphore) SetMax(places int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.max = places
	s.advance()
}

// Held tells how many places are taken, of how many, and how many wait for one.
func (s *Semaphore) Held() (held, places, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held, s.max, s.queue.len
}

// advance hands free places on, in order.
func (s *Semaphore) advance() {
	for s.held < s.max && s.queue.head != nil {
		s.held++
		s.queue.release(s.queue.head, nil)
	}
	if s.queue.head == nil && s.timer != nil {
		s.timer.Stop()
		s.next = time.Time{}
	}
}

func (s *Semaphore) alarm(now, at time.Time) {
	s.next = at
	if s.timer == nil {
		s.timer = time.AfterFunc(at.Sub(now), s.ring)
		return
	}
	s.timer.Reset(at.Sub(now))
}

// ring refuses whoever has waited long enough.
func (s *Semaphore) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, next := time.Now(), time.Time{}
	for w := s.queue.head; w != nil; {
		after := w.next
		if !w.until.After(now) {
			s.queue.release(w, &Refused{})
		} else if next.IsZero() || w.until.Before(next) {
			next = w.until
		}
		w = after
	}
	s.next = time.Time{}
	if !next.IsZero() {
		s.alarm(now, next)
	}
}
