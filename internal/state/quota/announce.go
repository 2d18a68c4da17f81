package quota

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"
)

// What a quota counts, as metrics name it.
const (
	Requests     = "requests"
	Tokens       = "tokens"
	InputTokens  = "input_tokens"
	OutputTokens = "output_tokens"
	Bytes        = "bytes"
	Concurrency  = "concurrency"
	Cost         = "cost"
)

// Quota is one quota as an answer announced it.
type Quota struct {
	Name      string // the upstream's own, where it has one
	Unit      string
	Limit     int64         // -1: not said
	Remaining int64         // -1: not said
	Window    time.Duration // 0: not said
	Reset     time.Duration // until there is more; only where Resets
	Resets    bool          // the answer says when
}

// Announcement is what an answer says about quotas.
type Announcement struct {
	Dialect string
	Group   string // requests that share these quotas, where the upstream names it; "": all with the same credential
	Global  bool   // although there is a Group, the refusal is meant for all requests
	Quotas  []Quota
}

// Read reads the rate-limit fields of an answer, in whichever dialect they are, or in the one that o names. ok is false where there are none
// that can be understood, or the answer comes from a store.
func Read(h http.Header, now time.Time, o Options) (a Announcement, ok bool) {
	if stored(h) {
		return a, false
	}
	f := FieldsOf(h)
	a.Quotas = read(&a, nil, h, &f, now, o)
	return a, len(a.Quotas) > 0
}

// read is Read for an answer that comes from no store. The quotas are appended to out.
func read(a *Announcement, out []Quota, h http.Header, f *Fields, now time.Time, o Options) []Quota {
	rest, auto := f.seen, o.Dialect == "" || o.Dialect == Auto
	if a.Dialect = o.Dialect; auto {
		var by seen
		if a.Dialect, by = rest.dialect(h); a.Dialect == "" {
			return out
		}
		rest &^= by
	} else if o.Reset == "" || o.Reset == Auto {
		o.Reset = usualReset(o.Dialect)
	}
	r := reader{h: h, fields: f, clock: newClock(h, now, o.Reset)}
	if out = r.read(a, out); auto && !tells(out) {
		out = r.others(a, out, rest)
	}
	return out
}

// tells tells whether quotas say what is left.
func tells(quotas []Quota) bool {
	return slices.ContainsFunc(quotas, func(q Quota) bool { return q.Remaining >= 0 })
}

// others reads the dialects of the fields that are left, behind one that told nothing of what is left: a malformed field is as good as none, and hides no
// other. Where none tells, the first that said anything holds.
func (r *reader) others(a *Announcement, out []Quota, rest seen) []Quota {
	for {
		dialect, by := rest.dialect(r.h)
		if dialect == "" {
			return out
		}
		rest &^= by
		other := Announcement{Dialect: dialect}
		switch quotas := r.read(&other, nil); {
		case tells(quotas):
			*a = other
			return quotas
		case len(out) == 0 && len(quotas) > 0:
			*a, out = other, quotas
		}
	}
}

// stored tells whether an answer comes from a cache: what it says was true once.
func stored(h http.Header) bool {
	return strings.Trim(first(h, "Age"), "0 ") != ""
}

// usualReset is how a dialect that was named writes a reset.
func usualReset(dialect string) string {
	switch dialect {
	case Anthropic:
		return Date
	case OpenAI:
		return Duration
	case GitHub, X, GitLab, Discord:
		return Epoch
	case IETF, IETFOld:
		return Seconds
	}
	return Auto
}

// reader appends what it finds to the slices that it is given.
type reader struct {
	h      http.Header
	fields *Fields
	clock  clock
}

func (r *reader) read(a *Announcement, out []Quota) []Quota {
	switch a.Dialect {
	case Anthropic:
		for i := range anthropicFields {
			d := &anthropicFields[i]
			out = r.triple(out, Quota{Name: d.unit, Unit: d.unit}, d.limit, d.remaining, d.reset)
		}
		return out
	case OpenAI:
		out = r.triple(out, Quota{Name: Requests, Unit: Requests}, "X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests")
		return r.triple(out, Quota{Name: Tokens, Unit: Tokens}, "X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens")
	case Shopify:
		return used(out, "", first(r.h, "X-Shopify-Shop-Api-Call-Limit"))
	case Gorgias:
		return used(out, "", first(r.h, "X-Gorgias-Account-Api-Call-Limit"))
	case HubSpot:
		return r.hubspot(out)
	case Salesforce:
		for part := range strings.SplitSeq(first(r.h, "Sforce-Limit-Info"), ";") {
			if name, value, ok := strings.Cut(part, "="); ok && len(out) < maxMembers {
				out = used(out, strings.Trim(name, " "), value)
			}
		}
		return out
	case Discord:
		a.Group, a.Global = label(first(r.h, "X-Ratelimit-Bucket")), first(r.h, "X-Ratelimit-Global") == "true"
		return r.discord(out, a.Group)
	case GitHub:
		a.Group = label(first(r.h, "X-Ratelimit-Resource"))
		return r.generic(out, a.Group)
	case X:
		return r.triple(out, Quota{Unit: Requests}, "X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset")
	case GitLab:
		a.Group = label(first(r.h, "Ratelimit-Name"))
		return r.triple(out, Quota{Name: a.Group, Unit: Requests}, "Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset")
	case Docker, IETFOld:
		return r.ietfOld(out)
	case IETF:
		return r.ietf(a, out)
	}
	return r.generic(out, "")
}

