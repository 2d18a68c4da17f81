package memory

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Rate is what a limiter lets through.
type Rate struct {
	Requests int // tokens that come back in each Per
	Per      time.Duration
	Burst    int // tokens at most
}

func (r Rate) perSecond() float64 { return float64(r.Requests) / r.Per.Seconds() }

// Spread is how far wake-ups are spread, as a part of the time between two tokens: many limits that were set at one moment then do not wake
// everybody at one moment.
const Spread = 0.2

// mostSpread bounds that where tokens are rare.
const mostSpread = 100 * time.Millisecond

// Limiter is a token bucket. Requests that find it empty wait in the order in which they came, tenants by turns, and whoever would wait too long is
// told at once. A changed rate holds for those who wait already. Its tokens may be kept elsewhere, see NewShared.
type Limiter struct {
	begun  time.Time // when it was made; see now
	mu     sync.Mutex
	rate   Rate
	bucket bucket
	queue  queue
	timer  *time.Timer // the head's turn
	spread float64
	rested bool          // the bucket was full lately
	shift  time.Duration // by which the head's late wake-up puts off those behind it
	remote *remote       // nil: the tokens are kept here
}

// NewLimiter makes a limiter with a full bucket. Requests, Per and Burst must be above 0; spread is Spread, or 0 for turns to the moment.
func NewLimiter(r Rate, spread float64) *Limiter {
	now := time.Now()
	return &Limiter{begun: now, rate: r, bucket: newBucket(r, now), spread: spread}
}

// now is the time by the monotonic clock alone, which is all that a limiter goes by: that costs half of what time.Now does.
func (l *Limiter) now() time.Time { return l.begun.Add(time.Since(l.begun)) }

// Take takes n tokens, waiting for them within b and the deadline of ctx. What costs more than the bucket can hold goes when it is full, and leaves it
// in debt. The error is a *Refused, or the cause of ctx; then nothing was taken.
func (l *Limiter) Take(ctx context.Context, n float64, b Bounds) (waited time.Duration, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if n <= 0 {
		return 0, nil
	}
	now := l.now()
	w, refused := l.enter(ctx, now, n, b)
	if refused != nil {
		return 0, refused
	}
	if w == nil {
		return 0, nil
	}
	var late <-chan time.Time // others may come in between: then a place in the queue promises nothing
	if b.Tenant != "" || l.remote != nil {
		timer := time.NewTimer(w.until.Sub(now) + l.grace())
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-w.ready:
	case <-late:
		l.expire(w)
	case <-ctx.Done():
		l.leave(w)
		return time.Since(now), context.Cause(ctx)
	}
	if w.refused != nil {
		return time.Since(now), w.refused
	}
	if !w.held {
		return 0, nil
	}
	return time.Since(now), nil
}

// enter takes the tokens, or a place in the queue.
func (l *Limiter) enter(ctx context.Context, now time.Time, n float64, b Bounds) (*waiter, *Refused) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.remote != nil && !l.remote.ready(l, now) {
		return nil, l.remote.refusal(now)
	}
	l.bucket.fill(now)
	cost, shared := min(n, l.bucket.burst), l.shared()
	if l.queue.len == 0 && l.takes(now, n, cost) {
		return nil, nil
	}
	wait := l.bucket.wait(l.queue.before(b.Tenant) + cost + l.owed())
	if l.queue.len > 0 && !shared {
		wait += l.shift
	}
	until := latest(ctx, now, b)
	known := !shared || wait > 0 // else whoever keeps the tokens must be asked first
	if known {
		full, yields := l.queue.full(b)
		if full || now.Add(wait).After(until) {
			return nil, &Refused{After: wait, Full: full}
		}
		if yields != nil {
			l.queue.release(yields, &Refused{After: wait, Full: true})
		}
	}
	w := &waiter{ready: make(chan struct{}), until: until, tokens: n, places: b.Queue, judged: known, held: known}
	l.queue.push(w, b.Tenant)
	switch {
	case shared:
		l.remote.fresh = l.remote.fresh || !known
		l.remote.start(l)
	case l.queue.len == 1:
		l.alarm(now, w, wait)
	}
	return w, nil
}

// takes takes the tokens where they are at hand. The bucket is filled, and nobody waits.
func (l *Limiter) takes(now time.Time, n, cost float64) bool {
	if l.shared() {
		return l.remote.takes(n)
	}
	if !l.bucket.has(cost) {
		return false
	}
	l.rested = l.rested || l.bucket.tokens >= l.bucket.burst
	l.bucket.take(n)
	return true
}

// leave gives up a place, or the tokens that came in the same moment.
func (l *Limiter) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch {
	case w.lane != nil:
		l.queue.remove(w)
	case w.refused == nil:
		l.charge(now, -w.tokens)
	}
	l.advance(now)
}

// expire refuses a waiter that has waited long enough.
func (l *Limiter) expire(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.lane == nil {
		return
	}
	now := time.Now()
	l.bucket.fill(now)
	l.queue.release(w, &Refused{After: max(time.Millisecond, l.bucket.wait(min(w.tokens, l.bucket.burst)+l.owed()))})
	l.advance(now)
}

