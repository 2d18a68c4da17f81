package retry

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the block counts; labels are bounded by whoever makes them.
type metrics struct {
	retries family
	refused family
}

// family is a counter by host and reason. A pair is looked up once and kept.
type family struct {
	vec  *prometheus.CounterVec
	kept sync.Map // pair: prometheus.Counter
}

type pair struct{ host, reason string }

func (f *family) inc(host, reason string) {
	key := pair{host, reason}
	c, ok := f.kept.Load(key)
	if !ok {
		c, _ = f.kept.LoadOrStore(key, f.vec.WithLabelValues(host, reason))
	}
	c.(prometheus.Counter).Inc()
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{}
	m.retries.vec = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_retries_total",
		Help: "Attempts that were made because the one before them had failed, by what it had failed of."}, []string{"host", "reason"})
	m.refused.vec = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_retries_refused_total",
		Help: "Failed attempts after which no other one was made, by why not."}, []string{"host", "reason"})
	if reg != nil {
		reg.MustRegister(m.retries.vec, m.refused.vec)
	}
	return m
}

func (m *metrics) retried(host, reason string) { m.retries.inc(host, reason) }
func (m *metrics) refusal(host, why string)    { m.refused.inc(host, why) }