var anthropicFields = []struct{ unit, limit, remaining, reset string }{
	{Requests, "Anthropic-Ratelimit-Requests-Limit", "Anthropic-Ratelimit-Requests-Remaining", "Anthropic-Ratelimit-Requests-Reset"},
	{Tokens, "Anthropic-Ratelimit-Tokens-Limit", "Anthropic-Ratelimit-Tokens-Remaining", "Anthropic-Ratelimit-Tokens-Reset"},
	{InputTokens, "Anthropic-Ratelimit-Input-Tokens-Limit", "Anthropic-Ratelimit-Input-Tokens-Remaining", "Anthropic-Ratelimit-Input-Tokens-Reset"},
	{OutputTokens, "Anthropic-Ratelimit-Output-Tokens-Limit", "Anthropic-Ratelimit-Output-Tokens-Remaining", "Anthropic-Ratelimit-Output-Tokens-Reset"},
}

// generic reads X-RateLimit-*. Some say when the next call is allowed instead of when everything is restored.
func (r *reader) generic(out []Quota, name string) []Quota {
	f := r.fields
	reset := f.reset
	if len(reset) == 0 {
		reset = r.h["X-Ratelimit-Next"]
	}
	return r.scalars(out, Quota{Name: name, Unit: Requests}, f.limit, f.remaining, reset)
}

// triple reads three scalar fields by their names.
func (r *reader) triple(out []Quota, q Quota, limit, remaining, reset string) []Quota {
	return r.scalars(out, q, r.h[limit], r.h[remaining], r.h[reset])
}

// scalars reads three scalar fields. Of several lines the most restrictive counts.
func (r *reader) scalars(out []Quota, q Quota, limit, remaining, reset []string) []Quota {
	q.Limit, q.Remaining = least(limit), least(remaining)
	for _, v := range reset {
		if d, ok := r.clock.wait(v); ok {
			q.Reset, q.Resets = max(q.Reset, d), true
		}
	}
	return add(out, &q)
}

// add keeps what says something.
func add(out []Quota, q *Quota) []Quota {
	if q.Limit >= 0 || q.Remaining >= 0 {
		out = append(out, *q)
	}
	return out
}

func least(values []string) int64 {
	if len(values) == 1 {
		return count(values[0])
	}
	out := int64(-1)
	for _, v := range values {
		if n := count(v); n >= 0 && (out < 0 || n < out) {
			out = n
		}
	}
	return out
}

// used reads used/limit. More may be used than there is.
func used(out []Quota, name, value string) []Quota {
	spent, limit, _ := strings.Cut(value, "/")
	u, l := count(spent), count(limit)
	if u >= 0 && l >= 0 {
		out = add(out, &Quota{Name: label(name), Unit: Requests, Limit: l, Remaining: max(0, l-u)})
	}
	return out
}

func (r *reader) hubspot(out []Quota) []Quota {
	field := func(name string) int64 { return least(r.h["X-Hubspot-Ratelimit-"+name]) }
	out = add(out, &Quota{Name: "interval", Unit: Requests, Limit: field("Max"), Remaining: field("Remaining"),
		Window: span(float64(max(0, field("Interval-Milliseconds"))), time.Millisecond)})
	out = add(out, &Quota{Name: "daily", Unit: Requests, Limit: field("Daily"), Remaining: field("Daily-Remaining"), Window: 24 * time.Hour})
	return add(out, &Quota{Name: "secondly", Unit: Requests, Limit: field("Secondly"), Remaining: field("Secondly-Remaining"), Window: time.Second})
}

// discord prefers the relative reset: it needs no clock.
func (r *reader) discord(out []Quota, bucket string) []Quota {
	q := Quota{Name: bucket, Unit: Requests}
	if d, ok := delta(first(r.h, "X-Ratelimit-Reset-After"), time.Second); ok {
		q.Limit, q.Remaining, q.Reset, q.Resets = least(r.fields.limit), least(r.fields.remaining), d, true
		return add(out, &q)
	}
	return r.generic(out, bucket)
}

// ietfOld reads drafts 00 to 06, and Docker Hub's form: a value may carry windows, as in "100, 100;w=10".
func (r *reader) ietfOld(out []Quota) []Quota {
	limit, window := windowed(r.h["Ratelimit-Limit"])
	remaining, other := windowed(r.h["Ratelimit-Remaining"])
	q := Quota{Unit: Requests, Limit: limit, Remaining: remaining, Window: cmp.Or(window, other, r.windowFor(limit))}
	for _, v := range r.h["Ratelimit-Reset"] {
		if d, ok := r.clock.wait(v); ok {
			q.Reset, q.Resets = max(q.Reset, d), true
		}
	}
	return add(out, &q)
}

// windowed reads the first number of a list, and the first window.
func windowed(values []string) (n int64, window time.Duration) {
	n = -1
	for _, v := range values {
		for i, item := range members(v) {
			value := count(item.name)
			if i == 0 && value >= 0 && (n < 0 || value < n) {
				n = value
			}
			if w, ok := decimal(item.param("w")); ok && window == 0 {
				window = windowOf(w)
			}
		}
	}
	return n, window
}

// windowOf is a number of seconds, at most a year.
func windowOf(seconds float64) time.Duration { return span(seconds, time.Second) }

// windowFor is the window of that limit in a RateLimit-Policy of drafts 04 to 07, which begins its items with numbers: 10;w=1, 50;w=60.
func (r *reader) windowFor(limit int64) time.Duration {
	policies := members(strings.Join(r.h["Ratelimit-Policy"], ","))
	i := slices.IndexFunc(policies, func(p member) bool { return limit >= 0 && count(p.name) == limit })
	if i < 0 {
		return 0
	}
	w, _ := decimal(policies[i].param("w"))
	return windowOf(w)
}

func first(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// label keeps an upstream's name short and printable.
func label(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return ""
		}
	}
	return s
}
