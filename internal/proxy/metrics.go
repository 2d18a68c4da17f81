package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
)

// metrics are what the door counts. What a host's exchanges update is looked up once and kept.
type metrics struct {
	requests     *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	overhead     *prometheus.HistogramVec
	tunnels      *prometheus.CounterVec
	tunnelActive *prometheus.GaugeVec
	tunnelBytes  *prometheus.CounterVec
	connections  prometheus.Gauge

	hosts sync.Map // host label: *hostMetrics
}

type hostMetrics struct {
	duration, overhead prometheus.Observer
	counters           sync.Map // requestKey: prometheus.Counter
}

type requestKey struct {
	method  string
	status  int
	outcome exchange.Code
	tenant  string
}

func newMetrics(reg prometheus.Registerer, l Limits) *metrics {
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"host"})
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_requests_total",
			Help: "Exchanges that ended, tunnels excepted."}, []string{"host", "method", "code", "outcome", "tenant"}),
		duration: histogram("httpowerd_request_duration_seconds", "Time from the request's head to the end of the answer's body.",
			[]float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}),
		overhead: histogram("httpowerd_overhead_seconds", "Time in the proxy to the answer's head, not waiting for the upstream, a limit or a backoff.",
			[]float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .1}),
		tunnels: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_tunnels_total",
			Help: "Tunnels that ended or were refused."}, []string{"host", "outcome", "tenant"}),
		tunnelActive: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "httpowerd_tunnels_active",
			Help: "Tunnels open now."}, []string{"host"}),
		tunnelBytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_tunnel_bytes_total",
			Help: "Bytes relayed in tunnels; direction is up (from the client) or down."}, []string{"host", "direction"}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "httpowerd_connections_active",
			Help: "Client connections open now."}),
	}
	reg.MustRegister(m.requests, m.duration, m.overhead, m.tunnels, m.tunnelActive, m.tunnelBytes, m.connections)
	for name, ceiling := range map[string]struct {
		help string
		most int
	}{
		"httpowerd_connections_limit": {"Client connections that may be open at once; fewer than configured where file descriptors are short.", l.Connections},
		"httpowerd_tunnels_limit":     {"Tunnels that may be open at once.", l.Tunnels},
	} {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: ceiling.help})
		g.Set(float64(ceiling.most))
		reg.MustRegister(g)
	}
	return m
}

// observe counts an exchange that ended.
func (m *metrics) observe(x *exchange.Exchange, label string, end time.Time) {
	if x.Kind == exchange.KindTunnel {
		m.observeTunnel(x, label)
		return
	}
	var key requestKey
	var overhead time.Duration
	x.Read(func(s *exchange.Story) {
		key = requestKey{methodLabel(x.Method), s.Status, s.Outcome, x.Tenant}
		overhead = s.Overhead
	})
	h := m.host(label)
	took := end.Sub(x.Start).Seconds()
	if x.Trace.Sampled {
		h.duration.(prometheus.ExemplarObserver).ObserveWithExemplar(took, prometheus.Labels{"trace_id": strings.Clone(x.TraceID)})
	} else {
		h.duration.Observe(took)
	}
	h.overhead.Observe(overhead.Seconds())
	c, ok := h.counters.Load(key)
	if !ok {
		code := "0"
		if key.status > 0 {
			code = strconv.Itoa(key.status)
		}
		c, _ = h.counters.LoadOrStore(key, m.requests.WithLabelValues(label, key.method, code, string(key.outcome), key.tenant))
	}
	c.(prometheus.Counter).Inc()
}

// observeTunnel counts a tunnel that ended or was refused.
func (m *metrics) observeTunnel(x *exchange.Exchange, label string) {
	x.Read(func(s *exchange.Story) {
		m.tunnels.WithLabelValues(label, string(s.Outcome), x.Tenant).Inc()
		m.tunnelBytes.WithLabelValues(label, "up").Add(float64(s.BytesIn))
		m.tunnelBytes.WithLabelValues(label, "down").Add(float64(s.BytesOut))
	})
}

func (m *metrics) host(label string) *hostMetrics {
	if h, ok := m.hosts.Load(label); ok {
		return h.(*hostMetrics)
	}
	h, _ := m.hosts.LoadOrStore(label, &hostMetrics{
		duration: m.duration.WithLabelValues(label), overhead: m.overhead.WithLabelValues(label)})
	return h.(*hostMetrics)
}

// methodLabel keeps the label set bounded.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return method
	}
	return "_OTHER"
}
