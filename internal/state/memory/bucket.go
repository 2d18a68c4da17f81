package memory

import (
	"math"
	"time"
)

// hair is how much of a token floating point may be wrong by.
const hair = 1e-6

// longestDebt bounds what one limit can owe: nobody waits longer than this for what others cost.
const longestDebt = time.Hour

// bucket is the arithmetic of a token bucket. Tokens come back steadily, up to burst; below zero it owes them.
type bucket struct {
	perSecond float64
	burst     float64
	tokens    float64
	at        time.Time // when tokens were counted
}

func newBucket(r Rate, now time.Time) bucket {
	return bucket{perSecond: r.perSecond(), burst: float64(r.Burst), tokens: float64(r.Burst), at: now}
}

// fill adds what came back up to now.
func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.perSecond)
		b.at = now
	}
}

// set changes the rate from now on.
func (b *bucket) set(r Rate, now time.Time) {
	b.fill(now)
	b.perSecond, b.burst = r.perSecond(), float64(r.Burst)
	b.tokens = min(b.tokens, b.burst)
}

// has tells whether so many tokens are there. fill was called.
func (b *bucket) has(n float64) bool { return b.tokens+hair >= n }

// take takes n tokens, into debt if need be; less than nothing gives back. fill was called.
func (b *bucket) take(n float64) {
	most := max(b.burst, b.perSecond*longestDebt.Seconds())
	b.tokens = min(b.burst, max(-most, b.tokens-n))
}

// wait is the time until there are n tokens more than none. fill was called.
func (b *bucket) wait(n float64) time.Duration { return b.span(n - b.tokens) }

// span is the time in which so many tokens come back.
func (b *bucket) span(n float64) time.Duration {
	if n <= hair {
		return 0
	}
	d := math.Ceil(n / b.perSecond * float64(time.Second))
	if !(d < math.MaxInt64/2) {
		return math.MaxInt64 / 2 // may still be added to a time
	}
	return time.Duration(d)
}
