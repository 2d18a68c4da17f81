package breaker

import (
	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

// metrics are what the block counts, and the states as they are when somebody asks.
type metrics struct {
	room        *Room
	transitions *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	state       *prometheus.Desc
}

func newMetrics(reg prometheus.Registerer, room *Room) *metrics {
	m := &metrics{room: room,
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_breaker_transitions_total",
			Help: "Changes of a circuit breaker's state."}, []string{"host", "from", "to"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_breaker_refusals_total",
			Help: "Attempts that a circuit breaker refused (mode enforce) or would have refused (mode observe)."}, []string{"host", "mode"}),
		state: prometheus.NewDesc("httpowerd_breaker_state", "How many authorities' circuit breakers are in this state.", []string{"host", "state"}, nil),
	}
	if reg != nil {
		reg.MustRegister(m.transitions, m.refusals, m)
	}
	return m
}

func (m *metrics) moved(c Change) { m.transitions.WithLabelValues(c.Host, c.From, c.To).Inc() }

func (m *metrics) refused(x *exchange.Exchange, mode setting.Mode) {
	m.refusals.WithLabelValues(x.Label(), string(mode)).Inc()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) { out <- m.state }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	type seen struct{ host, authority string }
	worst := map[seen]int{}
	for _, c := range m.room.all() {
		if c.host.Load() == nil {
			continue // nothing was sent yet
		}
		key := seen{c.hostLabel(), c.authority}
		worst[key] = max(worst[key], rank(c.status().State))
	}
	hosts := map[string]*[len(states)]float64{}
	for key, state := range worst {
		if hosts[key.host] == nil {
			hosts[key.host] = &[len(states)]float64{}
		}
		hosts[key.host][state]++
	}
	for host, counts := range hosts {
		for i, n := range counts {
			out <- prometheus.MustNewConstMetric(m.state, prometheus.GaugeValue, n, host, states[i])
		}
	}
}

// states, the worst last: an authority that several policies or tenants know counts once, in the worst of its breakers' states.
var states = [...]string{Closed, HalfOpen, Open}

func rank(state string) int {
	for i, s := range states {
		if s == state {
			return i
		}
	}
	return 0
}
