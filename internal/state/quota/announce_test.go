package quota

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

// fields reads "Name: value" lines.
func fields(lines ...string) http.Header {
	h := http.Header{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ":")
		h.Add(name, strings.TrimPrefix(value, " "))
	}
	return h
}

func TestRead(t *testing.T) {
	s := time.Second
	request := func(limit, remaining int64, reset time.Duration) Quota {
		return Quota{Unit: Requests, Limit: limit, Remaining: remaining, Reset: reset, Resets: reset >= 0}
	}
	never := func(q Quota) Quota { q.Reset, q.Resets = 0, false; return q }
	named := func(name string, q Quota) Quota { q.Name = name; return q }
	unit := func(unit string, q Quota) Quota { q.Name, q.Unit = unit, unit; return q }
	window := func(w time.Duration, q Quota) Quota { q.Window = w; return q }
	for name, c := range map[string]struct {
		h       http.Header
		dialect string
		group   string
		want    []Quota
	}{
		"github": {fields("x-ratelimit-limit: 60", "x-ratelimit-remaining: 42", "x-ratelimit-reset: 1768482000", "x-ratelimit-resource: core"),
			GitHub, "core", []Quota{named("core", request(60, 42, time.Hour))}},
		"x": {fields("x-rate-limit-limit: 900", "x-rate-limit-remaining: 847", "x-rate-limit-reset: 1768479300"),
			X, "", []Quota{request(900, 847, 900*s)}},
		"generic, to go": {fields("X-RATELIMIT-LIMIT: 10", "x-RateLimit-Remaining: 5", "x-ratelimit-reset: 60"),
			Generic, "", []Quota{request(10, 5, 60*s)}},
		"generic, milliseconds since 1970": {fields("X-RateLimit-Remaining: 5", "X-RateLimit-Reset: 1768478460123"),
			Generic, "", []Quota{request(-1, 5, 60123*time.Millisecond)}},
		"discord prefers the relative": {fields("X-RateLimit-Limit: 5", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1768478401.250",
			"X-RateLimit-Reset-After: 0.850", "X-RateLimit-Bucket: abcd1234"), Discord, "abcd1234", []Quota{named("abcd1234", request(5, 0, 850*time.Millisecond))}},
		"openai": {fields("x-ratelimit-limit-requests: 60", "x-ratelimit-remaining-requests: 59", "x-ratelimit-reset-requests: 1s",
			"x-ratelimit-limit-tokens: 150000", "x-ratelimit-remaining-tokens: 149984", "x-ratelimit-reset-tokens: 6m0s"),
			OpenAI, "", []Quota{unit(Requests, request(60, 59, s)), unit(Tokens, request(150000, 149984, 360*s))}},
		"openai, parts of a second": {fields("x-ratelimit-remaining-requests: 1", "x-ratelimit-reset-requests: 12ms",
			"x-ratelimit-remaining-tokens: 1", "x-ratelimit-reset-tokens: 2m59.56s"),
			OpenAI, "", []Quota{unit(Requests, request(-1, 1, 12*time.Millisecond)), unit(Tokens, request(-1, 1, 179560*time.Millisecond))}},
		"openai, days": {fields("x-ratelimit-remaining-tokens: 1", "x-ratelimit-reset-tokens: 1d2h"),
			OpenAI, "", []Quota{unit(Tokens, request(-1, 1, 26*time.Hour))}},
		"anthropic, in the past": {fields("anthropic-ratelimit-requests-limit: 1000", "anthropic-ratelimit-requests-remaining: 999",
			"anthropic-ratelimit-requests-reset: 2026-01-15T11:59:59Z"), Anthropic, "", []Quota{unit(Requests, request(1000, 999, 0))}},
		"anthropic, input tokens": {fields("anthropic-ratelimit-requests-remaining: 900", "anthropic-ratelimit-input-tokens-remaining: 0",
			"anthropic-ratelimit-input-tokens-reset: 2026-01-15T12:00:30Z"),
			Anthropic, "", []Quota{never(unit(Requests, request(-1, 900, 0))), unit(InputTokens, request(-1, 0, 30*s))}},
		"shopify counts what is used": {fields("X-Shopify-Shop-Api-Call-Limit: 32/40"), Shopify, "", []Quota{never(request(40, 8, 0))}},
		"shopify, more than all":      {fields("X-Shopify-Shop-Api-Call-Limit: 41/40"), Shopify, "", []Quota{never(request(40, 0, 0))}},
		"draft 10": {fields(`RateLimit: "default";r=50;t=30`, `RateLimit-Policy: "default";q=100;w=60`),
			IETF, "default", []Quota{named("default", window(time.Minute, request(100, 50, 30*s)))}},
		"draft 10, two policies": {fields(`RateLimit: "permin";r=20;t=23, "perhr";r=399;t=2402`),
			IETF, "permin,perhr", []Quota{named("permin", request(-1, 20, 23*s)), named("perhr", request(-1, 399, 2402*s))}},
		"draft 10, two lines": {fields(`RateLimit: "permin";r=20;t=23`, `RateLimit: "perhr";r=399;t=2402`),
			IETF, "permin,perhr", []Quota{named("permin", request(-1, 20, 23*s)), named("perhr", request(-1, 399, 2402*s))}},
		"draft 10, no reset": {fields(`RateLimit: "default";r=999;pk=:dHJpYWwxMjEzMjM=:`), IETF, "default;pk=trial121323", []Quota{named("default", never(request(-1, 999, 0)))}},
		"draft 10, bytes": {fields(`RateLimit: "peruser";r=0;t=9`, `RateLimit-Policy: "peruser";q=65535;qu="content-bytes";w=10`),
			IETF, "peruser", []Quota{{Name: "peruser", Unit: Bytes, Limit: 65535, Remaining: 0, Window: 10 * s, Reset: 9 * s, Resets: true}}},
		"draft 10, separators in a name": {fields(`RateLimit: "a;r=0,b";r=7;t=1`), IETF, "a;r=0,b", []Quota{named("a;r=0,b", request(-1, 7, s))}},
		"draft 10, one item malformed":   {fields(`RateLimit: "a";t=1, "b";r=x, "c";r=3`), IETF, "c", []Quota{named("c", never(request(-1, 3, 0)))}},
		"tokens instead of strings": {fields("RateLimit: default;r=50;t=5", "RateLimit-Policy: default;l=100;w=10"),
			IETF, "default", []Quota{named("default", window(10*s, request(100, 50, 5*s)))}},
		"draft 07":        {fields("RateLimit: limit=100, remaining=50, reset=30"), IETF, "", []Quota{request(100, 50, 30*s)}},
		"drafts 00 to 03": {fields("RateLimit-Limit: 100, 100;w=10", "RateLimit-Remaining: 50", "RateLimit-Reset: 50"), IETFOld, "", []Quota{window(10*s, request(100, 50, 50*s))}},
		"gitlab": {fields("RateLimit-Limit: 60", "RateLimit-Observed: 67", "RateLimit-Remaining: 0", "RateLimit-Reset: 1768478460",
			"RateLimit-ResetTime: Thu, 15 Jan 2026 12:01:00 GMT"), GitLab, "", []Quota{request(60, 0, 60*s)}},
		"docker":                    {fields("ratelimit-limit: 100;w=3600", "ratelimit-remaining: 20;w=3600"), Docker, "", []Quota{never(window(time.Hour, request(100, 20, 0)))}},
		"a date without seconds":    {fields("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 2026-01-15T12:02Z"), Generic, "", []Quota{request(-1, 0, 120*s)}},
		"a date nobody can read":    {fields("X-RateLimit-Remaining: 3", "X-RateLimit-Reset: Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)"), Generic, "", []Quota{never(request(-1, 3, 0))}},
		"more digits than a number": {fields("X-RateLimit-Remaining: 3", "x-ratelimit-reset: 99999999999999999999"), Generic, "", []Quota{never(request(-1, 3, 0))}},
		"hubspot": {fields("X-HubSpot-RateLimit-Max: 100", "X-HubSpot-RateLimit-Remaining: 95", "X-HubSpot-RateLimit-Interval-Milliseconds: 10000",
			"X-HubSpot-RateLimit-Daily: 250000", "X-HubSpot-RateLimit-Daily-Remaining: 249850"),
			HubSpot, "", []Quota{never(named("interval", window(10*s, request(100, 95, 0)))), never(named("daily", window(24*time.Hour, request(250000, 249850, 0))))}},
		"salesforce": {fields("Sforce-Limit-Info: api-usage=10018/100000; api-bursts=1/750"),
			Salesforce, "", []Quota{never(named("api-usage", request(100000, 89982, 0))), never(named("api-bursts", request(750, 749, 0)))}},
		"a fraction":          {fields("x-ratelimit-remaining: 594.0"), Generic, "", []Quota{never(request(-1, 594, 0))}},
		"several lines":       {fields("x-ratelimit-remaining: 5", "x-ratelimit-remaining: 3", "x-ratelimit-reset: 10", "x-ratelimit-reset: 20"), Generic, "", []Quota{request(-1, 3, 20*s)}},
		"another clock":       {fields("Date: Thu, 15 Jan 2026 11:30:00 GMT", "x-ratelimit-remaining: 0", "x-ratelimit-reset: 1768476660"), Generic, "", []Quota{request(-1, 0, 60*s)}},
		"a clock out of mind": {fields("Date: Thu, 15 Jan 1970 11:30:00 GMT", "x-ratelimit-remaining: 0", "x-ratelimit-reset: 1768478460"), Generic, "", []Quota{request(-1, 0, 60*s)}},
	} {
		a, ok := Read(c.h, noon, Options{})
		if !ok || a.Dialect != c.dialect || a.Group != c.group || !reflect.DeepEqual(a.Quotas, c.want) {
			t.Errorf("%s:\n got %v %+v\nwant %s %q %+v", name, ok, a, c.dialect, c.group, c.want)
		}
	}
}

