package audit

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
)

// backlog is how many records a subscriber may be behind.
const backlog = 256

// subscribers are the readers of the live view. The zero value has none.
type subscribers struct {
	count  atomic.Int32
	mu     sync.Mutex
	all    map[chan []byte]func() bool // to the function that forgets its context
	closed bool
}

func (s *subscribers) any() bool { return s.count.Load() > 0 }

func (s *subscribers) add(ctx context.Context) <-chan []byte {
	c := make(chan []byte, backlog)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || ctx.Err() != nil {
		close(c)
		return c
	}
	if s.all == nil {
		s.all = make(map[chan []byte]func() bool)
	}
	s.all[c] = context.AfterFunc(ctx, func() { s.remove(c) })
	s.count.Add(1)
	return c
}

func (s *subscribers) remove(c chan []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.all[c]; ok {
		delete(s.all, c)
		s.count.Add(-1)
		close(c)
	}
}

// send gives each subscriber that has room a copy of the line.
func (s *subscribers) send(line []byte) {
	if !s.any() {
		return
	}
	line = bytes.Clone(line)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.all {
		select {
		case c <- line:
		default:
		}
	}
}

func (s *subscribers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c, forget := range s.all {
		forget()
		close(c)
	}
	s.all = nil
	s.count.Store(0)
}
