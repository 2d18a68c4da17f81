package concurrency

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a bulkhead before an upstream that answers as the test says.
type rig struct {
	*testing.T
	room   *Room
	reg    *prometheus.Registry
	keeper state.Keeper
	next   func(*http.Request) (*http.Response, error)
	sent   atomic.Int32
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, reg: prometheus.NewPedanticRegistry()}
	r.room = New(r.reg)
	r.next = func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("body"))}, nil
	}
	return r
}

func level(name string, edit func(*Config)) Level {
	l := Level{Name: name, Config: Default()}
	edit(&l.Config)
	return l
}

// load makes the chain of a policy, and commits it or not.
func (r *rig) load(commit bool, levels ...Level) http.RoundTripper {
	g := r.keeper.Begin()
	chain := r.link(g, "api.example.com", levels...)
	if commit {
		g.Commit()
	}
	return chain
}

func (r *rig) link(g *state.Generation, policy string, levels ...Level) http.RoundTripper {
	for _, l := range levels {
		if faults := l.Config.Validate(); len(faults) > 0 {
			r.Fatal(faults)
		}
	}
	return exchange.Chain(exchange.RoundTripperFunc(func(req *http.Request) (*http.Response, error) {
		r.sent.Add(1)
		return r.next(req)
	}), r.room.Stage(state.Scope{Generation: g, Policy: policy}, levels))
}

func request(ctx context.Context, host string) (*http.Request, *exchange.Exchange) {
	x := &exchange.Exchange{Target: exchange.Authority{Host: host, Port: 443}, Host: host, Policy: "*.example.com#0"}
	req, err := http.NewRequestWithContext(exchange.NewContext(ctx, x), http.MethodGet, "https://"+host+"/", nil)
	if err != nil {
		panic(err)
	}
	return req, x
}

func (r *rig) open(chain http.RoundTripper, host string) *http.Response {
	r.Helper()
	req, _ := request(r.Context(), host)
	resp, err := chain.RoundTrip(req)
	if err != nil {
		r.Fatal(err)
	}
	return resp
}

func (r *rig) refused(chain http.RoundTripper, ctx context.Context, host string) *exchange.Refusal {
	r.Helper()
	req, _ := request(ctx, host)
	resp, err := chain.RoundTrip(req)
	var refusal *exchange.Refusal
	if !errors.As(err, &refusal) || refusal.Code != exchange.ConcurrencyLimited || refusal.RetryAfter <= 0 {
		r.Errorf("%v, %v; want concurrency_limited with Retry-After", resp, err)
	}
	return refusal
}

const api = "api.example.com"

func TestPlaceIsHeldUntilTheBodyIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(true, level("defaults", func(c *Config) { c.Max, c.Wait = 1, 0 }))
		resp := r.open(chain, api)
		_, _ = io.ReadAll(resp.Body)
		r.refused(chain, t.Context(), api)
		r.open(chain, "other.example.com") // an authority of its own
		_ = resp.Body.Close()
		_ = resp.Body.Close() // once is enough
		resp = r.open(chain, api)
		r.refused(chain, t.Context(), api)
		_ = resp.Body.Close()
	})
}

func TestPlaceIsFreeWithoutABody(t *testing.T) {
	r := newRig(t)
	chain := r.load(true, level("defaults", func(c *Config) { c.Max, c.Wait = 1, 0 }))
	for name, next := range map[string]func(*http.Request) (*http.Response, error){
		"failure": func(*http.Request) (*http.Response, error) {
			return nil, &exchange.Failure{Code: exchange.UpstreamReset}
		},
		"no body": func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
		},
		"panic": func(*http.Request) (*http.Response, error) { panic("a defect") },
	} {
		r.next = next
		for range 3 {
			func() {
				defer func() { _ = recover() }()
				req, _ := request(t.Context(), api)
				_, err := chain.RoundTrip(req)
				if errors.As(err, new(*exchange.Refusal)) {
					t.Errorf("after a %s: %v", name, err)
				}
			}()
		}
	}
}

func TestQueueKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(true, level("defaults", func(c *Config) { c.Max, c.Queue, c.Wait = 1, 2, setting.Duration(10*time.Second) }))
		first := r.open(chain, api)
		order := make(chan int, 9)
		for i := range 2 {
			go func() {
				req, x := request(t.Context(), api)
				resp, err := chain.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				if w := x.Story().LimitWait; w < 3*time.Second {
					t.Errorf("the story says it waited %v", w)
				}
				order <- i
				time.Sleep(time.Second)
				_ = resp.Body.Close()
			}()
			synctest.Wait()
		}
		start := time.Now()
		r.refused(chain, t.Context(), api) // the queue is full
		if time.Since(start) != 0 {
			t.Error("a full queue took its time")
		}
		time.Sleep(3 * time.Second)
		_ = first.Body.Close()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		close(order)
		var got []int
		for i := range order {
			got = append(got, i)
		}
		if !slices.Equal(got, []int{0, 1}) {
			t.Errorf("order %v", got)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(true, level("defaults", func(c *Config) { c.Max = 1 }))
		resp := r.open(chain, api)
		start := time.Now()
		r.refused(chain, t.Context(), api)
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("refused after %v; want 5s", d)
		}
		late, cancel := context.WithTimeoutCause(t.Context(), time.Second, &exchange.Failure{Code: exchange.UpstreamTimeout})
		defer cancel()
		r.refused(chain, late, api) // the deadline of the exchange
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		req, _ := request(gone, api)
		if _, err := chain.RoundTrip(req); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that left: %v", err)
		}
		_ = resp.Body.Close()
		_ = r.open(chain, api).Body.Close()
	})
}

func TestLevelsAddUp(t *testing.T) {
	r := newRig(t)
	wide := level("defaults", func(c *Config) { c.Max, c.Wait, c.Scope = 3, 0, ScopePattern })
	narrow := level(`hosts["*.example.com"]`, func(c *Config) { c.Max, c.Wait = 2, 0 })
	chain := r.load(true, wide, narrow)
	a, b := r.open(chain, api), r.open(chain, api)
	r.refused(chain, t.Context(), api)             // by its own level
	third := r.open(chain, "other.example.com")    // the third of the pattern
	r.refused(chain, t.Context(), "x.example.com") // by the pattern's
	for _, resp := range []*http.Response{a, b, third} {
		_ = resp.Body.Close()
	}
	_ = r.open(chain, "x.example.com").Body.Close()
}

// Whoever waits at a narrow level takes no place of a wide one from others, whatever else is between; where the wide one refuses, the narrow one's is given back.
func TestNarrowLevelsAreAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		wide := level(`hosts["api.example.com"]`, func(c *Config) { c.Max, c.Wait = 2, setting.Duration(time.Second) })
		watched := level(`hosts["api.example.com"].routes[0]`, func(c *Config) { c.Max, c.Mode = 1, setting.Observe })
		narrow := level(`tenants["t"].hosts["api.example.com"]`, func(c *Config) { c.Max, c.Wait = 1, setting.Duration(time.Minute) })
		g := r.keeper.Begin()
		reports, others := r.link(g, "api.example.com#reports@t", wide, watched, narrow), r.link(g, "api.example.com", wide)
		g.Commit()
		first := r.open(reports, api)
		stories := make(chan exchange.Story, 5)
		for range cap(stories) {
			go func() {
				req, x := request(t.Context(), api)
				if resp, err := reports.RoundTrip(req); err == nil {
					_ = resp.Body.Close()
				}
				stories <- x.Story()
			}()
		}
		synctest.Wait()
		begin := time.Now()
		other := r.open(others, api)
		if d := time.Since(begin); d > 0 {
			t.Errorf("it waited %v", d)
		}
		r.refused(others, t.Context(), api)
		_ = first.Body.Close()
		first = r.open(others, api) // the wide one is full: the next of reports waits there with its narrow place
		time.Sleep(2 * time.Second)
		_, _ = first.Body.Close(), other.Body.Close()
		for range cap(stories) {
			if s := <-stories; len(s.Observed) > 0 {
				t.Errorf("observed %v, though but one was in flight at once", s.Observed)
			}
		}
		r.room.Status(func(s Status) {
			if s.Held != 0 || s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
		})
	})
}

