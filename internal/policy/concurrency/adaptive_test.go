package concurrency

import (
	"context"
	"errors"
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
)

// server answers each request after service, and so many at once; the others wait in its queue.
type server struct {
	service time.Duration
	places  chan struct{}
	mu      sync.Mutex
	now     int
	most    int
	counted int
}

func newServer(places int, service time.Duration) *server {
	return &server{service: service, places: make(chan struct{}, places)}
}

func (s *server) serve(r *http.Request) (*http.Response, error) {
	exchange.Written(r.Context())
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	s.places <- struct{}{}
	time.Sleep(s.service)
	<-s.places
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
}

// count counts up.
func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counted++
	return s.counted
}

// crowd keeps n requests going for d.
func (r *rig) crowd(chain http.RoundTripper, n int, d time.Duration) (done int) {
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				req, _ := request(ctx, api)
				resp, err := chain.RoundTrip(req)
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				_ = resp.Body.Close()
				mu.Lock()
				done++
				mu.Unlock()
			}
		})
	}
	time.Sleep(d)
	cancel()
	wg.Wait()
	return done
}

// places is how many there are for api, and what changed.
func (r *rig) places() Status {
	var out Status
	r.room.Status(func(s Status) { out = s })
	return out
}

func adaptive(a Adaptive, edit func(*Config)) Level {
	return level("defaults", func(c *Config) {
		c.Adaptive, c.Queue, c.Wait = a, 1000, setting.Duration(time.Minute)
		if edit != nil {
			edit(c)
		}
	})
}

// An upstream that works on ten requests at once gets about so many, whatever max would allow, and works no less for it.
func TestAdaptiveFindsTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := newServer(10, 100*time.Millisecond)
		r.next = s.serve
		chain := r.load(true, adaptive(Adaptive{On: true}, func(c *Config) { c.Max = 500 }))
		if got := r.crowd(chain, 5, time.Second); got < 40 {
			t.Fatalf("%d done", got) // the latency without a queue is known now
		}
		done := r.crowd(chain, 200, 2*time.Minute)
		if got := r.places().Limit; got < 8 || got > 30 {
			t.Errorf("the limit is %d for an upstream of 10 places", got)
		}
		if done < 11500 {
			t.Errorf("%d done of 12000", done)
		}
	})
}

// What was sent before the limit was halved says nothing of the latency without a queue. What is sent behind it may be more than it lets, in observe mode.
func TestAdaptiveLetsTheQueueDrain(t *testing.T) {
	now := time.Unix(1, 0)
	g := governor{min: 1, max: 500, limit: 20, base: 0.1, baseAt: now.Add(-believed)}
	g.on.Store(true)
	answer := func(n int, took time.Duration, inFlight int) {
		for range n {
			now = now.Add(12 * time.Millisecond)
			g.sample(now, now.Add(-took), took, whole, inFlight)
		}
	}
	answer(windowSize, 200*time.Millisecond, 20)
	if got, _ := g.places(); got != 10 {
		t.Fatalf("the limit is %d: it was not halved", got)
	}
	answer(windowSize, 200*time.Millisecond, 15) // they drain
	answer(windowSize, time.Second, 10)
	if got, _ := g.places(); got != 10 || g.windows[whole].n != 0 {
		t.Fatalf("answers of before were counted: %d, base %v, the limit is %d", g.windows[whole].n, g.base, got)
	}
	now = now.Add(time.Second)
	answer(windowSize, 100*time.Millisecond, 15)
	if got, _ := g.places(); got != 20 || g.base < 0.099 || g.base > 0.101 {
		t.Errorf("the limit is %d, the latency without a queue %v; want 20 and 0.1", got, g.base)
	}
}

// streaming is an answer whose head comes after wait, and whose body goes on.
func streaming(wait time.Duration) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		exchange.Written(r.Context())
		time.Sleep(wait)
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: io.NopCloser(strings.NewReader("it goes on"))}, nil
	}
}

