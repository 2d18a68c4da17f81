//go:build !linux

package wire

import (
	"sync"
	"syscall"
	"time"
)

// watcher notices clients that leave while their request is served, by asking the sockets of those that have been served for a while.
type watcher struct {
	mu     sync.Mutex
	conns  map[uint64]*serverConn
	last   uint64
	ticker *time.Timer // nil: nobody is watched
	closed bool
}

// watching is how often sockets are asked.
const watching = 50 * time.Millisecond

// add watches a connection; 0: it cannot be watched.
func (w *watcher) add(c *serverConn) uint64 {
	if c.raw == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0
	}
	if w.conns == nil {
		w.conns = map[uint64]*serverConn{}
	}
	w.last++
	w.conns[w.last] = c
	if w.ticker == nil {
		w.ticker = time.AfterFunc(watching, w.tick)
	}
	return w.last
}

func (w *watcher) tick() {
	var gone []*serverConn
	w.mu.Lock()
	for _, c := range w.conns {
		if c.state.Load() == active && peekEnd(c.raw) {
			gone = append(gone, c)
		}
	}
	w.ticker = nil
	if len(w.conns) > 0 && !w.closed {
		w.ticker = time.AfterFunc(watching, w.tick)
	}
	w.mu.Unlock()
	for _, c := range gone {
		c.left()
	}
}

func (w *watcher) remove(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, id)
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.ticker != nil {
		w.ticker.Stop()
		w.ticker = nil
	}
}

// nothingUnread is asked of sockets of which the watcher has said that they are ending; this one waits until they have ended.
func nothingUnread(syscall.RawConn) bool { return false }

// canRest: nobody tells when something comes.
const canRest = false

func (w *watcher) expect(*serverConn, bool) bool { return false }
