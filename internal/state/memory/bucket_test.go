package memory

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// What the library is not asked and not told makes no difference: a bucket holds what a limiter of the library holds that hears of everything.
func TestBucketIsTheLibrarys(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		now := time.Now()
		r := Rate{Requests: 1 + random.IntN(100), Per: time.Second, Burst: 1 + random.IntN(20)}
		b := newBucket(r, now)
		plain := rate.NewLimiter(rate.Limit(r.perSecond()*scale), r.Burst*scale)
		plain.SetBurstAt(now, r.Burst*scale)
		for range 200 {
			now = now.Add(time.Duration(random.ExpFloat64() * float64(50*time.Millisecond)))
			b.fill(now)
			if want := plain.TokensAt(now) / scale; math.Abs(b.tokens-want) > 1e-4 {
				t.Fatalf("seed %d: %v tokens, want %v", seed, b.tokens, want)
			}
			switch n := random.Float64() * float64(r.Burst); random.IntN(8) {
			case 0:
				r = Rate{Requests: 1 + random.IntN(100), Per: time.Second, Burst: 1 + random.IntN(20)}
				b.set(r, now)
				plain.SetLimitAt(now, rate.Limit(r.perSecond()*scale))
				plain.SetBurstAt(now, r.Burst*scale)
			case 1:
				n = min(n, b.burst-b.tokens)
				b.take(-n)
				plain.ReserveN(now, -int(math.Round(n*scale)))
			default:
				b.take(n)
				plain.ReserveN(now, int(math.Round(n*scale)))
			}
		}
	}
}
