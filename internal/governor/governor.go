// Package governor keeps the process within its memory: as that runs short, first what is only kept for speed goes, then what is kept for retries, then new
// requests are refused, and never the process.
package governor

import (
	"context"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Level is how short memory is.
type Level int32

// The levels, and what happens at each, besides what happened at those before.
const (
	Ample   Level = iota
	Caches        // shared answers do not linger, certificates are made anew
	Bodies        // request bodies are not kept for retries: they are sent once
	Refusal       // new requests and tunnels are refused with overloaded
)

func (l Level) String() string { return [...]string{"ample", "caches", "bodies", "refusal"}[l] }

// thresholds are the parts of the limit at which levels begin; one ends when the use is slack below that.
var thresholds = [...]float64{Caches: 0.70, Bodies: 0.80, Refusal: 0.90}

const (
	slack = 0.05
	every = 100 * time.Millisecond
	sweep = 2 * time.Second
)

// Governor watches the process's memory. A nil one finds it ample.
type Governor struct {
	limit int64
	level atomic.Int32
	used  atomic.Int64
	read  func() int64
	shed  []func()
	swept time.Time // when memory was last collected because it was short
	log   *slog.Logger
	count *counters
}

// New makes a Governor for the limit in bytes, and tells the garbage collector of it; nil for 0, no limit.
func New(limit int64, reg prometheus.Registerer, log *slog.Logger) *Governor {
	if limit <= 0 {
		return nil
	}
	debug.SetMemoryLimit(limit)
	g := &Governor{limit: limit, log: log, read: inUse()}
	g.count = newCounters(reg, g)
	return g
}

// Close lifts the limit.
func (g *Governor) Close() {
	if g != nil {
		debug.SetMemoryLimit(math.MaxInt64)
	}
}

// Shed adds something that gives memory back when it runs short. It must come before Run.
func (g *Governor) Shed(f func()) {
	if g != nil {
		g.shed = append(g.shed, f)
	}
}

// At tells whether memory is as short as that, or shorter.
func (g *Governor) At(l Level) bool { return g != nil && Level(g.level.Load()) >= l }

// Run watches until ctx ends.
func (g *Governor) Run(ctx context.Context) {
	if g == nil {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		g.look()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// look reads how much is used, and acts where the level changes.
func (g *Governor) look() {
	before := Level(g.level.Load())
	if before >= Bodies && time.Since(g.swept) > sweep {
		g.swept = time.Now()
		runtime.GC() // where little is let in little is allocated, and nobody else would find out that memory is free again
	}
	used := g.read()
	g.used.Store(used)
	now := next(before, float64(used)/float64(g.limit))
	if now == before {
		return
	}
	g.level.Store(int32(now))
	g.count.changes.WithLabelValues(now.String()).Inc()
	g.log.Warn("memory pressure: "+now.String(), "before", before.String(), "used_bytes", used, "limit_bytes", g.limit)
	if now > before {
		for _, f := range g.shed {
			f()
		}
	}
}

// next is the level that a part of the limit means, where it was at before.
func next(before Level, part float64) Level {
	level := Ample
	for l := Caches; l <= Refusal; l++ {
		bar := thresholds[l]
		if l <= before {
			bar -= slack
		}
		if part >= bar {
			level = l
		}
	}
	return level
}

// inUse reads what cannot be collected: the heap that the last collection found alive, and the stacks. Collections run the more often the nearer the limit is.
func inUse() func() int64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/memory/classes/os-stacks:bytes"}}
	return func() int64 {
		metrics.Read(samples)
		var sum uint64
		for i := range samples {
			if samples[i].Value.Kind() == metrics.KindUint64 {
				sum += samples[i].Value.Uint64()
			}
		}
		return int64(min(sum, math.MaxInt64))
	}
}