// Streams hold places beyond the limit, up to max: there is always one for an answer that may end, and by which the limit can grow.
func TestAdaptiveStreamsBeyondTheLimit(t *testing.T) {
	for name, body := range map[string]func(*http.Request) (*http.Response, error){"streams": streaming(0), "downloads": func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("it goes on"))}, nil
	}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.next = body
			chain := r.load(true, adaptive(Adaptive{On: true, Min: 2, Max: 60}, func(c *Config) { c.Wait = 0 }))
			var open []*http.Response
			for range 60 {
				open = append(open, r.open(chain, api))
			}
			if got := r.places(); got.Limit != 60 || got.Held != 60 || got.Begun != 60 {
				t.Errorf("%s: %+v", name, got)
			}
			r.refused(chain, t.Context(), api)
			for _, o := range open[:30] {
				_ = o.Body.Close()
			}
			if got := r.places(); got.Limit != 50 || got.Held != 30 {
				t.Errorf("%s: %+v; want 20 places beside 30", name, got)
			}
			s := newServer(100, 50*time.Millisecond)
			r.next = s.serve
			r.crowd(chain, 40, time.Minute)
			if got := r.places(); got.Limit != 60 || s.most != 30 || len(got.Changes) == 0 {
				t.Errorf("%s: %+v, %d at once; want it grown to 30 beside 30", name, got, s.most)
			}
			for _, o := range open {
				_ = o.Body.Close()
			}
			if got := r.places(); got.Held != 0 || got.Begun != 0 {
				t.Errorf("%s: %+v", name, got)
			}
		})
	}
}

// Whoever waits gets a place when an answer ahead begins.
func TestAdaptiveHeadMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.next = streaming(time.Second)
		chain := r.load(true, adaptive(Adaptive{On: true}, func(c *Config) { c.Max = 1000 }))
		begin := time.Now()
		var wg sync.WaitGroup
		for range 3 * firstPlaces {
			wg.Go(func() {
				req, _ := request(t.Context(), api)
				if resp, err := chain.RoundTrip(req); err == nil {
					time.Sleep(time.Hour)
					_ = resp.Body.Close()
				}
			})
		}
		time.Sleep(10 * time.Second)
		if got := r.places(); got.Begun != 3*firstPlaces || got.Waiting != 0 {
			t.Errorf("%v after: %+v", time.Since(begin), got)
		}
		wg.Wait()
	})
}

// While the limit is halved, streams keep their places and half of the others are left, for a moment only.
func TestAdaptiveStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := newServer(100, 45*time.Millisecond)
		r.next = streaming(0)
		chain := r.load(true, adaptive(Adaptive{On: true, Max: 40}, func(c *Config) { c.Wait = setting.Duration(time.Second) }))
		var open []*http.Response
		for range 20 {
			open = append(open, r.open(chain, api))
		}
		r.next = s.serve
		r.crowd(chain, 15, time.Second)
		s.service = 50 * time.Millisecond
		var failed, halved int
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 2 * 60 * 10 {
				time.Sleep(100 * time.Millisecond)
				switch got := r.places().Limit; {
				case got < 30:
					failed++ // twenty others: half of their places are left
				case got < 40:
					halved++
				}
			}
		}()
		if got := r.crowd(chain, 30, 2*time.Minute); got < 2*60*20*20*9/10 {
			t.Errorf("%d done; twenty places for 50 ms each allow 48000", got)
		}
		<-done
		if failed > 0 || halved == 0 || halved > 2*60*10/20 {
			t.Errorf("of %d looks, %d found the places of streams gone, and %d halved ones", 2*60*10, failed, halved)
		}
		for _, o := range open {
			_ = o.Body.Close()
		}
	})
}

// The heads of streams, upgrades and tunnels come at once: beside them other answers do not look late.
func TestAdaptiveStreamsTellNoLatency(t *testing.T) {
	for name, quick := range map[string]func(*http.Request) (*http.Response, error){
		"streams": streaming(0),
		"upgrades": func(req *http.Request) (*http.Response, error) {
			exchange.Written(req.Context())
			return &http.Response{StatusCode: 101, Body: &duplexBody{}}, nil
		},
		"tunnels": func(req *http.Request) (*http.Response, error) {
			exchange.From(req.Context()).Kind = exchange.KindTunnel
			return &http.Response{StatusCode: 200, Body: &duplexBody{}}, nil
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			s := newServer(100, 50*time.Millisecond)
			chain := r.load(true, adaptive(Adaptive{On: true}, func(c *Config) { c.Wait, c.Queue = 0, 0 }))
			r.next = quick
			for range windowSize + 2 {
				time.Sleep(windowTime / windowSize)
				_ = r.open(chain, api).Body.Close()
			}
			r.next = func(req *http.Request) (*http.Response, error) {
				if s.count()%10 == 0 {
					return quick(req)
				}
				return s.serve(req)
			}
			r.crowd(chain, 6, 3*time.Minute)
			if got := r.places(); got.Limit < firstPlaces-1 || len(got.Changes) > 0 {
				t.Errorf("%s: %+v", name, got)
			}
		})
	}
}

