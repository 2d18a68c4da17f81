package hedge

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// What a tracker remembers: times of the last one to two halves.
const (
	half = 2 * time.Minute
	// trackers is how many authorities one policy remembers times of; the least recently used goes first.
	trackers = 4096
)

// Buckets grow by an eighth of an octave, from unit on: a time is known to within an eighth of itself.
const (
	unit     = 16 * time.Microsecond
	perTwo   = 8
	octaves  = 24 // up to 18 minutes
	nBuckets = octaves * perTwo
)

// latency is how long one authority took lately to the head of a good answer. Its size is fixed.
type latency struct {
	last atomic.Pointer[quantile] // while it holds, nobody need wait for the lock; nil: none does

	mu    sync.Mutex
	begin time.Time // of the newer half
	newer counts
	older counts
	fresh int // answers since the quantile was taken
}

// quantile is one that was taken.
type quantile struct {
	permille int
	of       int // answers
	until    time.Time
	answer   time.Duration
}

// counts are the answers of one half.
type counts struct {
	n       int
	buckets [nBuckets]uint32
}

func newLatency() *latency { return &latency{begin: time.Now()} }

// bucketOf is the bucket of a time: the first perTwo ones are as wide as unit, then each octave has perTwo of equal width.
func bucketOf(d time.Duration) int {
	n := uint64(max(0, d) / unit)
	if n < perTwo {
		return int(n)
	}
	octave := bits.Len64(n) - bits.Len64(perTwo) // 0 for perTwo to 2·perTwo-1
	return min((octave+1)*perTwo+int(n>>octave)-perTwo, nBuckets-1)
}

// ceiling is the time that a bucket ends at.
func ceiling(bucket int) time.Duration {
	octave := bucket/perTwo - 1
	if octave < 0 {
		return time.Duration(bucket+1) * unit
	}
	return time.Duration((bucket%perTwo+perTwo+1)<<octave) * unit
}

// add notes how long an answer took.
func (l *latency) add(now time.Time, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn(now)
	l.newer.n++
	l.newer.buckets[bucketOf(d)]++
	if l.fresh++; l.fresh*refresh >= l.newer.n+l.older.n {
		l.forget()
	}
}

// forget makes whoever asks next take the quantile again. l.mu is held.
func (l *latency) forget() {
	if l.last.Load() != nil {
		l.last.Store(nil)
	}
}

// turn forgets what is too old. l.mu is held.
func (l *latency) turn(now time.Time) {
	age := now.Sub(l.begin)
	if age < half {
		return
	}
	if l.older = l.newer; age >= 2*half {
		l.older = counts{}
	}
	l.newer, l.begin = counts{}, now
	l.forget()
}

// refresh is how many parts of all answers may be new before the quantile is taken again.
const refresh = 32

// quantile is the time that permille thousandths of the answers did not exceed. It is false where there are fewer than minimum.
func (l *latency) quantile(now time.Time, permille, minimum int) (time.Duration, bool) {
	if q := l.last.Load(); q != nil && q.permille == permille && q.of >= minimum && now.Before(q.until) {
		return q.answer, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn(now)
	n := l.newer.n + l.older.n
	if n < minimum {
		return 0, false
	}
	q := &quantile{permille, n, l.begin.Add(half), l.take(permille, n)}
	l.last.Store(q)
	l.fresh = 0
	return q.answer, true
}

// take finds the quantile among n answers. l.mu is held.
func (l *latency) take(permille, n int) time.Duration {
	rank := (n*permille + 999) / 1000
	for i := range nBuckets {
		if rank -= int(l.newer.buckets[i]) + int(l.older.buckets[i]); rank <= 0 {
			return ceiling(i)
		}
	}
	return ceiling(nBuckets - 1)
}
