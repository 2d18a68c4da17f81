package sanitize

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// What became of a find, as metrics and records name it.
const (
	actionBlocked  = "blocked"
	actionMasked   = "masked"
	actionReported = "reported"
	actionObserved = "observed" // it would have been masked or blocked
	actionPassed   = "passed"   // a body that could not be looked at
)

// kindUnreadable is a body that cannot be looked at.
const kindUnreadable = "unreadable"

// metrics are what the block counts; labels are bounded by whoever makes them.
type metrics struct {
	finds *prometheus.CounterVec
	kept  sync.Map // labels: prometheus.Counter
}

type labels struct{ host, direction, kind, action string }

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{finds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_sanitized_total",
		Help: "Card numbers, security codes, stripes and secrets that were found in the traffic, by what became of them; and bodies that could not be looked at."},
		[]string{"host", "direction", "kind", "action"})}
	if reg != nil {
		reg.MustRegister(m.finds)
	}
	return m
}

func (m *metrics) count(l labels, n int) {
	c, ok := m.kept.Load(l)
	if !ok {
		c, _ = m.kept.LoadOrStore(l, m.finds.WithLabelValues(l.host, l.direction, l.kind, l.action))
	}
	c.(prometheus.Counter).Add(float64(n))
}
