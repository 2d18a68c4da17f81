package timeout

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstream is what a stage sends to.
type upstream = exchange.RoundTripperFunc

func config(attempt, total, idle time.Duration) Config {
	c := Default()
	c.Attempt, c.Total, c.BodyIdle = setting.Duration(attempt), setting.Duration(total), setting.Duration(idle)
	return c
}

func request(ctx context.Context, method string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, "http://api.example.com/", nil)
	if err != nil {
		panic(err)
	}
	return r
}

// wait blocks as a transport does: until d is over, or the request's context.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func answer(body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: body, ContentLength: -1}
}

// written says that the request is out.
func written(r *http.Request) {
	exchange.Written(r.Context())
}

// source is a body that says a byte after each of its pauses, and ends.
type source struct {
	ctx    context.Context
	pauses []time.Duration
	mu     sync.Mutex
	wrote  int
	closed chan struct{}
	once   sync.Once
}

func newSource(ctx context.Context, pauses ...time.Duration) *source {
	return &source{ctx: ctx, pauses: pauses, closed: make(chan struct{})}
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.pauses) == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(s.pauses[0]):
		s.pauses = s.pauses[1:]
		p[0] = 'x'
		return 1, nil
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	case <-s.closed:
		return 0, http.ErrBodyReadAfterClose
	}
}

func (s *source) Close() error { s.once.Do(func() { close(s.closed) }); return nil }

// pipe is a source that can be written to.
type pipe struct{ *source }

func (p pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.wrote += len(b)
	p.mu.Unlock()
	return len(b), nil
}

func isTimeout(err error) bool {
	var f *exchange.Failure
	return errors.As(err, &f) && f.Code == exchange.UpstreamTimeout && f.Sent
}

func TestTotal(t *testing.T) {
	for name, c := range map[string]struct {
		takes   time.Duration
		want    time.Duration
		timeout bool
	}{
		"in time": {9 * time.Second, 9 * time.Second, false}, "late": {11 * time.Second, 10 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stage := New().Total(config(time.Hour, 10*time.Second, time.Minute)).Wrap(upstream(func(r *http.Request) (*http.Response, error) {
					if at, ok := r.Context().Deadline(); !ok || time.Until(at) != 10*time.Second {
						t.Errorf("stages below see the deadline %v", at)
					}
					return answer(http.NoBody), wait(r.Context(), c.takes)
				}))
				begin := time.Now()
				resp, err := stage.RoundTrip(request(t.Context(), "GET"))
				if isTimeout(err) != c.timeout || (err == nil) == c.timeout || time.Since(begin) != c.want {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
				if f, ok := errors.AsType[*exchange.Failure](err); ok && !f.Overall {
					t.Error("nobody can tell it from the end of an attempt's own time")
				}
				if err == nil {
					resp.Body.Close()
				}
			})
		})
	}
}

// Below, somebody may know more about what the deadline cut short.
func TestTotalKeepsWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, known := range []error{&exchange.Failure{Code: exchange.UpstreamTimeout}, exchange.Refuse(exchange.RateLimited, "full")} {
			stage := New().Total(config(time.Hour, time.Second, time.Minute)).Wrap(upstream(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, known
			}))
			if _, err := stage.RoundTrip(request(t.Context(), "GET")); err != known {
				t.Errorf("%v became %v", known, err)
			}
		}
	})
}

func TestTheClientsLeavingIsNoTimeout(t *testing.T) {
	for name, stage := range map[string]exchange.Stage{"total": New().Total(config(time.Minute, time.Hour, time.Hour)), "attempt": New().Attempt(config(time.Minute, time.Hour, time.Hour))} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, leave := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, leave)
				_, err := stage.Wrap(upstream(func(r *http.Request) (*http.Response, error) {
					if name == "attempt" {
						written(r)
					}
					return nil, wait(r.Context(), time.Hour)
				})).RoundTrip(request(ctx, "GET"))
				if !errors.Is(err, context.Canceled) || isTimeout(err) {
					t.Errorf("told %v", err)
				}
			})
		})
	}
}