// Where there is nothing but streams, their heads are gone by.
func TestAdaptiveStreamsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.next = streaming(100 * time.Millisecond)
		chain := r.load(true, adaptive(Adaptive{On: true}, nil))
		r.crowd(chain, 80, time.Minute)
		if got := r.places(); got.Limit < 60 {
			t.Errorf("%+v", got)
		}
		s := newServer(10, 100*time.Millisecond)
		r.next = func(req *http.Request) (*http.Response, error) {
			resp, err := s.serve(req)
			resp.Header = http.Header{"Content-Type": {"text/event-stream"}}
			return resp, err
		}
		r.crowd(chain, 80, 2*time.Minute)
		if got := r.places(); got.Limit > 30 {
			t.Errorf("%+v: the upstream answers ten at once", got)
		}
	})
}

// An upstream of slow answers is not asked with half of the places for most of the time.
func TestAdaptiveSlowAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := newServer(100, 20*time.Second)
		random := rand.New(rand.NewPCG(1, 2))
		r.next = func(req *http.Request) (*http.Response, error) {
			s.mu.Lock()
			more := time.Duration(random.Int64N(int64(4 * time.Second)))
			s.mu.Unlock()
			time.Sleep(more)
			return s.serve(req)
		}
		chain := r.load(true, adaptive(Adaptive{On: true, Min: 2, Max: 20}, func(c *Config) { c.Wait = setting.Duration(time.Hour) }))
		if got := r.crowd(chain, 30, 4*time.Hour); got < 4*3600*20/22*9/10 {
			t.Errorf("%d done; twenty places for 22 s each allow 13090", got)
		}
	})
}

// An upstream that is never the bottleneck gets what max allows, and no more.
func TestAdaptiveGrowsToMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := newServer(1000, 50*time.Millisecond)
		r.next = s.serve
		chain := r.load(true, adaptive(Adaptive{On: true, Min: 5, Max: 80}, nil))
		if got := r.places(); got.Limit != 0 {
			t.Errorf("before anything: %+v", got)
		}
		r.crowd(chain, 300, time.Minute)
		if got := r.places(); got.Limit != 80 || s.most > 80 {
			t.Errorf("%+v, %d at once", got, s.most)
		}
		if changes := r.places().Changes; len(changes) == 0 || len(changes) > 16 || changes[len(changes)-1].Reason != "latency" {
			t.Errorf("%v", changes)
		}
	})
}

// What clients take for their uploads, connections to come about and rate limits to let pass is no latency; an answer before an upload's end says nothing.
func TestAdaptiveSlowUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := newServer(1000, 50*time.Millisecond)
		r.next = s.serve
		chain := r.load(true, adaptive(Adaptive{On: true}, nil))
		r.crowd(chain, 10, time.Second)
		r.next = func(req *http.Request) (*http.Response, error) {
			if s.count()%2 == 0 {
				time.Sleep(time.Millisecond)
				return &http.Response{StatusCode: 413, Body: http.NoBody}, nil
			}
			time.Sleep(2 * time.Second)
			return s.serve(req)
		}
		r.crowd(chain, 40, time.Minute)
		if got := r.places(); got.Limit < 20 {
			t.Errorf("%+v", got)
		}
	})
}

// A limit that is not used does not grow: it would tell nothing when it is.
func TestAdaptiveUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := newServer(1000, 50*time.Millisecond)
		r.next = s.serve
		chain := r.load(true, adaptive(Adaptive{On: true}, nil))
		r.crowd(chain, 3, time.Minute)
		if got := r.places(); got.Limit != firstPlaces {
			t.Errorf("%+v", got)
		}
	})
}

