package breaker

import (
	"slices"
	"time"
)

// Change is one transition, as OnChange hears of it.
type Change struct {
	Time       time.Time
	Policy     string
	Tenant     string
	Authority  string
	Host       string // metrics label
	From, To   string
	Reason     string
	RetryAfter time.Duration // until probes are let through; 0 unless To is Open by the breaker's own decision
	Notify     []string      // the targets that the policy in use names
}

// Transition is one transition, as Status remembers it.
type Transition struct {
	Time   time.Time `json:"time"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
}

// maxRecent is how many transitions of a breaker are remembered.
const maxRecent = 16

// Status is how one breaker stands.
type Status struct {
	Policy     string        `json:"policy"`
	Tenant     string        `json:"tenant,omitempty"`
	Authority  string        `json:"authority"`
	Mode       string        `json:"mode,omitempty"`
	State      string        `json:"state"`
	Forced     bool          `json:"forced,omitempty"`
	Since      time.Time     `json:"since"`
	Reason     string        `json:"reason,omitempty"`
	RetryAfter time.Duration `json:"-"`      // until probes are let through
	Window     Window        `json:"window"` // the answers of the last window, of the present state only
	Streak     Streak        `json:"streak"` // failures in a row
	Opened     int           `json:"opened"` // times that it opened since it was last closed
	Changes    []Transition  `json:"changes,omitempty"`
}

// Window counts results of attempts. Slow answers are among the upstream's failures.
type Window struct {
	Successes        int `json:"successes"`
	FailuresLocal    int `json:"failures_local"` // nothing was sent: names, connections, TLS
	FailuresUpstream int `json:"failures_upstream"`
	Slow             int `json:"slow"`
}

// Streak counts failures in a row.
type Streak struct {
	Local    int `json:"local"`
	Upstream int `json:"upstream"`
}

// moved is a transition that has not been told yet.
type moved struct {
	to     string
	at     time.Time
	reason string
	after  time.Duration
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

// note keeps a transition until it can be told.
func (c *circuit) note(m moved) {
	c.mu.Lock()
	c.add(m)
	c.mu.Unlock()
}

// add is note below c.mu.
func (c *circuit) add(m moved) {
	c.pending = append(c.pending, m)
	c.own = m.to
	c.dirty.Store(true)
}

// tell tells what has not been told. No lock of a breaker is held.
func (c *circuit) tell() {
	if !c.dirty.Load() {
		return
	}
	room := c.group.room
	room.telling.Lock()
	defer room.telling.Unlock()
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
			if len(c.recent) == maxRecent {
				c.recent = c.recent[:copy(c.recent, c.recent[1:])]
			}
			c.recent = append(c.recent, Transition{Time: m.at, From: from, To: m.to, Reason: m.reason})
		}
		c.mu.Unlock()
		if !silent {
			room.tell(Change{Time: m.at, Policy: c.group.policy, Tenant: c.key.Tenant, Authority: c.authority, Host: c.hostLabel(),
				From: from, To: m.to, Reason: m.reason, RetryAfter: m.after, Notify: c.config().Notify})
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
	s := Status{Policy: c.group.policy, Tenant: c.key.Tenant, Authority: c.authority, Mode: string(c.config().Mode)}
	now := c.now()
	c.mu.Lock()
	s.State, s.Since, s.Reason, s.Opened = c.shown, c.since, c.reason, c.opened
	c.tally.fit(now, c.config().Window.D())
	c.tally.roll(now)
	n := c.tally.sum
	s.Window = Window{Successes: int(n.good), FailuresLocal: int(n.local), FailuresUpstream: int(n.upstream), Slow: int(n.slow)}
	s.Streak = Streak{Local: c.streak.local, Upstream: c.streak.upstream}
	s.Changes = slices.Clone(c.recent)
	c.mu.Unlock()
	s.Forced = c.forced.Load() != byItself
	if gate := c.gate.Load(); gate > 0 && !s.Forced {
		s.RetryAfter = max(0, time.Duration(gate-c.now()))
	}
	return s
}
