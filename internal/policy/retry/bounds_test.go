package retry

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// A program that retries by itself pays for it from the same budget, and gets no retries of ours once that is used up.
func TestTheProgramsOwnRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, func(c *Config) {
			c.Attempts, c.Signal = 2, "Vendor-Should-Retry"
			c.Budget = Budget{Ratio: 0.5, TTL: setting.Duration(time.Minute)}
		}, step{status: 500})
		get := call{method: "GET"}
		again := call{method: "GET", header: repeat(1)}
		for i, c := range []struct {
			call       call
			attempts   int
			notRetried string
		}{
			{again, 1, "budget"},                     // nothing was counted yet: sent once
			{get, 1, "budget"},                       // one first attempt makes half a retry
			{get, 2, "attempts"},                     // a retry of ours
			{get, 1, "budget"}, {get, 2, "attempts"}, // another one
			{get, 1, "budget"},                       // five make two
			{get, 2, "attempts"},                     // and six three
			{get, 1, "budget"}, {again, 1, "budget"}, // the program's finds nothing
			{get, 2, "attempts"}, {get, 1, "budget"}, // but leaves the fourth alone
			{get, 2, "attempts"}, {again, 1, "budget"}, //
		} {
			before := s.sent()
			_, story := s.send(c.call)
			if got := s.sent() - before; got != c.attempts || story.NotRetried != c.notRetried {
				t.Errorf("request %d: %d attempts, %q; want %d, %q", i, got, story.NotRetried, c.attempts, c.notRetried)
			}
		}
		s.send(get) // eleven first attempts: five retries, all made
		before := s.sent()
		s.send(get)
		if s.sent()-before != 2 {
			t.Error("the sixth retry was to be had")
		}
	})
}

// The charge is taken like a retry's: what the program repeats takes the place of one of ours.
func TestTheProgramsOwnRetriesAreCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, func(c *Config) {
			c.Attempts = 2
			c.Budget = Budget{Floor: 2, TTL: setting.Duration(time.Second)} // two retries, whoever makes them
		}, step{status: 500})
		if s.send(call{method: "GET", header: repeat(1)}); s.sent() != 2 {
			t.Errorf("%d attempts of a repeated request that the budget allows", s.sent())
		}
		if _, story := s.send(call{method: "GET"}); s.sent() != 3 || story.NotRetried != "budget" {
			t.Errorf("%d attempts, %q", s.sent(), story.NotRetried)
		}
	})
}

// A repeated request whose budget is used up is told, like one of ours that was retried out, that there is no point in going on.
func TestTheProgramIsToldToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		none := func(c *Config) {
			c.Budget, c.Signal = Budget{TTL: setting.Duration(time.Second)}, "Vendor-Should-Retry"
		}
		r := scene{config: none, header: repeat(1), steps: []step{{status: 503}}}.play(t)
		if r.resp.Header.Get("X-Should-Retry") != "false" || r.resp.Header.Get("Vendor-Should-Retry") != "false" {
			t.Errorf("%v", r.resp.Header)
		}
		r = scene{config: none, steps: []step{{status: 503}}}.play(t)
		if r.story.NotRetried != "budget" || len(r.resp.Header) != 0 {
			t.Errorf("a first attempt: %q, %v", r.story.NotRetried, r.resp.Header)
		}
	})
}

// What the budget had nothing for when it came is not sent again later, when there is something.
func TestTheProgramsOwnRetryIsRefusedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, func(c *Config) { c.Budget = Budget{Floor: 1, TTL: setting.Duration(time.Second)} }, step{status: 500, takes: 5 * time.Second})
		_, _ = s.stage.(*plan).budgets.Get(state.KeyOf(newExchange("GET"))).Reserve()
		if _, story := s.send(call{method: "GET", header: repeat(1)}); s.sent() != 1 || story.NotRetried != "budget" {
			t.Errorf("%d attempts, %q", s.sent(), story.NotRetried)
		}
	})
}

// A charge for what the proxy itself keeps from being sent is given back.
func TestTheChargeIsReturned(t *testing.T) {
	for _, attempts := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			s := newStand(t, func(c *Config) {
				c.Attempts, c.Budget = attempts, Budget{Floor: 1, TTL: setting.Duration(time.Second)}
			}, step{err: exchange.Refuse(exchange.BreakerOpen, "no")})
			s.send(call{method: "GET", header: repeat(1)})
			if _, ok := s.stage.(*plan).budgets.Get(state.KeyOf(newExchange("GET"))).Reserve(); !ok {
				t.Errorf("with %d attempts the charge was kept", attempts)
			}
		})
	}
}

