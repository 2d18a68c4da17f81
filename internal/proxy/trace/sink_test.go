package trace

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"

	"httpowerd/internal/redact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// kept is an exporter that keeps what it gets, or fails, or hangs.
type kept struct {
	mu    sync.Mutex
	spans []sdk.ReadOnlySpan
	sizes []int
	err   error
	hang  bool
	ended bool
}

func (k *kept) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	k.mu.Lock()
	hang := k.hang
	k.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.spans = append(k.spans, spans...)
		k.sizes = append(k.sizes, len(spans))
	}
	return k.err
}

func (k *kept) Shutdown(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
	return nil
}

// finished is an exchange that is over, with one attempt.
func finished(t *Tracer) *exchange.Exchange {
	x := &exchange.Exchange{ID: "id", Kind: exchange.KindRequest, Mode: exchange.ModePlain, Start: time.Now(), Method: "GET", Client: "192.0.2.1:4711",
		URL: "http://api.example.com/v1/things?page=2", Scheme: "http", Target: exchange.Authority{Host: "api.example.com", Port: 80}}
	t.Begin(x, fields())
	i := x.BeginAttempt(time.Now())
	x.Connected(i, "198.51.100.20:80", true)
	x.EndAttempt(i, time.Now(), 200, "")
	x.Update(func(s *exchange.Story) { s.Status, s.StatusBy, s.Outcome = 200, "upstream", exchange.OK })
	return x
}

// What waits is sent at the end, in batches.
func TestCloseSends(t *testing.T) {
	tracer, k := tracerOf(t, Config{Sample: 1, Service: "s"})
	for range 1000 {
		tracer.End(finished(tracer), End{Time: time.Now()})
	}
	tracer.Close(t.Context())
	if len(k.spans) != 2000 || !k.ended {
		t.Errorf("%d spans arrived, ended %v", len(k.spans), k.ended)
	}
	for _, n := range k.sizes {
		if n > maxBatch {
			t.Errorf("a batch of %d", n)
		}
	}
	if n := testutil.ToFloat64(tracer.metrics.exported); n != 2000 {
		t.Errorf("%v are counted", n)
	}
}

// A collector that hangs holds nobody up: the queue is full, the rest is counted and gone, and the end does not wait for it.
func TestCollectorHangs(t *testing.T) {
	tracer, k := tracerOf(t, Config{Sample: 1, Timeout: time.Minute})
	k.hang = true
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const exchanges = 10_000
	x := finished(tracer)
	x.URL = "http://api.example.com/" + strings.Repeat("a", 8<<10)
	for range exchanges {
		tracer.End(x, End{Time: time.Now()})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 40<<20 {
		t.Errorf("%d MiB wait for a collector that takes nothing", grown>>20)
	}
	lost := testutil.ToFloat64(tracer.metrics.dropped.WithLabelValues(lostQueue))
	if lost == 0 {
		t.Error("nothing is lost; the queue has no bound")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	closing := time.Now()
	tracer.Close(ctx)
	if took := time.Since(closing); took > 20*time.Second {
		t.Errorf("the end took %v", took)
	}
	all := lost + testutil.ToFloat64(tracer.metrics.dropped.WithLabelValues(lostExport)) + testutil.ToFloat64(tracer.metrics.dropped.WithLabelValues(lostShutdown))
	if all != 2*exchanges {
		t.Errorf("%v spans are accounted for; want %d", all, 2*exchanges)
	}
}

// A collector that fails is told of once, not with each batch.
func TestCollectorFails(t *testing.T) {
	var log strings.Builder
	m := newMetrics(prometheus.NewRegistry())
	k := &kept{err: errors.New("no such host\n" + strings.Repeat("x", 10_000))}
	s := &sink{exporter: k, metrics: m, log: slog.New(slog.NewTextHandler(&log, nil)), timeout: time.Second, ctx: t.Context()}
	for range 100 {
		s.batch = append(s.batch, &span{})
		s.export()
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || len(log.String()) > 1000 {
		t.Errorf("%d lines, %d bytes in the log", n, log.Len())
	}
	if n := testutil.ToFloat64(m.dropped.WithLabelValues(lostExport)); n != 100 || testutil.ToFloat64(m.failures) != 100 {
		t.Errorf("%v lost", n)
	}
	k.err = nil
	s.batch = append(s.batch, &span{})
	s.export()
	if !strings.Contains(log.String(), "takes spans again") {
		t.Error("nobody hears that it works again")
	}
}

// Other settings act at once: a share alone keeps the connection, another collector gets the spans from now on.
func TestUse(t *testing.T) {
	tracer := New(nil, discard(), redact.Default())
	defer tracer.Close(t.Context())
	c := Config{Endpoint: "http://127.0.0.1:1", Sample: 1, Service: "s", Timeout: time.Second}
	if err := tracer.Use(c); err != nil {
		t.Fatal(err)
	}
	first := tracer.current.Load().sink
	c.Sample = 0
	_ = tracer.Use(c)
	if tracer.current.Load().sink != first {
		t.Error("a share makes a new connection")
	}
	if x, _ := through(tracer, fields()); x.Trace.Sampled {
		t.Error("the old share holds")
	}
	c.GRPC, c.Endpoint = true, "grpc://127.0.0.1:1"
	_ = tracer.Use(c)
	if tracer.current.Load().sink == first {
		t.Error("the old collector is used")
	}
	select {
	case <-first.done:
	case <-time.After(5 * time.Second):
		t.Error("the old sink goes on")
	}
	_ = tracer.Use(Config{})
	if x, _ := through(tracer, fields()); x.TraceID != "" {
		t.Error("tracing is on still")
	}
}

func BenchmarkOff(b *testing.B) {
	var none *Tracer
	bench(b, none, fields("Accept", "*/*"))
}

func BenchmarkOffWithParent(b *testing.B) {
	var none *Tracer
	bench(b, none, fields("Accept", "*/*", traceparent, theirs))
}

func BenchmarkUnsampled(b *testing.B) {
	tracer, _ := tracerOf(b, Config{Carry: true})
	bench(b, tracer, fields("Accept", "*/*"))
}

func BenchmarkUnsampledWithParent(b *testing.B) {
	tracer, _ := tracerOf(b, Config{Carry: true, Sample: 1})
	bench(b, tracer, fields("Accept", "*/*", traceparent, strings.TrimSuffix(theirs, "1")+"0"))
}

func BenchmarkSampled(b *testing.B) {
	tracer, _ := tracerOf(b, Config{Carry: true, Sample: 1, Service: "s"})
	bench(b, tracer, fields("Accept", "*/*"))
}

// bench is what tracing adds to an exchange with one attempt.
func bench(b *testing.B, t *Tracer, h map[string][]string) {
	x := finished(nil)
	lines := h[traceparent]
	e := End{Time: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		if lines != nil {
			h[traceparent] = lines
		} else {
			delete(h, traceparent)
		}
		x.Trace, x.TraceID = exchange.Trace{}, ""
		t.Begin(x, h)
		Carry(x, h)
		if x.Trace.Sampled {
			t.End(x, e)
		}
	}
}
