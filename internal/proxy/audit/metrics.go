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
	records     prometheus.Counter
	dropped     prometheus.Counter
	failures    prometheus.Counter
	refused     prometheus.Counter
	checkpoints prometheus.Counter
	deleted     prometheus.Counter
	copies      copiesMetrics
	unsendable  prometheus.Counter
	redactions  *prometheus.CounterVec

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
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "httpowerd_audit_refused_total", Help: "Exchanges refused because the audit trail took no records and their policy is fail-closed.",
		}),
		checkpoints: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "httpowerd_audit_checkpoints_total", Help: "Signed checkpoints written to the checkpoint file.",
		}),
		deleted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "httpowerd_audit_files_deleted_total", Help: "Rotated audit files deleted by max_files or keep.",
		}),
		unsendable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "httpowerd_audit_unsendable_total", Help: "Audit records too long for the output, or refused by it for good; none is cut.",
		}),
		copies: copiesMetrics{
			records: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "httpowerd_audit_copy_records_total", Help: "Audit records delivered to a place of audit.also.",
			}, []string{"to"}),
			dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "httpowerd_audit_copy_dropped_total", Help: "Audit records that a place of audit.also never got: its backlog was full, or it cannot take them.",
			}, []string{"to"}),
			failures: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "httpowerd_audit_copy_failures_total", Help: "Failed tries to deliver audit records to a place of audit.also; each is tried again.",
			}, []string{"to"}),
			backlog: prometheus.NewGaugeVec(prometheus.GaugeOpts{
				Name: "httpowerd_audit_copy_backlog_records", Help: "Audit records that wait for a place of audit.also.",
			}, []string{"to"}),
		},
		redactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httpowerd_redactions_total", Help: "Values hidden from audit records, by kind.",
		}, []string{"kind"}),
	}
	m.kinds.Store(&map[redact.Kind]prometheus.Counter{})
	var err error
	for _, c := range []prometheus.Collector{m.records, m.dropped, m.failures, m.refused, m.checkpoints, m.deleted, m.redactions, m.unsendable,
		m.copies.records, m.copies.dropped, m.copies.failures, m.copies.backlog} {
		err = errors.Join(err, reg.Register(c))
	}
	return m, err
}

// copiesMetrics are those of all copies, copyMetrics those of one.
type copiesMetrics struct {
	records, dropped, failures *prometheus.CounterVec
	backlog                    *prometheus.GaugeVec
}

type copyMetrics struct {
	records, dropped, failures prometheus.Counter
	backlog                    prometheus.Gauge
}

func (m copiesMetrics) of(to string) copyMetrics {
	return copyMetrics{m.records.WithLabelValues(to), m.dropped.WithLabelValues(to), m.failures.WithLabelValues(to), m.backlog.WithLabelValues(to)}
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