func TestBodyIdle(t *testing.T) {
	minutes := func(n ...int) []time.Duration {
		out := make([]time.Duration, len(n))
		for i := range n {
			out[i] = time.Duration(n[i]) * time.Minute
		}
		return out
	}
	for name, c := range map[string]struct {
		total   time.Duration
		head    time.Duration // when it comes
		media   string
		pauses  []time.Duration
		reads   time.Duration // the client's pause between reads
		bytes   int
		timeout time.Duration // after the head; 0: none
	}{
		"longer than the total": {10 * time.Second, 0, "text/plain", minutes(4, 4, 4, 4), 0, 4, 0},
		"stands still":          {10 * time.Second, 0, "text/plain", minutes(1, 6), 0, 1, 6 * time.Minute},
		"within a long total":   {time.Hour, 0, "text/plain", minutes(6), 0, 0, 5 * time.Minute},
		"a late head":           {time.Hour, 12 * time.Minute, "text/plain", minutes(1, 6), 0, 1, 6 * time.Minute},
		"a head just in time":   {time.Hour, time.Hour - 1, "text/plain", minutes(4, 6), 0, 1, 9 * time.Minute},
		"a slow client":         {10 * time.Second, 0, "text/plain", minutes(0, 0, 0), time.Hour, 3, 0},
		"a stream":              {10 * time.Second, 0, "text/event-stream; charset=utf-8", minutes(50, 50), 0, 2, 0},
		"lines of JSON":         {10 * time.Second, 0, "Application/X-NDJSON", minutes(50), 0, 1, 0},
		"gRPC":                  {10 * time.Second, 0, "application/grpc+proto", minutes(59), 0, 1, 0},
		"a dead stream":         {10 * time.Second, 0, "text/event-stream", minutes(1, 61), 0, 1, 61 * time.Minute},
		"a late dead stream":    {time.Hour, 12 * time.Minute, "text/event-stream", minutes(1, 61), 0, 1, 61 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				resp, err := New().Total(config(time.Minute, c.total, 5*time.Minute)).Wrap(upstream(func(r *http.Request) (*http.Response, error) {
					resp := answer(newSource(r.Context(), c.pauses...))
					resp.Header.Set("Content-Type", c.media)
					return resp, wait(r.Context(), c.head)
				})).RoundTrip(request(t.Context(), "GET"))
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				got, one := 0, make([]byte, 1)
				for err == nil {
					var n int
					n, err = resp.Body.Read(one)
					got += n
					time.Sleep(c.reads)
				}
				if late := c.timeout > 0; got != c.bytes || isTimeout(err) != late || (err == io.EOF) == late || late && time.Since(begin).Round(time.Millisecond) != c.timeout {
					t.Errorf("%d bytes, then %v after %s", got, err, time.Since(begin))
				}
				resp.Body.Close()
			})
		})
	}
}

func TestSwitchedConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room, c := New(), config(time.Second, 2*time.Second, time.Second)
		s := pipe{newSource(context.Background(), 59*time.Minute, 90*time.Minute, 3*time.Hour)} // deaf to its request's context, as such connections are
		end := upstream(func(r *http.Request) (*http.Response, error) {
			resp := answer(s)
			resp.StatusCode = http.StatusSwitchingProtocols
			return resp, nil
		})
		resp, err := exchange.Chain(end, room.Total(c), room.Attempt(c)).RoundTrip(request(t.Context(), "GET"))
		if err != nil {
			t.Fatal(err)
		}
		rwc, ok := resp.Body.(io.ReadWriteCloser)
		if !ok {
			t.Fatal("the body of a 101 cannot be written to")
		}
		one := make([]byte, 1)
		if _, err := rwc.Read(one); err != nil {
			t.Error("after 59 minutes:", err)
		}
		time.AfterFunc(50*time.Minute, func() { _, _ = rwc.Write([]byte("ping")) })
		if _, err := rwc.Read(one); err != nil {
			t.Error("after 90 minutes with a byte the other way:", err)
		}
		begin := time.Now()
		if _, err := rwc.Read(one); !isTimeout(err) || time.Since(begin) != StreamIdle {
			t.Errorf("silence ended after %v with %v", time.Since(begin), err)
		}
		rwc.Close()
	})
}

func TestTunnelsOutliveTheTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newSource(context.Background())
		var below context.Context
		resp, err := New().Total(config(time.Second, 2*time.Second, time.Second)).Wrap(upstream(func(r *http.Request) (*http.Response, error) {
			below = r.Context()
			return answer(body), nil
		})).RoundTrip(request(t.Context(), http.MethodConnect))
		if err != nil || resp.Body != io.ReadCloser(body) {
			t.Fatalf("the tunnel's body became %T, %v", resp.Body, err)
		}
		time.Sleep(time.Hour)
		if below.Err() != nil {
			t.Error("the tunnel's context has ended")
		}
		if at, ok := below.Deadline(); ok {
			t.Error("there is still a deadline:", at)
		}
	})
}

