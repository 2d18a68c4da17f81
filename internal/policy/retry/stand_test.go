package retry

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// stand is a stage that stays the same for several exchanges.
type stand struct {
	*upstream
	room     *Room
	stage    http.RoundTripper
	registry *prometheus.Registry
}

func newStand(t *testing.T, config func(*Config), steps ...step) *stand {
	t.Helper()
	c := Default()
	if config != nil {
		config(&c)
	}
	if faults := c.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	s := &stand{upstream: &upstream{t: t, steps: steps, begin: time.Now()}, registry: prometheus.NewRegistry()}
	s.room = New(s.registry)
	var keeper state.Keeper
	s.stage = s.room.Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, c).Wrap(s.upstream)
	return s
}

// call is one request of a program.
type call struct {
	method string // POST
	body   string
	path   string
	header map[string]string
	tenant string
	ctx    context.Context
	reader io.ReadCloser // instead of body
}

// send sends a request, and reads the answer.
func (s *stand) send(c call) (status int, story exchange.Story) {
	if c.method == "" {
		c.method = "POST"
	}
	x := newExchange(c.method)
	x.Tenant = c.tenant
	if c.ctx == nil {
		c.ctx = s.t.Context()
	}
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	r := request(c.ctx, x, body)
	if c.reader != nil {
		r.Body, r.ContentLength = c.reader, -1
	}
	if c.path != "" {
		r.URL.Path = c.path
	}
	for k, v := range c.header {
		r.Header.Set(k, v)
	}
	resp, err := s.stage.RoundTrip(r)
	if err != nil {
		return 0, x.Story()
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode, x.Story()
}

// keys lists the idempotency keys that the upstream got, one for each attempt.
func (s *stand) keys() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		out = append(out, r.Header.Get("Idempotency-Key"))
	}
	return out
}

// count is a metric's value; reason is its second label, or "" where it has none.
func (s *stand) count(name, reason string) (sum float64) {
	families, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if reason == "" {
				sum += m.GetGauge().GetValue()
			} else if m.GetLabel()[1].GetValue() == reason {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
