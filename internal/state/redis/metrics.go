package redis

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The operations, as metrics name them.
const (
	opTake      = "take"
	opPublish   = "publish"
	opFetch     = "fetch"
	opSubscribe = "subscribe"
	opBegin     = "begin"
	opFinish    = "finish"
	opRelease   = "release"
	opProbe     = "probe"
)

// metrics are what the shared state counts.
type metrics struct {
	errors    *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	conflicts prometheus.Counter
	ops       map[string]opMetrics
}

type opMetrics struct {
	errors   prometheus.Counter
	duration prometheus.Observer
}

func newMetrics(reg prometheus.Registerer, up func() bool) *metrics {
	m := &metrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_shared_state_errors_total",
			Help: "Calls to the shared state that came to nothing, those among them that were not made because it was away."}, []string{"op"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "httpowerd_shared_state_duration_seconds",
			Help:                        "How long calls to the shared state took that were made, the failed ones too.",
			Buckets:                     []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"op"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{Name: "httpowerd_shared_state_conflicts_total",
			Help: "Calls in which another daemon's stricter limit held for the same key."}),
		ops: map[string]opMetrics{},
	}
	for _, op := range []string{opTake, opPublish, opFetch, opSubscribe, opBegin, opFinish, opRelease, opProbe} {
		m.ops[op] = opMetrics{m.errors.WithLabelValues(op), m.duration.WithLabelValues(op)}
	}
	if reg != nil {
		reg.MustRegister(m.errors, m.duration, m.conflicts, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "httpowerd_shared_state_up", Help: "1 while the shared state answers, 0 while everything falls back."}, func() float64 {
			if up() {
				return 1
			}
			return 0
		}))
	}
	return m
}
