package governor

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	restEvery = 500 * time.Millisecond
	restCalm  = 256 << 10 // who allocates less than this in that time is at rest
	restWorth = 8 << 20   // less than this is not worth a collection
)

// Rest gives memory back where the process falls silent, until stop is called. The runtime collects as the heap grows, or after two minutes: until then the
// garbage of the last burst would stay, with the stacks that grew in it, and the pages that are free.
//
// Where GOGC is set, the user has decided.
func Rest() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(restEvery)
		defer ticker.Stop()
		var h heap
		h.read()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				h.look()
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// heap is what the runtime says of itself.
type heap [4]metrics.Sample

func (h *heap) read() {
	for i, name := range [...]string{"/gc/heap/allocs:bytes", "/memory/classes/heap/objects:bytes", "/gc/heap/live:bytes", "/memory/classes/heap/free:bytes"} {
		h[i].Name = name
	}
	metrics.Read(h[:])
}

// look collects where next to nothing was allocated since the last time, and there is enough to gain.
func (h *heap) look() {
	before := h.allocated()
	h.read()
	if h.allocated()-before < restCalm && h.loose() > restWorth {
		debug.FreeOSMemory()
		h.read()
	}
}

// allocated is how much ever was.
func (h *heap) allocated() uint64 { return h[0].Value.Uint64() }

// loose is what has come since the last collection, most of which is garbage, and what is free and not given back.
func (h *heap) loose() int64 {
	return int64(h[1].Value.Uint64() + h[3].Value.Uint64() - h[2].Value.Uint64())
}
