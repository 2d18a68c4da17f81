package ratelimit

import (
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state/quota"
)

// What a client is told of the limits, and when nothing is added.
func TestRateLimitFields(t *testing.T) {
	two := []Level{level("defaults", 100, time.Minute, nil), level(`hosts["*.example.com"]`, 2, 1500*ms, nil)}
	for name, c := range map[string]struct {
		levels        []Level
		requests      int // how many go, the last one is looked at
		answer        []string
		state, policy string
	}{
		"one":                          {[]Level{level("defaults", 10, 10*second, nil)}, 1, nil, `"defaults";r=9;t=1`, `"defaults";q=10;w=10`},
		"many":                         {[]Level{level("defaults", 10, 10*second, nil)}, 7, nil, `"defaults";r=3;t=7`, `"defaults";q=10;w=10`},
		"none left: when there is one": {[]Level{level("defaults", 10, 100*second, nil)}, 10, nil, `"defaults";r=0;t=10`, `"defaults";q=10;w=100`},
		"a burst of its own":           {[]Level{level("defaults", 10, 10*second, func(l *Config) { l.Burst = 3 })}, 1, nil, `"defaults";r=2;t=1`, `"defaults";q=10;w=10`},
		"a window of no whole seconds": {[]Level{level("defaults", 10, 500*ms, nil)}, 1, nil, `"defaults";r=9;t=1`, `"defaults";q=10`},
		"two levels":                   {two, 1, nil, `"defaults";r=99;t=1, "hosts[\"*.example.com\"]";r=1;t=1`, `"defaults";q=100;w=60, "hosts[\"*.example.com\"]";q=2`},
		"a name of other letters":      {[]Level{level("größe\n", 10, 10*second, nil)}, 1, nil, `"gr??e?";r=9;t=1`, `"gr??e?";q=10;w=10`},
		"nothing limits":               {[]Level{learner(nil)}, 1, nil, "", ""},
		"the upstream's own":           {two, 1, []string{`RateLimit: "u";r=0;t=9`, `RateLimit-Policy: "u";q=5;w=10`}, `"u";r=0;t=9`, `"u";q=5;w=10`},
		"the upstream's own, tightened": {two, 1, []string{`RateLimit: "u";r=50;t=9`, `RateLimit-Policy: "u";q=99;w=10`},
			`"u";r=50;t=9, "hosts[\"*.example.com\"]";r=1;t=1`, `"u";q=99;w=10, "hosts[\"*.example.com\"]";q=2`},
		"the upstream's own, another draft": {two, 1, []string{`RateLimit: limit=100, remaining=50, reset=50`, `RateLimit-Policy: 100;w=60`},
			`limit=100, remaining=50, reset=50`, `100;w=60`},
		"the upstream's policy alone": {two, 1, []string{`RateLimit-Policy: "u";q=5;w=10`}, "", `"u";q=5;w=10`},
		"another dialect, tighter": {two, 1, []string{"X-RateLimit-Remaining: 0", "X-RateLimit-Limit: 60", "X-RateLimit-Reset: 30"},
			`"defaults";r=0;t=30, "hosts[\"*.example.com\"]";r=0;t=30, "upstream";r=0;t=30`,
			`"defaults";q=100;w=60, "hosts[\"*.example.com\"]";q=2, "upstream";q=60`},
		"another dialect, looser": {[]Level{level("defaults", 10, 10*second, nil)}, 1, []string{"X-RateLimit-Remaining: 50"},
			`"defaults";r=9;t=1, "upstream";r=50`, `"defaults";q=10;w=10`},
		"an older draft": {two[:1], 1, []string{"RateLimit-Remaining: 5", "RateLimit-Limit: 10;w=60", "RateLimit-Reset: 7"},
			`"defaults";r=5;t=7, "upstream";r=5;t=7`, `"defaults";q=100;w=60, "upstream";q=10;w=60`},
		"nothing limits, a vendor's": {[]Level{learner(nil)}, 1, []string{"X-RateLimit-Remaining: 50", "X-RateLimit-Resource: core", "X-RateLimit-Reset: 946684860"},
			`"core";r=50;t=60`, ""},
		"a vendor's, of another unit": {two[:1], 1, []string{"anthropic-ratelimit-tokens-remaining: 7", "anthropic-ratelimit-tokens-limit: 99"},
			`"defaults";r=99;t=1, "tokens";r=7`, `"defaults";q=100;w=60, "tokens";q=99;qu="tokens"`},
		"a unit that cannot be told": {two[:1], 1, []string{"anthropic-ratelimit-tokens-remaining: 7"}, `"defaults";r=99;t=1`, `"defaults";q=100;w=60`},
		"another vendor's":           {two[:1], 1, []string{"X-Shopify-Shop-Api-Call-Limit: 39/40"}, `"defaults";r=1;t=1, "upstream";r=1`, `"defaults";q=100;w=60, "upstream";q=40`},
		"a cost that is no request": {[]Level{level("defaults", 10, 10*second, func(l *Config) { l.Cost = Tokens(4) })}, 1,
			[]string{"X-RateLimit-Remaining: 1"}, `"defaults";r=6;t=4, "upstream";r=1`, `"defaults";q=10;w=10;qu="cost"`},
		"one that cannot be read": {two, 1, []string{"X-RateLimit-Remaining: many"}, "", ""},
	} {
		for _, learn := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				for i := range c.levels {
					c.levels[i].Config.Learn = learn || !c.levels[i].Config.Limits()
				}
				chain := r.load(c.levels...)
				r.replies(200, c.answer...)
				for range c.requests - 1 {
					r.pass(chain, api)
				}
				h := r.pass(chain, api).Header
				if !c.levels[0].Config.Learn && len(c.answer) > 0 { // what is not understood is left alone
					c.state, c.policy = "", ""
					for _, line := range c.answer {
						if name, value, _ := strings.Cut(line, ": "); name == "RateLimit" {
							c.state = value
						} else if name == "RateLimit-Policy" {
							c.policy = value
						}
					}
				}
				if state, policy := h.Get("RateLimit"), h.Get("RateLimit-Policy"); state != c.state || policy != c.policy {
					t.Errorf("%s: %s and %s; want %s and %s", name, state, policy, c.state, c.policy)
				}
			})
		}
	}
}

