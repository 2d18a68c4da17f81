package breaker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
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

var errReset = &exchange.Failure{Code: exchange.UpstreamReset, Sent: true}

// rig is a breaker before an upstream that answers as the test says.
type rig struct {
	*testing.T
	room   *Room
	reg    *prometheus.Registry
	log    bytes.Buffer
	chain  http.RoundTripper
	next   func(*http.Request) (*http.Response, error)
	sent   atomic.Int32
	change []Change // read when nothing runs
}

func newRig(t *testing.T, edit func(*Config)) *rig {
	r := &rig{T: t, reg: prometheus.NewPedanticRegistry()}
	r.room = New(r.reg, slog.New(slog.NewTextHandler(&r.log, nil)))
	r.room.OnChange(func(c Change) { r.change = append(r.change, c) })
	c := Default()
	if edit != nil {
		edit(&c)
	}
	if faults := c.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	var keeper state.Keeper
	g := keeper.Begin()
	r.chain = r.link(g, c)
	g.Commit()
	return r
}

func (r *rig) link(g *state.Generation, c Config) http.RoundTripper {
	scope := state.Scope{Generation: g, Policy: "api.example.com"}
	return exchange.Chain(exchange.RoundTripperFunc(func(req *http.Request) (*http.Response, error) {
		r.sent.Add(1)
		return r.next(req)
	}), r.room.Look(scope, c), r.room.Admit(scope, c))
}

func request(ctx context.Context, method string) (*http.Request, *exchange.Exchange) {
	x := &exchange.Exchange{Target: exchange.Authority{Host: "api.example.com", Port: 443}, Host: "api.example.com"}
	req, err := http.NewRequestWithContext(exchange.NewContext(ctx, x), method, "https://api.example.com/", nil)
	if err != nil {
		panic(err)
	}
	return req, x
}

func answer(status int, fields ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody}
	for i := 0; i < len(fields); i += 2 {
		resp.Header.Set(fields[i], fields[i+1])
	}
	return resp
}

// status makes the upstream answer so from now on.
func (r *rig) status(status int, fields ...string) {
	r.next = func(*http.Request) (*http.Response, error) { return answer(status, fields...), nil }
}

func (r *rig) fail(err error) {
	r.next = func(*http.Request) (*http.Response, error) { return nil, err }
}

// get sends n requests and returns the last refusal.
func (r *rig) get(n int) *exchange.Refusal {
	r.Helper()
	var refusal *exchange.Refusal
	for range n {
		req, _ := request(r.Context(), http.MethodGet)
		resp, err := r.chain.RoundTrip(req)
		refusal = nil
		if err == nil {
			_, _ = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		} else if errors.As(err, &refusal) && refusal.Code != exchange.BreakerOpen {
			refusal = nil
		}
	}
	return refusal
}

// is checks the state as everybody sees it.
func (r *rig) is(want string) {
	r.Helper()
	all := r.room.Status()
	if len(all) != 1 || all[0].State != want {
		r.Fatalf("the breaker is %+v; want %s", all, want)
	}
}

// wait waits until probes would be let through.
func (r *rig) wait() {
	r.Helper()
	time.Sleep(r.room.Status()[0].RetryAfter)
}

func TestConsecutiveFailuresOpen(t *testing.T) {
	for name, fail := range map[string]func(*rig){
		"502": func(r *rig) { r.status(502) }, "503": func(r *rig) { r.status(503) }, "504": func(r *rig) { r.status(504) },
		"reset":   func(r *rig) { r.fail(errReset) },
		"connect": func(r *rig) { r.fail(fmt.Errorf("wrapped: %w", &exchange.Failure{Code: exchange.UpstreamConnect})) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				fail(r)
				r.get(4)
				r.is(Closed)
				r.status(404)
				r.get(1) // a success: it was there
				fail(r)
				r.get(4)
				r.is(Closed)
				r.get(1)
				r.is(Open)
				sent := r.sent.Load()
				refusal := r.get(1)
				if refusal == nil || refusal.RetryAfter < 27*time.Second || refusal.RetryAfter > 33*time.Second {
					t.Errorf("%+v; want a refusal for 30s ± 10 %%", refusal)
				}
				if r.sent.Load() != sent {
					t.Error("an open breaker let a request through")
				}
			})
		})
	}
}

func TestWhatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Consecutive = 2 })
		gone, leave := context.WithCancel(t.Context())
		leave()
		for name, say := range map[string]func(){
			"429":       func() { r.status(429, "Retry-After", "60"); r.get(1) },
			"500":       func() { r.status(500); r.get(1) },
			"refusal":   func() { r.fail(exchange.Refuse(exchange.DestinationDenied, "no")); r.get(1) },
			"own error": func() { r.fail(errors.New("a defect")); r.get(1) },
			"client left": func() {
				r.fail(errReset)
				req, _ := request(gone, http.MethodGet)
				_, _ = r.chain.RoundTrip(req)
			},
			"panic": func() {
				defer func() { _ = recover() }()
				r.next = func(*http.Request) (*http.Response, error) { panic("a defect") }
				r.get(1)
			},
		} {
			r.fail(errReset)
			r.get(1)
			for range 5 {
				say()
			}
			if s := r.room.Status()[0]; s.State != Closed {
				t.Fatalf("%s opened the breaker: %s", name, s.Reason)
			}
			r.status(200)
			r.get(20)
		}
	})
}

func TestDeadlineIsTheUpstreamsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Consecutive = 1 })
		ctx, cancel := context.WithCancelCause(t.Context())
		r.next = func(*http.Request) (*http.Response, error) {
			cancel(&exchange.Failure{Code: exchange.UpstreamTimeout, Sent: true})
			return nil, context.Canceled
		}
		req, _ := request(ctx, http.MethodGet)
		_, _ = r.chain.RoundTrip(req)
		r.is(Open)
	})
}

func TestConsecutiveIsNotLimitedByTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Ratio, c.Consecutive = 0, 3 })
		r.fail(errReset)
		for range 3 {
			r.get(1)
			time.Sleep(time.Hour)
		}
		r.get(1)
		if len(r.change) == 0 || r.change[0].To != Open {
			t.Errorf("changes: %+v; want open", r.change)
		}
	})
	synctest.Test(t, func(t *testing.T) { // and neither are failures slower than the window
		r := newRig(t, func(c *Config) { c.Ratio, c.Consecutive = 0, 2 })
		r.next = func(*http.Request) (*http.Response, error) {
			time.Sleep(10 * time.Minute)
			return nil, errReset
		}
		r.get(2)
		r.is(Open)
	})
}

func TestRatio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Consecutive = 0 })
		r.status(500)
		r.get(19)
		r.is(Closed)
		r.get(1)
		r.is(Open)
		if why := r.room.Status()[0].Reason; !strings.Contains(why, "20 of 20 answers within 1m failed,") || !strings.Contains(why, "status 500") {
			t.Errorf("reason %q", why)
		}
	})
	synctest.Test(t, func(t *testing.T) { // the window rolls
		r := newRig(t, func(c *Config) { c.Consecutive = 0 })
		r.status(500)
		r.get(19)
		time.Sleep(61 * time.Second)
		r.get(1)
		r.is(Closed)
	})
	synctest.Test(t, func(t *testing.T) { // attempts in flight are no successes
		r := newRig(t, func(c *Config) { c.Consecutive, c.Minimum = 0, 2 })
		done := make(chan struct{})
		r.next = func(*http.Request) (*http.Response, error) { <-done; return answer(200), nil }
		for range 10 {
			go r.get(1)
		}
		synctest.Wait()
		r.status(500)
		r.get(2)
		r.is(Open)
		close(done)
	})
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			c.Minimum, c.Consecutive = 3, 1
			c.Slow = setting.OptionalDuration{On: true, Duration: time.Second}
		})
		answers := func(upload, after time.Duration) {
			r.next = func(req *http.Request) (*http.Response, error) {
				time.Sleep(upload)
				exchange.Written(req.Context())
				time.Sleep(after)
				return answer(200), nil
			}
		}
		answers(10*time.Second, time.Second) // connecting, or a client that takes its time
		r.get(3)
		r.is(Closed)
		r.next = func(*http.Request) (*http.Response, error) { time.Sleep(time.Minute); return answer(200), nil }
		r.get(3) // before the upload's end
		r.is(Closed)
		time.Sleep(time.Hour)
		answers(0, 2*time.Second)
		r.get(2)
		r.is(Closed)
		r.get(1)
		r.is(Open)
	})
}

