// Package concurrency bounds how many exchanges are in flight to an upstream at once.
package concurrency

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
	"httpowerd/internal/state/memory"
)

// Level is the block of one level of the configuration; each adds a bulkhead, and all of them must admit.
type Level struct {
	Name   string // of the level that wrote it; policies that inherit from it share its bulkhead
	Config Config
}

// Room owns the metrics.
type Room struct{ metrics *metrics }

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer) *Room { return &Room{newMetrics(reg)} }

// bulkheads are what one level keeps: a semaphore for each authority, or for each pattern.
type bulkheads struct {
	max   atomic.Int64 // for those that are made later
	table *state.Table[*memory.Semaphore]
}

// kept is the part of a Config that bulkheads are kept by; another bound is given to those that are there.
type kept struct{ scope string }

func keep(scope state.Scope, l Level) *bulkheads {
	level := state.Scope{Generation: scope.Generation, Policy: l.Name}
	b := state.Keep(level, "concurrency", kept{l.Config.Scope}, func() *bulkheads {
		b := &bulkheads{}
		b.max.Store(int64(l.Config.Max))
		b.table = state.NewTable(state.MaxEntries, func(state.Key) *memory.Semaphore { return memory.NewSemaphore(int(b.max.Load())) })
		return b
	})
	scope.Generation.OnCommit(func() {
		if b.max.Swap(int64(l.Config.Max)) != int64(l.Config.Max) {
			b.table.Each(func(_ state.Key, s *memory.Semaphore) { s.SetMax(l.Config.Max) })
		}
	})
	return b
}

// Stage holds an exchange until each level has a place for it, and its places until its answer's body is closed.
func (r *Room) Stage(scope state.Scope, levels []Level) exchange.Stage {
	gates := make([]gate, len(levels))
	for i, l := range levels {
		gates[i] = gate{
			bulkheads: keep(scope, l), pattern: l.Config.Scope == ScopePattern, observe: l.Config.Mode == setting.Observe,
			bounds: memory.Bounds{Wait: l.Config.Wait.D(), Queue: l.Config.Queue},
		}
	}
	return exchange.Stage{Name: "concurrency", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if len(gates) == 0 {
			return next
		}
		return &stage{metrics: r.metrics, gates: gates, next: next}
	}}
}

// gate is one level.
type gate struct {
	*bulkheads
	pattern bool
	observe bool
	bounds  memory.Bounds
}

func (g *gate) semaphore(x *exchange.Exchange) *memory.Semaphore {
	if g.pattern {
		pattern, _, _ := strings.Cut(x.Policy, "#")
		return g.table.Get(state.Key{Authority: exchange.Authority{Host: pattern}})
	}
	return g.table.Get(state.Key{Authority: x.Target})
}

type stage struct {
	metrics *metrics
	gates   []gate
	next    http.RoundTripper
}

func (s *stage) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchange.From(r.Context())
	m := s.metrics.host(x.Label())
	p := &places{metrics: m}
	p.held = p.first[:0]
	defer func() {
		if !p.handed {
			p.release()
		}
	}()
	if err := s.acquire(r.Context(), x, m, p); err != nil {
		return nil, err
	}
	p.counted = true
	m.active.Inc()
	resp, err := s.next.RoundTrip(r)
	if err != nil || resp.Body == nil || resp.Body == http.NoBody {
		return resp, err
	}
	p.handed = true
	resp.Body = p.wrap(resp.Body)
	return resp, nil
}

// acquire takes a place at every level, or none.
func (s *stage) acquire(ctx context.Context, x *exchange.Exchange, m *hostMetrics, p *places) error {
	decision := m.allowed
	for i := range s.gates {
		g := &s.gates[i]
		semaphore := g.semaphore(x)
		if g.observe {
			if !semaphore.Enter() {
				x.Observe(string(exchange.ConcurrencyLimited))
				decision = m.observed
			}
			p.held = append(p.held, semaphore)
			continue
		}
		waited, err := semaphore.Acquire(ctx, g.bounds)
		if waited > 0 {
			x.Waited(waited)
			m.wait.Observe(waited.Seconds())
			decision = m.delayed
		}
		if err != nil {
			err = refusal(ctx, err)
			if errors.As(err, new(*exchange.Refusal)) {
				m.refused.Inc()
			}
			return err
		}
		p.held = append(p.held, semaphore)
	}
	decision.Inc()
	return nil
}

// retryAfter is a guess: nobody knows when a place becomes free.
const retryAfter = time.Second

// refusal names what kept an exchange out. A client that left stays what it is.
func refusal(ctx context.Context, err error) error {
	var refused *memory.Refused
	detail := "no place became free within the time that a request may wait for one"
	switch {
	case errors.As(err, &refused) && refused.Full:
		detail = "too many requests are in flight, and too many wait already"
	case errors.As(err, &refused):
	case errors.As(err, new(*exchange.Failure)) || errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		detail = "no place became free before the request's deadline"
	default:
		return err
	}
	return &exchange.Refusal{Code: exchange.ConcurrencyLimited, Detail: detail, RetryAfter: retryAfter}
}

// places are what one exchange holds.
type places struct {
	first    [2]*memory.Semaphore
	held     []*memory.Semaphore
	metrics  *hostMetrics
	counted  bool
	handed   bool // to the answer's body
	released atomic.Bool
	body     io.ReadCloser
}

func (p *places) release() {
	if p.released.Swap(true) {
		return
	}
	if p.counted {
		p.metrics.active.Dec()
	}
	for _, s := range p.held {
		s.Release()
	}
}

// wrap ties the places to a body, which keeps its ability to be written to (101 and tunnels) or to write itself.
func (p *places) wrap(body io.ReadCloser) io.ReadCloser {
	p.body = body
	if w, ok := body.(io.Writer); ok {
		return &duplex{p, w}
	}
	if w, ok := body.(io.WriterTo); ok {
		return &writerTo{p, w}
	}
	return p
}

// Read reads the answer's body.
func (p *places) Read(b []byte) (int, error) { return p.body.Read(b) }

// Close closes the answer's body and gives the places back.
func (p *places) Close() error {
	defer p.release()
	return p.body.Close()
}

type duplex struct {
	*places
	io.Writer
}

type writerTo struct {
	*places
	io.WriterTo
}
