package memory

import (
	"context"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is what a limiter lets through.
type Rate struct {
	Requests int // tokens that come back in each Per
	Per      time.Duration
	Burst    int // tokens at most
}

func (r Rate) limit() rate.Limit { return rate.Limit(float64(r.Requests) / r.Per.Seconds()) }

// Limiter is a token bucket. Requests that find it empty wait in the order in which they came, and whoever would wait too long is told at
// once. A changed rate holds for those who wait already.
type Limiter struct {
	mu     sync.Mutex
	rate   Rate
	bucket *rate.Limiter // arithmetic only: nobody waits in it
	queue  queue
	timer  *time.Timer // the head's turn
}

// NewLimiter makes a limiter with a full bucket. Requests, Per and Burst must be above 0.
func NewLimiter(r Rate) *Limiter {
	return &Limiter{rate: r, bucket: rate.NewLimiter(r.limit(), r.Burst)}
}

// Take takes n tokens, waiting for them within b and the deadline of ctx. The error is a *Refused, or the cause of ctx; then nothing was taken.
func (l *Limiter) Take(ctx context.Context, n int, b Bounds) (waited time.Duration, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	now := time.Now()
	w, refused := l.enter(ctx, now, n, b)
	if refused != nil {
		return 0, refused
	}
	if w == nil {
		return 0, nil
	}
	select {
	case <-w.ready:
	case <-ctx.Done():
		l.leave(w)
		return time.Since(now), context.Cause(ctx)
	}
	if w.refused != nil {
		return time.Since(now), w.refused
	}
	return time.Since(now), nil
}

// enter takes the tokens, or a place in the queue.
func (l *Limiter) enter(ctx context.Context, now time.Time, n int, b Bounds) (*waiter, *Refused) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cost := min(n, l.rate.Burst)
	if l.queue.head == nil && l.bucket.AllowN(now, cost) {
		return nil, nil
	}
	wait := l.wait(now, l.queue.cost+cost)
	until := latest(ctx, now, b)
	if full := l.queue.len >= b.Queue; full || now.Add(wait).After(until) {
		return nil, &Refused{After: wait, Full: full}
	}
	w := &waiter{ready: make(chan struct{}), until: until, tokens: n, cost: cost}
	l.queue.push(w)
	if l.queue.head == w {
		l.alarm(wait)
	}
	return w, nil
}

// leave gives up a place, or the tokens that came in the same moment.
func (l *Limiter) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case w.queued:
		l.queue.remove(w)
	case w.refused == nil:
		l.put(now, w.cost)
	}
	l.advance(now)
}

// Return gives back n tokens that were taken for nothing.
func (l *Limiter) Return(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.put(now, min(n, l.rate.Burst))
	l.advance(now)
}

// put adds tokens: a reservation of less than nothing.
func (l *Limiter) put(now time.Time, n int) { l.bucket.ReserveN(now, -n) }

// Pretend takes n tokens without ever holding anybody, and tells how long Take would have, or that it would have refused. Those who would
// still be waiting are reckoned from what is owed to them.
func (l *Limiter) Pretend(n int, b Bounds) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	cost := min(n, l.rate.Burst)
	waiting := int(math.Ceil(max(0, -l.bucket.TokensAt(now)) / float64(cost)))
	r := l.bucket.ReserveN(now, cost)
	if wait = r.DelayFrom(now); wait > b.Wait || wait > 0 && waiting >= b.Queue {
		r.CancelAt(now)
		return wait, false
	}
	return wait, true
}

// SetRate changes the rate. Those who wait get their turn by the new one; whoever would wait too long now is refused at once.
func (l *Limiter) SetRate(r Rate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r == l.rate {
		return
	}
	now := time.Now()
	l.rate = r
	l.bucket.SetLimitAt(now, r.limit())
	l.bucket.SetBurstAt(now, r.Burst)
	all := l.queue
	l.queue = queue{}
	for w := all.head; w != nil; {
		next := w.next
		w.previous, w.next, w.cost = nil, nil, min(w.tokens, r.Burst)
		l.queue.push(w)
		if wait := l.wait(now, l.queue.cost); now.Add(wait).After(w.until) {
			l.queue.release(w, &Refused{After: wait})
		}
		w = next
	}
	l.advance(now)
}

// Status is how a limiter stands.
type Status struct {
	Rate    Rate
	Tokens  float64 // left; below 0 where they were pretended to be taken
	Waiting int
}

// Status tells how the limiter stands now.
func (l *Limiter) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Status{Rate: l.rate, Tokens: l.bucket.TokensAt(time.Now()), Waiting: l.queue.len}
}

// wait is the time until n tokens are there.
func (l *Limiter) wait(now time.Time, n int) time.Duration {
	missing := float64(n) - l.bucket.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	d := math.Ceil(missing / float64(l.rate.limit()) * float64(time.Second))
	if d >= math.MaxInt64/2 {
		return math.MaxInt64 / 2 // may still be added to a time
	}
	return time.Duration(d)
}

// advance lets go whoever may, in order, and sets the alarm for the next.
func (l *Limiter) advance(now time.Time) {
	for w := l.queue.head; w != nil; w = l.queue.head {
		if !l.bucket.AllowN(now, w.cost) {
			l.alarm(l.wait(now, w.cost))
			return
		}
		l.queue.release(w, nil)
	}
	if l.timer != nil {
		l.timer.Stop()
	}
}

func (l *Limiter) alarm(d time.Duration) {
	if l.timer == nil {
		l.timer = time.AfterFunc(d, l.ring)
		return
	}
	l.timer.Reset(d)
}

func (l *Limiter) ring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(time.Now())
}
