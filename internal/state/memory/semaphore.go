package memory

import (
	"context"
	"sync"
	"time"
)

// Semaphore bounds how many hold a place at once. Those who find none wait in the order in which they came, tenants by turns. A changed bound
// holds for those who wait already; nobody loses a place to it.
type Semaphore struct {
	mu    sync.Mutex
	max   int
	held  int
	queue queue
}

// NewSemaphore makes a semaphore of that many places.
func NewSemaphore(places int) *Semaphore { return &Semaphore{max: places} }

// Acquire takes a place, waiting for it within b. The error is a *Refused, or the cause of ctx; then there is nothing to release.
func (s *Semaphore) Acquire(ctx context.Context, b Bounds) (waited time.Duration, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	w, refused := s.enter(b)
	if refused != nil {
		return 0, refused
	}
	if w == nil {
		return 0, nil
	}
	now := time.Now()
	late := time.NewTimer(b.Wait)
	defer late.Stop()
	select {
	case <-w.ready:
	case <-late.C:
		s.expire(w)
	case <-ctx.Done():
		s.leave(w)
		return time.Since(now), context.Cause(ctx)
	}
	if w.refused != nil {
		return time.Since(now), w.refused
	}
	return time.Since(now), nil
}

func (s *Semaphore) enter(b Bounds) (*waiter, *Refused) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held < s.max && s.queue.len == 0 {
		s.held++
		return nil, nil
	}
	full, yields := s.queue.full(b)
	if full || b.Wait <= 0 {
		return nil, &Refused{Full: full}
	}
	if yields != nil {
		s.queue.release(yields, &Refused{Full: true})
	}
	w := &waiter{ready: make(chan struct{}), tokens: 1}
	s.queue.push(w, b.Tenant)
	return w, nil
}

// expire refuses a waiter that has waited long enough.
func (s *Semaphore) expire(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.lane != nil {
		s.queue.release(w, &Refused{})
	}
}

// leave gives up a place in the queue, or the place that came in the same moment.
func (s *Semaphore) leave(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case w.lane != nil:
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
	for s.held < s.max && s.queue.len > 0 {
		s.held++
		s.queue.release(s.queue.head(), nil)
	}
}
