package retry

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the block counts; labels are bounded by whoever makes them.
type metrics struct {
	retries  family
	refused  family
	observed family
	unkept   family
	unjudged family
}

// family is a counter by host and something else. A pair is looked up once and kept.
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

// Why a body could not be kept, as metrics name it.
const (
	unkeptSize   = "size"   // larger than buffer
	unkeptMemory = "memory" // all requests' bodies together take as much as they may
)

// Why an expression could not judge an answer, as metrics name it.
const (
	unjudgedError  = "error"  // it failed, as for a member that is not there
	unjudgedBody   = "body"   // it asked for a body that is a stream, too large, too slow or in an unknown coding
	unjudgedBroken = "broken" // the body broke off while it was read
)

func newMetrics(reg prometheus.Registerer, a *account) *metrics {
	m := &metrics{}
	for _, f := range []struct {
		family     *family
		name, help string
	}{
		{&m.retries, "httpowerd_retries_total", "Attempts that were made because the one before them had failed, by what it had failed of."},
		{&m.refused, "httpowerd_retries_refused_total", "Failed attempts after which no other one was made, by why not."},
		{&m.observed, "httpowerd_retries_observed_total", "Attempts that observe mode kept from being made, by what the one before them had failed of."},
		{&m.unkept, "httpowerd_retry_bodies_unkept_total", "Requests that could be sent only once because their body could not be kept, by why not."},
		{&m.unjudged, "httpowerd_retry_unjudged_total", "Answers that failure_when could not judge, by why not."},
	} {
		f.family.vec = prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.name, Help: f.help}, []string{"host", "reason"})
		if reg != nil {
			reg.MustRegister(f.family.vec)
		}
	}
	if reg != nil {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "httpowerd_retry_body_bytes",
			Help: "Memory that kept request bodies take."}, func() float64 { return float64(a.used.Load()) }))
	}
	return m
}
