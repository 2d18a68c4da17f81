package breaker

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// What gate holds besides the time until which the breaker is open.
const (
	gateClosed   int64 = 0
	gateHalfOpen int64 = -1
)

// What forced holds.
const (
	byItself int32 = iota
	forcedOpen
	forcedClosed
)

// circuit is the breaker of one authority. gobreaker decides what belongs to the present state, how many probes there are, and when to close.
// How long it stays open is decided here, since gobreaker knows but one fixed time: its own is over at once, and nobody asks it before gate lets
// somebody through. So is when to trip: gobreaker files a result under the time at which its attempt began, and forgets what began before the
// window.
type circuit struct {
	group     *group
	key       state.Key
	authority string
	start     time.Time
	counts    *gobreaker.TwoStepCircuitBreaker[struct{}]
	gate      atomic.Int64 // closed, half open, or open until so many nanoseconds after start
	ended     atomic.Int64 // what gate held before it was half open
	forced    atomic.Int32
	ramp      atomic.Int64 // when the ramp ends, in nanoseconds after start; 0: there is none
	flying    atomic.Int64 // attempts that were admitted during a ramp and are not over yet
	unheard   atomic.Int64 // when the first attempt began that was cut short, and behind which there was no answer; 0: there is none
	host      atomic.Pointer[string]
	restoring *restored // set while it is made of what an earlier process left

	mu      sync.Mutex // taken below gobreaker's lock too, so never held while anything else is called
	tally   tally
	streak  streak
	asked   int64    // until when the upstream asked to be left alone, in nanoseconds after start
	opened  int      // times in a row that it opened
	last    *verdict // what was reported last
	pending []moved
	dirty   atomic.Bool
	own     string // the state by its own decision
	shown   string // the state as told
	since   time.Time
	reason  string
	recent  []Transition // as told, the oldest first
}

func newCircuit(g *group, k state.Key) *circuit {
	now := time.Now()
	c := &circuit{group: g, key: k, authority: k.Authority.String(),
		start: now, own: Closed, shown: Closed, since: now, tally: newTally(g.config.Load().Window.D())}
	c.counts = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   uint32(g.config.Load().Probes),
		Timeout:       1,
		ReadyToTrip:   c.trips,
		OnStateChange: c.changed,
		IsSuccessful:  c.successful,
		IsExcluded:    func(err error) bool { return err == error(neutral) },
	})
	return c
}

// config is the configuration in use. What the block says of it is the same for as long as the circuit is kept.
func (c *circuit) config() *Config { return c.group.config.Load() }

// now is nanoseconds after start, above 0.
func (c *circuit) now() int64 { return int64(time.Since(c.start)) + 1 }

// successful is gobreaker's question about a report of the present state; those of earlier ones it drops.
func (c *circuit) successful(err error) bool {
	v := success
	if err != nil {
		v, _ = errors.AsType[*verdict](err)
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = v
	c.tally.fit(now, c.config().Window.D())
	c.tally.add(now, v)
	switch v.kind {
	case hard:
		c.streak.add(v)
		if v.after > 0 {
			c.asked = max(c.asked, now+int64(v.after))
		}
		return false
	case soft:
		return c.config().Ratio == 0
	}
	c.streak, c.asked = streak{}, 0
	return true
}

// silent tells whether nothing was answered for as long as an attempt has, up to the end of one that began then and was cut short. An upstream that hangs
// would never be found out otherwise where everybody waits a little first.
func (c *circuit) silent(began int64) bool {
	if !c.unheard.CompareAndSwap(0, began) {
		if first := c.unheard.Load(); first != 0 {
			began = min(began, first)
		}
	}
	return c.now()-began >= int64(c.config().Attempt)
}

// answered ends a silence.
func (c *circuit) answered() {
	if c.unheard.Load() != 0 {
		c.unheard.Store(0)
	}
}

// trips is gobreaker's question after a failure. Attempts in flight are no part of the ratio: they have not succeeded yet.
func (c *circuit) trips(gobreaker.Counts) bool {
	if c.restoring != nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inARow() {
		return true
	}
	failed, all := float64(c.tally.sum.failures()), float64(c.tally.sum.all())
	return c.config().Ratio > 0 && all >= float64(c.config().Minimum) && failed >= c.config().Ratio*all
}

// inARow tells whether the streak says that the upstream is down. c.mu is held.
func (c *circuit) inARow() bool {
	return c.config().Consecutive > 0 && c.streak.all() >= c.config().Consecutive && !chance(c.tally.sum, c.streak.all())
}

// chance tells whether a streak of this length is to be expected once in a while among as many answers as the window holds, where as many of those
// before it failed: one failure in ten makes five in a row once in a hundred thousand. A busy upstream that has its usual failures is not down.
func chance(n counts, streak int) bool {
	all, failed := float64(n.all())-float64(streak), float64(n.failures())-float64(streak)
	if all < manyAnswers || failed <= 0 {
		return false
	}
	return all*math.Pow(failed/all, float64(streak)) >= mostChance
}

// manyAnswers is how many a window must hold before the streak to be a matter of chance at all.
const manyAnswers = 500

// mostChance is how many streaks by chance a window may be expected to hold for one to be news.
const mostChance = 0.01

// changed is gobreaker's word that it tripped or closed.
func (c *circuit) changed(_ string, from, to gobreaker.State) {
	now, clock := time.Now(), c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case to == gobreaker.StateHalfOpen:
		return // by gate alone
	case c.restoring != nil:
		c.begun(now, clock)
	case to == gobreaker.StateOpen:
		reason := "a probe failed: " + c.last.why()
		if from == gobreaker.StateClosed {
			reason = c.tripReason()
		}
		open := c.openTime(clock)
		c.opened++
		c.ramp.Store(0)
		c.gate.Store(clock + int64(open))
		c.add(moved{to: Open, at: now, reason: reason, after: open})
	default:
		c.opened = 0
		if c.config().Ramp > 0 {
			c.ramp.Store(clock + int64(c.config().Ramp))
		}
		c.gate.Store(gateClosed)
		c.add(moved{to: Closed, at: now, reason: fmt.Sprintf("%d probes in a row succeeded", c.config().Probes)})
	}
	c.streak, c.asked = streak{}, 0
	c.tally.clear()
}

