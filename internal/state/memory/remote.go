package memory

import (
	"context"
	"errors"
	"math"
	"time"
)

// Remote says who keeps the tokens that several processes share.
type Remote struct {
	// Ask takes up to want tokens and tells how many it got; where it got fewer, wait is the time until there is one more. Below 0 it gives so many back.
	Ask func(ctx context.Context, rate Rate, want int) (granted int, wait time.Duration, err error)
	// Timeout bounds one question.
	Timeout time.Duration
	// Pause is the time between a failure and the next question.
	Pause time.Duration
	// Share is how many processes there are: each lets through that part of the rate while nobody answers.
	Share int
	// Refuse refuses everybody instead.
	Refuse bool
	// Changed hears when nobody answers any more (err is why), and when somebody does again (nil).
	Changed func(err error)
}

// errNonsense is the error of an answer that cannot be one.
var errNonsense = errors.New("the answer makes no sense")

// keptFor is how long tokens are kept that nobody waits for: they are taken from all, and may not pile up in one place.
const keptFor = time.Second

// shortestHold is the time between two questions of which the first was answered with too little.
const shortestHold = time.Millisecond

// judging is how often those who wait are looked at whether they still may hope.
const judging = 100 * time.Millisecond

// remote is what a Limiter knows of tokens that are kept elsewhere. While somebody answers, one goroutine asks for all who wait, and the limiter's
// bucket is a copy of the shared one, which never holds less than that; it spares questions whose answer is known. While nobody answers, the bucket
// is this process's share. Guarded by the limiter's lock.
type remote struct {
	Remote
	away    bool
	retry   time.Time // not asked again before
	probing bool
	own     bucket // this process's share, while it is not in use

	running bool
	wake    chan struct{}
	credit  float64   // tokens that were taken and are not used
	until   time.Time // they are given back then, unless somebody waits for them
	debt    float64   // tokens that were used and are not taken
	owes    bool      // nobody has asked for them yet
	fresh   bool      // somebody waits who was not asked for yet
	judged  time.Time
}

// NewShared makes a limiter whose tokens are kept by r.
func NewShared(rate Rate, spread float64, r Remote) *Limiter {
	l := NewLimiter(rate, spread)
	l.remote = &remote{Remote: r, wake: make(chan struct{}, 1)}
	l.remote.Share = max(1, r.Share)
	l.remote.own = l.remote.part(rate, time.Now())
	return l
}

// part is this process's share of a rate, with a full bucket.
func (r *remote) part(rate Rate, now time.Time) bucket {
	return fullBucket(rate.perSecond()/float64(r.Share), max(1, rate.Burst/r.Share), now)
}

// shared tells whether the tokens are kept elsewhere, and somebody answers.
func (l *Limiter) shared() bool { return l.remote != nil && !l.remote.away }

// grace is for how long a request that may not wait waits for an answer.
func (l *Limiter) grace() time.Duration {
	if l.remote == nil {
		return 0
	}
	return l.remote.Timeout
}

// owed is what must be taken before anything is for somebody; below 0: what is left over.
func (l *Limiter) owed() float64 {
	if !l.shared() {
		return 0
	}
	return l.remote.debt - l.remote.credit
}

// ready tells whether requests are admitted at all, and asks again when it is time to.
func (r *remote) ready(l *Limiter, now time.Time) bool {
	if r.away && !r.probing && !now.Before(r.retry) {
		r.probing = true
		go l.probe()
	}
	return !r.away || !r.Refuse
}

func (r *remote) refusal(now time.Time) *Refused {
	return &Refused{After: max(shortestHold, r.retry.Sub(now)), Away: true}
}

func (r *remote) takes(n float64) bool {
	if r.debt > 0 || r.credit+hair < n {
		return false
	}
	r.credit = max(0, r.credit-n)
	return true
}

func (r *remote) charge(l *Limiter, now time.Time, n float64) {
	if n < 0 {
		r.credit, r.until = min(r.credit-n, l.bucket.burst), now.Add(keptFor)
		if !r.running {
			l.wake(keptFor)
		}
		return
	}
	most := max(l.bucket.burst, l.bucket.perSecond*longestDebt.Seconds())
	r.debt, r.owes = min(r.debt+n, most), true
	r.start(l)
}

func (r *remote) setRate(l *Limiter, now time.Time) {
	own := r.own.tokens
	r.own = r.part(l.rate, now)
	r.own.put(min(own, r.own.burst))
	if r.away {
		tokens := l.bucket.tokens
		l.bucket = r.own
		l.bucket.put(min(tokens, l.bucket.burst))
	}
}

func (r *remote) start(l *Limiter) {
	if !r.running {
		r.running = true
		go l.pump()
	}
}

func (r *remote) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// pump asks on behalf of all who wait, until nobody does.
func (l *Limiter) pump() {
	r := l.remote
	for {
		l.mu.Lock()
		now := time.Now()
		want, hold := 0, time.Duration(0)
		if !r.away {
			l.grant()
			if want, hold = l.needs(now); hold > 0 && r.fresh {
				l.judge(now)
				want, hold = l.needs(now)
			}
		}
		if want == 0 {
			r.running = false
			if left := r.until.Sub(now); r.credit > 0 && left > 0 {
				l.wake(left)
			}
			l.mu.Unlock()
			return
		}
		rate := l.rate
		if want < 0 {
			r.credit += float64(want) // nobody may use what goes back
		}
		l.mu.Unlock()
		if hold > 0 {
			select {
			case <-time.After(hold):
			case <-r.wake:
			}
			continue
		}
		granted, wait, err := l.ask(rate, want)
		l.mu.Lock()
		switch now := time.Now(); {
		case err != nil:
			l.fail(now)
		case want < 0:
			l.bucket.fill(now)
			l.bucket.take(float64(want))
		default:
			l.answer(now, want, granted, wait)
		}
		l.mu.Unlock()
		if err != nil && r.Changed != nil {
			r.Changed(err)
		}
	}
}

