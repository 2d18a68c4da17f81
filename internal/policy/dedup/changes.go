package dedup

import (
	"hash/maphash"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"httpowerd/internal/exchange"
)

// changes are the writes that went well lately. What was asked for before such a write ended answers nobody who comes after it (RFC 9111 section 4.4).
// All policies share them: a route may have the reads of a target, another one its writes.
type changes struct {
	wanted atomic.Int32  // groups whose answers linger; 0: nobody asks
	last   atomic.Uint64 // the number of the last write

	mu  sync.Mutex
	to  map[uint64]uint64 // the number of the last one, by target
	all uint64            // what was numbered up to this may have been to any target
}

// maxChanges is how many targets are told apart. Beyond it nothing that began before now is taken for what holds.
const maxChanges = 4_096

// note numbers a write that has ended.
func (c *changes) note(target uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.last.Load() + 1
	switch _, known := c.to[target]; {
	case c.to == nil:
		c.to = map[uint64]uint64{}
	case !known && len(c.to) >= maxChanges:
		clear(c.to)
		c.all = n - 1
	}
	c.to[target] = n
	c.last.Store(n)
}

// after tells whether the target was written to after the write of that number.
func (c *changes) after(n, target uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.all, c.to[target]) > n
}

// targetHash is of what a request is about, whoever sends it, by whatever method and in whatever spelling of the path. Where two targets have the same
// one, answers about one are forgotten with the other's.
func targetHash(seed maphash.Seed, at exchange.Authority, u *url.URL) uint64 {
	h := mix(uint64(at.Port), maphash.String(seed, at.Host))
	for _, part := range [...]string{u.Path, u.RawQuery} {
		h = mix(h, maphash.String(seed, part))
	}
	return h
}

// send sends a request, and notes a write that went well.
func (s *stage) send(r *http.Request) (*http.Response, error) {
	resp, err := s.next.RoundTrip(r)
	c := &s.room.changes
	if err == nil && resp != nil && resp.StatusCode < 400 && c.wanted.Load() > 0 && !exchange.SafeMethod(r.Method) {
		c.note(targetHash(s.room.seed, exchange.From(r.Context()).Target, r.URL))
	}
	return resp, err
}

// outdated tells whether what was asked for after that many writes is from before one to its target. It costs next to nothing where nobody wrote.
func (g *group) outdated(k *want, since uint64) bool {
	c := &g.room.changes
	return g.linger > 0 && c.last.Load() != since && c.after(since, targetHash(g.room.seed, k.target, k.url))
}
