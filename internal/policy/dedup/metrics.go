package dedup

import (
	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/state"
)

// The roles of requests, as metrics and records name them. Each governed request has one.
const (
	roleLeader   = "leader"   // it was sent
	roleFollower = "follower" // it waited for another one's answer
	roleReplayed = "replayed" // it was answered with a complete answer that was there before it came
	roleConflict = "conflict" // a write with its key runs, or had another body
	roleBypass   = "bypass"   // it was sent as if the block were off
	roleRefused  = "refused"  // a keyed write that was not sent for another reason: its key is malformed, or nobody can tell whether it ran before
	roleObserved = "observed" // in observe mode: it was sent, and would not have been
)

// metrics are what the block counts; labels are bounded by whoever makes them.
type metrics struct {
	requests    *prometheus.CounterVec
	storeErrors prometheus.Counter
	hosts       state.Grown[string, *hostMetrics] // by label
}

type hostMetrics struct{ leader, follower, replayed, conflict, bypass, refused, observed prometheus.Counter }

func newMetrics(reg prometheus.Registerer, memory *budget) *metrics {
	m := &metrics{requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_dedup_requests_total",
		Help: "Governed requests by what became of each: leader, follower, replayed, conflict, refused, bypass, or observed to need no sending."},
		[]string{"host", "role"}),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "httpowerd_dedup_store_errors_total",
			Help: "Times that the memory of keyed writes failed or was full; where a write could not begin it was refused."})}
	if reg != nil {
		reg.MustRegister(m.requests, m.storeErrors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "httpowerd_dedup_bytes",
			Help: "Memory that bodies of shared answers and of keyed writes in flight take."}, func() float64 { return float64(memory.used.Load()) }))
	}
	return m
}

func (m *metrics) host(label string) *hostMetrics { return m.hosts.Get(label, m.newHost) }

func (m *metrics) newHost(label string) *hostMetrics {
	role := func(name string) prometheus.Counter { return m.requests.WithLabelValues(label, name) }
	return &hostMetrics{leader: role(roleLeader), follower: role(roleFollower), replayed: role(roleReplayed),
		conflict: role(roleConflict), bypass: role(roleBypass), refused: role(roleRefused), observed: role(roleObserved)}
}

func (m *metrics) count(label, role string) {
	h := m.host(label)
	switch role {
	case roleLeader:
		h.leader.Inc()
	case roleFollower:
		h.follower.Inc()
	case roleReplayed:
		h.replayed.Inc()
	case roleConflict:
		h.conflict.Inc()
	case roleRefused:
		h.refused.Inc()
	case roleObserved:
		h.observed.Inc()
	default:
		h.bypass.Inc()
	}
}
