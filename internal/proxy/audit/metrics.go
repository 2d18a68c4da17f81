package audit

import (
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/redact"
)

// maxKinds bounds the label kind, whatever the redactor calls its finds; what comes after counts as otherKind.
const (
	maxKinds  = 64
	otherKind = redact.Kind("other")
)

type metrics struct {
	records    prometheus.Counter
	dropped    prometheus.Counter
	failures   prometheus.Counter
	redactions *prometheus.CounterVec

	mu    sync.Mutex                                         // of whoever resolves a new kind
	kinds atomic.Pointer[map[redact.Kind]prometheus.Counter] // never changed, only replaced
}

// newMetrics registers the counters; one Log for each registry.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "httpowerd_audit_records_total", Help: "Audit records written.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "httpowerd_audit_dropped_total", Help: "Audit records lost, because the queue was full or the output failed until the end.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "httpowerd_audit_write_failures_total", Help: "Failed tries to write audit records; each is tried again.",
		}),
		redactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httpowerd_redactions_total", Help: "Values hidden from audit records, by kind.",
		}, []string{"kind"}),
	}
	m.kinds.Store(&map[redact.Kind]prometheus.Counter{})
	return m, errors.Join(reg.Register(m.records), reg.Register(m.dropped), reg.Register(m.failures), reg.Register(m.redactions))
}

// redacted counts what was hidden from one record.
func (m *metrics) redacted(c *redact.Counts) {
	if c.Total() == 0 {
		return
	}
	c.Each(func(k redact.Kind, n int) {
		if n > 0 {
			m.kind(k).Add(float64(n))
		}
	})
}

// kind is the counter of a kind, resolved once.
func (m *metrics) kind(k redact.Kind) prometheus.Counter {
	if c, ok := (*m.kinds.Load())[k]; ok {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := *m.kinds.Load()
	if len(known) >= maxKinds {
		k = otherKind
	}
	c, ok := known[k]
	if !ok {
		c = m.redactions.WithLabelValues(string(k))
		grown := maps.Clone(known)
		grown[k] = c
		m.kinds.Store(&grown)
	}
	return c
}