func TestPoliciesShareALevel(t *testing.T) {
	r := newRig(t)
	l := level("defaults", func(c *Config) { c.Max, c.Wait = 1, 0 })
	g := r.keeper.Begin()
	one, two := r.link(g, "api.example.com", l), r.link(g, "api.example.com#search", l)
	g.Commit()
	resp := r.open(one, api)
	r.refused(two, t.Context(), api)
	_ = resp.Body.Close()
}

func TestReloadReachesThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		set := func(places int) Level {
			return level("defaults", func(c *Config) { c.Max, c.Wait = places, setting.Duration(time.Minute) })
		}
		chain := r.load(true, set(1))
		first := r.open(chain, api)
		done := make(chan *http.Response, 1)
		go func() { done <- r.open(chain, api) }()
		synctest.Wait()
		r.load(false, set(2))
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("a configuration that was not committed acted")
		}
		again := r.load(true, set(2))
		synctest.Wait()
		if len(done) != 1 {
			t.Fatal("a raised bound did not reach the request that waits")
		}
		r.load(true, level("defaults", func(c *Config) { c.Max, c.Wait = 1, 0 }))
		_ = first.Body.Close()
		narrow := r.load(true, level("defaults", func(c *Config) { c.Max, c.Wait = 1, 0 }))
		r.refused(narrow, t.Context(), api) // the other one is still in flight
		_ = (<-done).Body.Close()
		_ = r.open(again, api).Body.Close()
	})
}

func TestObserve(t *testing.T) {
	r := newRig(t)
	chain := r.load(true, level("defaults", func(c *Config) { c.Max, c.Mode = 1, setting.Observe }))
	first := r.open(chain, api)
	req, x := request(t.Context(), api)
	resp, err := chain.RoundTrip(req)
	if err != nil || !slices.Equal(x.Story().Observed, []string{"concurrency_limited"}) {
		t.Errorf("%v, observed %v", err, x.Story().Observed)
	}
	_, _ = first.Body.Close(), resp.Body.Close()
	want := map[string]float64{"allowed": 1, "observed": 1, "delayed": 0, "refused": 0, "active": 0}
	for name, n := range want {
		if got := r.metric(name); got != n {
			t.Errorf("%s: %v; want %v", name, got, n)
		}
	}
}

// metric is a decision's count, or active.
func (r *rig) metric(name string) (n float64) {
	families, err := r.reg.Gather()
	if err != nil {
		r.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := m.GetLabel()
			if labels[0].GetValue() == name || name == "active" && f.GetName() == "httpowerd_concurrency_active" {
				n += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return n
}

type duplexBody struct{ bytes.Buffer }

func (*duplexBody) Close() error { return nil }

func TestBodiesKeepTheirAbilities(t *testing.T) {
	r := newRig(t)
	chain := r.load(true, level("defaults", func(c *Config) { c.Max = 9 }))
	both := &duplexBody{}
	r.next = func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 101, Body: both}, nil }
	upgraded := r.open(chain, api).Body
	if w, ok := upgraded.(io.ReadWriteCloser); !ok {
		t.Error("the body of a 101 cannot be written to")
	} else if _, err := w.Write([]byte("ping")); err != nil || both.String() != "ping" {
		t.Errorf("written: %q, %v", both.String(), err)
	}
	_ = upgraded.Close()
	r.next = func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("all of it"))}, nil
	}
	body := r.open(chain, api).Body
	var got bytes.Buffer
	if w, ok := body.(io.WriterTo); !ok {
		t.Error("the body cannot write itself any more")
	} else if _, err := w.WriteTo(&got); err != nil || got.String() != "all of it" {
		t.Errorf("%q, %v", got.String(), err)
	}
	_ = body.Close()
}

func BenchmarkStage(b *testing.B) {
	var keeper state.Keeper
	scope := state.Scope{Generation: keeper.Begin(), Policy: "p"}
	resp := &http.Response{StatusCode: 200, Body: http.NoBody}
	next := exchange.RoundTripperFunc(func(*http.Request) (*http.Response, error) { return resp, nil })
	chain := exchange.Chain(next, New(nil).Stage(scope, []Level{{"defaults", Default()}}))
	req, _ := request(context.Background(), api)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = chain.RoundTrip(req)
	}
}
