package audit

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestLoad: work in the background rests longer while the rest of the process uses more than half of the processors.
func TestLoad(t *testing.T) {
	const piece = time.Millisecond
	cores := runtime.GOMAXPROCS(0)
	for name, row := range map[string]struct {
		others  int // of the processors, in hundredths of all
		unknown bool
		want    time.Duration
	}{
		"alone":    {0, false, restIdle},
		"little":   {40, false, restIdle},
		"much":     {60, false, restBusy},
		"all":      {100, false, restBusy},
		"not told": {100, true, restIdle},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, own := time.Now(), time.Duration(0)
				l := load{used: func() (time.Duration, bool) {
					return time.Since(begin)*time.Duration(cores*row.others)/100 + own, !row.unknown
				}}
				var rest time.Duration
				for range 100 {
					time.Sleep(piece)
					own += piece
					rest = l.rest(piece)
					time.Sleep(rest)
				}
				want(t, "rests", rest/piece, row.want)
			})
		})
	}
}

// TestLoadChanges: it is judged again and again, and the first judgement needs a span to look at.
func TestLoadChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used time.Duration
		l := load{used: func() (time.Duration, bool) { return used, true }}
		used = time.Hour
		want(t, "what came before does not count", l.rest(1), restIdle)
		used += time.Hour
		want(t, "too soon", l.rest(1), restIdle)
		time.Sleep(judging)
		want(t, "busy", l.rest(1), restBusy)
		time.Sleep(judging)
		want(t, "no more", l.rest(1), restIdle)
	})
}

func TestProcessCPU(t *testing.T) {
	first, known := processCPU()
	if !known {
		t.Skip("this system does not tell")
	}
	for now := first; now == first; now, _ = processCPU() {
		runtime.Gosched()
	}
}