// First attempts are counted even where nothing is sent again: hedges draw on the same budget.
func TestFirstAttemptsAreCountedWithoutRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Default()
		c.Attempts, c.Budget = 1, Budget{Ratio: 0.5, TTL: setting.Duration(time.Minute)}
		var keeper state.Keeper
		scope := state.Scope{Generation: keeper.Begin(), Policy: "p"}
		u := &upstream{t: t, steps: []step{{status: 503}}, begin: time.Now()}
		stage := New(nil).Stage(scope, c).Wrap(u)
		for range 4 {
			x := newExchange("GET")
			resp, err := stage.RoundTrip(request(t.Context(), x, nil))
			if err != nil || resp.StatusCode != 503 || x.Story().NotRetried != "" || len(resp.Header) != 0 {
				t.Errorf("%v, %+v", err, x.Story())
			}
			resp.Body.Close()
		}
		budget := state.Budgets(scope, c.Budget.Ratio, c.Budget.Floor, c.Budget.TTL.D()).Get(state.KeyOf(newExchange("GET")))
		n := 0
		for _, ok := budget.Reserve(); ok; _, ok = budget.Reserve() {
			n++
		}
		if n != 2 || u.sent() != 4 {
			t.Errorf("%d retries for 4 first attempts, %d attempts", n, u.sent())
		}
	})
}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		observe := func(c *Config) {
			c.Mode = setting.Observe
			c.Budget = Budget{Floor: 1, TTL: setting.Duration(time.Second)}
		}
		for name, c := range map[string]struct {
			scene
			observed string
		}{
			"an answer":          {scene{steps: []step{{status: 503, body: "later"}}}, "[retry:status]"},
			"a connection":       {scene{method: "POST", body: "b", steps: []step{{err: failure(exchange.UpstreamConnect, false)}}}, "[retry:connect]"},
			"a tunnel":           {scene{method: "CONNECT", tunnel: true, steps: []step{{err: failure(exchange.UpstreamDNS, false)}}}, "[retry:dns]"},
			"a POST":             {scene{method: "POST", steps: []step{{status: 503}}}, "[]"},
			"a success":          {scene{steps: []step{{status: 200}}}, "[]"},
			"a long Retry-After": {scene{steps: []step{{status: 503, header: map[string]string{"Retry-After": "3600"}}}}, "[]"},
		} {
			c.config = observe
			r := c.play(t)
			if len(r.requests) != 1 || fmt.Sprint(r.story.Observed) != c.observed || r.story.NotRetried != "" || r.text != c.steps[0].body {
				t.Errorf("%s: %d attempts, observed %v, %q", name, len(r.requests), r.story.Observed, r.story.NotRetried)
			}
			if r.resp != nil && r.resp.Header.Get("X-Should-Retry") != "" {
				t.Errorf("%s: %v", name, r.resp.Header)
			}
			if want := strings.TrimSuffix(strings.TrimPrefix(c.observed, "[retry:"), "]"); c.observed != "[]" && !c.tunnel && r.count("httpowerd_retries_observed_total", want) != 1 {
				t.Errorf("%s: not counted", name)
			}
		}
		s := newStand(t, observe, step{status: 503})
		for range 5 { // what is not sent is not charged
			if _, story := s.send(call{method: "GET"}); len(story.Observed) != 1 {
				t.Errorf("observed %v", story.Observed)
			}
		}
	})
}

