// Package notify tells other systems what operators should know: it posts changes of state to the targets of notify:, as JSON or in Slack's shape.
//
// Nobody ever waits for it. Each target has a bounded queue and one goroutine that posts in order, tries again and gives up in the end.
package notify

import (
	"context"
	"log/slog"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Sender posts notifications. It is safe for concurrent use.
type Sender struct {
	log     *slog.Logger
	metrics *metrics
	ctx     context.Context // ends when nothing may be posted any more
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu      sync.Mutex
	targets map[string]*target
	closed  bool
}

// New makes a Sender without targets and registers its metrics.
func New(reg prometheus.Registerer, log *slog.Logger) *Sender {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Sender{log: log, metrics: newMetrics(reg), targets: map[string]*target{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Use makes these the targets, posted to by way of transport, which must not follow redirects. Targets that stay keep what they have queued; those
// that go post what they have, once. c is valid.
func (s *Sender) Use(c Config, transport http.RoundTripper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for name, t := range s.targets {
		if _, stays := c[name]; !stays {
			delete(s.targets, name)
			t.leave()
		}
	}
	for name, config := range c {
		t := s.targets[name]
		if t == nil {
			t = newTarget(s, name)
			s.targets[name] = t
			s.metrics.known(name)
			s.workers.Go(t.run)
		}
		t.use(config, transport)
	}
}

// Tell posts an event to those of the named targets that want its type. It never waits.
func (s *Sender) Tell(e Event, names ...string) {
	if len(names) == 0 {
		return
	}
	e = e.clean()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if t := s.targets[name]; t != nil {
			t.add(e)
		}
	}
}

// TellAll is Tell for every target.
func (s *Sender) TellAll(e Event) {
	e = e.clean()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.targets {
		t.add(e)
	}
}

// Close takes no more events and tries to post what is queued, once. What is left when ctx ends is lost, and counted. All goroutines have ended when
// it returns.
func (s *Sender) Close(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	for name, t := range s.targets {
		delete(s.targets, name)
		t.leave()
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, s.cancel)
	s.workers.Wait()
	stop()
	s.cancel()
}