// What is there of the next token shortens the time to it.
func TestPartOfAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 1, 10*second, func(c *Config) { c.Burst = 2 }))
		r.pass(chain, api)
		r.pass(chain, api)
		time.Sleep(14 * second)
		if got := r.pass(chain, api).Header.Get("RateLimit"); got != `"defaults";r=0;t=6` {
			t.Error(got)
		}
	})
}

func TestQuotaMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is 2000-01-01T00:00:00Z, 946684800
		r := newRig(t)
		chain := r.load(learner(nil))
		if got := r.metric("quota_remaining", api, "requests"); got != -1 {
			t.Errorf("before anything was said: %v", got)
		}
		said := func(account, requests, reset, tokens string) {
			r.replies(200, "x-ratelimit-remaining-requests: "+requests, "x-ratelimit-reset-requests: "+reset, "x-ratelimit-remaining-tokens: "+tokens)
			r.pass(chain, api, header("Authorization", account))
		}
		said("a", "50", "60s", "900")
		said("b", "7", "60s", "1000")
		said("c", "80", "90s", "2000")
		for i := range 20 {
			said("d"+strconv.Itoa(i), "7", "1s", "2000") // as little, but for a shorter time
		}
		for _, want := range []struct {
			name, unit string
			value      float64
		}{
			{"quota_remaining", quota.Requests, 7}, {"quota_remaining", quota.Tokens, 900},
			{"quota_reset_timestamp_seconds", quota.Requests, 946684860}, {"quota_reset_timestamp_seconds", quota.Tokens, -1},
		} {
			if got := r.metric(want.name, api, want.unit); got != want.value {
				t.Errorf("%s %s: %v; want %v, the tightest over credentials", want.name, want.unit, got, want.value)
			}
		}
		time.Sleep(time.Minute)
		if got := r.metric("quota_remaining", api, "requests"); got != 80 {
			t.Errorf("after the tightest was restored: %v", got)
		}
		time.Sleep(time.Minute)
		if got := r.metric("quota_remaining", api, "requests"); got != -1 {
			t.Errorf("after the reset: %v", got)
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(
			level("defaults", 10, time.Minute, func(c *Config) { c.Scope = ScopePattern }),
			level("hosts", 2, 10*second, func(c *Config) { c.Key, c.Wait = []string{"tenant"}, c.Wait*2 }))
		r.replies(200, "X-RateLimit-Limit: 60", "X-RateLimit-Remaining: 42", "X-RateLimit-Reset: 60", "X-RateLimit-Resource: core")
		r.pass(chain, api, tenant("billing"))
		r.pass(chain, api, tenant("billing"))
		r.join(t.Context(), chain, "waits", api, tenant("billing"))
		got := map[string]LimitStatus{}
		r.room.Limits(func(l LimitStatus) { got[l.Kind+l.Level] = l })
		want := map[string]LimitStatus{
			"configureddefaults": {Kind: Configured, Level: "defaults", Pattern: "*.example.com", Unit: "requests", Limit: 10, Per: 60, Burst: 10, Remaining: 7},
			"configuredhosts": {Kind: Configured, Level: "hosts", Tenant: "billing", Authority: "api.example.com:443", Unit: "requests",
				Limit: 2, Per: 10, Burst: 2, Waiting: 1},
			"announced": {Kind: Announced, Policy: policy, Tenant: "billing", Authority: "api.example.com:443", Name: "core", Unit: "requests",
				Limit: 60, Remaining: 42, Reset: time.Now().Add(time.Minute)},
		}
		for kind, w := range want {
			if !reflect.DeepEqual(got[kind], w) {
				t.Errorf("%s:\n got %+v\nwant %+v", kind, got[kind], w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d limits", len(got))
		}
		time.Sleep(time.Minute)
		r.replies(429, "Retry-After: 60")
		r.pass(chain, api, tenant("billing"))
		var closed []LimitStatus
		r.room.Limits(func(l LimitStatus) {
			if l.Closed == 60 && l.Limit == -1 && l.Remaining == 0 && l.Tenant == "billing" {
				closed = append(closed, l)
			}
		})
		if len(closed) != 1 {
			t.Errorf("after a 429: %+v", closed)
		}
	})
}

