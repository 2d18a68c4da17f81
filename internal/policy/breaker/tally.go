package breaker

import (
	"fmt"
	"time"
)

// windowSteps is how many parts the window rolls in.
const windowSteps = 10

// counts are results of attempts. slow ones are among those of the upstream.
type counts struct{ good, local, upstream, slow uint32 }

func (n counts) failures() uint64 { return uint64(n.local) + uint64(n.upstream) }

func (n counts) all() uint64 { return uint64(n.good) + n.failures() }

func (n counts) split() string { return split(uint64(n.local), uint64(n.upstream)) }

// tally counts the results of the last window, each at the time when it is known: a failure may take longer than the window.
type tally struct {
	step  int64 // nanoseconds
	at    int64 // the step that is being counted
	sum   counts
	steps [windowSteps]counts
}

func newTally(window time.Duration) tally { return tally{step: stepOf(window)} }

func stepOf(window time.Duration) int64 { return max(1, int64(window/windowSteps)) }

// fit makes the window that long. What was counted in another one counts in it as if it had come just now.
func (t *tally) fit(now int64, window time.Duration) {
	step := stepOf(window)
	if t.step == step {
		return
	}
	t.roll(now)
	*t = tally{step: step, at: now / step, sum: t.sum}
	t.steps[t.at%windowSteps] = t.sum
}

func (t *tally) clear() { *t = tally{step: t.step, at: t.at} }

// roll forgets what has left the window by now.
func (t *tally) roll(now int64) {
	at := now / t.step
	if at-t.at >= windowSteps {
		*t = tally{step: t.step, at: at}
		return
	}
	for t.at < at {
		t.at++
		old := &t.steps[t.at%windowSteps]
		t.sum.good -= old.good
		t.sum.local -= old.local
		t.sum.upstream -= old.upstream
		t.sum.slow -= old.slow
		*old = counts{}
	}
}

func (t *tally) add(now int64, v *verdict) {
	t.roll(now)
	for _, n := range [...]*counts{&t.sum, &t.steps[t.at%windowSteps]} {
		switch {
		case v.kind == good:
			n.good++
		case v.local:
			n.local++
		default:
			n.upstream++
		}
		if v.slow {
			n.slow++
		}
	}
}

// streak is failures in a row. Those of one kind do not end those of the other: either way the upstream is of no use.
type streak struct{ local, upstream int }

func (s *streak) add(v *verdict) {
	if v.local {
		s.local++
	} else {
		s.upstream++
	}
}

func (s streak) all() int { return s.local + s.upstream }

func (s streak) split() string { return split(uint64(s.local), uint64(s.upstream)) }

// split says where failures come from, where not all are the upstream's own.
func split(local, upstream uint64) string {
	switch {
	case local == 0:
		return ""
	case upstream == 0:
		return " before anything was sent"
	}
	return fmt.Sprintf(" (%d before anything was sent, %d of the upstream)", local, upstream)
}