func TestCount429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.CountFourTwoNine = true })
		r.status(429)
		r.get(5)
		r.is(Open)
	})
}

func TestProbesAndDoubling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Ramp = 0 })
		r.fail(errReset)
		r.get(5)
		for _, want := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
			left := r.room.Status()[0].RetryAfter
			if left < want*9/10 || left > want*11/10 || left > 5*time.Minute {
				t.Errorf("open for %v; want %v ± 10 %%", left, want)
			}
			r.wait()
			sent := r.sent.Load()
			r.get(10)
			if n := r.sent.Load() - sent; n != 1 {
				t.Fatalf("%d attempts after a probe failed; want the one", n)
			}
		}
		r.wait()
		r.status(200)
		r.get(2)
		r.is(HalfOpen)
		r.get(1)
		r.is(Closed)
		r.fail(errReset)
		r.get(5)
		if left := r.room.Status()[0].RetryAfter; left > 33*time.Second {
			t.Errorf("open for %v after it had closed; want 30s again", left)
		}
	})
}

func TestHalfOpenAdmitsSoManyProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.fail(errReset)
		r.get(5)
		r.wait()
		sent := r.sent.Load()
		release := make(chan struct{})
		r.next = func(*http.Request) (*http.Response, error) { <-release; return answer(200), nil }
		for range 20 {
			go r.get(1)
		}
		synctest.Wait()
		if n := r.sent.Load() - sent; n != 3 {
			t.Errorf("%d probes at once; want 3", n)
		}
		r.is(HalfOpen)
		close(release)
		synctest.Wait()
		r.is(Closed)
	})
}

func TestProbesThatSayNothingGiveTheirPlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.fail(errReset)
		r.get(5)
		r.wait()
		r.fail(exchange.Refuse(exchange.DestinationDenied, "no"))
		r.get(50)
		func() {
			defer func() { _ = recover() }()
			r.next = func(*http.Request) (*http.Response, error) { panic("a defect") }
			r.get(1)
		}()
		r.is(HalfOpen)
		r.status(200)
		r.get(3)
		r.is(Closed)
	})
}

func TestProbeThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Probes = 1 })
		r.fail(errReset)
		r.get(5)
		r.wait()
		release := make(chan struct{})
		r.next = func(*http.Request) (*http.Response, error) { <-release; return answer(200), nil }
		go r.get(1)
		time.Sleep(30*time.Second + time.Millisecond)
		synctest.Wait()
		r.is(Open)
		r.wait()
		r.status(200)
		r.get(1)
		r.is(Closed)
		r.fail(errReset)
		r.get(1)
		close(release) // a late success takes nothing back
		synctest.Wait()
		r.get(4)
		r.is(Open)
	})
}

func TestLateResultsOfAnEarlierState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Probes, c.Ramp = 1, 0 })
		release := make(chan struct{})
		r.next = func(*http.Request) (*http.Response, error) { <-release; return nil, errReset }
		for range 10 {
			go r.get(1)
		}
		synctest.Wait()
		r.fail(errReset)
		r.get(5)
		r.wait()
		r.status(200)
		r.get(1)
		r.is(Closed)
		close(release)
		synctest.Wait()
		r.is(Closed)
		if len(r.change) != 3 {
			t.Errorf("%d changes; want open, half_open, closed", len(r.change))
		}
	})
}

