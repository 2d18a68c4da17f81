// Package concurrency bounds how many exchanges are in flight to an upstream at once.
package concurrency

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
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

// Room owns the metrics, and knows every bulkhead there is.
type Room struct {
	metrics *metrics

	mu  sync.Mutex
	all map[*bulkheads]struct{}
}

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer) *Room {
	r := &Room{all: map[*bulkheads]struct{}{}}
	r.metrics = newMetrics(reg, r)
	return r
}

// bulkhead is the places for one authority, or for one pattern.
type bulkhead struct {
	*memory.Semaphore
	governor governor
	label    atomic.Pointer[string] // of metrics
	recent   state.Recent

	changing sync.Mutex // from the governor's decision to the semaphore's bound
	told     int        // the limit, as recent says
}

// bulkheads are what one level keeps.
type bulkheads struct {
	room   *Room
	level  string
	config atomic.Pointer[Config] // for those that are made later
	table  *state.Table[*bulkhead]
}

// kept is the part of a Config that bulkheads are kept by; other numbers are given to those that are there.
type kept struct{ scope string }

func (r *Room) keep(scope state.Scope, l Level) *bulkheads {
	level := state.Scope{Generation: scope.Generation, Policy: l.Name}
	b := state.Keep(level, "concurrency", kept{l.Config.Scope}, func() *bulkheads {
		b := &bulkheads{room: r, level: l.Name}
		b.config.Store(&l.Config)
		b.table = state.NewTable(state.MaxEntries, b.bulkhead)
		r.mu.Lock()
		r.all[b] = struct{}{}
		r.mu.Unlock()
		return b
	})
	scope.Generation.OnCommit(func() {
		if old := b.config.Swap(&l.Config); old.Max == l.Config.Max && old.Adaptive == l.Config.Adaptive {
			return
		}
		b.table.Each(func(_ state.Key, h *bulkhead) {
			h.governor.configure(l.Config)
			h.change("configuration")
		})
	})
	return b
}

func (b *bulkheads) bulkhead(state.Key) *bulkhead {
	h := &bulkhead{}
	c := *b.config.Load()
	h.governor.configure(c)
	limit, all := h.governor.places()
	h.told, h.Semaphore = limit, memory.NewSemaphore(all)
	return h
}

// Close forgets the bulkheads; requests that still use them may go on doing so.
func (b *bulkheads) Close() error {
	b.room.mu.Lock()
	delete(b.room.all, b)
	b.room.mu.Unlock()
	return nil
}

// The reasons of small steps, of which only those that add up to a tenth are told.
const (
	latency = "latency"
	regrown = "some time without a refusal"
)

// change gives the semaphore the number of places that the governor wants.
func (h *bulkhead) change(reason string) {
	h.changing.Lock()
	defer h.changing.Unlock()
	to, all := h.governor.places()
	h.SetMax(all)
	step := max(to-h.told, h.told-to)
	if step == 0 || (reason == latency || reason == regrown) && 10*step < h.told {
		return
	}
	h.recent.Add(strconv.Itoa(h.told), strconv.Itoa(to), reason)
	h.told = to
}

// back makes places fewer.
func (h *bulkhead) back(now, sent time.Time, inFlight int, reason string) {
	changed, recovers := h.governor.back(now, sent, inFlight)
	if changed {
		h.change(reason)
	}
	if recovers {
		h.recover()
	}
}

// recover gives back by the clock what a limit that does not adapt has lost: streams may hold all that is left, and then no answer comes that could do it.
func (h *bulkhead) recover() {
	next := h.governor.recover(time.Now())
	h.change(regrown)
	if next > 0 {
		time.AfterFunc(next, h.recover)
	}
}

// take counts places whose answer has begun, or is over. A limit that adapts does not count them.
func (h *bulkhead) take(n int32) {
	h.governor.taken.Add(n)
	if !h.governor.on.Load() {
		return
	}
	h.changing.Lock()
	defer h.changing.Unlock()
	_, all := h.governor.places()
	h.SetMax(all)
}

