package trace

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// The bounds of what waits for the collector.
const (
	maxQueue   = 4096 // spans
	maxBatch   = 512  // spans in one export
	maxDelay   = time.Second
	logEvery   = time.Minute
	maxErrText = 512 // bytes of an export's error in the log
)

// exporter is where batches go.
type exporter interface {
	ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error
	Shutdown(ctx context.Context) error
}

// sink sends spans to one collector. Whoever puts spans never waits: past the bound they are counted and gone.
type sink struct {
	exporter exporter
	resource *resource.Resource
	timeout  time.Duration
	metrics  *metrics
	log      *slog.Logger

	queue  chan *span
	ctx    context.Context // of exports
	cancel context.CancelFunc
	stop   chan struct{}
	once   sync.Once
	done   chan struct{}

	batch  []sdk.ReadOnlySpan
	failed bool      // the last export did
	told   time.Time // when the log last heard of it
	silent int       // failures since
}

func openSink(c *Config, m *metrics, log *slog.Logger) (*sink, error) {
	e, err := newExporter(c)
	if err != nil {
		return nil, err
	}
	return startSink(e, c, m, log), nil
}

func startSink(e exporter, c *Config, m *metrics, log *slog.Logger) *sink {
	s := &sink{exporter: e, resource: resourceOf(c), timeout: c.Timeout, metrics: m, log: log,
		queue: make(chan *span, maxQueue), stop: make(chan struct{}), done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.run()
	return s
}

// put queues spans that belong together.
func (s *sink) put(spans []*span) {
	lost := 0
	for _, sp := range spans {
		sp.resource = s.resource
		select {
		case s.queue <- sp:
		default:
			lost++
		}
	}
	s.metrics.lost(lostQueue, lost)
	select {
	case <-s.done: // an exchange that ended while the collector was changed, or the process left
		s.discard()
	default:
	}
}

// discard counts what nobody will export.
func (s *sink) discard() {
	n := 0
	for {
		select {
		case <-s.queue:
			n++
			continue
		default:
		}
		s.metrics.lost(lostShutdown, n)
		return
	}
}

// run exports full batches at once and others after a moment.
func (s *sink) run() {
	defer close(s.done)
	var due <-chan time.Time
	for {
		select {
		case sp := <-s.queue:
			s.batch = append(s.batch, sp)
			if len(s.batch) >= maxBatch {
				s.export()
				due = nil
			} else if due == nil {
				due = time.After(maxDelay)
			}
		case <-due:
			s.export()
			due = nil
		case <-s.stop:
			s.drain()
			return
		}
	}
}

// drain exports what is left.
func (s *sink) drain() {
	for {
		select {
		case sp := <-s.queue:
			s.batch = append(s.batch, sp)
			if len(s.batch) >= maxBatch {
				s.export()
			}
		default:
			s.export()
			return
		}
	}
}

func (s *sink) export() {
	n := len(s.batch)
	if n == 0 {
		return
	}
	defer func() {
		clear(s.batch)
		s.batch = s.batch[:0]
	}()
	if s.ctx.Err() != nil {
		s.metrics.lost(lostShutdown, n)
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	err := s.exporter.ExportSpans(ctx, s.batch)
	refused := n
	if part, ok := partly(err); ok {
		refused = min(part, n)
	}
	s.metrics.exported.Add(float64(n - refused))
	switch {
	case err == nil || refused == 0:
		if s.failed {
			s.failed = false
			s.log.Info("the trace collector takes spans again")
		}
		if err != nil {
			s.tell("the trace collector takes spans, and has something to say", err)
		}
		return
	case s.ctx.Err() != nil:
		s.metrics.lost(lostShutdown, refused)
	default:
		s.metrics.lost(lostExport, refused)
	}
	s.metrics.failures.Inc()
	s.failed = true
	s.tell("spans could not be exported; traffic goes on", err)
}

// partly tells how many spans a collector refused of a batch that it took otherwise; none: it only says something (OTLP's partial success). The exporters keep the type
// of that error to themselves, one each: it is known by its method, and read by its field.
func partly(err error) (refused int, ok bool) {
	if err == nil {
		return 0, true
	}
	var said interface {
		error
		As(target any) bool
	}
	if !errors.As(err, &said) {
		return 0, false
	}
	v := reflect.ValueOf(said)
	if v.Kind() != reflect.Struct {
		return 0, false
	}
	f := v.FieldByName("RejectedItems")
	if !f.IsValid() || !f.CanInt() {
		return 0, false
	}
	return int(max(0, f.Int())), true
}

// tell tells the log, once a minute at most.
func (s *sink) tell(what string, err error) {
	if !s.told.IsZero() && time.Since(s.told) < logEvery {
		s.silent++
		return
	}
	text := err.Error()
	s.log.Warn(what, "error", text[:min(len(text), maxErrText)], "more_failures", s.silent)
	s.told, s.silent = time.Now(), 0
}

// close exports what waits until ctx ends, and never longer than one export may take.
func (s *sink) close(ctx context.Context) {
	s.once.Do(func() { close(s.stop) })
	timer := time.NewTimer(s.timeout)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	s.cancel()
	<-s.done
	s.discard() // put by exchanges that ended just now
	over, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.exporter.Shutdown(over); err != nil {
		s.log.Debug("the trace exporter did not end in order", "error", err)
	}
}
