package concurrency

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/state"
)

// metrics are what the block counts. What a host's exchanges update is looked up once and kept; labels are bounded by whoever makes them.
type metrics struct {
	room      *Room
	limit     *prometheus.Desc
	decisions *prometheus.CounterVec
	wait      *prometheus.HistogramVec
	active    *prometheus.GaugeVec
	hosts     sync.Map // host label: *hostMetrics
}

type hostMetrics struct {
	allowed, delayed, refused, observed prometheus.Counter
	wait                                prometheus.Observer
	active                              prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, room *Room) *metrics {
	m := &metrics{room: room,
		limit: prometheus.NewDesc("httpowerd_concurrency_limit", "How many places the smallest bulkhead of a host has now.", []string{"host"}, nil),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_concurrency_decisions_total",
			Help: "What bulkheads decided: allowed, delayed, refused, or observed to be over the bound."}, []string{"host", "decision"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "httpowerd_concurrency_wait_seconds",
			Help:                        "Time that requests waited for a place at a bulkhead; those that did not wait are not counted.",
			Buckets:                     []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"host"}),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "httpowerd_concurrency_active",
			Help: "Exchanges that hold a place at a bulkhead now."}, []string{"host"}),
	}
	if reg != nil {
		reg.MustRegister(m.decisions, m.wait, m.active, m)
	}
	return m
}

func (m *metrics) host(label string) *hostMetrics {
	if h, ok := m.hosts.Load(label); ok {
		return h.(*hostMetrics)
	}
	decision := func(name string) prometheus.Counter { return m.decisions.WithLabelValues(label, name) }
	h, _ := m.hosts.LoadOrStore(label, &hostMetrics{allowed: decision("allowed"), delayed: decision("delayed"), refused: decision("refused"),
		observed: decision("observed"), wait: m.wait.WithLabelValues(label), active: m.active.WithLabelValues(label)})
	return h.(*hostMetrics)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) { out <- m.limit }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	least := map[string]int{}
	m.room.each(func(_ *bulkheads, _ state.Key, h *bulkhead) {
		label := h.label.Load()
		if label == nil {
			return
		}
		_, places, _ := h.Held()
		if old, ok := least[*label]; !ok || places < old {
			least[*label] = places
		}
	})
	for label, places := range least {
		out <- prometheus.MustNewConstMetric(m.limit, prometheus.GaugeValue, float64(places), label)
	}
}
