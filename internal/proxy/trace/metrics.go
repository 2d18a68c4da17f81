package trace

import "github.com/prometheus/client_golang/prometheus"

// Why a span is never exported, as the metric names it.
const (
	lostQueue    = "queue"    // no room
	lostExport   = "export"   // the collector did not take it
	lostShutdown = "shutdown" // no time at the end, or the settings changed
)

type metrics struct {
	exported prometheus.Counter
	dropped  *prometheus.CounterVec
	failures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		exported: prometheus.NewCounter(prometheus.CounterOpts{Name: "httpowerd_trace_spans_exported_total",
			Help: "Spans that the collector took."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_trace_spans_dropped_total",
			Help: "Spans that no collector will get, by the reason."}, []string{"reason"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "httpowerd_trace_export_failures_total",
			Help: "Batches of spans that the collector did not take, or not as a whole."}),
	}
	for _, reason := range []string{lostQueue, lostExport, lostShutdown} {
		m.dropped.WithLabelValues(reason)
	}
	if reg != nil {
		reg.MustRegister(m.exported, m.dropped, m.failures)
	}
	return m
}

func (m *metrics) lost(reason string, n int) {
	if n > 0 {
		m.dropped.WithLabelValues(reason).Add(float64(n))
	}
}