// TestGovernorBounds sends random answers through: whatever comes, the limit keeps its bounds.
func TestGovernorBounds(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 3))
		var g governor
		c := Default()
		c.Max = 1 + random.IntN(300)
		c.Adaptive = Adaptive{On: seed%4 != 0, Min: 1 + random.IntN(c.Max)}
		g.configure(c)
		low, high := c.bounds()
		if !c.Adaptive.On {
			low, high = 1, c.Max
		}
		now := time.Now()
		for range 2000 {
			now = now.Add(time.Duration(random.Int64N(int64(50 * time.Millisecond))))
			switch random.IntN(20) {
			case 1:
				g.recover(now)
			case 0:
				g.back(now, now.Add(-time.Duration(random.Int64N(int64(time.Second)))), random.IntN(2*c.Max))
			default:
				took := time.Duration(random.Int64N(int64(time.Hour)))>>random.IntN(40) - time.Second
				g.sample(now, now, took, kind(random.IntN(int(kinds))), random.IntN(2*c.Max))
			}
			g.taken.Store(random.Int32N(2 * int32(c.Max)))
			if limit, got := g.places(); limit < low || got < limit || got > high {
				t.Fatalf("seed %d: %d places for a limit of %d, within %d and %d", seed, got, limit, low, high)
			}
		}
	}
}

// signal is an answer that says so many are too many.
func signal(status int, lines ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{}
		for _, l := range lines {
			name, value, _ := strings.Cut(l, ": ")
			h.Set(name, value)
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(""))}, nil
	}
}

func TestSignals(t *testing.T) {
	for name, c := range map[string]struct {
		next func(*http.Request) (*http.Response, error)
		want [2]int // places afterwards of ten in flight, with adaptive off and on
	}{
		"stripe, the whole account": {signal(429, "Stripe-Rate-Limited-Reason: global-concurrency"), [2]int{7, 7}},
		"stripe, one endpoint":      {signal(503, "Stripe-Rate-Limited-Reason: endpoint-concurrency"), [2]int{7, 7}},
		"stripe, the rate":          {signal(429, "Stripe-Rate-Limited-Reason: global-rate"), [2]int{100, 20}},
		"twilio":                    {signal(429, "Twilio-Concurrent-Requests: 11"), [2]int{7, 7}},
		"twilio, nothing wrong":     {signal(200, "Twilio-Concurrent-Requests: 1"), [2]int{100, 20}},
		"ietf": {signal(429, `RateLimit: "c";r=0, "d";r=5`, `RateLimit-Policy: "c";q=10;qu="concurrent-requests", "d";q=10;w=1`),
			[2]int{7, 7}},
		"ietf, the rate too": {signal(429, `RateLimit: "c";r=0, "d";r=0;t=1`, `RateLimit-Policy: "c";q=10;qu="concurrent-requests", "d";q=10;w=1`),
			[2]int{100, 20}},
		"ietf, from a cache": {signal(429, "Age: 5", `RateLimit: "c";r=0`, `RateLimit-Policy: "c";q=10;qu="concurrent-requests"`), [2]int{100, 20}},
		"a bare 503":         {signal(503), [2]int{100, 20}},
		"a timeout": {func(*http.Request) (*http.Response, error) {
			return nil, &exchange.Failure{Code: exchange.UpstreamTimeout}
		},
			[2]int{100, 7}},
		"a reset": {func(*http.Request) (*http.Response, error) {
			return nil, &exchange.Failure{Code: exchange.UpstreamReset}
		}, [2]int{100, 20}},
	} {
		for i, on := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				chain := r.load(true, adaptive(Adaptive{On: on}, nil))
				answers := make(chan struct{})
				r.next = func(*http.Request) (*http.Response, error) {
					<-answers
					return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
				}
				for range 9 {
					go func() { r.open(chain, api) }()
				}
				time.Sleep(time.Second)
				synctest.Wait()
				r.next = c.next
				req, _ := request(t.Context(), api)
				resp, err := chain.RoundTrip(req)
				if (err != nil) != (resp == nil) {
					t.Fatal(resp, err)
				}
				if resp != nil && resp.Body != nil {
					_ = resp.Body.Close()
				}
				got := r.places()
				if got.Limit != c.want[i] || got.Max != 100 {
					t.Errorf("%s, adaptive %v: %+v; want %d places", name, on, got, c.want[i])
				}
				if news := len(got.Changes) == 1 && got.Changes[0].Reason != ""; news != (c.want[i] == 7) {
					t.Errorf("%s: changes %v", name, got.Changes)
				}
				close(answers)
			})
		}
	}
}

