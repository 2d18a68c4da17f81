package quota

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// noWait stands for an answer that asks for none, or for nothing that can be understood.
const noWait = time.Duration(-1)

// testCase is one answer of the collection of dialects in the wild, received at noon.
type testCase struct {
	id     string
	status int
	lines  []string
	o      Options
	wait   time.Duration // that RetryAfter reads
	read   string        // what Read says, as describe writes it; "": nothing
	closed time.Duration // how long the gate is closed for the same path afterwards
}

// describe is an announcement in short: dialect, group, and for each quota its name, unit, what is left of what, window and reset.
func describe(a Announcement) string {
	out := []string{a.Dialect + "/" + strings.ReplaceAll(a.Group, ";pk=", " of ")}
	for _, q := range a.Quotas {
		item := fmt.Sprintf("%s %s %d/%d", q.Name, q.Unit, q.Remaining, q.Limit)
		if q.Window > 0 {
			item += " per " + q.Window.String()
		}
		if q.Resets {
			item += " in " + q.Reset.String()
		}
		out = append(out, strings.TrimPrefix(item, " "))
	}
	return strings.Join(out, "; ")
}

func TestCases(t *testing.T) {
	s, ms := time.Second, time.Millisecond
	atNoon := "Date: Thu, 15 Jan 2026 12:00:00 GMT"
	for _, cases := range [][]testCase{retryAfterCases(s, ms, atNoon), stateCases(s, ms)} {
		for _, c := range cases {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(noon))
				h := fields(c.lines...)
				wait, ok := RetryAfter(h, noon, c.o.Unit)
				if !ok {
					wait = noWait
				}
				if wait != c.wait {
					t.Errorf("%s: RetryAfter %v; want %v", c.id, wait, c.wait)
				}
				read := ""
				if a, ok := Read(h, noon, c.o); ok {
					read = describe(a)
				}
				if read != c.read {
					t.Errorf("%s: read %q; want %q", c.id, read, c.read)
				}
				var g Gate
				if got, want := g.hear(get("/v1"), &http.Response{StatusCode: c.status, Header: h}, c.o), c.read != ""; got != want {
					t.Errorf("%s: learnt an announcement: %v; want %v", c.id, got, want)
				}
				if d := g.Closed(get("/v1")); d != c.closed {
					t.Errorf("%s: closed for %v; want %v", c.id, d, c.closed)
				}
				time.Sleep(c.closed)
				if d := g.Closed(get("/v1")); d != 0 {
					t.Errorf("%s: closed for another %v", c.id, d)
				}
			})
		}
	}
}

