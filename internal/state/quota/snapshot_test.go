package quota

import (
	"encoding/json"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func asked(path string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, "https://api.example.com"+path, nil)
	if err != nil {
		panic(err)
	}
	return r
}

func says(status int, lines ...string) *http.Response {
	h := http.Header{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return &http.Response{StatusCode: status, Header: h}
}

// A gate and one that was restored from its snapshot, a while later, are closed for the same requests for the same time.
func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		if _, ok := g.Snapshot(time.Now()); ok {
			t.Error("a gate that knows nothing says something")
		}
		for path, lines := range map[string][]string{
			"/search/a": {"X-RateLimit-Limit: 30", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 946684860", "X-RateLimit-Resource: search"},
			"/repos/a":  {"X-RateLimit-Limit: 5000", "X-RateLimit-Remaining: 40", "X-RateLimit-Reset: 946688400", "X-RateLimit-Resource: core"},
			"/short":    {"X-RateLimit-Limit: 9", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 946684805", "X-RateLimit-Resource: short"},
			"/endless":  {"X-RateLimit-Limit: 9", "X-RateLimit-Remaining: 3", "X-RateLimit-Resource: endless"},
		} {
			g.hear(asked(path), says(200, lines...), Options{})
		}
		s, ok := g.Snapshot(time.Now())
		text, err := json.Marshal(s)
		if !ok || err != nil || len(s.Groups) != 3 {
			t.Fatalf("%v %v %s", ok, err, text)
		}
		time.Sleep(10 * time.Second)
		var back Snapshot
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, s) {
			t.Errorf("%v: %+v became %+v", err, s, back)
		}
		var h Gate
		h.Restore(back, 10*time.Second)
		for _, path := range []string{"/search/a", "/search/b", "/repos/a", "/short", "/other"} {
			if a, b := g.Closed(asked(path)), h.Closed(asked(path)); a != b {
				t.Errorf("%s: closed for %v, restored for %v", path, a, b)
			}
		}
		if got, want := h.Standing(nil, asked("/repos/a"), time.Now()), g.Standing(nil, asked("/repos/a"), time.Now()); len(got) != 1 || got[0].Remaining != 40 || !got[0].Reset.Equal(want[0].Reset) {
			t.Errorf("%+v; want %+v", got, want)
		}
	})
}

// What is restored only makes a gate stricter.
func TestRestoreIntoAGateThatKnowsMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		g.hear(asked("/"), says(429, "Retry-After: 100"), Options{})
		g.Restore(Snapshot{Groups: []GroupSnapshot{{Closed: 10 * time.Second}}}, 0)
		if got := g.Closed(asked("/")); got != 100*time.Second {
			t.Errorf("closed for %v", got)
		}
		g.Restore(Snapshot{Groups: []GroupSnapshot{{Closed: 200 * time.Second}}}, 20*time.Second)
		if got := g.Closed(asked("/")); got != 180*time.Second {
			t.Errorf("closed for %v", got)
		}
	})
}

// Somebody who waits is told by what is restored.
func TestRestoreReachesThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		g.hear(asked("/"), says(429, "Retry-After: 2"), Options{})
		done := make(chan error, 1)
		go func() {
			_, err := g.Pass(t.Context(), asked("/"), 5*time.Second, 9)
			done <- err
		}()
		synctest.Wait()
		g.Restore(Snapshot{Groups: []GroupSnapshot{{Closed: time.Minute}}}, 0)
		synctest.Wait()
		select {
		case err := <-done:
			if err == nil {
				t.Error("passed a closed gate")
			}
		default:
			t.Error("waits for a gate that opens too late")
		}
	})
}

// A span far below zero, less an age, is over; it does not wrap into one that lasts.
func TestRestoreOfSpansBelowZero(t *testing.T) {
	const week = 7 * 24 * time.Hour
	below := time.Duration(math.MinInt64)
	for _, age := range []time.Duration{1, time.Hour, week, math.MaxInt64} {
		for _, span := range []time.Duration{below, below + 1, below + time.Hour, below + week, -1} {
			var g Gate
			g.Restore(Snapshot{Groups: []GroupSnapshot{
				{Name: "a", Closed: span},
				{Closed: span, Quotas: []QuotaSnapshot{
					{Name: "x", Unit: Requests, Limit: 9, Reset: span, Closes: span},
					{Name: "y", Unit: Requests, Limit: 9, Reset: longest, Closes: span},
				}},
			}}, age)
			if got := g.Closed(asked("/")); got != 0 {
				t.Errorf("%v, %v ago: closed for %v", span, age, got)
			}
			for _, q := range g.Standing(nil, asked("/"), time.Now()) {
				if q.Name != "y" {
					t.Errorf("%v, %v ago: %+v", span, age, q)
				}
			}
		}
	}
}