// inFlight is how many hold a place, as the limit counts them.
func (h *bulkhead) inFlight() int {
	held, _, _ := h.Held()
	if h.governor.on.Load() {
		held -= int(h.governor.taken.Load())
	}
	return max(0, held)
}

// Stage holds an exchange until each level has a place for it, and its places until its answer's body is closed.
func (r *Room) Stage(scope state.Scope, levels []Level) exchange.Stage {
	gates := make([]gate, len(levels))
	for i, l := range levels {
		gates[i] = gate{
			bulkheads: r.keep(scope, l), pattern: l.Config.Scope == ScopePattern, observe: l.Config.Mode == setting.Observe,
			bounds: memory.Bounds{Wait: l.Config.Wait.D(), Queue: l.Config.Queue},
		}
	}
	gates = inOrder(gates)
	return exchange.Stage{Name: "concurrency", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if len(gates) == 0 {
			return next
		}
		return &stage{metrics: r.metrics, gates: gates, next: next}
	}}
}

// inOrder is the order in which levels are asked, which come with the outermost first: the innermost is the first, so that whoever waits for a narrow one takes
// no place of a wide one from others. It is the same for all policies that share levels, so none wait for each other in a circle. Levels that only
// observe come last: who waits is not in flight.
func inOrder(gates []gate) []gate {
	var enforce, observe []gate
	for _, g := range slices.Backward(gates) {
		if g.observe {
			observe = append(observe, g)
		} else {
			enforce = append(enforce, g)
		}
	}
	return append(enforce, observe...)
}

// gate is one level.
type gate struct {
	*bulkheads
	pattern bool
	observe bool
	bounds  memory.Bounds
}

func (g *gate) of(x *exchange.Exchange, label string) *bulkhead {
	k := state.Key{Authority: x.Target}
	if g.pattern {
		pattern := x.Pattern()
		k.Authority = exchange.Authority{Host: pattern}
	}
	h := g.table.Get(k)
	if h.label.Load() == nil {
		h.label.CompareAndSwap(nil, &label)
	}
	return h
}

type stage struct {
	metrics *metrics
	gates   []gate
	next    http.RoundTripper
}

func (s *stage) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchange.From(r.Context())
	label := x.Label()
	m := s.metrics.host(label)
	p := &places{metrics: m}
	p.held = p.first[:0]
	defer func() {
		if !p.handed {
			p.release()
		}
	}()
	if err := s.acquire(r.Context(), x, label, m, p); err != nil {
		return nil, err
	}
	p.counted = true
	m.active.Inc()
	w := p.watch(x)
	resp, err := s.next.RoundTrip(w.begin(x, r))
	if w.on || err == nil && refuses(resp.StatusCode) {
		w.report(p, x, resp, err)
	}
	if err != nil || resp.Body == nil || resp.Body == http.NoBody {
		return resp, err
	}
	p.handed = true
	for _, h := range p.held {
		h.take(1)
	}
	resp.Body = p.wrap(resp.Body)
	return resp, nil
}

// acquire takes a place at every level, or none.
func (s *stage) acquire(ctx context.Context, x *exchange.Exchange, label string, m *hostMetrics, p *places) error {
	decision := m.allowed
	for i := range s.gates {
		g := &s.gates[i]
		h := g.of(x, label)
		if g.observe {
			if !h.Enter() {
				x.Observe(string(exchange.ConcurrencyLimited))
				decision = m.observed
			}
			p.held = append(p.held, h)
			continue
		}
		bounds := g.bounds
		bounds.Tenant = x.Tenant
		waited, err := h.Acquire(ctx, bounds)
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
		p.held = append(p.held, h)
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
	first    [2]*bulkhead
	held     []*bulkhead
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
	for _, h := range p.held {
		if p.handed {
			h.take(-1)
		}
		h.Release()
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

// Unseen and Take make it an exchange.Direct.
func (p *places) Unseen() int64 { return exchange.Unseen(p.body) }

// Take is a Read by m.
func (p *places) Take(m exchange.Mover) (int, error) { return exchange.Take(p.body, m) }

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