func retryAfterCases(s, ms time.Duration, atNoon string) []testCase {
	var out []testCase
	add := func(id string, status int, wait, closed time.Duration, lines ...string) {
		out = append(out, testCase{id: id, status: status, lines: lines, wait: wait, closed: closed})
	}
	add("RA-01 seconds", 429, 120*s, 120*s, "Retry-After: 120")
	add("RA-02 none", 429, 0, 0, "Retry-After: 0")
	add("RA-03 negative", 429, noWait, 0, "Retry-After: -5")
	add("RA-04 shopify", 429, 2*s, 2*s, "Retry-After: 2.0")
	add("RA-05 half", 429, 500*ms, 500*ms, "Retry-After: 0.5")
	add("RA-06 date", 503, 120*s, 0, "Retry-After: Thu, 15 Jan 2026 12:02:00 GMT")
	add("RA-07 RFC 850", 503, 120*s, 0, "Retry-After: Thursday, 15-Jan-26 12:02:00 GMT")
	add("RA-08 asctime", 503, 120*s, 0, "Retry-After: Thu Jan 15 12:02:00 2026")
	add("RA-09 past", 503, 0, 0, "Retry-After: Thu, 15 Jan 2026 11:59:00 GMT")
	add("RA-10 other clock", 429, 120*s, 120*s, "Date: Thu, 15 Jan 2026 11:58:00 GMT", "Retry-After: Thu, 15 Jan 2026 12:00:00 GMT")
	for _, v := range []string{"soon", "", "NaN", "Inf", "1e400", "1_000", "0x10", "+5", "5s", "1.2.3"} {
		add("RA-11 "+v, 429, noWait, 0, "Retry-After: "+v)
	}
	add("RA-12 a day", 429, 24*time.Hour, time.Hour, "Retry-After: 86400")
	add("RA-13 finer", 429, 1500*ms, 1500*ms, "retry-after-ms: 1500", "Retry-After: 2")
	add("RA-14 aws", 503, 1500*ms, 0, "x-amz-retry-after: 1500")
	add("RA-14 azure", 429, 1500*ms, 1500*ms, "x-ms-retry-after-ms: 1500")
	add("RA-14 mailerlite", 429, 15*s, 15*s, "X-RateLimit-Retry-After: 15")
	add("RA-15 two lines", 429, 10*s, 10*s, "Retry-After: 5", "Retry-After: 10")
	add("RA-16 no refusal", 200, 30*s, 0, "Retry-After: 30")
	add("RA-17 redirect", 301, 30*s, 0, "Retry-After: 30")
	add("RA-18 milliseconds", 429, 6457*ms, 6457*ms, "Retry-After: 6457")
	out[len(out)-1].o.Unit = "ms"
	add("RA-19 wins", 429, 5*s, 5*s, "Retry-After: 5", `RateLimit: "d";r=0;t=60`)
	out[len(out)-1].read = "ietf/d; d requests 0/-1 in 1m0s"
	add("RA-21 UTC", 429, 120*s, 120*s, "Retry-After: Thu, 15 Jan 2026 12:02:00 UTC")
	add("year 9999", 429, longest, time.Hour, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT")
	add("year 9999 on both sides", 429, 59*s, 59*s, "Date: Fri, 31 Dec 9999 23:59:00 GMT", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT")
	add("18 digits", 429, longest, time.Hour, "Retry-After: 999999999999999999")
	add("19 digits", 429, longest, time.Hour, "Retry-After: 9999999999999999999")
	add("date and Date", 429, 0, 0, atNoon, "Retry-After: Thu, 15 Jan 2026 12:00:00 GMT")
	return out
}

func stateCases(s, ms time.Duration) []testCase {
	var out []testCase
	status := 200
	add := func(id, read string, closed time.Duration, lines ...string) {
		wait := noWait
		for _, l := range lines {
			if n, ok := strings.CutPrefix(strings.ToLower(l), "retry-after: "); ok {
				wait, _ = time.ParseDuration(n + "s")
			}
		}
		out = append(out, testCase{id: id, status: status, lines: lines, wait: wait, read: read, closed: closed})
	}
	add("RL-01 github", "github/core; core requests 42/60 in 1h0m0s", 0,
		"x-ratelimit-limit: 60", "x-ratelimit-remaining: 42", "x-ratelimit-reset: 1768482000", "x-ratelimit-resource: core")
	status = 403
	add("RL-02 403 used up", "generic/; requests 0/-1 in 1m0s", 60*s, "x-ratelimit-remaining: 0", "x-ratelimit-reset: 1768478460")
	add("RL-03 plain 403", "", 0)
	add("RL-04 github secondary", "", 60*s, "retry-after: 60")
	add("RL-04 with what is left", "github/core; core requests 4999/5000 in 1h0m0s", 60*s, "retry-after: 60",
		"x-ratelimit-limit: 5000", "x-ratelimit-remaining: 4999", "x-ratelimit-reset: 1768482000", "x-ratelimit-resource: core")
	status = 200
	add("RL-05 x", "x/; requests 847/900 in 15m0s", 0, "x-rate-limit-limit: 900", "x-rate-limit-remaining: 847", "x-rate-limit-reset: 1768479300")
	add("RL-06 generic", "generic/; requests 5/10 in 1m0s", 0, "x-ratelimit-limit: 10", "x-ratelimit-remaining: 5", "x-ratelimit-reset: 60")
	add("RL-07 epoch ms", "generic/; requests 0/-1 in 1m0.123s", 60123*ms, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 1768478460123")
	add("RL-08 discord", "discord/abcd1234; abcd1234 requests 0/5 in 850ms", 850*ms, "X-RateLimit-Limit: 5", "X-RateLimit-Remaining: 0",
		"X-RateLimit-Reset: 1768478401.250", "X-RateLimit-Reset-After: 0.850", "X-RateLimit-Bucket: abcd1234")
	status = 429
	add("RL-09 discord global", "", 2*s, "X-RateLimit-Global: true", "Retry-After: 2")
	status = 200
	add("RL-10 openai", "openai/; requests requests 59/60 in 1s; tokens tokens 149984/150000 in 6m0s", 0,
		"x-ratelimit-limit-requests: 60", "x-ratelimit-remaining-requests: 59", "x-ratelimit-reset-requests: 1s",
		"x-ratelimit-limit-tokens: 150000", "x-ratelimit-remaining-tokens: 149984", "x-ratelimit-reset-tokens: 6m0s")
	add("RL-11 milliseconds", "openai/; requests requests 0/-1 in 12ms", 12*ms, "x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 12ms")
	for value, want := range map[string]time.Duration{
		"2m59.56s": 179560 * ms, "1m30.951s": 90951 * ms, "7.66s": 7660 * ms, "1d2h": 26 * time.Hour, "1d": 24 * time.Hour,
	} {
		add("RL-12, 13 "+value, "openai/; tokens tokens 0/-1 in "+want.String(), min(want, maxHold),
			"x-ratelimit-remaining-tokens: 0", "x-ratelimit-reset-tokens: "+value)
	}
	add("RL-14 past", "anthropic/; requests requests 999/1000 in 0s", 0, "anthropic-ratelimit-requests-limit: 1000",
		"anthropic-ratelimit-requests-remaining: 999", "anthropic-ratelimit-requests-reset: 2026-01-15T11:59:59Z")
	add("RL-14 past and used up", "anthropic/; requests requests 0/1000 in 0s", 0, "anthropic-ratelimit-requests-limit: 1000",
		"anthropic-ratelimit-requests-remaining: 0", "anthropic-ratelimit-requests-reset: 2026-01-15T11:59:59Z")
	add("RL-15 tightest", "anthropic/; requests requests 900/-1; input_tokens input_tokens 0/-1 in 30s; output_tokens output_tokens 5/-1", 30*s,
		"anthropic-ratelimit-input-tokens-remaining: 0", "anthropic-ratelimit-input-tokens-reset: 2026-01-15T12:00:30Z",
		"anthropic-ratelimit-requests-remaining: 900", "anthropic-ratelimit-output-tokens-remaining: 5")
	status = 529
	add("RL-16 overloaded", "", 0, "retry-after: 5")
	status = 200
	add("RL-17 shopify", "shopify/; requests 8/40", 0, "X-Shopify-Shop-Api-Call-Limit: 32/40")
	add("RL-17 gorgias", "gorgias/; requests 30/40", 0, "X-Gorgias-Account-Api-Call-Limit: 10/40")
	add("RL-18 shopify, all used", "shopify/; requests 0/40", 0, "X-Shopify-Shop-Api-Call-Limit: 40/40")
	add("RL-19 more than all", "shopify/; requests 0/40", 0, "X-Shopify-Shop-Api-Call-Limit: 41/40")
	for _, v := range []string{"x/40", "/", "", "40", "-1/40", "NaN/40"} {
		add("RL-19 "+v, "", 0, "X-Shopify-Shop-Api-Call-Limit: "+v)
	}
	add("RL-20 draft 10", "ietf/default; default requests 50/100 per 1m0s in 30s", 0, `RateLimit: "default";r=50;t=30`, `RateLimit-Policy: "default";q=100;w=60`)
	two := "ietf/permin,perhr; permin requests 20/-1 in 23s; perhr requests 399/-1 in 40m2s"
	add("RL-21 two policies", two, 0, `RateLimit: "permin";r=20;t=23, "perhr";r=399;t=2402`)
	add("RL-22 two lines", two, 0, `RateLimit: "permin";r=20;t=23`, `RateLimit: "perhr";r=399;t=2402`)
	add("RL-23 partition", "ietf/default of trial121323; default requests 999/-1", 0, `RateLimit: "default";r=999;pk=:dHJpYWwxMjEzMjM=:`)
	add("RL-24 policy alone", "", 0, `RateLimit-Policy: "peruser";q=65535;qu="content-bytes";w=10`)
	add("RL-24 bytes", "ietf/peruser; peruser bytes 0/65535 per 10s in 9s", 9*s,
		`RateLimit: "peruser";r=0;t=9`, `RateLimit-Policy: "peruser";q=65535;qu="content-bytes";w=10`)
	add("RL-24 places", "ietf/peruser; peruser concurrency 0/5 in 9s", 0,
		`RateLimit: "peruser";r=0;t=9`, `RateLimit-Policy: "peruser";q=5;qu="concurrent-requests"`)
	add("RL-24 unknown unit", "ietf/points; points cost 7/50 in 9s", 0, `RateLimit: "points";r=7;t=9`, `RateLimit-Policy: "points";q=50;qu="query-points"`)
	add("RL-25 tokens", "ietf/default; default requests 50/100 per 10s in 5s", 0, "RateLimit: default;r=50;t=5", "RateLimit-Policy: default;l=100;w=10")
	add("RL-26 draft 07", "ietf/; requests 50/100 per 1m0s in 30s", 0, "RateLimit: limit=100, remaining=50, reset=30", "RateLimit-Policy: 100;w=60")
	add("RL-27 old draft", "ietf-old/; requests 50/100 per 10s in 50s", 0, "RateLimit-Limit: 100, 100;w=10", "RateLimit-Remaining: 50", "RateLimit-Reset: 50")
	add("RL-27 drafts 04 to 06", "ietf-old/; requests 0/50 per 1m0s in 50s", 50*s, "RateLimit-Limit: 50", "RateLimit-Policy: 10;w=1, 50;w=60",
		"RateLimit-Remaining: 0", "RateLimit-Reset: 50")
	add("RL-28 gitlab", "gitlab/; requests 0/60 in 1m0s", 60*s, "RateLimit-Limit: 60", "RateLimit-Observed: 67", "RateLimit-Remaining: 0",
		"RateLimit-Reset: 1768478460", "RateLimit-ResetTime: Thu, 15 Jan 2026 12:01:00 GMT")
	add("RL-29 docker", "docker/; requests 20/100 per 1h0m0s", 0, "ratelimit-limit: 100;w=3600", "ratelimit-remaining: 20;w=3600")
	status = 429
	add("RL-30 jira", "generic/; requests 0/-1 in 2m0s", 120*s, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 2026-01-15T12:02Z", "Retry-After: 120")
	status = 200
	add("RL-31 hubspot", "hubspot/; interval requests 95/100 per 10s; daily requests 249850/250000 per 24h0m0s", 0, "X-HubSpot-RateLimit-Max: 100",
		"X-HubSpot-RateLimit-Remaining: 95", "X-HubSpot-RateLimit-Interval-Milliseconds: 10000", "X-HubSpot-RateLimit-Daily: 250000",
		"X-HubSpot-RateLimit-Daily-Remaining: 249850")
	add("RL-32 salesforce", "salesforce/; api-usage requests 89982/100000; api-bursts requests 749/750", 0,
		"Sforce-Limit-Info: api-usage=10018/100000; api-bursts=1/750")
	status = 429
	add("RL-33 stripe, in flight", "", 0, "Stripe-Rate-Limited-Reason: endpoint-concurrency")
	add("RL-34 stripe, a lock", "", 0, "Content-Type: application/json")
	status = 200
	add("RL-35 unreadable date", "generic/; requests 0/-1", 0, "X-RateLimit-Remaining: 0",
		"X-RateLimit-Reset: Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)")
	add("RL-36 20 digits", "generic/; requests 0/-1", 0, "X-RateLimit-Remaining: 0", "x-ratelimit-reset: 99999999999999999999")
	add("RL-36 year 10000", "generic/; requests 0/-1 in "+longest.String(), time.Hour, "X-RateLimit-Remaining: 0", "x-ratelimit-reset: 253402300800")
	add("RL-36 negative", "generic/; requests 0/-1", 0, "X-RateLimit-Remaining: 0", "x-ratelimit-reset: -60")
	add("RL-36 no number", "generic/; requests 0/-1", 0, "X-RateLimit-Remaining: 0", "x-ratelimit-reset: NaN")
	add("RL-37 huge", "ietf/default; default requests 1000000000/-1 in 1s", 0, `RateLimit: "default";r=1000000000;t=1`)
	add("RL-38 stored", "", 0, "Age: 30", "x-ratelimit-remaining: 0", "x-ratelimit-reset: 60")
	status = 429
	add("RL-38 a stored refusal", "", 0, "Age: 30", "Retry-After: 60")
	status = 200
	add("RL-38 stored this second", "generic/; requests 0/-1 in 1m0s", 60*s, "Age: 0", "x-ratelimit-remaining: 0", "x-ratelimit-reset: 60")
	add("RL-42 fraction", "generic/; requests 594/-1", 0, "x-ratelimit-remaining: 594.0")
	add("RL-43 mixed case", "generic/; requests 5/10 in 1m0s", 0, "X-RATELIMIT-LIMIT: 10", "x-RateLimit-remaining: 5", "X-Ratelimit-RESET: 60")
	add("RL-44 nothing but that none is left", "generic/; requests 0/-1", 0, "x-ratelimit-remaining: 0")
	add("akamai", "generic/; requests 0/60 in 2m0s", 120*s, "X-RateLimit-Limit: 60", "X-RateLimit-Remaining: 0", "X-RateLimit-Next: 2026-01-15T12:02:00Z")
	add("reddit", "generic/; requests 0/-1 in 5m0s", 300*s, "X-Ratelimit-Used: 600", "X-Ratelimit-Remaining: 0.0", "X-Ratelimit-Reset: 300")
	add("vimeo", "generic/; requests 0/100 in 1m0s", 60*s, "X-RateLimit-Limit: 100", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 2026-01-15T12:01:00+00:00")
	add("groq", "openai/; requests requests 0/14400 in 2m59.56s; tokens tokens 17997/18000 in 7.66s", 179560*ms,
		"x-ratelimit-limit-requests: 14400", "x-ratelimit-remaining-requests: 0", "x-ratelimit-reset-requests: 2m59.56s",
		"x-ratelimit-limit-tokens: 18000", "x-ratelimit-remaining-tokens: 17997", "x-ratelimit-reset-tokens: 7.66s")
	for _, malformed := range [][]string{{`RateLimit: "d";r=abc`}, {"RateLimit: "}, {"RateLimit: ?1"}, {`RateLimit: "d";r=-1`, `RateLimit-Policy: "d";q=5;w=60`},
		{"RateLimit: limit=5, remaining=x"}, {"X-Shopify-Shop-Api-Call-Limit: "}, {"X-Gorgias-Account-Api-Call-Limit: 1"}, {"Sforce-Limit-Info: none"},
		{"RateLimit-Limit: 100", "RateLimit-Remaining: many"}, {"ratelimit-remaining: x;w=60"}, {"RateLimit-Observed: 5", "RateLimit-Remaining: "},
		{"x-ratelimit-remaining-requests: ", "x-ratelimit-reset-requests: 1s"}, {"X-Rate-Limit-Remaining: x"}, {"X-HubSpot-RateLimit-Remaining: "},
		{"anthropic-ratelimit-tokens-remaining: x"}, {"X-Shopify-Shop-Api-Call-Limit: ", `RateLimit: "d";r=abc`, "RateLimit-Remaining: x"}} {
		add("malformed beside generic: "+strings.Join(malformed, ", "), "generic/; requests 0/5 in 1m0s", 60*s,
			append(malformed, "X-RateLimit-Limit: 5", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60")...)
	}
	for _, malformed := range []string{`RateLimit: "d";r=abc`, "RateLimit: ?1", "RateLimit: "} {
		add("malformed beside the old draft: "+malformed, "ietf-old/; requests 0/5 in 1m0s", 60*s, malformed, "RateLimit-Limit: 5", "RateLimit-Remaining: 0", "RateLimit-Reset: 60")
	}
	add("malformed alone", "", 0, `RateLimit: "d";r=abc`, "X-Shopify-Shop-Api-Call-Limit: ", "X-RateLimit-Remaining: x")
	add("nothing but limits: the most specific", "gitlab/; requests -1/7", 0, "RateLimit-Observed: 1", "RateLimit-Limit: 7", "X-RateLimit-Limit: 5")
	add("nothing but a limit beside what is malformed", "generic/; requests -1/5", 0, "RateLimit: x", "X-RateLimit-Limit: 5")
	add("several that are well formed: the most specific", "ietf/d; d requests 3/-1 in 9s", 0, `RateLimit: "d";r=3;t=9`, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60")
	status = 429
	add("malformed, and none beside", "", 60*s, "X-RateLimit-Bucket: b", "X-RateLimit-Remaining: x", "Retry-After: 60")
	return out
}

// Every dialect has a case; a retry stage and a caller's credential decide the rest of the collection (RA-20, RL-41).
func TestEveryDialectHasACase(t *testing.T) {
	seen := map[string]bool{Auto: true}
	for _, c := range stateCases(time.Second, time.Millisecond) {
		dialect, _, _ := strings.Cut(c.read, "/")
		seen[dialect] = true
	}
	for _, d := range Dialects() {
		if !seen[d] {
			t.Errorf("no case of %s", d)
		}
	}
}
