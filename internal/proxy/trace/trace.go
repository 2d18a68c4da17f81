// Package trace gives each exchange its place in a distributed trace, and sends spans to a collector by OTLP: one for the exchange, one for each attempt.
//
// A trace is begun, or the client's continued, before anything else happens to a request; the spans are made of the exchange's story when it is over. So an
// exchange that nobody samples costs its ids alone, and nothing of the SDK runs while a request does. The package reads no environment variable's meaning
// into anything: the configuration says it all.
package trace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// Tracer is the process's. A nil one only reads what clients say. It is safe for concurrent use.
type Tracer struct {
	metrics *metrics
	log     *slog.Logger
	builtin *redact.Redactor         // where no policy is behind an exchange
	current atomic.Pointer[settings] // nil: off

	using sync.Mutex
	gone  sync.WaitGroup // sinks that are on their way out
	ended context.Context
	end   context.CancelFunc // lets nothing wait for them any more
}

// settings are what holds for exchanges that begin or end now.
type settings struct {
	Config
	bound uint64 // of the last eight bytes of a trace's id, halved: below it a trace is sampled
	sink  *sink
}

// New makes a Tracer that is off until Use says otherwise.
func New(reg prometheus.Registerer, log *slog.Logger, builtin *redact.Redactor) *Tracer {
	t := &Tracer{metrics: newMetrics(reg), log: log, builtin: builtin}
	t.ended, t.end = context.WithCancel(context.Background())
	return t
}

// Use makes c hold. Spans that wait for another collector get a moment to reach it. On an error the settings in use stay.
func (t *Tracer) Use(c Config) error {
	t.using.Lock()
	defer t.using.Unlock()
	old := t.current.Load()
	if c.Endpoint == "" {
		t.current.Store(nil)
		t.retire(old)
		return nil
	}
	s := &settings{Config: c, bound: uint64(c.Sample * (1 << 63))}
	if old != nil && old.sameTarget(&c) {
		s.sink = old.sink
		t.current.Store(s)
		return nil
	}
	sink, err := openSink(&c, t.metrics, t.log)
	if err != nil {
		return err
	}
	s.sink = sink
	t.current.Store(s)
	t.retire(old)
	return nil
}

// retire ends the sink of settings that hold no more, without waiting for it.
func (t *Tracer) retire(old *settings) {
	if old != nil {
		t.gone.Go(func() { old.sink.close(t.ended) })
	}
}

// Close sends what waits, until ctx ends.
func (t *Tracer) Close(ctx context.Context) {
	if t == nil {
		return
	}
	t.using.Lock()
	defer t.using.Unlock()
	defer t.end()
	defer context.AfterFunc(ctx, t.end)()
	if old := t.current.Swap(nil); old != nil {
		old.sink.close(ctx)
	}
	t.gone.Wait()
}

// Begin gives x its place in its client's trace, or in one that begins here.
func (t *Tracer) Begin(x *exchange.Exchange, h http.Header) {
	var s *settings
	if t != nil {
		s = t.current.Load()
	}
	if s == nil {
		Identify(x, h)
		return
	}
	c := &x.Trace
	c.Span, c.First, c.Carried = exchange.NewSpan(), exchange.NewSpan(), s.Carry
	if p, ok := parentOf(h); ok {
		c.ID, c.Parent, c.Flags, c.Sampled = p.trace, p.span, p.flags, p.sampled
		x.TraceID = p.text
		write(c)
		return
	}
	binary.BigEndian.PutUint64(c.ID[:], rand.Uint64())
	low := rand.Uint64()
	if low == 0 { // an id of nothing but zeros is none
		low = 1
	}
	binary.BigEndian.PutUint64(c.ID[8:], low)
	if c.Sampled = low>>1 < s.bound; c.Sampled {
		c.Flags = flagSampled
	}
	if write(c); c.Carried {
		x.TraceID = c.Field[3:35]
		return
	}
	x.TraceID = hex.EncodeToString(c.ID[:])
}

// write makes the field that requests will carry.
func write(c *exchange.Trace) {
	if c.Carried {
		c.Field = c.Traceparent(c.First)
	}
}

// Carry makes a request's fields say that its parent is the first attempt of x. Baggage stays as the client sent it.
func Carry(x *exchange.Exchange, h http.Header) {
	c := &x.Trace
	if !c.Carried {
		return
	}
	h[traceparent] = []string{c.Field}
	if c.Parent == [8]byte{} {
		delete(h, tracestate) // it belongs to a trace that could not be read
		return
	}
	carryState(h)
}

// End makes the spans of x, which is over and sampled.
func (t *Tracer) End(x *exchange.Exchange, e End) {
	if t == nil {
		return
	}
	if e.Redactor == nil {
		e.Redactor = t.builtin
	}
	if s := t.current.Load(); s != nil {
		s.sink.put(spansOf(x, &e))
	}
}