// A timeout says that the upstream was late only where it had the time.
func TestTimeoutOfAllAttempts(t *testing.T) {
	for waited, want := range map[time.Duration]int{0: 1, time.Second: firstPlaces} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			chain := r.load(true, adaptive(Adaptive{On: true}, nil))
			r.next = func(*http.Request) (*http.Response, error) {
				return nil, &exchange.Failure{Code: exchange.UpstreamTimeout, Sent: true, Overall: true}
			}
			req, x := request(t.Context(), api)
			x.Waited(waited)
			_, _ = chain.RoundTrip(req)
			if got := r.places(); got.Limit != want {
				t.Errorf("waited %v: %+v; want %d places", waited, got, want)
			}
		})
	}
}

// What was sent before the limit shrank says nothing new; what is lost comes back in a minute where the limit does not adapt.
func TestRetreatAndRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(true, adaptive(Adaptive{}, func(c *Config) { c.Max = 60 }))
		crowded := signal(429, "Stripe-Rate-Limited-Reason: global-concurrency")
		r.next = func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return crowded(req)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				req, _ := request(t.Context(), api)
				if resp, err := chain.RoundTrip(req); err == nil {
					_ = resp.Body.Close()
				}
			})
		}
		wg.Wait()
		if got := r.places().Limit; got != 14 {
			t.Errorf("twenty refusals of one moment left %d places; want 14", got)
		}
		for i, want := range []int{14, 29, 44, 59, 60} {
			if got := r.places(); got.Limit != want || i > 0 && got.Changes[len(got.Changes)-1].Reason != regrown {
				t.Errorf("after %ds there are %d places; want %d: %v", 15*i, got.Limit, want, got.Changes)
			}
			time.Sleep(15*time.Second + leastStep)
		}
	})
}

// A limit that was cut below what streams hold grows back without an answer, and those who wait hear of it. It is cut again while it does so.
func TestRecoveryBesideStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(true, level("defaults", func(c *Config) { c.Max, c.Wait = 10, setting.Duration(time.Minute) }))
		r.next = streaming(0)
		for range 8 {
			r.open(chain, api)
		}
		refused := func() {
			r.next = signal(429, "Stripe-Rate-Limited-Reason: endpoint-concurrency")
			_ = r.open(chain, api).Body.Close()
			r.next = signal(200)
		}
		ask := func(least, most time.Duration) {
			t.Helper()
			begin := time.Now()
			_ = r.open(chain, api).Body.Close()
			if d := time.Since(begin); d < least || d > most {
				t.Errorf("a request waited %v", d)
			}
		}
		refused()
		if got := r.places().Limit; got != 6 {
			t.Errorf("%d places; want 6", got)
		}
		ask(15*time.Second, 18*time.Second) // from 6.3 to 9, one each 6 s
		refused()
		ask(15*time.Second, 18*time.Second)
		time.Sleep(10 * time.Second)
		r.load(true, level("defaults", func(c *Config) { c.Max = 20 })) // while it grows
		time.Sleep(time.Second)
		if got := r.places(); got.Limit != 20 || got.Held != 8 {
			t.Errorf("%+v", got)
		}
		refused()
		time.Sleep(time.Minute)
		if got := r.places().Limit; got != 20 {
			t.Errorf("%d places after a minute", got)
		}
		refused()
		r.load(true, adaptive(Adaptive{On: true}, func(c *Config) { c.Max = 20 }))
		time.Sleep(time.Minute)
		r.load(true, level("defaults", func(c *Config) { c.Max = 20 }))
		refused()
		time.Sleep(time.Minute)
		if got := r.places().Limit; got != 20 {
			t.Errorf("%d places a minute after the limit did adapt", got)
		}
	})
}

// A reload keeps what was found out, within the new bounds.
func TestAdaptiveReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.load(true, adaptive(Adaptive{On: true}, nil))
		chain := r.load(true, adaptive(Adaptive{On: true}, nil))
		_ = r.open(chain, api).Body.Close()
		for _, c := range []struct {
			a         Adaptive
			max, want int
		}{
			{Adaptive{On: true, Min: 30}, 100, 30}, {Adaptive{On: true}, 100, 30}, {Adaptive{On: true, Max: 10}, 100, 10}, {Adaptive{}, 100, 100},
			{Adaptive{}, 50, 50}, {Adaptive{On: true}, 50, 20}, {Adaptive{On: true}, 5, 5},
		} {
			r.load(true, adaptive(c.a, func(l *Config) { l.Max = c.max }))
			if got := r.places(); got.Limit != c.want || got.Max != c.max || got.Adaptive != c.a.String() {
				t.Errorf("%+v: %+v", c, got)
			}
		}
		families, err := r.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		told := 0.0
		for _, f := range families {
			if f.GetName() == "httpowerd_concurrency_limit" {
				told = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		if told != 5 {
			t.Errorf("the metric says %v", told)
		}
	})
}

