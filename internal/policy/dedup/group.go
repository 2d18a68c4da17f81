package dedup

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what one policy keeps.
const (
	maxFlights   = 10_000 // that run
	maxFollowers = 1_000  // of one of them
	maxLingering = 10_000
	maxRefusing  = 4_096 // keys whose answers may not be shared
	refusing     = time.Minute
	shards       = 16
)

// group is what one policy knows of answers that run, that linger, and that may not be shared.
type group struct {
	room    *Room
	memory  *budget
	maxBody int
	linger  time.Duration
	flights atomic.Int64
	kept    atomic.Int64 // answers that linger
	shard   [shards]shard
}

// shard guards its part of the keys, and everything of the flights that have one of them.
type shard struct {
	mu        sync.Mutex
	closed    bool
	flights   map[uint64]*flight // by the hash of what is wanted, as the others
	lingering map[uint64]*lingering
	refusing  map[uint64]time.Time // until when
}

type lingering struct {
	want   want
	since  uint64 // as of its flight
	answer *answer
	timer  *time.Timer
	size   int // of its head, and of the request's; the body is accounted for already
}

func newGroup(r *Room, c Config) *group {
	g := &group{room: r, memory: &r.memory, maxBody: int(c.MaxBody), linger: c.Linger.D()}
	if g.linger > 0 {
		r.changes.wanted.Add(1)
	}
	for i := range g.shard {
		s := &g.shard[i]
		s.flights, s.lingering, s.refusing = map[uint64]*flight{}, map[uint64]*lingering{}, map[uint64]time.Time{}
	}
	return g
}

func (g *group) of(k *want) *shard { return &g.shard[k.hash%shards] }

// flight is one exchange with the upstream, for everybody who wants its answer. It has one leader at a time. shard.mu guards it.
type flight struct {
	group   *group
	shard   *shard
	want    want
	since   uint64    // how many writes had ended when its leader began
	listed  bool      // newcomers find it
	waiters []*waiter // first come, first promoted
	leader  *turn     // nil: the next one has been told, and has not begun yet
	first   turn
}

// waiter is a follower. It is told once.
type waiter struct{ told chan verdict }

// verdict is what a follower is told.
type verdict struct {
	answer *answer // it has the answer, and holds it
	err    error   // it has the refusal
	lead   bool    // it is the next leader
	why    string  // it sends for itself
}

// join finds the flight of a key: as a follower (w is set), as its leader, or, where a bound or an earlier answer says so, not at all.
func (g *group) join(k *want) (f *flight, w *waiter, why string) {
	s := g.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f = s.flights[k.hash]; f != nil && g.outdated(&f.want, f.since) {
		f.unlist() // it goes on for those who came before the write
		f = nil
	}
	if f != nil {
		if len(f.waiters) >= maxFollowers || !f.want.equal(k) {
			return nil, nil, whyCrowd
		}
		w = &waiter{told: make(chan verdict, 1)}
		f.waiters = append(f.waiters, w)
		return f, w, ""
	}
	if until, known := s.refusing[k.hash]; known {
		if time.Now().Before(until) {
			return nil, nil, whyUnshared
		}
		delete(s.refusing, k.hash)
	}
	if g.flights.Load() >= maxFlights {
		return nil, nil, whyCrowd
	}
	f = &flight{group: g, shard: s, want: *k, since: g.room.changes.last.Load(), listed: true}
	s.flights[k.hash] = f
	g.flights.Add(1)
	f.leader = &f.first
	return f, nil, ""
}

// list lets newcomers find the flight, where they do not find another one. shard.mu is held.
func (f *flight) list() {
	if f.shard.flights[f.want.hash] == nil {
		f.shard.flights[f.want.hash], f.listed = f, true
		f.group.flights.Add(1)
	}
}

// unlist ends that. shard.mu is held.
func (f *flight) unlist() {
	if f.listed {
		delete(f.shard.flights, f.want.hash)
		f.listed = false
		f.group.flights.Add(-1)
	}
}