// Without a registry and without a limit the stage is not there at all.
func TestNothingToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.room = New(nil)
		end := exchange.RoundTripperFunc(r.upstream)
		g := r.keeper.Begin()
		chain := r.link(g, policy)
		g.Commit()
		if _, same := chain.(exchange.RoundTripperFunc); !same {
			t.Errorf("a stage that does nothing: %T around %T", chain, end)
		}
	})
}

// What an answer said holds for those after it that say nothing: the limit's own item is not looser.
func TestToldQuotaIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 100, 100*second, nil))
		r.replies(200, "X-RateLimit-Limit: 60", "X-RateLimit-Remaining: 3", "X-RateLimit-Reset: 60")
		r.pass(chain, api)
		r.replies(200)
		if got := r.pass(chain, api).Header.Get("RateLimit"); got != `"defaults";r=3;t=60, "upstream";r=3;t=60` {
			t.Error(got)
		}
		if got := r.pass(chain, api, header("Authorization", "another")).Header.Get("RateLimit"); got != `"defaults";r=97;t=3` {
			t.Error(got)
		}
		time.Sleep(61 * second)
		if got := r.pass(chain, api).Header.Get("RateLimit"); got != `"defaults";r=99;t=1` {
			t.Error(got)
		}
	})
}

// TestWhatIsToldAnew: an account is told in the words of its last answer only where nothing has changed.
func TestWhatIsToldAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		one := level("defaults", 100, time.Minute, nil)
		g := r.keeper.Begin()
		chain, both := r.link(g, policy, one), r.link(g, policy, one, level("hosts", 50, time.Minute, nil))
		g.Commit()
		for i, c := range []struct {
			chain                           http.RoundTripper
			pause                           time.Duration
			limit, remaining, state, policy string
		}{
			{chain, 0, "", "", `"defaults";r=99;t=1`, `"defaults";q=100;w=60`},
			{both, time.Second, "", "", `"defaults";r=99;t=1, "hosts";r=49;t=2`, `"defaults";q=100;w=60, "hosts";q=50;w=60`},
			{chain, time.Second, "", "", `"defaults";r=99;t=1`, `"defaults";q=100;w=60`},
			{chain, time.Second, "60", "9", `"defaults";r=9;t=1, "upstream";r=9`, `"defaults";q=100;w=60, "upstream";q=60`},
			{chain, time.Second, "60", "9", `"defaults";r=9;t=1, "upstream";r=9`, `"defaults";q=100;w=60, "upstream";q=60`},
			{chain, time.Second, "60", "8", `"defaults";r=8;t=1, "upstream";r=8`, `"defaults";q=100;w=60, "upstream";q=60`},
			{chain, time.Second, "70", "8", `"defaults";r=8;t=1, "upstream";r=8`, `"defaults";q=100;w=60, "upstream";q=70`},
			{both, 2 * time.Second, "70", "8", `"defaults";r=8;t=1, "hosts";r=8;t=2, "upstream";r=8`, `"defaults";q=100;w=60, "hosts";q=50;w=60, "upstream";q=70`},
		} {
			time.Sleep(c.pause)
			r.begin = time.Now()
			if r.replies(200); c.limit != "" {
				r.replies(200, "X-RateLimit-Limit: "+c.limit, "X-RateLimit-Remaining: "+c.remaining)
			}
			h := r.pass(c.chain, api).Header
			if h.Get("RateLimit") != c.state || h.Get("RateLimit-Policy") != c.policy {
				t.Errorf("answer %d: %s and %s; want %s and %s", i, h.Get("RateLimit"), h.Get("RateLimit-Policy"), c.state, c.policy)
			}
			h.Add("RateLimit", "more")
			h.Add("RateLimit-Policy", "more") // by somebody above
		}
	})
	synctest.Test(t, func(t *testing.T) { // other numbers, of which as much is left
		r := newRig(t)
		for _, c := range []struct {
			requests int
			policy   string
		}{{100, `"defaults";q=100;w=60`}, {200, `"defaults";q=200;w=60`}} {
			chain := r.load(level("defaults", c.requests, time.Minute, func(l *Config) { l.Burst = 100 }))
			time.Sleep(time.Second)
			if h := r.pass(chain, api).Header; h.Get("RateLimit") != `"defaults";r=99;t=1` || h.Get("RateLimit-Policy") != c.policy {
				t.Errorf("%s and %s; want %s", h.Get("RateLimit"), h.Get("RateLimit-Policy"), c.policy)
			}
		}
	})
}

