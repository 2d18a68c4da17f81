package redis

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state/memory"
)

// Limits are token buckets that all daemons take from.
type Limits struct {
	client *Client
	told   atomic.Int64 // when it was last logged that another daemon's limit holds, in ticks
}

// maxWant is how many charges one call may ask for. No burst is larger: where less was asked for than is wanted, what there is more would seem to be gone.
const maxWant = 1 << 30

// Take takes up to want charges of cost tokens each from the bucket of key: as many as are there now. Where those are fewer than want, wait is the
// time until there is one more. Where daemons ask for one key by different rates, the lower rate and the smaller burst hold. A dearer charge than
// the burst costs the burst. A want below 0 gives so many charges back.
func (l *Limits) Take(ctx context.Context, key string, rate memory.Rate, cost, want int) (granted int, wait time.Duration, err error) {
	c := l.client
	if want = min(max(want, -maxWant), maxWant); want == 0 {
		want = 1
	}
	per := max(1, (rate.Per + time.Microsecond - 1).Microseconds())
	v, err := c.run(ctx, takeScript, c.key("limit", c.name("limit", key)), 0,
		strconv.Itoa(max(1, rate.Requests)), strconv.FormatInt(per, 10), strconv.Itoa(max(1, rate.Burst)), strconv.Itoa(max(1, cost)), strconv.Itoa(want))
	if err != nil {
		return 0, 0, err
	}
	n, ok := integers(v, 3)
	if !ok || n[0] < int64(min(want, 0)) || n[0] > int64(want) || n[1] < 0 || n[1] > 1e15 || n[1] == 0 && n[0] < int64(want) {
		return 0, 0, c.fault(opTake, &Error{Protocol})
	}
	if n[2] != 0 {
		l.conflict(rate)
	}
	return int(n[0]), time.Duration(n[1]) * time.Microsecond, nil
}

// conflict counts, and logs every minute, that a stricter limit held.
func (l *Limits) conflict(rate memory.Rate) {
	l.client.metrics.conflicts.Inc()
	now, last := exchange.Ticks(), l.told.Load()
	if now-last > int64(time.Minute) && l.told.CompareAndSwap(last, now) {
		l.client.log.Warn("another daemon has a stricter limit for the same key: that one holds", "requests", rate.Requests, "per", rate.Per.String(),
			"burst", rate.Burst)
	}
}

// integers takes an answer of n numbers apart.
func integers(v any, n int) ([]int64, bool) {
	items, ok := v.([]any)
	if !ok || len(items) != n {
		return nil, false
	}
	out := make([]int64, n)
	for i, item := range items {
		if out[i], ok = item.(int64); !ok {
			return nil, false
		}
	}
	return out, true
}
