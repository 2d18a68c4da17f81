package governor

import "github.com/prometheus/client_golang/prometheus"

type counters struct{ changes *prometheus.CounterVec }

func newCounters(reg prometheus.Registerer, g *Governor) *counters {
	c := &counters{changes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httpowerd_memory_pressure_changes_total",
		Help: "Changes of the memory pressure, by the level that was reached."}, []string{"level"})}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	reg.MustRegister(c.changes,
		gauge("httpowerd_memory_limit_bytes", "The memory that the process may use.", func() float64 { return float64(g.limit) }),
		gauge("httpowerd_memory_used_bytes", "The memory in use that no garbage collection frees.", func() float64 { return float64(g.used.Load()) }),
		gauge("httpowerd_memory_pressure", "How short memory is: 0 ample, 1 caches are shed, 2 bodies are not kept, 3 new requests are refused.",
			func() float64 { return float64(g.level.Load()) }))
	return c
}
