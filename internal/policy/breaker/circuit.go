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

// circuit is the breaker of one authority. gobreaker counts and decides when to trip and when to close; how long it stays open is decided here,
// since gobreaker knows but one fixed time: its own is over at once, and nobody asks it before gate lets somebody through.
type circuit struct {
	room      *Room
	policy    string
	key       state.Key
	authority string
	config    *Config
	start     time.Time
	counts    *gobreaker.TwoStepCircuitBreaker[struct{}]
	gate      atomic.Int64 // closed, half open, or open until so many nanoseconds after start
	forced    atomic.Int32
	ramp      atomic.Int64 // when the ramp ends, in nanoseconds after start; 0: there is none
	flying    atomic.Int64 // attempts that were admitted during a ramp and are not over yet
	host      atomic.Pointer[string]

	// Written only below gobreaker's lock, which its callbacks are called under.
	streak int      // hard failures in a row
	opened int      // times in a row that it opened
	last   *verdict // what was reported last

	mu      sync.Mutex // never held while anything else is called
	pending []moved
	dirty   atomic.Bool
	own     string // the state by its own decision
	shown   string // the state as told
	since   time.Time
	reason  string
}

// moved is a transition that has not been told yet.
type moved struct {
	to     string
	at     time.Time
	reason string
	after  time.Duration
}

// windowSteps is how many parts the window rolls in.
const windowSteps = 10

func newCircuit(g *group, k state.Key) *circuit {
	now := time.Now()
	c := &circuit{room: g.room, policy: g.policy, key: k, authority: k.Authority.String(), config: &g.config,
		start: now, own: Closed, shown: Closed, since: now}
	window := g.config.Window.D()
	c.counts = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   uint32(g.config.Probes),
		Interval:      window,
		BucketPeriod:  max(window/windowSteps, 1),
		Timeout:       1,
		ReadyToTrip:   c.trips,
		OnStateChange: c.changed,
		IsSuccessful:  c.successful,
		IsExcluded:    func(err error) bool { return err == error(neutral) },
	})
	return c
}

// now is nanoseconds after start, above 0.
func (c *circuit) now() int64 { return int64(time.Since(c.start)) + 1 }

// successful is gobreaker's question about a report of the current generation; older ones it drops. A hard failure is counted in a row here,
// because gobreaker forgets those that leave the window.
func (c *circuit) successful(err error) bool {
	v := success
	if err != nil {
		v, _ = errors.AsType[*verdict](err)
	}
	c.last = v
	switch v.kind {
	case hard:
		c.streak++
		return false
	case soft:
		return c.config.Ratio == 0
	}
	c.streak = 0
	return true
}

// trips is gobreaker's question after a failure. Attempts in flight are no part of the ratio: they have not succeeded yet.
func (c *circuit) trips(n gobreaker.Counts) bool {
	if c.config.Consecutive > 0 && c.streak >= c.config.Consecutive {
		return true
	}
	failed, all := float64(n.TotalFailures), float64(n.TotalFailures+n.TotalSuccesses)
	return c.config.Ratio > 0 && all >= float64(c.config.Minimum) && failed >= c.config.Ratio*all
}

// changed is gobreaker's word that it tripped or closed.
func (c *circuit) changed(_ string, from, to gobreaker.State) {
	now := time.Now()
	switch to {
	case gobreaker.StateOpen:
		reason := "a probe failed: " + c.last.why()
		if from == gobreaker.StateClosed {
			reason = c.tripReason()
		}
		open := c.openTime()
		c.opened++
		c.ramp.Store(0)
		c.gate.Store(c.now() + int64(open))
		c.note(moved{to: Open, at: now, reason: reason, after: open})
	case gobreaker.StateClosed:
		c.opened = 0
		if c.config.Ramp > 0 {
			c.ramp.Store(c.now() + int64(c.config.Ramp))
		}
		c.gate.Store(gateClosed)
		c.note(moved{to: Closed, at: now, reason: fmt.Sprintf("%d probes in a row succeeded", c.config.Probes)})
	}
	c.streak = 0
}

func (c *circuit) tripReason() string {
	if c.config.Consecutive > 0 && c.streak >= c.config.Consecutive {
		return fmt.Sprintf("%d failures in a row, the last: %s", c.streak, c.last.why())
	}
	return fmt.Sprintf("at least %d %% of the answers within %s failed, the last: %s", int(c.config.Ratio*100), c.config.Window, c.last.why())
}

// openTime is what the upstream asked for, else open, doubled each time that probes failed. Jitter keeps breakers that opened together apart;
// it never takes from what the upstream asked for.
func (c *circuit) openTime() time.Duration {
	longest := float64(c.config.OpenMax)
	if asked := float64(c.last.after); asked > 0 {
		return time.Duration(min(asked*(1+rand.Float64()/10), longest))
	}
	open := min(float64(c.config.Open)*math.Pow(2, float64(min(c.opened, 62))), longest)
	return time.Duration(min(open*(0.9+rand.Float64()/5), longest))
}