// leave takes a follower out. It is false where that has been told something already.
func (f *flight) leave(w *waiter) bool {
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	i := slices.Index(f.waiters, w)
	if i < 0 {
		return false
	}
	f.waiters = slices.Delete(f.waiters, i, i+1)
	if t := f.leader; len(f.waiters) == 0 && t != nil && t.gone {
		f.unlist() // before it is cancelled: whoever comes now begins anew
		t.cancel(errNobody)
	}
	return true
}

// promote makes the follower that waits longest the next leader; where there is none, the flight is over. shard.mu is held.
func (f *flight) promote() {
	f.leader = nil
	if len(f.waiters) == 0 {
		f.unlist()
		return
	}
	w := f.waiters[0]
	f.waiters = slices.Delete(f.waiters, 0, 1)
	f.list()
	w.told <- verdict{lead: true}
}

// pass is for a follower that was to lead and cannot.
func (f *flight) pass() {
	f.shard.mu.Lock()
	f.promote()
	f.shard.mu.Unlock()
}

// tell ends the flight for all its followers. shard.mu is held.
func (f *flight) tell(v verdict) {
	f.unlist()
	for _, w := range f.waiters {
		w.told <- v
	}
	f.waiters = nil
}

// refuse remembers that this key's answers may not be shared: for a while nobody waits for one in vain. shard.mu is held.
func (f *flight) refuse() {
	m := f.shard.refusing
	if len(m) >= maxRefusing/shards {
		now := time.Now()
		for k, until := range m {
			if !now.Before(until) {
				delete(m, k)
			}
		}
		for k := range m {
			if len(m) < maxRefusing/shards {
				break
			}
			delete(m, k)
		}
	}
	m[f.want.hash] = time.Now().Add(refusing)
}

// keep lets a complete answer linger. The caller's own part in it is not touched. shard.mu is held.
func (f *flight) keep(a *answer) {
	g, s := f.group, f.shard
	if s.closed || g.linger <= 0 || g.outdated(&f.want, f.since) {
		return
	}
	s.forget(g, f.want.hash, nil)
	if g.kept.Add(1) > maxLingering { // taken first: other shards count too
		g.kept.Add(-1)
		return
	}
	k, l := f.want.hash, &lingering{want: f.want.own(), since: f.since, answer: a}
	l.size = len(a.head.Status) + headerSize(a.head.Header) + headerSize(a.head.Trailer) + l.want.size()
	if !g.memory.take(l.size) {
		g.kept.Add(-1)
		return
	}
	a.holders.Add(1)
	l.timer = time.AfterFunc(g.linger, func() {
		s.mu.Lock()
		s.forget(g, k, l)
		s.mu.Unlock()
	})
	s.lingering[k] = l
}

// forget drops what lingers under a key: that one, or whatever it is. mu is held.
func (s *shard) forget(g *group, k uint64, that *lingering) {
	if l := s.lingering[k]; l != nil && (that == nil || l == that) {
		l.timer.Stop()
		delete(s.lingering, k)
		g.kept.Add(-1)
		g.memory.give(l.size)
		l.answer.drop()
	}
}

// lingeringAnswer is the answer that lingers under a key, which the caller then holds.
func (g *group) lingeringAnswer(k *want) *answer {
	if g.kept.Load() == 0 {
		return nil
	}
	s := g.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lingering[k.hash]
	if l == nil || !l.want.equal(k) || time.Since(l.answer.complete) >= g.linger {
		return nil
	}
	if g.outdated(&l.want, l.since) {
		s.forget(g, k.hash, l)
		return nil
	}
	l.answer.holders.Add(1)
	return l.answer
}

// Close forgets what lingers. Flights that run end as they would.
func (g *group) Close() error {
	if g.linger > 0 {
		g.room.changes.wanted.Add(-1)
	}
	for i := range g.shard {
		s := &g.shard[i]
		s.mu.Lock()
		s.closed = true
		for k := range s.lingering {
			s.forget(g, k, nil)
		}
		s.mu.Unlock()
	}
	return nil
}
