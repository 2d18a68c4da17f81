package audit

import (
	"runtime"
	"time"
)

// How long work in the background rests after each piece of it, in multiples of what that took.
const (
	restIdle = 1
	restBusy = 63
)

// judging is how long load watches before it judges: the system counts a running thread's time only every few milliseconds.
const judging = 20 * time.Millisecond

// load tells work in the background how busy the rest of the process is: what can wait waits for a time with fewer requests.
type load struct {
	used  func() (cpu time.Duration, known bool) // by the process, ever
	since time.Time                              // of what follows
	cpu   time.Duration                          // what the process had used then
	own   time.Duration                          // the work's part since
	busy  bool                                   // at the last judgement
}

// rest is how long to rest after a piece of work that took so long.
func (l *load) rest(took time.Duration) time.Duration {
	l.own += took
	if now := time.Now(); now.Sub(l.since) >= judging {
		if used, known := l.used(); known {
			l.busy = !l.since.IsZero() && busy(used-l.cpu-l.own, now.Sub(l.since))
			l.cpu = used
		}
		l.since, l.own = now, 0
	}
	if l.busy {
		return restBusy * took
	}
	return restIdle * took
}

// busy holds where more than half of the processors that the process may use were in use for that span.
func busy(used, span time.Duration) bool { return 2*used > span*time.Duration(runtime.GOMAXPROCS(0)) }
