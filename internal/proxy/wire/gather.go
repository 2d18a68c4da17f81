package wire

import (
	"runtime"
	"sync/atomic"
)

// gather lets exchanges that are ready together be written together. One that has come to its write first lets those run that wait for the processor, so that their
// writes follow each other closely: a receiver on this machine, as a sidecar's client always is, is woken once for several, and waking is the dearest part of a short
// write.
//
// Only where the daemon has one processor: with more, giving one up wakes another to take over, which costs what is spared.
type gather struct {
	on      bool
	waiting atomic.Int32  // exchanges that have given way
	seen    atomic.Uint32 // goes up whenever one gives way, and when it goes on
	alone   atomic.Int32  // how many more go straight on, since one that gave way found nobody
	again   atomic.Int32  // how many did the last time
}

const (
	gatherMost  = 48 // exchanges that wait at a time: what more of them have in hand leaves the processor's cache
	gatherAlone = 64 // exchanges that go straight on at most before one asks again: giving way costs a quiet daemon some 10 µs, whose caches are cold
)

var writes = gather{on: runtime.GOMAXPROCS(0) == 1}

// giveWay returns when those that were ready have come to a write too, or wait for something else.
func (g *gather) giveWay() {
	if !g.on {
		return
	}
	if n := g.alone.Load(); n > 0 {
		g.alone.Store(n - 1) // an estimate: it may lose one of two at a time
		return
	}
	if g.waiting.Add(1) <= gatherMost {
		before := g.seen.Add(1)
		runtime.Gosched()
		if g.seen.Add(1) == before+1 {
			n := min(2*g.again.Load()+1, gatherAlone)
			g.again.Store(n)
			g.alone.Store(n)
		} else {
			g.again.Store(0)
		}
	}
	g.waiting.Add(-1)
}
