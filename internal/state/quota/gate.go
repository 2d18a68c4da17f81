package quota

import (
	"cmp"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// maxHold bounds how long a gate stays closed on one announcement: a field may be wrong, or sent to silence a client.
const maxHold = time.Hour

// Bounds of what a gate remembers.
const (
	maxGroups = 64
	maxPaths  = 1024
	maxQuotas = 32
)

// sameReset is how far two announcements of one reset may lie apart: relative ones are as old as their answers took to come.
const sameReset = 2 * time.Second

// Gate is what one upstream announced for one credential. It is closed while a quota is used up. Its zero value is open.
type Gate struct {
	horizon atomic.Int64 // nothing is closed and nobody waits after this, in ticks: spares the lock

	mu      sync.Mutex
	groups  map[string]*group // by what the upstream names; "": all requests
	all     *group            // of ""; nil: there is none
	paths   map[uint64]string // the group that a path was seen in
	seed    uint64            // of the paths' hashes
	dialect string
	waiting int
	closes  bool // some group, or did until settle found otherwise
	label   string
	last    said
}

// said is what the last answer announced, where that was in the plainest form. The zero value is nothing.
type said struct {
	plain
	ends time.Time // the window, as it was learnt
}

// still tells whether an answer that says the same now changes nothing: it is about the same window then, of which more is not believed.
func (s *said) still(p plain, now time.Time) bool {
	if s.plain != p || s.ends.IsZero() {
		return false
	}
	over := now.Sub(s.ends)
	return over < 0 && over <= sameReset-p.span()
}

// group is the quotas that some requests share.
type group struct {
	name   string
	quotas []Learnt
	closed time.Time // by a refusal that said how long
	line   line
}

// Learnt is a quota as a gate remembers it.
type Learnt struct {
	Group, Name, Unit string
	Limit, Remaining  int64     // -1: not known
	Reset             time.Time // zero: not known
	Window            time.Duration
	seen              time.Time
	closes            time.Time // the group until then; zero: not at all
}

// Refuses tells whether a Retry-After of this answer concerns quotas. That of a 503 concerns the upstream's health.
func Refuses(resp *http.Response) bool {
	return resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusForbidden
}

// Answer is what a gate learns from.
type Answer struct {
	*http.Response
	To     *http.Request
	Fields *Fields
	Now    time.Time
	Label  string // of the host, in metrics
}

// Learn takes in an answer: its announcement, and what a refusal (429, or a 403 that says so) asked for. It tells whether there was an announcement,
// and then appends to standing what holds of the request's quotas now. An answer from a cache teaches nothing; nor does one that neither Refuses
// nor Speaks.
func (g *Gate) Learn(from Answer, o Options, standing []Learnt) (announced bool, _ []Learnt) {
	if from.Fields.seen.has(storedField) && stored(from.Header) {
		return false, standing
	}
	if usual, ok := from.Fields.plain(o); ok && !Refuses(from.Response) {
		return true, g.learnPlain(usual, &from, standing)
	}
	return g.learn(from, o, standing)
}

// learnPlain is Learn for the answer that most are: its announcement is in the plainest form, and it is no refusal.
func (g *Gate) learnPlain(p plain, from *Answer, standing []Learnt) []Learnt {
	now := from.Now
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closes || g.waiting > 0 || !g.last.still(p, now) {
		g.begin()
		g.dialect, g.last = Generic, said{}
		var n Learnt
		n.announced("", &Quota{Unit: Requests, Limit: p.limit, Remaining: p.remaining, Reset: p.span(), Resets: true}, now)
		g.closes = g.closes || !n.closes.IsZero()
		if g.group("", now).learn(&n, now) {
			g.last = said{p, n.Reset}
		}
		g.changed(now)
	}
	g.label = from.Label
	return g.standing(standing, from.To, now)
}

func (g *Gate) learn(from Answer, o Options, standing []Learnt) (announced bool, _ []Learnt) {
	now := from.Now
	var space [4]Quota
	var a Announcement
	var quotas []Quota
	if from.Fields.Speaks() {
		quotas = read(&a, space[:0], from.Header, from.Fields, now, o)
		announced = len(quotas) > 0
	}
	hold, asked := time.Duration(0), false
	if Refuses(from.Response) && !Concurrent(from.Response) {
		hold, asked = RetryAfter(from.Header, now, o.Unit)
		hold = min(hold, maxHold)
	}
	if !announced && hold <= 0 {
		return false, standing
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.begin()
	g.label, g.last = from.Label, said{}
	name := a.Group
	if announced {
		g.dialect = a.Dialect
		in := g.group(name, now)
		for i := range quotas {
			var n Learnt
			n.announced(in.name, &quotas[i], now)
			if !n.closes.IsZero() {
				g.closes = true
				if asked {
					n.closes = now.Add(hold) // when to come back is the better answer than when all is restored
				}
			}
			in.learn(&n, now)
		}
		if name != "" {
			g.remember(from.To, in)
		}
	}
	if hold > 0 {
		if a.Global || a.Dialect != Discord {
			name = "" // whoever asks for a pause means everybody, unless it names whom it means
		}
		in := g.group(name, now)
		if until := now.Add(hold); until.After(in.closed) {
			in.closed, g.closes = until, true
		}
	}
	g.changed(now)
	if announced {
		standing = g.standing(standing, from.To, now)
	}
	return announced, standing
}

// changed tells those who wait what is new, and notes until when the lock cannot be spared.
func (g *Gate) changed(now time.Time) {
	if g.waiting > 0 {
		g.tellLines(now)
	}
	if g.closes || g.waiting > 0 || g.horizon.Load() != 0 {
		g.settle(now)
	}
}

// begin makes the tables of a gate that knows nothing yet.
func (g *Gate) begin() {
	if g.groups == nil {
		g.groups, g.paths, g.seed = map[string]*group{}, map[uint64]string{}, rand.Uint64()
	}
}

// settle notes until when the lock cannot be spared.
func (g *Gate) settle(now time.Time) {
	var horizon int64
	if g.waiting > 0 {
		horizon = math.MaxInt64
	}
	if g.closes {
		g.closes = false
		for _, in := range g.groups {
			if d := in.until(now); d > 0 {
				g.closes, horizon = true, max(horizon, exchange.Ticks()+int64(d)) // as open reads the clock: now may be some older reading
			}
		}
	}
	g.horizon.Store(horizon)
}

// open tells at no cost that nothing is closed.
func (g *Gate) open() bool {
	h := g.horizon.Load()
	return h == 0 || exchange.Ticks() >= h
}

// group finds or makes a group. Where there are too many, that one is forgotten which is closed the shortest, and has nobody waiting.
func (g *Gate) group(name string, now time.Time) *group {
	if name == "" && g.all != nil {
		return g.all
	}
	if in := g.groups[name]; in != nil {
		return in
	}
	if len(g.groups) >= maxGroups {
		stalest := slices.MinFunc(slices.Collect(maps.Keys(g.groups)), func(a, b string) int {
			return cmp.Or(cmp.Compare(rank(a, g.groups[a]), rank(b, g.groups[b])), cmp.Compare(g.groups[a].until(now), g.groups[b].until(now)))
		})
		delete(g.groups, stalest) // never that of all requests: there are others of a lower rank
	}
	in := &group{name: strings.Clone(name)} // or all of the answer's head would stay with it
	g.groups[in.name] = in
	if name == "" {
		g.all = in
	}
	return in
}

// rank says how dear a group is: the one of all requests is kept longest.
func rank(name string, in *group) int {
	switch {
	case name == "":
		return 2
	case in.line.len() > 0:
		return 1
	}
	return 0
}

// announced makes n what an announcement says, with dates in place of spans. Only what is used up, and said when there is more, closes a group; places in flight
// are no matter of time.
func (n *Learnt) announced(group string, q *Quota, now time.Time) {
	n.Group, n.Name, n.Unit, n.Limit, n.Remaining, n.Window, n.seen = group, q.Name, q.Unit, q.Limit, q.Remaining, q.Window, now
	if q.Resets {
		n.Reset = now.Add(q.Reset)
	}
	if q.Resets && q.Remaining == 0 && q.Unit != Concurrency {
		n.closes = now.Add(min(q.Reset, maxHold))
	}
}

// find is the index of the quota that an announcement is about, or -1. One that tells no more than a name may be of a unit that was told before.
func (in *group) find(n *Learnt) int {
	namesake := -1
	for i := range in.quotas {
		switch l := &in.quotas[i]; {
		case l.Name != n.Name:
		case l.Unit == n.Unit:
			return i
		case namesake < 0:
			namesake = i
		}
	}
	if n.Name != "" && n.Limit < 0 && n.Window == 0 {
		return namesake
	}
	return -1
}

// learn merges an announcement, and makes n what is known then; it is false where that is not about n's window. Answers arrive out of order: within a
// window less is newer, and more is believed only when the reset moved on.
func (in *group) learn(n *Learnt, now time.Time) bool {
	i := in.find(n)
	if i < 0 {
		in.add(*n)
		return true
	}
	old := &in.quotas[i]
	n.Name = old.Name
	if n.Unit != old.Unit {
		if n.Unit = old.Unit; n.Unit == Concurrency {
			n.closes = time.Time{}
		}
	}
	if n.Limit < 0 {
		n.Limit = old.Limit
	}
	if n.Window == 0 {
		n.Window = old.Window
	}
	if old.Reset.After(now) && old.Remaining >= 0 {
		if n.Reset.IsZero() {
			n.Reset = old.Reset // what an answer leaves out did not change
		}
		switch moved := n.Reset.Sub(old.Reset); {
		case moved < -sameReset:
			return false // of a window that is over
		case moved <= sameReset && (n.Remaining < 0 || n.Remaining >= old.Remaining):
			n.Remaining, n.Reset = old.Remaining, old.Reset
			if n.closes.Before(old.closes) {
				n.closes = old.closes
			}
		}
	}
	*old = *n
	return true
}

// add takes in a quota that is new, in the place of the one that was not heard of for longest where there are too many.
func (in *group) add(n Learnt) {
	n.Name = strings.Clone(n.Name)
	if len(in.quotas) < maxQuotas {
		in.quotas = append(in.quotas, n)
		return
	}
	stalest := 0
	for i := range in.quotas {
		if in.quotas[i].seen.Before(in.quotas[stalest].seen) {
			stalest = i
		}
	}
	in.quotas[stalest] = n
}

// until is how long the group is closed, 0 for an open one.
func (in *group) until(now time.Time) time.Duration {
	d := max(0, in.closed.Sub(now))
	for i := range in.quotas {
		if q := &in.quotas[i]; !q.closes.IsZero() {
			d = max(d, q.closes.Sub(now))
		}
	}
	return d
}

// remember notes that requests of this path belong to a group.
func (g *Gate) remember(r *http.Request, in *group) {
	for _, key := range [...]uint64{g.exact(r), g.rough(r)} {
		if len(g.paths) >= maxPaths && g.paths[key] == "" {
			clear(g.paths)
		}
		g.paths[key] = in.name
	}
}

func (g *Gate) exact(r *http.Request) uint64 {
	return hash(g.seed, r.Method, r.URL.Path)
}

// rough is the first segment of the path, by which some upstreams tell their resources.
func (g *Gate) rough(r *http.Request) uint64 {
	segment, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return hash(g.seed, "", segment)
}

// of is the group that a request belongs to, as far as answers have shown.
func (g *Gate) of(r *http.Request) *group {
	if len(g.paths) > 0 {
		if name, ok := g.paths[g.exact(r)]; ok {
			return g.groups[name]
		}
		if g.dialect == GitHub {
			if name, ok := g.paths[g.rough(r)]; ok {
				return g.groups[name]
			}
		}
	}
	if g.dialect == Discord {
		return nil // buckets are many, and nothing tells which one this is
	}
	if len(g.groups) == 1 && g.all != nil {
		return nil
	}
	var only *group
	for name, in := range g.groups {
		if name != "" {
			if only != nil {
				return nil
			}
			only = in
		}
	}
	return only
}

// closedFor is how long this request would have to wait.
func (g *Gate) closedFor(r *http.Request, now time.Time) time.Duration {
	return g.left(g.of(r), now)
}

// left is how long the requests of a group, which may be nil, are held: by it or by what is said of all.
func (g *Gate) left(in *group, now time.Time) time.Duration {
	var d time.Duration
	if g.all != nil {
		d = g.all.until(now)
	}
	if in != nil {
		d = max(d, in.until(now))
	}
	return d
}

// Closed is how long the gate is closed for this request; 0: it is open.
func (g *Gate) Closed(r *http.Request) time.Duration {
	if g.open() {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closedFor(r, time.Now())
}

// Each calls f for everything that the gate knows and that still holds, and tells how long requests of its group are held.
func (g *Gate) Each(f func(l Learnt, label string, closed time.Duration)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for name, in := range g.groups {
		closed := in.until(now)
		if len(in.quotas) == 0 && closed > 0 {
			f(Learnt{Group: name, Unit: Requests, Limit: -1, Remaining: 0, Reset: now.Add(closed)}, g.label, closed)
		}
		for _, q := range in.quotas {
			if q.Reset.IsZero() || q.Reset.After(now) {
				f(q, g.label, closed)
			}
		}
	}
}