// ask asks, and takes nothing for an answer that cannot be one.
func (l *Limiter) ask(rate Rate, want int) (granted int, wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), l.remote.Timeout)
	defer cancel()
	granted, wait, err = l.remote.Ask(ctx, rate, want)
	if err == nil && (granted < min(want, 0) || granted > want || wait < 0) {
		err = errNonsense
	}
	return granted, wait, err
}

// needs is how many tokens to ask for, and how long before that is worth a question. 0: nobody needs any; below 0: so many go back.
func (l *Limiter) needs(now time.Time) (want int, hold time.Duration) {
	r, owed := l.remote, l.owed()
	all := l.queue.cost + owed
	if l.queue.len == 0 {
		if owed < 0 && !now.Before(r.until) {
			return int(math.Ceil(owed - hair)), 0
		}
		if !r.owes || owed <= 0 {
			return 0, 0
		}
		r.owes = false
		return int(max(1, math.Ceil(min(all, l.bucket.burst)))), 0
	}
	l.bucket.fill(now)
	head := l.queue.head()
	cost := min(head.tokens, l.bucket.burst)
	if hold = l.bucket.wait(min(cost+owed, l.bucket.burst)); hold > 0 { // a debt beyond a whole bucket is paid in parts
		hold = max(shortestHold, hold+max(0, min(l.lag(cost), head.until.Sub(now)-hold)))
	}
	return int(max(1, math.Ceil(min(all, l.bucket.burst)-hair))), hold
}

// answer shares out what was granted, and tells those who have no hope left.
func (l *Limiter) answer(now time.Time, want, granted int, wait time.Duration) {
	r, b := l.remote, &l.bucket
	b.fill(now)
	b.put(max(0, b.tokens-float64(granted)))
	if granted < want {
		// A wait beyond all reason is asked about again soon, but not at once.
		wait = max(shortestHold, min(wait, 10*b.span(1)+time.Second))
		b.put(min(b.tokens, 1-wait.Seconds()*b.perSecond))
	}
	r.credit, r.until = r.credit+float64(granted), now.Add(keptFor)
	l.grant()
	if granted < want && l.queue.len > 0 && (r.fresh || now.Sub(r.judged) >= judging) {
		l.judge(now)
	}
}

// grant lets go those for whom there are tokens, in order.
func (l *Limiter) grant() {
	r := l.remote
	paid := min(r.debt, r.credit)
	r.debt, r.credit = r.debt-paid, r.credit-paid
	for w := l.queue.head(); w != nil && r.debt <= hair; w = l.queue.head() {
		if r.credit+hair < min(w.tokens, l.bucket.burst) {
			return
		}
		if r.credit -= w.tokens; r.credit < 0 {
			r.debt, r.credit = -r.credit, 0
			if r.debt < hair {
				r.debt = 0
			}
		}
		l.queue.release(w, nil)
	}
}

// judge refuses those whose turn would come too late, and newcomers who are too many.
func (l *Limiter) judge(now time.Time) {
	sum, waiting := l.owed(), 0
	for _, w := range l.queue.order() {
		wait := l.bucket.wait(sum + min(w.tokens, l.bucket.burst))
		full := !w.judged && waiting >= w.places
		if full || now.Add(wait).After(w.until) {
			l.queue.release(w, &Refused{After: wait, Full: full})
			continue
		}
		w.judged, w.held = true, true
		waiting++
		sum += w.tokens
	}
	l.remote.fresh, l.remote.judged = false, now
}

// fail goes on with this process's share.
func (l *Limiter) fail(now time.Time) {
	r := l.remote
	r.away, r.retry, r.fresh, r.credit = true, now.Add(r.Pause), false, 0
	l.bucket = r.own
	l.bucket.fill(now)
	for _, w := range l.queue.order() {
		w.judged, w.held = true, true
		if r.Refuse {
			l.queue.release(w, r.refusal(now))
		}
	}
	l.thin(now)
	l.advance(now)
}

// probe asks whether somebody answers again.
func (l *Limiter) probe() {
	l.mu.Lock()
	rate := l.rate
	l.mu.Unlock()
	granted, _, err := l.ask(rate, 1)
	l.mu.Lock()
	r, now := l.remote, time.Now()
	if r.probing = false; err != nil {
		r.retry = now.Add(r.Pause)
	} else {
		l.bucket.fill(now)
		r.own, r.away = l.bucket, false
		l.bucket = newBucket(l.rate, now)
		r.credit, r.until = float64(granted), now.Add(keptFor)
		if l.timer != nil {
			l.timer.Stop()
		}
		r.fresh = l.queue.len > 0
		r.owes = r.owes || r.fresh || r.debt > 0
		r.start(l)
	}
	l.mu.Unlock()
	if r.Changed != nil {
		r.Changed(err)
	}
}