// All requests' bodies together take no more than the account has, and give it back whatever becomes of them.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, func(c *Config) { c.Budget.Floor = 1000 }, step{status: 503, read: -1, header: map[string]string{"Retry-After": "10"}}, step{status: 503, read: -1, header: map[string]string{"Retry-After": "10"}})
		s.room.account.limit = 3000
		var wg sync.WaitGroup
		var mu sync.Mutex
		reasons := map[string]int{}
		for range 5 {
			wg.Go(func() {
				_, story := s.send(call{method: "PUT", body: strings.Repeat("x", 1000)})
				mu.Lock()
				reasons[story.NotRetried]++
				mu.Unlock()
			})
		}
		time.Sleep(time.Second)
		if used := s.room.account.used.Load(); used != 3000 || s.count("httpowerd_retry_body_bytes", "") != 3000 {
			t.Errorf("%d bytes are taken", used)
		}
		wg.Wait()
		if reasons["attempts"] != 3 || reasons["body"] != 2 || s.count("httpowerd_retry_bodies_unkept_total", "memory") != 2 {
			t.Errorf("%v, %v unkept", reasons, s.count("httpowerd_retry_bodies_unkept_total", "memory"))
		}
		if used := s.room.account.used.Load(); used != 0 {
			t.Errorf("%d bytes are still taken", used)
		}
		for _, b := range s.bodies {
			if len(b) != 1000 {
				t.Errorf("the upstream got %d bytes", len(b))
			}
		}
	})
}

func TestUnkeptBodiesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, func(c *Config) { c.Buffer = 10 }, step{status: 200, read: -1})
		for _, n := range []int{5, 11, 20} {
			s.send(call{body: strings.Repeat("x", n)})
		}
		s.send(call{reader: io.NopCloser(strings.NewReader(strings.Repeat("x", 30)))})
		if got := s.count("httpowerd_retry_bodies_unkept_total", "size"); got != 3 {
			t.Errorf("%v bodies; want 3", got)
		}
	})
}

// stuck is an answer's body that gives what it has and then nothing, until it is closed.
type stuck struct {
	some   string
	closed chan struct{}
	once   sync.Once
	at     time.Time // closed
}

func (s *stuck) Read(p []byte) (int, error) {
	if s.some != "" {
		n := copy(p, s.some)
		s.some = s.some[n:]
		return n, nil
	}
	<-s.closed
	return 0, io.ErrClosedPipe
}

func (s *stuck) Close() error {
	s.once.Do(func() { s.at = time.Now(); close(s.closed) })
	return nil
}

// What a failed answer holds is given back a moment after the next attempt has begun, though never before that.
func TestAStuckAnswerIsLetGo(t *testing.T) {
	for name, c := range map[string]struct {
		length   int64
		held     time.Duration // the next attempt, by the proxy's own limits
		takes    time.Duration // that attempt
		refused  bool
		released time.Duration // after the next attempt was asked for
	}{
		"while the next one runs":     {-1, 0, time.Minute, false, spareTime},
		"long, while that one runs":   {1 << 20, 0, time.Minute, false, spareTime},
		"long, at once":               {1 << 20, 0, 0, false, 0},
		"after the next one":          {-1, 0, 0, false, spareTime},
		"not while that one waits":    {-1, 5500 * time.Millisecond, time.Minute, false, 6 * time.Second},
		"never, where it is refused":  {-1, 5 * time.Second, 0, true, time.Hour},
		"never, where that one is so": {1 << 20, 0, 0, true, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStand(t, func(c *Config) { c.Backoff = Backoff{} })
				b := &stuck{some: "some", closed: make(chan struct{})}
				n := 0
				var asked time.Time
				linked := *s.stage.(*plan)
				linked.next = exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
					x := exchange.From(r.Context())
					if n++; n == 1 {
						x.EndAttempt(x.BeginAttempt(time.Now()), time.Now(), 500, "")
						return &http.Response{StatusCode: 500, Header: http.Header{}, Body: b, ContentLength: c.length}, nil
					}
					asked = time.Now()
					time.Sleep(c.held)
					if c.refused {
						return nil, exchange.Refuse(exchange.BreakerOpen, "no")
					}
					i := x.BeginAttempt(time.Now())
					time.Sleep(c.takes)
					x.EndAttempt(i, time.Now(), 200, "")
					return status(200), nil
				})
				resp, err := linked.RoundTrip(request(t.Context(), newExchange("GET"), nil))
				if err != nil {
					t.Fatal(err)
				}
				if c.refused {
					time.Sleep(time.Hour)
					p := make([]byte, 10)
					time.AfterFunc(time.Second, func() { resp.Body.Close() })
					if n, _ := resp.Body.Read(p); resp.StatusCode != 500 || string(p[:n]) != "some" && c.length > 0 {
						t.Errorf("status %d, read %q", resp.StatusCode, p[:n])
					}
				}
				<-b.closed
				if got := b.at.Sub(asked); got < c.released || !c.refused && got > c.released {
					t.Errorf("closed after %v; want %v", got, c.released)
				}
				resp.Body.Close()
			})
		})
	}
}