// Charge takes n tokens that were spent already, so that those who come next wait for them; less than nothing gives back. A limit is never in debt
// for more than an hour, or a whole bucket where that takes longer.
func (l *Limiter) Charge(n float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.charge(now, n)
	if n > 0 {
		l.thinTail(now)
	}
	l.advance(now)
}

func (l *Limiter) charge(now time.Time, n float64) {
	if l.shared() {
		l.remote.charge(l, now, n)
		return
	}
	l.bucket.fill(now)
	l.bucket.take(n)
}

// Pretend takes n tokens without ever holding anybody, and tells how long Take would have, or that it would have refused. Those who would
// still be waiting are reckoned from what is owed to them.
func (l *Limiter) Pretend(n float64, b Bounds) (wait time.Duration, ok bool) {
	if n <= 0 {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.bucket.fill(now)
	waiting := math.Ceil(max(0, -l.bucket.tokens-hair) / n) // no int holds it where n is next to nothing
	if wait = l.bucket.wait(min(n, l.bucket.burst)); wait > b.Wait || wait > 0 && waiting >= float64(b.Queue) {
		return wait, false
	}
	l.bucket.take(n)
	return wait, true
}

// Reckon takes n tokens more for what Pretend has let pass, or gives some back: of what this process counts, wherever the tokens are kept.
func (l *Limiter) Reckon(n float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket.fill(time.Now())
	l.bucket.take(n)
}

// SetRate changes the rate. Those who wait get their turn by the new one; whoever would wait too long now is refused at once. It tells whether
// the rate is another than it was.
func (l *Limiter) SetRate(r Rate) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r == l.rate {
		return false
	}
	now := time.Now()
	l.rate = r
	l.bucket.set(r, now)
	if l.remote != nil {
		l.remote.setRate(l, now)
	}
	l.thin(now)
	l.advance(now)
	return true
}

// thin refuses those whose turn would come too late now.
func (l *Limiter) thin(now time.Time) {
	sum := l.owed()
	for _, w := range l.queue.order() {
		if wait := l.bucket.wait(sum + min(w.tokens, l.bucket.burst)); now.Add(wait).After(w.until) {
			l.queue.release(w, &Refused{After: wait})
			continue
		}
		sum += w.tokens
	}
}

// thinTail is thin where at least the last would be refused. Where there are several tenants their own timers see to it.
func (l *Limiter) thinTail(now time.Time) {
	if t := l.queue.turn; t == nil || t.next != t || !now.Add(l.bucket.wait(l.queue.cost)).After(t.tail.until) {
		return
	}
	l.thin(now)
}

// Status is how a limiter stands.
type Status struct {
	Rate    Rate
	Tokens  float64 // left; below 0 in debt
	Waiting int
	Away    bool // the tokens are kept elsewhere, and whoever keeps them does not answer
}

// Status tells how the limiter stands now.
func (l *Limiter) Status() Status { return l.StatusAt(l.now()) }

// StatusAt is Status for those who have looked at the clock. Where the tokens are kept elsewhere, others may have taken some since they were asked for.
func (l *Limiter) StatusAt(now time.Time) Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket.fill(now)
	return Status{Rate: l.rate, Tokens: l.bucket.tokens - l.owed(), Waiting: l.queue.len, Away: l.remote != nil && l.remote.away}
}

// advance lets go whoever may, in order, and sets the alarm for the next.
func (l *Limiter) advance(now time.Time) {
	if l.shared() {
		l.remote.nudge()
		return
	}
	l.bucket.fill(now)
	for w := l.queue.head(); w != nil; w = l.queue.head() {
		cost := min(w.tokens, l.bucket.burst)
		if !l.bucket.has(cost) {
			l.alarm(now, w, l.bucket.wait(cost))
			return
		}
		l.bucket.take(w.tokens)
		l.queue.release(w, nil)
	}
	if l.timer != nil {
		l.timer.Stop()
	}
}

// alarm wakes the head when its tokens are there, or a little later.
func (l *Limiter) alarm(now time.Time, head *waiter, d time.Duration) {
	cost := min(head.tokens, l.bucket.burst)
	lag := max(0, min(l.lag(cost), head.until.Sub(now)-d))
	l.shift = max(0, lag-l.bucket.span(l.bucket.burst-cost))
	l.wake(d + lag)
}

func (l *Limiter) wake(d time.Duration) {
	if l.timer == nil {
		l.timer = time.AfterFunc(d, l.ring)
		return
	}
	l.timer.Reset(d)
}

// lag is how much later than it may a request of that cost goes. It never costs the limit anything: what comes back in the meantime finds room in
// the bucket. Where there is none, only the first wait after a quiet time is longer, and the turns after it follow at an even pace.
func (l *Limiter) lag(cost float64) time.Duration {
	if l.spread <= 0 {
		return 0
	}
	room := l.spread
	if !l.rested {
		room = min(room, l.bucket.burst-cost)
	}
	l.rested = false
	return time.Duration(rand.Float64() * float64(min(mostSpread, l.bucket.span(room))))
}

func (l *Limiter) ring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shared() {
		l.remote.start(l) // what is left over goes back
	} else {
		l.advance(time.Now())
	}
}