func TestRetryAfterSetsTheOpenTime(t *testing.T) {
	for field, want := range map[string][2]time.Duration{
		"120": {120 * time.Second, 132 * time.Second}, "5": {5 * time.Second, 5500 * time.Millisecond},
		"86400": {5 * time.Minute, 5 * time.Minute}, "soon": {27 * time.Second, 33 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.status(503, "Retry-After", field)
			r.get(5)
			if left := r.room.Status()[0].RetryAfter; left < want[0] || left > want[1] {
				t.Errorf("Retry-After: %s opened for %v; want %v", field, left, want)
			}
		})
	}
}

// stream is a body that a test feeds.
type stream struct {
	io.Reader
	closed *atomic.Bool
}

func (s stream) Close() error { s.closed.Store(true); return nil }

func TestBodyThatBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Consecutive = 3 })
		closed := new(atomic.Bool)
		r.next = func(*http.Request) (*http.Response, error) {
			resp := answer(200)
			resp.ContentLength = 100
			resp.Body = stream{io.MultiReader(strings.NewReader("some"), broken{}), closed}
			return resp, nil
		}
		r.get(2)
		r.is(Closed)
		r.get(1)
		r.is(Open)
		if !closed.Load() {
			t.Error("the body was not closed")
		}
	})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestClientThatStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Consecutive = 1 })
		ctx, leave := context.WithCancel(t.Context())
		r.next = func(*http.Request) (*http.Response, error) {
			resp := answer(200)
			resp.ContentLength, resp.Body = 100, stream{broken{}, new(atomic.Bool)}
			return resp, nil
		}
		req, _ := request(ctx, http.MethodGet)
		resp, err := r.chain.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		leave()
		_, _ = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		r.is(Closed)
	})
}

func TestEndlessAnswerOfAProbeIsASuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Probes = 1 })
		r.fail(errReset)
		r.get(5)
		r.wait()
		reader, writer := io.Pipe()
		r.next = func(*http.Request) (*http.Response, error) {
			resp := answer(200)
			resp.ContentLength, resp.Body = -1, reader
			return resp, nil
		}
		req, _ := request(t.Context(), http.MethodGet)
		resp, err := r.chain.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		r.is(HalfOpen)
		time.Sleep(patience + time.Millisecond)
		r.is(Closed)
		_ = writer.CloseWithError(io.ErrUnexpectedEOF)
		_, _ = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if c := r.circuit(); c.streak.all() != 0 {
			t.Error("one attempt was reported twice")
		}
	})
}

func (r *rig) circuit() *circuit { return r.room.all()[0] }

func TestUpgradesAndTunnelsKeepTheirBodies(t *testing.T) {
	r := newRig(t, nil)
	duplex := struct{ io.ReadWriteCloser }{}
	for _, c := range []struct {
		method string
		status int
	}{{http.MethodGet, 101}, {http.MethodConnect, 200}} {
		r.next = func(*http.Request) (*http.Response, error) {
			resp := answer(c.status)
			resp.ContentLength, resp.Body = -1, duplex
			return resp, nil
		}
		req, _ := request(t.Context(), c.method)
		resp, err := r.chain.RoundTrip(req)
		if err != nil || resp.Body != io.ReadCloser(duplex) {
			t.Errorf("%s: the body of a %d was wrapped", c.method, c.status)
		}
	}
}

func TestRamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.fail(errReset)
		r.get(5)
		r.wait()
		r.status(200)
		if refusal := r.get(60); refusal != nil {
			t.Errorf("a single client was refused after the breaker closed: %v", refusal)
		}
		share := func() float64 {
			release := make(chan struct{})
			r.next = func(*http.Request) (*http.Response, error) { <-release; return answer(200), nil }
			sent := r.sent.Load()
			for range 1000 {
				go r.get(1)
			}
			synctest.Wait()
			close(release)
			synctest.Wait()
			return float64(r.sent.Load()-sent) / 1000
		}
		if s := share(); s < 0.4 || s > 0.62 {
			t.Errorf("%v of a crowd let through at once; want a half", s)
		}
		time.Sleep(15 * time.Second)
		if s := share(); s < 0.65 || s > 0.85 {
			t.Errorf("%v of a crowd let through in the middle; want three quarters", s)
		}
		time.Sleep(16 * time.Second)
		if s := share(); s != 1 {
			t.Errorf("%v of a crowd let through at the end", s)
		}
	})
}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Mode = setting.Observe })
		r.fail(errReset)
		r.get(5)
		r.is(Open)
		req, x := request(t.Context(), http.MethodGet)
		sent := r.sent.Load()
		_, _ = r.chain.RoundTrip(req)
		if s := x.Story(); r.sent.Load() != sent+1 || len(s.Observed) != 1 || s.Observed[0] != "breaker_open" || s.Breaker != Open {
			t.Errorf("sent %d, story %+v", r.sent.Load()-sent, s)
		}
		r.wait()
		r.status(200)
		r.get(3)
		r.is(Closed)
	})
}

func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		if err := r.room.Force("api.example.com:443", Open); !errors.Is(err, ErrUnknown) {
			t.Errorf("an unknown authority: %v", err)
		}
		r.status(200)
		r.get(1)
		for _, bad := range [][2]string{{"api.example.com:443", "ajar"}, {"api.example.com", Open}, {"api.example.com:443", HalfOpen}} {
			if err := r.room.Force(bad[0], bad[1]); err == nil {
				t.Errorf("%v was taken", bad)
			}
		}
		force := func(to string) {
			t.Helper()
			if err := r.room.Force("API.example.com:443", to); err != nil {
				t.Fatal(err)
			}
		}
		force(Open)
		r.is(Open)
		if r.get(1) == nil {
			t.Error("forced open, it let a request through")
		}
		time.Sleep(time.Hour)
		if r.get(1) == nil {
			t.Error("forced open, it let a request through after an hour")
		}
		force(Closed)
		r.fail(errReset)
		if r.get(50) != nil {
			t.Error("forced closed, it refused")
		}
		force(Auto)
		r.get(5)
		r.is(Open)
		var path []string
		for _, c := range r.change {
			path = append(path, c.From+">"+c.To)
		}
		if got := strings.Join(path, " "); got != "closed>open open>closed closed>open" {
			t.Errorf("changes: %s", got)
		}
	})
}

func TestForcedOutlivesAReload(t *testing.T) {
	r := newRig(t, nil)
	r.status(200)
	r.get(1)
	if err := r.room.Force("api.example.com:443", Open); err != nil {
		t.Fatal(err)
	}
	var keeper state.Keeper
	g := keeper.Begin()
	c := Default()
	c.Consecutive = 9
	r.chain = r.link(g, c)
	g.Commit()
	if r.get(1) == nil {
		t.Error("a forced breaker let a request through after a reload")
	}
}

func TestStoryMetricsAndLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.status(200)
		req, x := request(t.Context(), http.MethodGet)
		_, _ = r.chain.RoundTrip(req)
		if s := x.Story().Breaker; s != Closed {
			t.Errorf("story: %q", s)
		}
		r.fail(errReset)
		r.get(5)
		req, x = request(t.Context(), http.MethodGet)
		_, _ = r.chain.RoundTrip(req)
		if s := x.Story().Breaker; s != Open {
			t.Errorf("story: %q", s)
		}
		want := map[string]float64{
			"httpowerd_breaker_state host=api.example.com state=closed":                    0,
			"httpowerd_breaker_state host=api.example.com state=half_open":                 0,
			"httpowerd_breaker_state host=api.example.com state=open":                      1,
			"httpowerd_breaker_transitions_total from=closed host=api.example.com to=open": 1,
			"httpowerd_breaker_refusals_total host=api.example.com mode=enforce":           1,
		}
		if got := gather(t, r.reg); !maps.Equal(got, want) {
			t.Errorf("metrics: %v", got)
		}
		if n := strings.Count(r.log.String(), "circuit breaker open"); n != 1 {
			t.Errorf("%d lines in the log:\n%s", n, r.log.String())
		}
		if c := r.change[0]; c.Authority != "api.example.com:443" || c.Policy != "api.example.com" || c.Reason != "5 failures in a row, the last: upstream_reset" {
			t.Errorf("%+v", c)
		}
	})
}