func TestAttempt(t *testing.T) {
	for name, c := range map[string]struct {
		connect, upload, answer time.Duration
		again                   bool // written a second time
		timeout                 bool
	}{
		"in time":               {0, 0, 900 * time.Millisecond, false, false},
		"late":                  {0, 0, 1100 * time.Millisecond, false, true},
		"slow to connect":       {9 * time.Second, 0, 900 * time.Millisecond, false, false},
		"a long upload":         {0, time.Hour, 900 * time.Millisecond, false, false},
		"written twice":         {0, 600 * time.Millisecond, 900 * time.Millisecond, true, false},
		"written twice, late":   {0, 600 * time.Millisecond, 1100 * time.Millisecond, true, true},
		"uploaded and then not": {0, time.Hour, 2 * time.Second, false, true},
	} {
		for where, idle := range map[string]time.Duration{"alone": 0, "within a total": time.Hour, "beside a body's short silence": 300 * time.Millisecond} {
			t.Run(name+"/"+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					room, begin := New(), time.Now()
					stage := room.Attempt(config(time.Second, 2*time.Hour, idle)).Wrap(upstream(func(r *http.Request) (*http.Response, error) {
						time.Sleep(c.connect)
						if c.again {
							written(r)
						}
						time.Sleep(c.upload)
						written(r)
						return answer(newSource(r.Context(), idle*9/10)), wait(r.Context(), c.answer)
					}))
					if idle > 0 {
						stage = room.Total(config(time.Second, 2*time.Hour, idle)).Wrap(upstream(stage.RoundTrip))
					}
					resp, err := stage.RoundTrip(request(t.Context(), "POST"))
					want := c.connect + c.upload + min(c.answer, time.Second)
					if isTimeout(err) != c.timeout || (err == nil) == c.timeout || time.Since(begin).Round(time.Millisecond) != want {
						t.Fatalf("got %v after %s; want %s", err, time.Since(begin), want)
					}
					if err != nil {
						return
					}
					if _, err := io.ReadAll(resp.Body); err != nil {
						t.Error("the body does not outlive the attempt's time:", err)
					}
					resp.Body.Close()
				})
			})
		}
	}
}

// TestAttempts: each attempt under a total has its own time, the first as those that follow, and the total ends the last one.
func TestAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := New()
		c := config(time.Second, 3500*time.Millisecond, time.Minute)
		var took []time.Duration
		attempts := room.Attempt(c).Wrap(upstream(func(r *http.Request) (*http.Response, error) {
			written(r)
			return nil, wait(r.Context(), time.Hour)
		}))
		begin := time.Now()
		_, err := room.Total(c).Wrap(upstream(func(r *http.Request) (*http.Response, error) {
			for r.Context().Err() == nil {
				begin := time.Now()
				if _, err := attempts.RoundTrip(r); err == nil {
					t.Error("no error")
				}
				took = append(took, time.Since(begin).Round(time.Millisecond))
			}
			return nil, r.Context().Err()
		})).RoundTrip(request(t.Context(), "GET"))
		if want := []time.Duration{time.Second, time.Second, time.Second, time.Second / 2}; !isTimeout(err) || !slices.Equal(took, want) ||
			time.Since(begin).Round(time.Millisecond) != c.Total.D() {
			t.Errorf("%v after %s; attempts took %v, want %v", err, time.Since(begin), took, want)
		}
	})
}

func TestEarlyAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resp, err := New().Attempt(config(time.Second, time.Hour, time.Hour)).Wrap(upstream(func(r *http.Request) (*http.Response, error) {
			time.AfterFunc(time.Minute, func() { written(r) })
			return answer(newSource(r.Context(), 10*time.Minute)), nil
		})).RoundTrip(request(t.Context(), "POST"))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "x" {
			t.Errorf("read %q, %v", b, err)
		}
		resp.Body.Close()
	})
}

func TestClosingTheBodyEndsTheContexts(t *testing.T) {
	room, c := New(), Default()
	var below context.Context
	resp, err := exchange.Chain(upstream(func(r *http.Request) (*http.Response, error) {
		below = r.Context()
		return answer(io.NopCloser(strings.NewReader("all of it"))), nil
	}), room.Total(c), room.Attempt(c)).RoundTrip(request(t.Context(), "GET"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "all of it" || below.Err() != nil {
		t.Errorf("read %q, %v; the context: %v", b, err, below.Err())
	}
	resp.Body.Close()
	if below.Err() == nil {
		t.Error("the context outlives the body")
	}
}

func BenchmarkTotalAndAttempt(b *testing.B) {
	room, c := New(), Default()
	resp := &http.Response{StatusCode: 200, Header: http.Header{}}
	chain := exchange.Chain(upstream(func(r *http.Request) (*http.Response, error) {
		written(r)
		resp.Body = http.NoBody
		return resp, nil
	}), room.Total(c), room.Attempt(c))
	r := request(b.Context(), "GET")
	b.ReportAllocs()
	for b.Loop() {
		resp, err := chain.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		_ = resp.Body.Close()
	}
}

func BenchmarkRead(b *testing.B) {
	resp, err := New().Total(Default()).Wrap(upstream(func(r *http.Request) (*http.Response, error) { return answer(io.NopCloser(zeros{})), nil })).RoundTrip(request(b.Context(), "GET"))
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = resp.Body.Read(p)
	}
	_ = resp.Body.Close()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
