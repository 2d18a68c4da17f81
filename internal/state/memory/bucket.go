package memory

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// scale is how many parts a token has: costs may be fractions, and the library counts whole ones.
const scale = 1e6

// hair is how much of a token rounding may be wrong by.
const hair = 2 / scale

// longestDebt bounds what one limit can owe: nobody waits longer than this for what others cost.
const longestDebt = time.Hour

// bucket is a token bucket: x/time/rate does the arithmetic, and nobody waits in it. Tokens come back steadily, up to burst; below zero it owes them.
// The library is neither asked nor told about what is full again when somebody comes, as most buckets are: that needs no arithmetic.
type bucket struct {
	parts     *rate.Limiter
	perSecond float64
	burst     float64
	tokens    float64   // as of at
	untold    float64   // taken from them since the library was told; never below 0
	at        time.Time // when fill was called last
}

func newBucket(r Rate, now time.Time) bucket { return fullBucket(r.perSecond(), r.Burst, now) }

func fullBucket(perSecond float64, burst int, now time.Time) bucket {
	b := bucket{perSecond: perSecond, burst: float64(burst), tokens: float64(burst), at: now}
	b.parts = rate.NewLimiter(rate.Limit(perSecond*scale), burst*scale)
	b.parts.SetBurstAt(now, burst*scale) // its time begins
	return b
}

// fill adds what came back up to now.
func (b *bucket) fill(now time.Time) {
	since := now.Sub(b.at)
	if since <= 0 {
		return
	}
	missing := b.burst - b.tokens
	if missing <= 0 || float64(since)*b.perSecond > (missing+hair)*float64(time.Second) {
		b.tokens, b.untold = b.burst, 0 // the library will find it full too: it knows of no more that was taken
	} else {
		b.tell()
		b.tokens = b.parts.TokensAt(now) / scale
	}
	b.at = now
}

// set changes the rate from now on.
func (b *bucket) set(r Rate, now time.Time) {
	b.fill(now)
	b.tell()
	b.perSecond, b.burst = r.perSecond(), float64(r.Burst)
	b.parts.SetLimitAt(b.at, rate.Limit(b.perSecond*scale))
	b.parts.SetBurstAt(b.at, r.Burst*scale)
	b.tokens = min(b.tokens, b.burst) // as the library does by itself
}

// has tells whether so many tokens are there. fill was called.
func (b *bucket) has(n float64) bool { return b.tokens+hair >= n }

// take takes n tokens, into debt if need be; less than nothing gives back. fill was called.
func (b *bucket) take(n float64) {
	most := max(b.burst, b.perSecond*longestDebt.Seconds())
	b.put(min(b.burst, max(-most, b.tokens-n)))
}

// put makes it so many tokens. fill was called.
func (b *bucket) put(tokens float64) {
	b.untold += b.tokens - tokens
	b.tokens = tokens
	if b.untold < 0 {
		b.tell()
	}
}

// tell tells the library what was taken.
func (b *bucket) tell() {
	n := int(math.Round(b.untold * scale))
	deep := float64(n) > b.burst*scale // more than the library gives at once
	if deep {
		b.parts.SetBurstAt(b.at, n)
	}
	b.parts.ReserveN(b.at, n) // a negative number gives back
	if deep {
		b.parts.SetBurstAt(b.at, int(b.burst*scale))
	}
	b.untold = 0
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