func FuzzRestore(f *testing.F) {
	for _, s := range []string{`{"groups": [{"closed": 5000000000}]}`, `{"groups": [{"name": "a", "quotas": [{"unit": "requests", "limit": -1, "remaining": 0, "reset": 9, "closes": 9}]}]}`,
		`{"groups": [{"closed": 9223372036854775807}], "paths": {"18446744073709551615": "a"}, "seed": 7, "dialect": "github"}`,
		`{"groups": [{"closed": -9222763631000000000, "quotas": [{"unit": "requests", "reset": -9222763631000000000, "closes": -9222763631000000000}]}]}`,
		`{"groups": [{"closed": -9223372036854775808, "quotas": [{"unit": "requests", "limit": 9223372036854775807, "remaining": -9, "window": -1, "reset": 1}]}]}`} {
		f.Add(s, int64(0))
		f.Add(s, int64(math.MaxInt64))
		f.Add(s, int64(math.MinInt64))
	}
	f.Fuzz(func(t *testing.T, text string, age int64) {
		var s Snapshot
		if json.Unmarshal([]byte(text), &s) != nil {
			return
		}
		var g Gate
		g.Restore(s, time.Duration(age))
		if got := g.Closed(asked("/a")); got < 0 || got > maxHold {
			t.Errorf("closed for %v", got)
		}
		if len(g.groups) > maxGroups || len(g.paths) > maxPaths {
			t.Errorf("%d groups, %d paths", len(g.groups), len(g.paths))
		}
		g.Scarce(asked("/a"))
		g.Snapshot(time.Now())
	})
}

// Too many groups and quotas are cut short.
func TestRestoreIsBounded(t *testing.T) {
	var s Snapshot
	for i := range 10 * maxGroups {
		in := GroupSnapshot{Name: strconv.Itoa(i), Closed: time.Minute}
		for range 10 * maxQuotas {
			in.Quotas = append(in.Quotas, QuotaSnapshot{Name: strconv.Itoa(len(in.Quotas)), Unit: Requests, Reset: time.Minute})
		}
		s.Groups = append(s.Groups, in)
	}
	var g Gate
	g.Restore(s, 0)
	if len(g.groups) > maxGroups || len(g.groups["1"].quotas) > maxQuotas {
		t.Errorf("%d groups, %d quotas", len(g.groups), len(g.groups["1"].quotas))
	}
}

// A refusal about requests in flight closes no gate.
func TestConcurrent(t *testing.T) {
	for name, c := range map[string]struct {
		resp *http.Response
		want bool
	}{
		"stripe":             {says(429, "Stripe-Rate-Limited-Reason: endpoint-concurrency", "Retry-After: 9"), true},
		"stripe, the rate":   {says(429, "Stripe-Rate-Limited-Reason: endpoint-rate", "Retry-After: 9"), false},
		"stripe, no refusal": {says(200, "Stripe-Rate-Limited-Reason: endpoint-concurrency"), false},
		"ietf":               {says(503, `RateLimit: "c";r=0`, `RateLimit-Policy: "c";q=5;qu="concurrent-requests"`), true},
		"ietf, places left":  {says(429, `RateLimit: "c";r=1`, `RateLimit-Policy: "c";q=5;qu="concurrent-requests"`, "Retry-After: 9"), false},
		"nothing":            {says(429, "Retry-After: 9"), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			if got := Concurrent(c.resp); got != c.want {
				t.Errorf("%s: %v", name, got)
			}
			var g Gate
			g.hear(asked("/"), c.resp, Options{})
			if closed := g.Closed(asked("/")) > 0; closed && c.want {
				t.Errorf("%s closed the gate", name)
			}
		})
	}
}
