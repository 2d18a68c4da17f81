package quota

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"time"

	"httpowerd/internal/state"
)

// Snapshot is what a gate knows, for another process. Times are spans from the moment it was taken, so that clocks need not agree; Absolute and
// Relative convert them where they must not change while nothing happens.
type Snapshot struct {
	Dialect string            `json:"dialect,omitempty"`
	Label   string            `json:"label,omitempty"`
	Groups  []GroupSnapshot   `json:"groups"`
	Seed    uint64            `json:"seed,omitempty"` // of the paths' hashes
	Paths   map[uint64]string `json:"paths,omitempty"`
}

// GroupSnapshot is what is known of requests that share quotas.
type GroupSnapshot struct {
	Name   string          `json:"name,omitempty"`
	Closed time.Duration   `json:"closed,omitempty"`
	Quotas []QuotaSnapshot `json:"quotas,omitempty"`
}

// QuotaSnapshot is one quota.
type QuotaSnapshot struct {
	Name      string        `json:"name,omitempty"`
	Unit      string        `json:"unit"`
	Limit     int64         `json:"limit"`
	Remaining int64         `json:"remaining"`
	Window    time.Duration `json:"window,omitempty"`
	Reset     time.Duration `json:"reset"`
	Closes    time.Duration `json:"closes,omitempty"`
}

// Snapshot is what still holds; ok is false where that is nothing. What has no end, such as a quota that says nothing of a reset, is left out.
func (g *Gate) Snapshot(now time.Time) (s Snapshot, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s = Snapshot{Dialect: g.dialect, Label: g.label}
	for _, name := range slices.Sorted(maps.Keys(g.groups)) {
		in := g.groups[name]
		out := GroupSnapshot{Name: name, Closed: max(0, in.closed.Sub(now))}
		for _, q := range in.quotas {
			if q.Reset.After(now) {
				out.Quotas = append(out.Quotas, QuotaSnapshot{q.Name, q.Unit, q.Limit, q.Remaining, q.Window, q.Reset.Sub(now), max(0, q.closes.Sub(now))})
			}
		}
		if out.Closed > 0 || len(out.Quotas) > 0 {
			s.Groups = append(s.Groups, out)
		}
	}
	kept := make(map[string]bool, len(s.Groups))
	for i := range s.Groups {
		kept[s.Groups[i].Name] = true
	}
	for key, name := range g.paths {
		if kept[name] {
			if s.Paths == nil {
				s.Seed, s.Paths = g.seed, map[uint64]string{}
			}
			s.Paths[key] = name
		}
	}
	return s, len(s.Groups) > 0
}

// spans is the snapshot with other spans, where there are any.
func (s Snapshot) spans(change func(d, most time.Duration) time.Duration) Snapshot {
	span := func(d *time.Duration, most time.Duration) {
		if *d > 0 {
			*d = max(0, change(*d, most))
		}
	}
	s.Groups = slices.Clone(s.Groups)
	for i := range s.Groups {
		in := &s.Groups[i]
		span(&in.Closed, maxHold)
		in.Quotas = slices.Clone(in.Quotas)
		for j := range in.Quotas {
			span(&in.Quotas[j].Reset, longest)
			span(&in.Quotas[j].Closes, maxHold)
		}
	}
	return s
}

// Absolute is a snapshot of that moment with nanoseconds since 1970 in place of spans. They are whole seconds, so that a later snapshot of what has not
// changed says the same, although two readings of a clock are never quite as far apart as two of another.
func (s Snapshot) Absolute(taken time.Time) Snapshot {
	return s.spans(func(d, _ time.Duration) time.Duration {
		return time.Duration(state.WholeSecond(taken.Add(d)).UnixNano())
	})
}

// Relative takes Absolute back: it has spans from a later moment on, and nothing beyond reason. What is over by then is 0.
func (s Snapshot) Relative(now time.Time) Snapshot {
	since := time.Duration(now.UnixNano())
	return s.spans(func(d, most time.Duration) time.Duration { return min(d-since, most) })
}

// Holds tells for how long the snapshot closes something, and for how long it tells of a quota.
func (s Snapshot) Holds() (closed, known time.Duration) {
	for _, in := range s.Groups {
		closed = max(closed, min(in.Closed, maxHold))
		for _, q := range in.Quotas {
			closed, known = max(closed, min(q.Closes, maxHold)), max(known, min(q.Reset, longest))
		}
	}
	return closed, known
}

