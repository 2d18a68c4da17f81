package hedge

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// What became of a hedge, as metrics name it.
const (
	resultWon      = "won"
	resultLost     = "lost"     // another answer was taken first, or nobody waited any more
	resultFailed   = "failed"   // its own answer was a failure
	resultRefused  = "refused"  // by a limit, a gate or the breaker below
	resultBudget   = "budget"   // the retry budget had nothing left; not sent
	resultScarce   = "scarce"   // the upstream's quota is used up or low; not sent
	resultObserved = "observed" // it would have been sent
	resultPanicked = "panicked" // a defect
)

// metrics are what the block counts; labels are bounded by whoever makes them.
type metrics struct {
	hedges *prometheus.CounterVec
	kept   sync.Map // pair: prometheus.Counter
}

type pair struct{ host, result string }

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{hedges: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_hedges_total",
		Help: "Attempts beside one that took long, by what became of them; those of budget, scarce and observed were not sent."},
		[]string{"host", "result"})}
	if reg != nil {
		reg.MustRegister(m.hedges)
	}
	return m
}

func (m *metrics) count(host, result string) {
	key := pair{host, result}
	c, ok := m.kept.Load(key)
	if !ok {
		c, _ = m.kept.LoadOrStore(key, m.hedges.WithLabelValues(host, result))
	}
	c.(prometheus.Counter).Inc()
}
