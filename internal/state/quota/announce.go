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
	a.Dialect = o.Dialect
	if o.Dialect == "" || o.Dialect == Auto {
		a.Dialect = detect(h)
		if a.Dialect == "" {
			return a, false
		}
	} else if o.Reset == "" || o.Reset == Auto {
		o.Reset = usualReset(o.Dialect)
	}
	r := reader{h: h, clock: newClock(h, now, o.Reset)}
	r.read(&a)
	return a, len(a.Quotas) > 0
}

// stored tells whether an answer comes from a cache: what it says was true once.
func stored(h http.Header) bool {
	return strings.Trim(first(h, "Age"), "0 ") != ""
}

// Announces tells whether an answer has rate-limit fields of any dialect.
func Announces(h http.Header) bool { return detect(h) != "" || len(h["Ratelimit-Policy"]) > 0 }

// Speaks is a cheap look for any field that Read knows, whichever the dialect: all their names have a part in common that few others have.
func Speaks(h http.Header) bool {
	for name := range h {
		if strings.Contains(name, "imit") {
			return true
		}
	}
	return false
}

// detect recognises the dialect, the most specific first.
func detect(h http.Header) string {
	if !Speaks(h) {
		return ""
	}
	has := func(name string) bool { return len(h[name]) > 0 }
	x := has("X-Ratelimit-Remaining") || has("X-Ratelimit-Limit") || has("X-Ratelimit-Reset")
	ietfOld := has("Ratelimit-Remaining") || has("Ratelimit-Limit") || has("Ratelimit-Reset")
	switch {
	case has("Anthropic-Ratelimit-Requests-Remaining"), has("Anthropic-Ratelimit-Tokens-Remaining"),
		has("Anthropic-Ratelimit-Input-Tokens-Remaining"), has("Anthropic-Ratelimit-Output-Tokens-Remaining"):
		return Anthropic
	case has("X-Ratelimit-Remaining-Requests"), has("X-Ratelimit-Remaining-Tokens"), has("X-Ratelimit-Reset-Requests"), has("X-Ratelimit-Reset-Tokens"):
		return OpenAI
	case has("X-Shopify-Shop-Api-Call-Limit"):
		return Shopify
	case has("X-Gorgias-Account-Api-Call-Limit"):
		return Gorgias
	case has("X-Hubspot-Ratelimit-Remaining"), has("X-Hubspot-Ratelimit-Daily-Remaining"), has("X-Hubspot-Ratelimit-Secondly-Remaining"):
		return HubSpot
	case has("Sforce-Limit-Info"):
		return Salesforce
	case x && has("X-Ratelimit-Reset-After"), has("X-Ratelimit-Bucket"):
		return Discord
	case x && has("X-Ratelimit-Resource"):
		return GitHub
	case has("X-Rate-Limit-Remaining"), has("X-Rate-Limit-Limit"):
		return X
	case has("Ratelimit-Observed"), has("Ratelimit-Resettime"):
		return GitLab
	case strings.Contains(first(h, "Ratelimit-Remaining"), ";w="):
		return Docker
	case has("Ratelimit"):
		return IETF
	case ietfOld:
		return IETFOld
	case x:
		return Generic
	}
	return ""
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

type reader struct {
	h     http.Header
	clock clock
}

func (r reader) read(a *Announcement) {
	switch a.Dialect {
	case Anthropic:
		for _, d := range anthropicFields {
			r.triple(a, Quota{Name: d.unit, Unit: d.unit}, d.limit, d.remaining, d.reset)
		}
	case OpenAI:
		r.triple(a, Quota{Name: Requests, Unit: Requests}, "X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests")
		r.triple(a, Quota{Name: Tokens, Unit: Tokens}, "X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens")
	case Shopify:
		r.used(a, "", first(r.h, "X-Shopify-Shop-Api-Call-Limit"))
	case Gorgias:
		r.used(a, "", first(r.h, "X-Gorgias-Account-Api-Call-Limit"))
	case HubSpot:
		r.hubspot(a)
	case Salesforce:
		for part := range strings.SplitSeq(first(r.h, "Sforce-Limit-Info"), ";") {
			if name, value, ok := strings.Cut(part, "="); ok && len(a.Quotas) < maxMembers {
				r.used(a, strings.Trim(name, " "), value)
			}
		}
	case Discord:
		a.Group, a.Global = label(first(r.h, "X-Ratelimit-Bucket")), first(r.h, "X-Ratelimit-Global") == "true"
		r.discord(a)
	case GitHub:
		a.Group = label(first(r.h, "X-Ratelimit-Resource"))
		r.generic(a, a.Group)
	case X:
		r.triple(a, Quota{Unit: Requests}, "X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset")
	case GitLab:
		a.Group = label(first(r.h, "Ratelimit-Name"))
		r.triple(a, Quota{Name: a.Group, Unit: Requests}, "Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset")
	case Docker, IETFOld:
		r.ietfOld(a)
	case IETF:
		r.ietf(a)
	default:
		r.generic(a, "")
	}
}

var anthropicFields = []struct{ unit, limit, remaining, reset string }{
	{Requests, "Anthropic-Ratelimit-Requests-Limit", "Anthropic-Ratelimit-Requests-Remaining", "Anthropic-Ratelimit-Requests-Reset"},
	{Tokens, "Anthropic-Ratelimit-Tokens-Limit", "Anthropic-Ratelimit-Tokens-Remaining", "Anthropic-Ratelimit-Tokens-Reset"},
	{InputTokens, "Anthropic-Ratelimit-Input-Tokens-Limit", "Anthropic-Ratelimit-Input-Tokens-Remaining", "Anthropic-Ratelimit-Input-Tokens-Reset"},
	{OutputTokens, "Anthropic-Ratelimit-Output-Tokens-Limit", "Anthropic-Ratelimit-Output-Tokens-Remaining", "Anthropic-Ratelimit-Output-Tokens-Reset"},
}

// generic reads X-RateLimit-*. Some say when the next call is allowed instead of when everything is restored.
func (r reader) generic(a *Announcement, name string) {
	reset := "X-Ratelimit-Reset"
	if len(r.h[reset]) == 0 {
		reset = "X-Ratelimit-Next"
	}
	r.triple(a, Quota{Name: name, Unit: Requests}, "X-Ratelimit-Limit", "X-Ratelimit-Remaining", reset)
}

// triple reads three scalar fields. Of several lines the most restrictive counts.
func (r reader) triple(a *Announcement, q Quota, limit, remaining, reset string) {
	q.Limit, q.Remaining = least(r.h[limit]), least(r.h[remaining])
	for _, v := range r.h[reset] {
		if d, ok := r.clock.wait(v); ok {
			q.Reset, q.Resets = max(q.Reset, d), true
		}
	}
	r.add(a, q)
}

// add keeps what says something.
func (r reader) add(a *Announcement, q Quota) {
	if q.Limit >= 0 || q.Remaining >= 0 {
		a.Quotas = append(a.Quotas, q)
	}
}

func least(values []string) int64 {
	out := int64(-1)
	for _, v := range values {
		if n := count(v); n >= 0 && (out < 0 || n < out) {
			out = n
		}
	}
	return out
}

// used reads used/limit. More may be used than there is.
func (r reader) used(a *Announcement, name, value string) {
	used, limit, _ := strings.Cut(value, "/")
	u, l := count(used), count(limit)
	if u >= 0 && l >= 0 {
		r.add(a, Quota{Name: label(name), Unit: Requests, Limit: l, Remaining: max(0, l-u)})
	}
}

func (r reader) hubspot(a *Announcement) {
	field := func(name string) int64 { return least(r.h["X-Hubspot-Ratelimit-"+name]) }
	r.add(a, Quota{Name: "interval", Unit: Requests, Limit: field("Max"), Remaining: field("Remaining"),
		Window: span(float64(max(0, field("Interval-Milliseconds"))), time.Millisecond)})
	r.add(a, Quota{Name: "daily", Unit: Requests, Limit: field("Daily"), Remaining: field("Daily-Remaining"), Window: 24 * time.Hour})
	r.add(a, Quota{Name: "secondly", Unit: Requests, Limit: field("Secondly"), Remaining: field("Secondly-Remaining"), Window: time.Second})
}

// discord prefers the relative reset: it needs no clock.
func (r reader) discord(a *Announcement) {
	q := Quota{Name: a.Group, Unit: Requests}
	if d, ok := delta(first(r.h, "X-Ratelimit-Reset-After"), time.Second); ok {
		q.Limit, q.Remaining, q.Reset, q.Resets = least(r.h["X-Ratelimit-Limit"]), least(r.h["X-Ratelimit-Remaining"]), d, true
		r.add(a, q)
		return
	}
	r.generic(a, a.Group)
}

// ietfOld reads drafts 00 to 06, and Docker Hub's form: a value may carry windows, as in "100, 100;w=10".
func (r reader) ietfOld(a *Announcement) {
	limit, window := windowed(r.h["Ratelimit-Limit"])
	remaining, other := windowed(r.h["Ratelimit-Remaining"])
	q := Quota{Unit: Requests, Limit: limit, Remaining: remaining, Window: cmp.Or(window, other, r.windowFor(limit))}
	for _, v := range r.h["Ratelimit-Reset"] {
		if d, ok := r.clock.wait(v); ok {
			q.Reset, q.Resets = max(q.Reset, d), true
		}
	}
	r.add(a, q)
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
func (r reader) windowFor(limit int64) time.Duration {
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
