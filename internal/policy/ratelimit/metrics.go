package ratelimit

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/state"
	"httpowerd/internal/state/quota"
)

// metrics are what the block counts, and the quotas as they are when somebody asks. What a host's exchanges update is looked up once and kept;
// labels are bounded by whoever makes them.
type metrics struct {
	room       *Room
	reg        prometheus.Registerer
	decisions  *prometheus.CounterVec
	costFaults *prometheus.CounterVec
	conflicts  prometheus.Counter
	fallbacks  *prometheus.CounterVec
	wait       *prometheus.HistogramVec
	remaining  *prometheus.Desc
	reset      *prometheus.Desc
	hosts      state.Grown[string, *hostMetrics] // by label
}

type hostMetrics struct {
	allowed, delayed, refused, observed prometheus.Counter
	wait                                prometheus.Observer
}

func newMetrics(reg prometheus.Registerer, room *Room) *metrics {
	m := &metrics{room: room, reg: reg,
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_rate_limit_decisions_total",
			Help: "What configured limits and announced quotas decided: allowed, delayed, refused, or observed to be over the limit."}, []string{"host", "decision"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "httpowerd_rate_limit_wait_seconds",
			Help:                        "Time that requests were held for a limit or a quota; those that were not held are not counted.",
			Buckets:                     []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"host"}),
		costFaults: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_rate_limit_cost_faults_total",
			Help: "Costs that were not what an expression said: it failed, was clamped, or the answer was not seen whole."}, []string{"host", "fault"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{Name: "httpowerd_rate_limit_conflicts_total",
			Help: "How often another daemon was found to go by other numbers for a limit that both share."}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_shared_state_fallbacks_total",
			Help: "How often a daemon went on by itself because the shared state did not answer."}, []string{"what"}),
		remaining: prometheus.NewDesc("httpowerd_quota_remaining",
			"What is left of the tightest quota that the upstream announced.", []string{"host", "unit"}, nil),
		reset: prometheus.NewDesc("httpowerd_quota_reset_timestamp_seconds",
			"When the tightest quota that the upstream announced is restored, in seconds since 1970.", []string{"host", "unit"}, nil),
	}
	if reg != nil {
		reg.MustRegister(m.decisions, m.wait, m.costFaults, m)
	}
	return m
}

// share registers what there is only where limits are shared. Other rooms count their fallbacks in the same metric.
func (m *metrics) share() {
	if m.reg == nil {
		return
	}
	m.reg.MustRegister(m.conflicts)
	var there prometheus.AlreadyRegisteredError
	if err := m.reg.Register(m.fallbacks); errors.As(err, &there) {
		if v, ok := there.ExistingCollector.(*prometheus.CounterVec); ok {
			m.fallbacks = v
		}
	}
}

func (m *metrics) host(label string) *hostMetrics { return m.hosts.Get(label, m.newHost) }

func (m *metrics) newHost(label string) *hostMetrics {
	decision := func(name string) prometheus.Counter { return m.decisions.WithLabelValues(label, name) }
	return &hostMetrics{allowed: decision("allowed"), delayed: decision("delayed"), refused: decision("refused"),
		observed: decision("observed"), wait: m.wait.WithLabelValues(label)}
}

func (h *hostMetrics) decision(delayed, observed bool) prometheus.Counter {
	switch {
	case observed:
		return h.observed
	case delayed:
		return h.delayed
	}
	return h.allowed
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.remaining
	out <- m.reset
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	type pair struct{ host, unit string }
	tightest := map[pair]quota.Learnt{}
	_, gates := m.room.everything()
	for _, g := range gates {
		g.table.Each(func(_ state.Key, a *account) {
			a.Each(func(l quota.Learnt, label string, _ time.Duration) {
				key := pair{label, l.Unit}
				old, ok := tightest[key]
				tighter := l.Remaining < old.Remaining || l.Remaining == old.Remaining && l.Reset.After(old.Reset)
				if l.Remaining >= 0 && (!ok || tighter) {
					tightest[key] = l
				}
			})
		})
	}
	for key, l := range tightest {
		out <- prometheus.MustNewConstMetric(m.remaining, prometheus.GaugeValue, float64(l.Remaining), key.host, key.unit)
		if !l.Reset.IsZero() {
			out <- prometheus.MustNewConstMetric(m.reset, prometheus.GaugeValue, float64(l.Reset.UnixMilli())/1e3, key.host, key.unit)
		}
	}
}
