package notify

import "github.com/prometheus/client_golang/prometheus"

// What becomes of a notification, as the metric names it.
const (
	resultDelivered = "delivered"
	resultRetried   = "retried"   // a try failed and there will be another
	resultFailed    = "failed"    // no more tries
	resultDropped   = "dropped"   // no room, or no time at shutdown
	resultCoalesced = "coalesced" // became one with another, or came to nothing with it
)

type metrics struct{ total *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_notifications_total",
		Help: "Notifications by target and what became of them."}, []string{"target", "result"})}
	if reg != nil {
		reg.MustRegister(m.total)
	}
	return m
}

// known shows a target's counters before they count.
func (m *metrics) known(target string) {
	for _, result := range []string{resultDelivered, resultFailed, resultDropped} {
		m.total.WithLabelValues(target, result)
	}
}

func (m *metrics) count(target, result string, n int) {
	if n > 0 {
		m.total.WithLabelValues(target, result).Add(float64(n))
	}
}