func TestNothingToRead(t *testing.T) {
	for name, h := range map[string]http.Header{
		"no field":            fields("Content-Type: text/plain"),
		"shopify, no number":  fields("X-Shopify-Shop-Api-Call-Limit: x/40"),
		"shopify, a slash":    fields("X-Shopify-Shop-Api-Call-Limit: /"),
		"shopify, empty":      fields("X-Shopify-Shop-Api-Call-Limit:"),
		"only a reset":        fields("X-RateLimit-Reset: 60"),
		"negative":            fields("X-RateLimit-Remaining: -1"),
		"not a number":        fields("X-RateLimit-Remaining: NaN"),
		"an infinite number":  fields("X-RateLimit-Remaining: Inf"),
		"with an exponent":    fields("X-RateLimit-Remaining: 1e9"),
		"with an underscore":  fields("X-RateLimit-Remaining: 1_000"),
		"malformed structure": fields(`RateLimit: ";;;,,,"`),
		"from a store":        fields("Age: 30", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60"),
	} {
		if a, ok := Read(h, noon, Options{}); ok {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestExplicitOptions(t *testing.T) {
	for name, c := range map[string]struct {
		h    http.Header
		o    Options
		want time.Duration
	}{
		"milliseconds":       {fields("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1500"), Options{Reset: Milliseconds}, 1500 * time.Millisecond},
		"small epoch":        {fields("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60"), Options{Dialect: GitHub}, 0},
		"large delta":        {fields("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 2000000000"), Options{Reset: Seconds}, longest},
		"a named dialect":    {fields("RateLimit-Remaining: 0", "RateLimit-Reset: 1768478460"), Options{Dialect: GitLab}, time.Minute},
		"its reset is other": {fields("RateLimit-Remaining: 0", "RateLimit-Reset: 1768478460"), Options{Dialect: GitLab, Reset: Seconds}, longest},
	} {
		a, ok := Read(c.h, noon, c.o)
		if !ok || a.Quotas[0].Reset != c.want {
			t.Errorf("%s: %v %+v; want %v", name, ok, a, c.want)
		}
	}
	if a, ok := Read(fields("X-RateLimit-Remaining: 0"), noon, Options{Dialect: Anthropic}); ok {
		t.Errorf("another dialect than the named one was read: %+v", a)
	}
}

// FuzzRead: whatever an upstream sends, what is read can be reckoned with, and closes a gate for no longer than an hour.
func FuzzRead(f *testing.F) {
	for i, s := range []string{"50", "1e400", "-1", "1768478460.5", "6m0s", "1d2h", `"a";r=5;t=1`, "limit=1, remaining=0, reset=9", "32/40", "a=1/2; b=3/4",
		"2026-01-15T12:02Z", "100, 100;w=10", `"\";r=1`, "99999999999999999999", ";w=1", "\x00", "253402300800", "Fri, 31 Dec 9999 23:59:59 GMT",
		"NaN", "999999999999999999", `"a";r=0;t=999999999999999999;pk=:AA==:`} {
		f.Add(s, s, uint8(i))
		f.Add("0", s, uint8(i))
	}
	f.Fuzz(func(t *testing.T, a, b string, pick uint8) {
		names := []string{"X-Ratelimit-Remaining", "X-Ratelimit-Reset", "Ratelimit", "Ratelimit-Policy", "Ratelimit-Remaining", "Ratelimit-Reset", "Ratelimit-Limit",
			"X-Shopify-Shop-Api-Call-Limit", "Sforce-Limit-Info", "Anthropic-Ratelimit-Tokens-Remaining", "Anthropic-Ratelimit-Tokens-Reset",
			"X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens", "X-Ratelimit-Bucket", "X-Ratelimit-Reset-After", "Date"}
		h := http.Header{names[int(pick)%len(names)]: {a, b}}
		h[names[int(pick+1)%len(names)]] = []string{b}
		o := Options{Dialect: dialects[int(pick)%len(dialects)], Reset: resets[int(pick)%len(resets)]}
		got, _ := Read(h, noon, o)
		for _, q := range got.Quotas {
			if q.Limit < -1 || q.Remaining < -1 || q.Reset < 0 || q.Reset > longest || q.Window < 0 || q.Window > longest || len(q.Name) > 64 {
				t.Fatalf("%v: %+v", h, q)
			}
		}
		h["Retry-After"] = []string{a, b}
		if wait, _ := RetryAfter(h, noon, "s"); wait < 0 || wait > longest {
			t.Fatalf("Retry-After %q, %q: %v", a, b, wait)
		}
		var g Gate
		for _, status := range []int{200, 429, 403} {
			g.hear(get("/"), &http.Response{StatusCode: status, Header: h}, o)
		}
		if d := g.Closed(get("/")); d < 0 || d > maxHold {
			t.Fatalf("%v closes the gate for %v", h, d)
		}
	})
}

func BenchmarkReadNothing(b *testing.B) {
	h := fields("Content-Type: application/json", "Date: Thu, 15 Jan 2026 12:00:00 GMT", "Content-Length: 5", "Server: x", "Vary: Accept")
	b.ReportAllocs()
	for b.Loop() {
		Read(h, noon, Options{})
	}
}