// Whatever an upstream does, and however requests are mixed: what is not repeatable and was sent is never sent twice, retries keep to the budget, and
// what one exchange sends carries one key.
func TestRandomUpstreams(t *testing.T) {
	for seed := range uint64(25) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			c := Default()
			c.Attempts, c.FailureWhen = 1+random.IntN(6), `response.status == 200 && response.body == "bad"`
			ratio, floor, ttl := []float64{0, 0.2, 1}[random.IntN(3)], float64(random.IntN(3)), time.Duration(1+random.IntN(10))*time.Second
			c.Budget = Budget{Ratio: ratio, Floor: floor, TTL: setting.Duration(ttl)}
			if random.IntN(2) == 0 {
				if err := c.IdempotencyKey.DecodeSetting(map[string]any{"methods": []any{"PATCH"}}); err != nil {
					t.Fatal(err)
				}
			}
			room := New(nil)
			var keeper state.Keeper
			total, begin := 0, time.Now()
			var sent int // attempts of this exchange that the upstream may have acted on
			var seen map[string]bool
			u := exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
				if random.IntN(12) == 0 {
					return nil, exchange.Refuse(exchange.RateLimited, "no")
				}
				total++
				x := exchange.From(r.Context())
				defer x.EndAttempt(x.BeginAttempt(time.Now()), time.Now(), 0, "")
				if random.IntN(5) == 0 {
					return nil, failure(exchange.UpstreamConnect, false)
				}
				sent++
				seen[r.Header.Get("Idempotency-Key")] = true
				if r.Body != nil {
					_, _ = io.CopyN(io.Discard, r.Body, random.Int64N(40))
					defer r.Body.Close()
				}
				h := http.Header{}
				if random.IntN(4) == 0 {
					h.Set("X-Should-Retry", []string{"true", "false", "x"}[random.IntN(3)])
				}
				if random.IntN(4) == 0 {
					h.Set("Retry-After", []string{"0", "1", "-1", "99999999999999999999", "soon"}[random.IntN(5)])
				}
				switch random.IntN(4) {
				case 0:
					return nil, failure([]exchange.Code{exchange.UpstreamReset, exchange.UpstreamTimeout}[random.IntN(2)], true)
				case 1:
					return &http.Response{StatusCode: 200, Header: h, Body: io.NopCloser(strings.NewReader("bad")), ContentLength: 3}, nil
				case 2:
					return &http.Response{StatusCode: 200, Header: h, Body: io.NopCloser(strings.NewReader("good")), ContentLength: -1}, nil
				}
				return &http.Response{StatusCode: 400 + random.IntN(200), Header: h, Body: http.NoBody}, nil
			})
			stage := room.Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, c).Wrap(u)
			firsts := 0
			for range 150 {
				method := []string{"GET", "POST", "PUT", "PATCH"}[random.IntN(4)]
				var body io.Reader
				if random.IntN(2) == 0 {
					body = strings.NewReader(strings.Repeat("x", random.IntN(60)))
				}
				r := request(t.Context(), newExchange(method), body)
				if random.IntN(3) == 0 {
					r.Header.Set("Amz-Sdk-Request", fmt.Sprintf("attempt=%d", random.IntN(4)))
				}
				keyed := method == "PATCH" && c.IdempotencyKey.On
				sent, seen = 0, map[string]bool{}
				if resp, err := stage.RoundTrip(r); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				firsts++
				switch {
				case sent > 1 && (method == "POST" || method == "PATCH" && !keyed):
					t.Fatalf("seed %d: a %s was sent %d times", seed, method, sent)
				case sent > 0 && len(seen) != 1, keyed && seen[""]:
					t.Fatalf("seed %d: the keys %v in one exchange", seed, seen)
				}
				if most := float64(firsts) + ratio*float64(firsts) + floor*(time.Since(begin)+ttl).Seconds(); float64(total) > most+1e-6 {
					t.Fatalf("seed %d: %d attempts for %d requests in %v; want %.1f at most", seed, total, firsts, time.Since(begin), most)
				}
				time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
			}
			time.Sleep(time.Minute)
			if used := room.account.used.Load(); used != 0 {
				t.Errorf("seed %d: %d bytes are still taken", seed, used)
			}
		})
	}
}