// tripReason says why it opens. c.mu is held.
func (c *circuit) tripReason() string {
	if c.inARow() {
		return fmt.Sprintf("%d failures in a row%s, the last: %s", c.streak.all(), c.streak.split(), c.last.why())
	}
	n := c.tally.sum
	return fmt.Sprintf("%d of %d answers within %s failed%s, the last: %s", n.failures(), n.all(), c.config().Window, n.split(), c.last.why())
}

// openTime is what the upstream asked for, else open, doubled each time that probes failed. Jitter keeps breakers that opened together apart;
// it never takes from what the upstream asked for. c.mu is held.
func (c *circuit) openTime(now int64) time.Duration {
	longest := float64(c.config().OpenMax)
	if asked := float64(c.asked - now); asked > 0 {
		return time.Duration(min(asked*(1+rand.Float64()/10), longest))
	}
	open := min(float64(c.config().Open)*math.Pow(2, float64(min(c.opened, 62))), longest)
	return time.Duration(min(open*(0.9+rand.Float64()/5), longest))
}

// crowd is how many attempts may be in flight during a ramp before some are refused.
func (c *circuit) crowd() int64 { return int64(c.config().Probes) }

// rampAfter is when a request that a ramp refused may come again.
const rampAfter = time.Second

// look tells whether a request would be refused now. It changes nothing.
func (c *circuit) look() *exchange.Refusal {
	gate, ramp := c.gate.Load(), c.ramp.Load()
	if gate == gateClosed && ramp == 0 && c.forced.Load() == byItself {
		return nil
	}
	switch c.forced.Load() {
	case forcedClosed:
		return nil
	case forcedOpen:
		return c.refuseForced()
	}
	now := c.now()
	switch {
	case gate > now:
		return c.refuseOpen(gate - now)
	case gate != gateClosed || ramp == 0:
		return nil
	case now >= ramp:
		c.ramp.CompareAndSwap(ramp, 0)
		return nil
	}
	if c.flying.Load() >= c.crowd() && rand.Float64() >= c.ramped(ramp, now) {
		return c.refuse(rampAfter, "the upstream has just recovered, its load is raised gradually")
	}
	return nil
}

// ramped is the share of its load that the upstream gets at a time before the ramp ends: from a half to all.
func (c *circuit) ramped(ramp, now int64) float64 {
	return 1 - min(1, float64(ramp-now)/float64(c.config().Ramp))/2
}

// factor is the share of a configured rate that the upstream should get now. Of an open breaker it is that of the half open one that
// will meet who waits for the limiter.
func (c *circuit) factor() float64 {
	gate, ramp := c.gate.Load(), c.ramp.Load()
	switch forced := c.forced.Load(); {
	case forced == forcedClosed:
		return 1
	case forced == forcedOpen, gate != gateClosed:
		return 0.5
	case ramp == 0:
		return 1
	}
	if now := c.now(); now < ramp {
		return c.ramped(ramp, now)
	}
	return 1
}

func (c *circuit) refuseForced() *exchange.Refusal {
	return c.refuse(c.config().Open.D(), "an operator opened the circuit breaker")
}

func (c *circuit) refuseOpen(left int64) *exchange.Refusal {
	return c.refuse(time.Duration(left), "too many attempts failed, none is made before the upstream has had some time")
}

func (c *circuit) refuse(after time.Duration, detail string) *exchange.Refusal {
	return &exchange.Refusal{Code: exchange.BreakerOpen, Detail: detail, RetryAfter: after}
}

// admit opens a report, or refuses. Both are nil where the breaker is forced closed and learns nothing.
func (c *circuit) admit(x *exchange.Exchange) (*report, *exchange.Refusal) {
	switch c.forced.Load() {
	case forcedClosed:
		return nil, nil
	case forcedOpen:
		return nil, c.refuseForced()
	}
	for {
		gate := c.gate.Load()
		if gate > 0 {
			now := c.now()
			if gate > now {
				return nil, c.refuseOpen(gate - now)
			}
			c.ended.Store(gate)
			if !c.gate.CompareAndSwap(gate, gateHalfOpen) {
				continue
			}
			c.note(moved{to: HalfOpen, at: time.Now(), reason: "the open time is over"})
		}
		done, err := c.counts.Allow()
		c.tell()
		if c.gate.Load() > 0 { // it tripped just now, and gobreaker's own time may be over already
			if err == nil {
				done(neutral)
			}
			continue
		}
		if err != nil {
			return nil, c.refuse(rampAfter, "the upstream is being probed")
		}
		p := &exchange.Borrow[Spare](x).report
		p.circuit, p.done, p.probe = c, done, c.gate.Load() == gateHalfOpen
		if c.ramp.Load() != 0 {
			c.flying.Add(1)
			p.flying = true
		}
		return p, nil
	}
}
