// Package dedup sends identical requests once: safe ones share the answer of the one that runs, and a write is sent once for each idempotency key.
package dedup

import (
	"crypto/rand"
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// Room owns the metrics, the memory that all policies share, and the secret of their keys.
type Room struct {
	metrics *metrics
	memory  budget
	changes changes
	secret  [32]byte
	seed    maphash.Seed
	store   Store    // shared by all policies; nil: each keeps its own in memory
	running sync.Map // *write, those with a claim: nothing
}

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer) *Room {
	r := &Room{memory: budget{limit: memoryLimit}, seed: maphash.MakeSeed()}
	_, _ = rand.Read(r.secret[:]) // never fails
	r.metrics = newMetrics(reg, &r.memory)
	return r
}

// Short says when memory is short: answers are not kept for several then, and whoever waits for one sends for itself. It must come before the first Stage.
func (r *Room) Short(f func() bool) { r.memory.short = f }

// Share makes all policies remember keyed writes in one store, which other daemons may use too: those with the same secret know the same keys. It is
// called once, before the first Stage.
func (r *Room) Share(store Store, secret [32]byte) { r.store, r.secret = store, secret }

// Key is the field that makes a write one that is sent once.
type Key struct {
	Header string // "" is Idempotency-Key
	Quoted bool   // the field is a structured one: "a" and a are the same key
}

// Stage makes one policy's stage: everything below it runs once for requests that share an answer.
func (r *Room) Stage(scope state.Scope, c Config, k Key) exchange.Stage {
	if k.Header == "" {
		k.Header = "Idempotency-Key"
	}
	k.Header = http.CanonicalHeaderKey(k.Header)
	s := stage{room: r, config: c, key: k, policy: scope.Policy, observe: c.Mode == setting.Observe}
	for _, m := range c.Methods {
		if slices.Contains(safe, m) {
			s.safe = append(s.safe, m)
		} else {
			s.keyed = append(s.keyed, m)
		}
	}
	if len(s.safe) > 0 {
		s.group = state.Keep(scope, "dedup", flightSettings{c.MaxBody, c.Linger, s.observe}, func() *group { return newGroup(r, c) })
	}
	if len(s.keyed) > 0 {
		s.store = r.store
		if s.store == nil {
			s.store = keepMemory(scope, c.Writes, s.observe)
		}
	}
	return exchange.Stage{Name: "dedup", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if len(s.safe) == 0 && len(s.keyed) == 0 {
			return next
		}
		linked := s
		linked.next = next
		return &linked
	}}
}

// flightSettings are what running and lingering answers are kept by.
type flightSettings struct {
	maxBody setting.Size
	linger  setting.Duration
	observe bool
}

// stage is one policy's block.
type stage struct {
	room    *Room
	config  Config
	key     Key
	policy  string
	safe    []string
	keyed   []string
	observe bool
	group   *group // nil: no safe method
	store   Store  // nil: no keyed one
	next    http.RoundTripper
}

// RoundTrip shares an answer where the request may have one, and sends it else.
func (s *stage) RoundTrip(r *http.Request) (*http.Response, error) {
	switch m := method(r); {
	case slices.Contains(s.safe, m):
		return s.collapse(r, exchange.From(r.Context()))
	case slices.Contains(s.keyed, m):
		if values := r.Header[s.key.Header]; len(values) > 0 && (len(values) > 1 || values[0] != "") {
			return s.write(r, exchange.From(r.Context()), values)
		}
	}
	return s.send(unasked(r))
}

// unasked is the request without the field that is for this block alone.
func unasked(r *http.Request) *http.Request {
	if _, ok := r.Header[skipField]; !ok {
		return r
	}
	bare := *r
	bare.Header = maps.Clone(r.Header)
	delete(bare.Header, skipField)
	return &bare
}

// note counts a request's role and writes it into its story.
func (s *stage) note(x *exchange.Exchange, role string) {
	s.room.metrics.count(x.Label(), role)
	if role != roleObserved {
		x.Update(func(story *exchange.Story) { story.Dedup = role })
	}
}

// alone sends a request as if the block were off.
func (s *stage) alone(r *http.Request, x *exchange.Exchange, why string) (*http.Response, error) {
	s.bypass(x, why)
	return s.send(unasked(r))
}

func (s *stage) bypass(x *exchange.Exchange, why string) {
	s.room.metrics.count(x.Label(), roleBypass)
	x.Update(func(story *exchange.Story) { story.Dedup = roleBypass + ":" + why })
}

// What observe mode notes besides codes.
const (
	observedFollower = "dedup_follower"
	observedReplayed = "dedup_replayed"
)

// pass sends a request that observe mode found to be none that had to be sent.
func (s *stage) pass(r *http.Request, x *exchange.Exchange, observed string) (*http.Response, error) {
	s.found(x, observed)
	return s.send(r)
}

func (s *stage) found(x *exchange.Exchange, observed string) {
	x.Observe(observed)
	s.note(x, roleObserved)
}
