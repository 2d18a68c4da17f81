package sanitize

import "sync/atomic"

// memoryLimit is what bodies that are held back may take over all policies, besides the window of each.
const memoryLimit = 256 << 20

// windowLimit is what the windows of zstd may take likewise: the first bytes of a body decide how large its own is.
const windowLimit = 1 << 30

// window is one body's part of that.
type window struct {
	used *atomic.Int64
	n    atomic.Int64
}

// take is false where that is too much.
func (w *window) take(n int) bool {
	if w.used.Add(int64(n)) > windowLimit {
		w.used.Add(-int64(n))
		return false
	}
	w.n.Store(int64(n))
	return true
}

// give gives it back, once.
func (w *window) give() { w.used.Add(-w.n.Swap(0)) }

// roomy tells whether more may be held back.
func (r *Room) roomy() bool { return (r.short == nil || !r.short()) && r.held.Load() < memoryLimit }

// share is what one body takes of it.
type share struct {
	room *Room
	n    atomic.Int64
}

// hold makes n bytes of the share. It is false where no more should be added to them.
func (s *share) hold(n int) bool {
	if n := int64(n); n != s.n.Load() {
		s.room.held.Add(n - s.n.Swap(n))
	}
	return s.room.roomy()
}

// let gives all of it back.
func (s *share) let() {
	if s.n.Load() != 0 {
		s.room.held.Add(-s.n.Swap(0))
	}
}
