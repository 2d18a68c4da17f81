package audit

import "sync/atomic"

// gate tells exchanges whose policy is fail-closed whether the trail takes records. It is open while no reason holds it shut.
type gate struct{ shut atomic.Uint32 }

// The reasons.
const (
	outputFails uint32 = 1 << iota // the last try failed
	outputStuck                    // a write has not returned for stuckAfter
	syncFails                      // with sync: always, what was written may not survive a power cut
	queueFull
)

func (g *gate) open() bool { return g.shut.Load() == 0 }

func (g *gate) set(reason uint32) { g.shut.Or(reason) }

func (g *gate) clear(reason uint32) { g.shut.And(^reason) }

func (g *gate) has(reason uint32) bool { return g.shut.Load()&reason != 0 }

// Admit tells whether an exchange that must not go unrecorded may begin. One that may not is counted as refused.
func (l *Log) Admit() bool {
	if l.off || l.queue.gate.open() {
		return true
	}
	l.metrics.refused.Inc()
	return false
}
