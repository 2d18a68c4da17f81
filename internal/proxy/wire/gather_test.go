package wire

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// oneProcessor makes the test run on one, as gather needs it.
func oneProcessor(t *testing.T) {
	n := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(n) })
}

// TestGather: exchanges that are ready together write behind each other, those beyond the bound straight on.
func TestGather(t *testing.T) {
	oneProcessor(t)
	for n, before := range map[int]int{1: 1, 2: 2, 8: 8, 40: 40, gatherMost + 20: gatherMost + 1} {
		var got []int
		for range 100 { // whoever loses the processor in between spoils an attempt
			g := gather{on: true}
			var mu sync.Mutex
			var order strings.Builder
			note := func(what byte) {
				mu.Lock()
				order.WriteByte(what)
				mu.Unlock()
			}
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					note('r')
					g.giveWay()
					note('w')
				})
			}
			wg.Wait()
			if g.waiting.Load() != 0 {
				t.Fatalf("%d of %d wait behind the end", g.waiting.Load(), n)
			}
			if got = append(got, strings.IndexByte(order.String(), 'w')); slices.Contains(got, before) {
				break
			}
		}
		if !slices.Contains(got, before) {
			t.Errorf("of %d exchanges %v were ready before the first write, never %d", n, got, before)
		}
	}
}

// TestGatherAlone: who finds nobody asks more and more rarely, and at once again where there was somebody.
func TestGatherAlone(t *testing.T) {
	oneProcessor(t)
	g := gather{on: true}
	for range 10_000 {
		g.giveWay()
	}
	// 1 + 3 + 7 + 15 + 31 + 63 go straight on behind the first six that give way, 64 behind each of the others.
	if gave, want := int(g.seen.Load()/2), 6+(10_000-6-120)/(gatherAlone+1)+1; gave != want {
		t.Errorf("gave way %d times of 10,000, want %d", gave, want)
	}
	for try := 0; g.again.Load() == gatherAlone; try++ { // the first of them may be through before the other begins
		if try == 100 {
			t.Fatal("it was not noticed that there were two")
		}
		g.alone.Store(0)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(g.giveWay)
		}
		wg.Wait()
	}
	off := gather{}
	off.giveWay()
	if off.seen.Load() != 0 {
		t.Error("gave way though it is off")
	}
}