func TestAdaptiveSetting(t *testing.T) {
	for text, c := range map[string]struct {
		in   any
		want Adaptive
		fine bool
	}{
		"off":                {"off", Adaptive{}, true},
		"on":                 {true, Adaptive{On: true}, true},
		"{min: 5}":           {map[string]any{"min": int64(5)}, Adaptive{On: true, Min: 5}, true},
		"{max: 5}":           {map[string]any{"max": int64(5)}, Adaptive{On: true, Max: 5}, true},
		"{min: 1, max: 5}":   {map[string]any{"min": int64(1), "max": int64(5)}, Adaptive{On: true, Min: 1, Max: 5}, true},
		"a word":             {"maybe", Adaptive{}, false},
		"a number":           {int64(5), Adaptive{}, false},
		"nothing of each":    {map[string]any{"min": int64(0)}, Adaptive{}, false},
		"too much":           {map[string]any{"max": int64(maxMax + 1)}, Adaptive{}, false},
		"another key":        {map[string]any{"start": int64(5)}, Adaptive{}, false},
		"a number in words":  {map[string]any{"min": "5"}, Adaptive{}, false},
		"a fraction of some": {map[string]any{"min": 1.5}, Adaptive{}, false},
	} {
		var a Adaptive
		if err := a.DecodeSetting(c.in); (err == nil) != c.fine || a != c.want || c.fine && a.String() != text {
			t.Errorf("%s: %v, %+v", text, err, a)
		}
	}
	for want, a := range map[string]Adaptive{
		"adaptive: its max (200) must not be above max beside it (100)": {On: true, Max: 200},
		"adaptive: its min (50) must not be above its max":              {On: true, Min: 50, Max: 40},
		"adaptive: its min (101) must not be above its max":             {On: true, Min: 101},
	} {
		c := Default()
		c.Adaptive = a
		if faults := c.Validate(); len(faults) != 1 || faults[0].Error() != want {
			t.Errorf("%v; want %s", faults, want)
		}
	}
}

// Tenants take turns: one with many requests does not keep another waiting.
func TestTenantsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(true, level("defaults", func(c *Config) { c.Max, c.Queue, c.Wait = 1, 6, setting.Duration(time.Minute) }))
		first := r.open(chain, api)
		var mu sync.Mutex
		var order []string
		join := func(tenant string) {
			go func() {
				req, x := request(t.Context(), api)
				x.Tenant = tenant
				resp, err := chain.RoundTrip(req)
				mu.Lock()
				defer mu.Unlock()
				if errors.As(err, new(*exchange.Refusal)) {
					order = append(order, "-"+tenant)
					return
				}
				order = append(order, tenant)
				_ = resp.Body.Close()
			}()
			synctest.Wait()
		}
		for range 6 {
			join("a")
		}
		join("b") // the queue is full: one of a's six gives way
		join("b")
		join("c")
		join("a") // has more than the others: refused
		_ = first.Body.Close()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(order, " "); got != "-a -a -a -a a b c a b a" {
			t.Errorf("%s", got)
		}
	})
}

// An upstream that answers within a fraction of a millisecond is not thought to queue because it once takes a whole one.
func TestAdaptiveNoise(t *testing.T) {
	now := time.Unix(1, 0)
	var g governor
	c := Default()
	c.Max, c.Adaptive = 500, Adaptive{On: true}
	g.configure(c)
	for i := range 2200 {
		now = now.Add(10 * time.Millisecond)
		took := 200 * time.Microsecond
		if i > 200 {
			took = 900 * time.Microsecond
		}
		g.sample(now, now.Add(-took), took, whole, int(g.limit))
	}
	if got, _ := g.places(); got < 100 {
		t.Errorf("%d places", got)
	}
}
