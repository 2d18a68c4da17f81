package egress

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
)

// metrics are what egress counts. What a host's attempts update is looked up once and kept; labels are bounded by whoever makes them.
type metrics struct {
	attempts *prometheus.CounterVec
	duration *prometheus.HistogramVec
	active   *prometheus.GaugeVec
	warmed   *prometheus.CounterVec
	hosts    sync.Map // host label: *hostMetrics
}

type hostMetrics struct {
	label    string
	attempts *prometheus.CounterVec
	duration prometheus.Observer
	active   prometheus.Gauge
	classes  [6]prometheus.Counter // by the first digit of the status
	codes    sync.Map              // exchange.Code: prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_attempts_total",
			Help: "Attempts that ended, by the status class of their answer or the code of their failure."}, []string{"host", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "httpowerd_attempt_duration_seconds",
			Help:                        "Time from the begin of an attempt to the answer's head, or to its failure.",
			Buckets:                     []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"host"}),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "httpowerd_upstream_connections_active",
			Help: "Connections to upstreams that are open now, idle ones and tunnels included."}, []string{"host"}),
		warmed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_upstream_warmed_total",
			Help: "Connections made ahead of requests, by ok or the code of the failure."}, []string{"host", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.attempts, m.duration, m.active, m.warmed)
	}
	return m
}

func (m *metrics) host(label string) *hostMetrics {
	if h, ok := m.hosts.Load(label); ok {
		return h.(*hostMetrics)
	}
	n := &hostMetrics{label: label, attempts: m.attempts, duration: m.duration.WithLabelValues(label), active: m.active.WithLabelValues(label)}
	for i := 1; i < len(n.classes); i++ {
		n.classes[i] = m.attempts.WithLabelValues(label, strconv.Itoa(i)+"xx")
	}
	h, _ := m.hosts.LoadOrStore(label, n)
	return h.(*hostMetrics)
}

// attempt counts one of x that ended.
func (h *hostMetrics) attempt(x *exchange.Exchange, status int, code exchange.Code, took time.Duration) {
	if x.Trace.Sampled {
		h.duration.(prometheus.ExemplarObserver).ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": strings.Clone(x.TraceID)})
	} else {
		h.duration.Observe(took.Seconds())
	}
	if class := status / 100; class >= 1 && class <= 5 {
		h.classes[class].Inc()
		return
	}
	if code == "" {
		code = exchange.UpstreamProtocol // a status that no class has
	}
	c, ok := h.codes.Load(code)
	if !ok {
		c, _ = h.codes.LoadOrStore(code, h.attempts.WithLabelValues(h.label, string(code)))
	}
	c.(prometheus.Counter).Inc()
}
