package quota

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(path string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, "https://api.example.com"+path, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// hear is Learn for an answer that comes now.
func (g *Gate) hear(r *http.Request, resp *http.Response, o Options) (announced bool) {
	f := FieldsOf(resp.Header)
	announced, _ = g.Learn(Answer{Response: resp, To: r, Fields: &f, Now: time.Now(), Label: "api.example.com"}, o, nil)
	return announced
}

func (g *Gate) answer(path string, status int, lines ...string) {
	g.hear(get(path), &http.Response{StatusCode: status, Header: fields(lines...)}, Options{})
}

func TestGateCloses(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		lines  []string
		want   time.Duration
	}{
		"nothing said":                  {200, nil, 0},
		"something left":                {200, []string{"X-RateLimit-Remaining: 1", "X-RateLimit-Reset: 60"}, 0},
		"used up":                       {200, []string{"X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60"}, time.Minute},
		"used up, no reset":             {200, []string{"X-RateLimit-Remaining: 0"}, 0},
		"used up, in the past":          {200, []string{"X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 946684700"}, 0},
		"the tightest":                  {200, []string{"anthropic-ratelimit-requests-remaining: 900", "anthropic-ratelimit-input-tokens-remaining: 0", "anthropic-ratelimit-input-tokens-reset: 2000-01-01T00:00:30Z"}, 30 * time.Second},
		"places in flight":              {200, []string{`RateLimit: "a";r=0;t=60`, `RateLimit-Policy: "a";q=5;qu="concurrent-requests"`}, 0},
		"403 used up":                   {403, []string{"X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 946684860"}, time.Minute},
		"403 that says how long":        {403, []string{"Retry-After: 60"}, time.Minute},
		"plain 403":                     {403, nil, 0},
		"429 that says how long":        {429, []string{"Retry-After: 120"}, 2 * time.Minute},
		"429 that says nothing":         {429, []string{"Stripe-Rate-Limited-Reason: endpoint-concurrency"}, 0},
		"503 is the breaker's":          {503, []string{"Retry-After: 120"}, 0},
		"200 is no refusal":             {200, []string{"Retry-After: 120"}, 0},
		"a day is believed for an hour": {429, []string{"Retry-After: 86400"}, time.Hour},
		"so is a reset":                 {200, []string{"X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 86400"}, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) { // it is 2000-01-01T00:00:00Z, 946684800
			var g Gate
			g.answer("/", c.status, c.lines...)
			if d := g.Closed(get("/")); d != c.want {
				t.Errorf("%s: closed for %v; want %v", name, d, c.want)
			}
			time.Sleep(c.want)
			if d := g.Closed(get("/")); d != 0 {
				t.Errorf("%s: still closed for %v", name, d)
			}
		})
	}
}

// TestGateClock: what spares the lock goes by ticks, as the gate does, for the wall clock may be set meanwhile.
func TestGateClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		g.answer("/", 429, "Retry-After: 30")
		if left := g.horizon.Load() - exchange.Ticks(); left != int64(30*time.Second) {
			t.Error("closed for", left, "ticks")
		}
	})
}

func TestAnswersOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		left := func() (n int64) {
			g.Each(func(l Learnt, _ string, _ time.Duration) { n = l.Remaining })
			return n
		}
		for _, step := range []struct {
			remaining, reset string
			want             int64
		}{{"10", "60", 10}, {"12", "60", 10}, {"9", "60", 9}, {"3", "20", 9}, {"60", "120", 60}} {
			g.answer("/", 200, "X-RateLimit-Remaining: "+step.remaining, "X-RateLimit-Reset: "+step.reset)
			if n := left(); n != step.want {
				t.Errorf("after %s until %ss: %d; want %d", step.remaining, step.reset, n, step.want)
			}
		}
	})
}

func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		closed := func(path string, want bool) {
			t.Helper()
			if got := g.Closed(get(path)) > 0; got != want {
				t.Errorf("%s closed: %v; want %v", path, got, want)
			}
		}
		g.answer("/search/code", 200, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 946684830", "X-RateLimit-Resource: search")
		g.answer("/repos/a", 200, "X-RateLimit-Remaining: 9", "X-RateLimit-Reset: 946688400", "X-RateLimit-Resource: core")
		closed("/search/code", true)
		closed("/search/users", true)
		closed("/repos/a", false)
		closed("/repos/b", false)
		closed("/user", false)
		g.answer("/user", 403, "Retry-After: 5")
		closed("/repos/b", true)
	})
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		g.answer("/channels/1/messages", 429, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset-After: 3", "X-RateLimit-Bucket: abc", "Retry-After: 3")
		if g.Closed(get("/channels/1/messages")) == 0 || g.Closed(get("/channels/2/messages")) != 0 {
			t.Error("a bucket closed too little or too much")
		}
		g.answer("/channels/1/messages", 429, "X-RateLimit-Bucket: abc", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset-After: 3", "X-RateLimit-Global: true", "Retry-After: 4")
		if g.Closed(get("/channels/2/messages")) == 0 {
			t.Error("a global refusal closed one bucket only")
		}
	})
}

func TestPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		g.answer("/", 429, "Retry-After: 10")
		pass := func(ctx context.Context, wait time.Duration, queue int) (time.Duration, *Exhausted, error) {
			waited, err := g.Pass(ctx, get("/"), wait, queue)
			var e *Exhausted
			errors.As(err, &e)
			return waited, e, err
		}
		if waited, e, _ := pass(t.Context(), 9*time.Second, 9); e == nil || e.After != 10*time.Second || waited != 0 {
			t.Errorf("10s within 9s: %v after %v", e, waited)
		}
		soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if waited, e, _ := pass(soon, time.Minute, 9); e == nil || waited != 0 {
			t.Errorf("10s before a deadline in 5s: %v after %v", e, waited)
		}
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		if waited, _, err := pass(gone, time.Minute, 1); !errors.Is(err, context.Canceled) || waited != time.Second {
			t.Errorf("a client that left: %v after %v", err, waited)
		}
		var passed atomic.Int32
		go func() {
			if waited, _, err := pass(t.Context(), time.Minute, 1); err == nil && waited == 9*time.Second {
				passed.Add(1)
			}
		}()
		synctest.Wait()
		if _, e, _ := pass(t.Context(), time.Minute, 1); e == nil || !e.Full {
			t.Errorf("a second one in a queue of one: %v", e)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if passed.Load() != 1 {
			t.Error("who waited did not pass when the gate opened")
		}
	})
	synctest.Test(t, func(t *testing.T) { // what is learnt meanwhile reaches those who wait
		var g Gate
		g.answer("/", 429, "Retry-After: 10")
		refused := make(chan time.Duration, 1)
		go func() {
			waited, err := g.Pass(t.Context(), get("/"), 20*time.Second, 9)
			if errors.As(err, new(*Exhausted)) {
				refused <- waited
			}
		}()
		time.Sleep(time.Second)
		g.answer("/", 429, "Retry-After: 60")
		synctest.Wait()
		if len(refused) != 1 || <-refused != time.Second {
			t.Error("a request waits for a gate that opens too late")
		}
	})
}

func TestGateIsBounded(t *testing.T) {
	var g Gate
	for i := range 5000 {
		path := "/" + string(rune('a'+i%26)) + "/" + time.Duration(i).String()
		g.answer(path, 200, "X-RateLimit-Remaining: 1", "X-RateLimit-Reset: 60", "X-RateLimit-Resource: r"+time.Duration(i).String())
	}
	if len(g.groups) > maxGroups || len(g.paths) > maxPaths {
		t.Errorf("%d groups, %d paths", len(g.groups), len(g.paths))
	}
}

func BenchmarkGateOpen(b *testing.B) {
	var g Gate
	g.answer("/", 200, "X-RateLimit-Remaining: 5", "X-RateLimit-Reset: 60")
	r := get("/")
	b.ReportAllocs()
	for b.Loop() {
		g.Closed(r)
	}
}

// Answers in the plainest form are learnt from by a shorter way. What a gate knows after any of them is what it would without: one that reads the same
// numbers with a fraction, which no such form has.
func TestPlainAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(100) {
			random := rand.New(rand.NewPCG(seed, 2))
			var plainly, other Gate
			for step := range 60 {
				limit, remaining, reset := 10+random.IntN(2), random.IntN(4), random.IntN(6)
				lines := func(form string, refused bool) *http.Response {
					h := fields(fmt.Sprintf("X-RateLimit-Limit: %d", limit), fmt.Sprintf("X-RateLimit-Remaining: %d"+form, remaining), fmt.Sprintf("X-RateLimit-Reset: %d", reset))
					if refused {
						h["Retry-After"] = []string{"1"}
						return &http.Response{StatusCode: 429, Header: h}
					}
					return &http.Response{StatusCode: 200, Header: h}
				}
				for range 1 + random.IntN(4) { // the same again
					refused, form := random.IntN(30) == 0, ""
					if random.IntN(8) == 0 {
						form, limit, remaining = ".0", limit^1, max(0, remaining-random.IntN(2)) // an answer of the longer way in between
					}
					plainly.hear(asked("/"), lines(form, refused), Options{})
					other.hear(asked("/"), lines(".0", refused), Options{})
					if form != "" {
						limit ^= 1
					}
					look := func(g *Gate) string {
						closed, text := g.Closed(asked("/")), ""
						for _, q := range g.Standing(nil, asked("/"), time.Now()) {
							text += fmt.Sprint(q.Name, q.Unit, q.Limit, q.Remaining, time.Until(q.Reset))
						}
						return fmt.Sprint(closed, text)
					}
					if got, want := look(&plainly), look(&other); got != want {
						t.Fatalf("seed %d, step %d: %s; want %s", seed, step, got, want)
					}
					time.Sleep(time.Duration(random.Int64N(int64(1500 * time.Millisecond))))
				}
			}
		}
	})
}

// What a gate remembers refers to nothing of the answer that told it: all of its head would stay too.
func TestGateOwnsItsNames(t *testing.T) {
	bucket, policy := "bucket-1, and the rest of an answer's head", `"daily";r=1;t=50, and the rest`
	var g Gate
	for range 2 { // the second one is learnt into what is there
		g.hear(asked("/a"), &http.Response{StatusCode: 200, Header: http.Header{"X-Ratelimit-Bucket": {bucket[:8]}, "X-Ratelimit-Limit": {"5"}, "X-Ratelimit-Remaining": {"1"}, "X-Ratelimit-Reset-After": {"50"}}}, Options{})
		g.hear(asked("/b"), &http.Response{StatusCode: 200, Header: http.Header{"Ratelimit": {policy[:16]}}}, Options{})
	}
	var names []string
	for name, in := range g.groups {
		names = append(names, name, in.name)
		for _, q := range in.quotas {
			names = append(names, q.Name, q.Group)
		}
	}
	for _, name := range g.paths {
		names = append(names, name)
	}
	if !slices.Contains(names, "bucket-1") || !slices.Contains(names, "daily") {
		t.Fatalf("%q", names)
	}
	for _, name := range names {
		for _, head := range []string{bucket, policy} {
			if at := uintptr(unsafe.Pointer(unsafe.StringData(name))) - uintptr(unsafe.Pointer(unsafe.StringData(head))); name != "" && at < uintptr(len(head)) {
				t.Errorf("%q is the answer's", name)
			}
		}
	}
}