// known are the units that are believed.
var known = []string{Requests, Tokens, InputTokens, OutputTokens, Bytes, Concurrency, Cost}

// Restore adds a snapshot that was taken so long ago. What the gate knows already only grows stricter; what is beyond reason is clamped or left out,
// as it would be in an answer.
func (g *Gate) Restore(s Snapshot, age time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.begin()
	g.last = said{}
	if g.label == "" {
		g.label = label(s.Label)
	}
	if g.dialect == "" && slices.Contains(dialects, s.Dialect) {
		g.dialect = s.Dialect
	}
	for _, in := range s.Groups[:min(len(s.Groups), maxGroups)] {
		if len(in.Name) <= longestGroup {
			g.restore(in, max(0, age), now)
		}
	}
	if len(g.paths) == 0 && len(s.Paths) <= maxPaths {
		g.seed = s.Seed
		for key, name := range s.Paths {
			if in := g.groups[name]; in != nil {
				g.paths[key] = in.name
			}
		}
	}
	g.changed(now)
}

// longestGroup is the longest name of a group: several policies and their partitions make one.
const longestGroup = 8 << 10

// left is what is left of a span that began so long ago: 0 or less where it is over.
func left(span, most, age time.Duration) time.Duration {
	return min(max(span, 0), most) - age // far below 0 it would wrap
}

func (g *Gate) restore(s GroupSnapshot, age time.Duration, now time.Time) {
	closed := left(s.Closed, maxHold, age)
	var quotas []Learnt
	for _, q := range s.Quotas[:min(len(s.Quotas), maxQuotas)] {
		reset := left(q.Reset, longest, age)
		if reset <= 0 || q.Limit < -1 || q.Remaining < -1 || q.Window < 0 || q.Window > longest || !slices.Contains(known, q.Unit) {
			continue
		}
		n := Learnt{Group: s.Name, Name: label(q.Name), Unit: q.Unit, Limit: q.Limit, Remaining: q.Remaining, Window: q.Window, Reset: now.Add(reset), seen: now}
		if closes := left(q.Closes, maxHold, age); closes > 0 && n.Unit != Concurrency {
			n.closes = now.Add(closes)
		}
		quotas = append(quotas, n)
	}
	if closed <= 0 && len(quotas) == 0 {
		return
	}
	in := g.group(s.Name, now)
	if until := now.Add(closed); closed > 0 && until.After(in.closed) {
		in.closed, g.closes = until, true
	}
	for _, n := range quotas {
		g.closes = g.closes || !n.closes.IsZero()
		in.learn(&n, now)
	}
}

// Standing appends to out what still holds of the quotas that this request is counted against.
func (g *Gate) Standing(out []Learnt, r *http.Request, now time.Time) []Learnt {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.standing(out, r, now)
}

func (g *Gate) standing(out []Learnt, r *http.Request, now time.Time) []Learnt {
	all, in := g.all, g.of(r)
	out = all.standing(out, now)
	if in != all {
		out = in.standing(out, now)
	}
	return out
}

// standing appends what still holds of a group's quotas. in may be nil.
func (in *group) standing(out []Learnt, now time.Time) []Learnt {
	if in == nil {
		return out
	}
	for i := range in.quotas {
		if q := &in.quotas[i]; q.Remaining >= 0 && (q.Reset.IsZero() || q.Reset.After(now)) {
			out = append(out, *q)
		}
	}
	return out
}

// Scarce tells whether a request that is not needed had better not be sent: its gate is closed, or of a quota there is less left than a tenth, or than two.
func (g *Gate) Scarce(r *http.Request) bool {
	if g.Closed(r) > 0 {
		return true
	}
	return slices.ContainsFunc(g.Standing(nil, r, time.Now()), func(q Learnt) bool {
		return float64(q.Remaining) < max(2, math.Ceil(float64(q.Limit)/10))
	})
}

// hash is FNV-1a of a text, begun with a seed that is not known outside.
func hash(seed uint64, parts ...string) uint64 {
	h := seed ^ 14695981039346656037
	for _, s := range parts {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	return h
}