// crowd is how many attempts may be in flight during a ramp before some are refused.
func (c *circuit) crowd() int64 { return int64(c.config.Probes) }

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
	left := float64(ramp-now) / float64(c.config.Ramp)
	if c.flying.Load() >= c.crowd() && rand.Float64() < left/2 {
		return c.refuse(rampAfter, "the upstream has just recovered, its load is raised gradually")
	}
	return nil
}

func (c *circuit) refuseForced() *exchange.Refusal {
	return c.refuse(c.config.Open.D(), "an operator opened the circuit breaker")
}

func (c *circuit) refuseOpen(left int64) *exchange.Refusal {
	return c.refuse(time.Duration(left), "too many attempts failed, none is made before the upstream has had some time")
}

func (c *circuit) refuse(after time.Duration, detail string) *exchange.Refusal {
	return &exchange.Refusal{Code: exchange.BreakerOpen, Detail: detail, RetryAfter: after}
}

// admit opens a report, or refuses. Both are nil where the breaker is forced closed and learns nothing.
func (c *circuit) admit() (*report, *exchange.Refusal) {
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
			if !c.gate.CompareAndSwap(gate, gateHalfOpen) {
				continue
			}
			c.note(moved{to: HalfOpen, at: time.Now(), reason: "the open time is over"})
		}
		done, err := c.counts.Allow()
		c.tell()
		if err != nil {
			if left := c.gate.Load() - c.now(); left > 0 { // it tripped just now
				return nil, c.refuseOpen(left)
			}
			return nil, c.refuse(rampAfter, "the upstream is being probed")
		}
		p := &report{circuit: c, done: done, probe: c.gate.Load() == gateHalfOpen}
		if c.ramp.Load() != 0 {
			c.flying.Add(1)
			p.flying = true
		}
		return p, nil
	}
}

// label keeps the metrics label of the exchange that came last.
func (c *circuit) label(host string) {
	if old := c.host.Load(); old == nil || *old != host {
		kept := host // host itself may stay off the heap
		c.host.Store(&kept)
	}
}

func (c *circuit) hostLabel() string {
	if h := c.host.Load(); h != nil {
		return *h
	}
	return ""
}

// note keeps a transition until it can be told: it may be called below gobreaker's lock.
func (c *circuit) note(m moved) {
	c.mu.Lock()
	c.pending = append(c.pending, m)
	c.own = m.to
	c.mu.Unlock()
	c.dirty.Store(true)
}

// tell tells what has not been told. No lock of a breaker is held.
func (c *circuit) tell() {
	if !c.dirty.Load() {
		return
	}
	c.room.telling.Lock()
	defer c.room.telling.Unlock()
	for {
		c.mu.Lock()
		if len(c.pending) == 0 {
			c.dirty.Store(false)
			c.mu.Unlock()
			return
		}
		m := c.pending[0]
		c.pending = c.pending[1:]
		from := c.shown
		silent := from == m.to || c.forced.Load() != byItself && m.reason != byOperator
		if !silent {
			c.shown, c.since, c.reason = m.to, m.at, m.reason
		}
		c.mu.Unlock()
		if !silent {
			c.room.tell(Change{Time: m.at, Policy: c.policy, Tenant: c.key.Tenant, Authority: c.authority, Host: c.hostLabel(),
				From: from, To: m.to, Reason: m.reason, RetryAfter: m.after})
		}
	}
}

const byOperator = "an operator set it"

// begin sets the state of a breaker that is new.
func (c *circuit) begin(forced string) {
	c.shown, c.reason = forced, byOperator
	c.forced.Store(forcedOpen)
	if forced == Closed {
		c.forced.Store(forcedClosed)
	}
}

// force sets the state, or lets the breaker decide again, from where it got to meanwhile.
func (c *circuit) force(to string) {
	c.mu.Lock()
	switch to {
	case Open:
		c.forced.Store(forcedOpen)
	case Closed:
		c.forced.Store(forcedClosed)
	default:
		c.forced.Store(byItself)
		to = c.own
	}
	c.pending = append(c.pending, moved{to: to, at: time.Now(), reason: byOperator})
	c.mu.Unlock()
	c.dirty.Store(true)
	c.tell()
}

func (c *circuit) status() Status {
	c.mu.Lock()
	s := Status{Policy: c.policy, Tenant: c.key.Tenant, Authority: c.authority, State: c.shown, Since: c.since, Reason: c.reason}
	c.mu.Unlock()
	s.Forced = c.forced.Load() != byItself
	if gate := c.gate.Load(); gate > 0 && !s.Forced {
		s.RetryAfter = max(0, time.Duration(gate-c.now()))
	}
	return s
}