// gather reads counters and gauges.
func gather(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestKeptApart(t *testing.T) {
	r := newRig(t, nil)
	r.fail(errReset)
	r.get(5)
	r.status(200)
	for _, edit := range []func(*exchange.Exchange){
		func(x *exchange.Exchange) { x.Tenant = "billing" },
		func(x *exchange.Exchange) { x.Target.Port = 8443 },
		func(x *exchange.Exchange) { x.Target.Host = "other.example.com" },
	} {
		req, x := request(t.Context(), http.MethodGet)
		edit(x)
		if _, err := r.chain.RoundTrip(req); err != nil {
			t.Errorf("%s of tenant %q: %v", x.Target, x.Tenant, err)
		}
	}
}

func TestReloadKeepsTheState(t *testing.T) {
	room := New(nil, nil)
	var keeper state.Keeper
	load := func(c Config) *group {
		g := keeper.Begin()
		made := room.group(state.Scope{Generation: g, Policy: "p"}, c)
		g.Commit()
		return made
	}
	first := load(Default())
	if again := load(Default()); again != first {
		t.Error("a reload without a change started afresh")
	}
	changed := Default()
	changed.Consecutive = 9
	if load(changed) == first || len(room.groups) != 1 {
		t.Errorf("a changed block kept its state, or the old one is still counted (%d)", len(room.groups))
	}
}

func TestUnderLoad(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Open, c.OpenMax = setting.Duration(time.Millisecond), setting.Duration(2*time.Millisecond)
	})
	var n atomic.Int32
	r.next = func(*http.Request) (*http.Response, error) {
		if n.Add(1)%400 < 200 {
			return nil, errReset
		}
		return answer(200), nil
	}
	done := make(chan struct{})
	for range 8 {
		go func() {
			for range 2000 {
				r.get(1)
			}
			done <- struct{}{}
		}()
	}
	for range 8 {
		<-done
	}
	from := Closed
	for _, c := range r.change {
		if c.From != from || c.To == from {
			t.Fatalf("%s to %s while it was %s", c.From, c.To, from)
		}
		from = c.To
	}
	if c := r.circuit(); c.flying.Load() != 0 {
		t.Errorf("%d attempts in flight at the end", c.flying.Load())
	}
}

func BenchmarkClosed(b *testing.B) {
	room := New(nil, nil)
	var keeper state.Keeper
	scope := state.Scope{Generation: keeper.Begin(), Policy: "p"}
	resp := answer(200)
	next := exchange.RoundTripperFunc(func(*http.Request) (*http.Response, error) { return resp, nil })
	chain := exchange.Chain(next, room.Look(scope, Default()), room.Admit(scope, Default()))
	req, _ := request(context.Background(), http.MethodGet)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = chain.RoundTrip(req)
	}
}

// TestStaleIsNeutral: kept connections that were dead say nothing about the upstream.
func TestStaleIsNeutral(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Consecutive = 2 })
	r.next = func(*http.Request) (*http.Response, error) {
		return nil, &exchange.Failure{Code: exchange.UpstreamReset, Sent: true, Stale: true}
	}
	for range 5 {
		req, _ := request(t.Context(), http.MethodGet)
		if resp, err := r.chain.RoundTrip(req); err == nil {
			_ = resp.Body.Close()
		}
	}
	if n := r.sent.Load(); n != 5 {
		t.Errorf("%d of 5 requests were let through", n)
	}
}