// A policy is told in the words of the answer before while it is the same, and in others as soon as it is another one.
func TestPolicyThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 100, time.Minute, nil))
		for _, c := range []struct{ limit, remaining, policy string }{
			{"60", "50", `"defaults";q=100;w=60, "upstream";q=60`},
			{"60", "49", `"defaults";q=100;w=60, "upstream";q=60`},
			{"50", "48", `"defaults";q=100;w=60, "upstream";q=50`},
			{"", "47", `"defaults";q=100;w=60, "upstream";q=50`}, // what is left out did not change
		} {
			lines := []string{"X-RateLimit-Remaining: " + c.remaining, "X-RateLimit-Reset: 30"}
			if c.limit != "" {
				lines = append(lines, "X-RateLimit-Limit: "+c.limit)
			}
			r.replies(200, lines...)
			if h := r.pass(chain, api).Header; h.Get("RateLimit-Policy") != c.policy || !strings.Contains(h.Get("RateLimit"), `"upstream";r=`+c.remaining+";t=30") {
				t.Errorf("limit %q: %s, %s; want %s", c.limit, h.Get("RateLimit"), h.Get("RateLimit-Policy"), c.policy)
			}
		}
		// A reload with another limit of its own.
		chain = r.load(level("defaults", 200, time.Minute, nil))
		if h := r.pass(chain, api).Header; h.Get("RateLimit-Policy") != `"defaults";q=200;w=60, "upstream";q=50` {
			t.Errorf("after a reload: %s", h.Get("RateLimit-Policy"))
		}
	})
}

// The room's own clock shows the time, and looks at the wall's each second.
func TestRoomsClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(nil)
		for _, d := range []time.Duration{0, time.Millisecond, time.Second - 2*time.Millisecond, time.Millisecond, time.Hour, time.Second} {
			time.Sleep(d)
			begun := r.clock.Load()
			if now := r.now(); !now.Equal(time.Now()) || now.Round(0) != time.Now().Round(0) {
				t.Errorf("after %v: %v; want %v", d, now, time.Now())
			}
			if looked := r.clock.Load() != begun; looked != (d >= time.Millisecond && time.Since(*begun) >= time.Second) {
				t.Errorf("after %v: looked %v", d, looked)
			}
		}
	})
}

// Most requests have one credential, which need not be put together with others. Its fingerprint is the same: daemons and restarts share them.
func TestLoneCredential(t *testing.T) {
	r := New(nil)
	for _, h := range []http.Header{
		{"Authorization": {"Bearer a"}},
		{"X-Api-Key": {"Bearer a"}, "Accept": {"*/*"}},
		{"Api-Key": {""}},
		{"Authorization": {"AWS4-HMAC-SHA256 Credential=A/1/2, Signature=1"}},
		{"Authorization": {"Bearer a"}, "A": nil, "B": nil, "C": nil, "D": nil, "E": nil, "F": nil, "G": nil, "H": nil, "I": nil},
	} {
		for range 2 { // the second time it is known
			if got, want := r.credential(h), r.credentials(h); got != want || got == "" {
				t.Errorf("%v: %x; want %x", h, got, want)
			}
		}
	}
	if a, b := r.credential(http.Header{"Authorization": {"a"}}), r.credential(http.Header{"X-Api-Key": {"a"}}); a == b {
		t.Error("two fields with one value are one credential")
	}
	written := string(appendPart(appendPart(nil, "Authorization", "a"), "X-Api-Key", "b")) // as two are put together
	if a, b := r.credential(http.Header{"Authorization": {written}}), r.credential(http.Header{"Authorization": {"a"}, "X-Api-Key": {"b"}}); a == b {
		t.Error("a value that looks like two credentials is both of them")
	}
}
