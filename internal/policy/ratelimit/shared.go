package ratelimit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
	"httpowerd/internal/state/memory"
	"httpowerd/internal/state/quota"
)

// Shared is what several daemons keep together.
type Shared interface {
	// Take takes up to want times cost tokens from the bucket of a key, which refills at that rate, and tells how many times it did. Where that is
	// fewer, wait is the time until it could once more. Below 0 it gives back.
	Take(ctx context.Context, key string, rate memory.Rate, cost, want int) (granted int, wait time.Duration, err error)
	// Publish keeps a value for so long.
	Publish(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Fetch is the value of a key and for how much longer it is kept; nil where there is none.
	Fetch(ctx context.Context, key string) (value []byte, left time.Duration, err error)
}

// ShareOptions say how limits are shared.
type ShareOptions struct {
	// Secret is that of the fingerprints of credentials, equal in all daemons; at least 16 bytes.
	Secret []byte
	// Daemons is how many there are: each lets through that part of a limit while Shared does not answer. 0 is 1.
	Daemons int
	// Refuse refuses requests instead.
	Refuse bool
	// Timeout bounds each question; 0 is 500 ms.
	Timeout time.Duration
	// Pause is the time after a failure in which nothing is asked; 0 is 5 s.
	Pause time.Duration
}

const (
	usualTimeout = 500 * time.Millisecond
	usualPause   = 5 * time.Second
	leastSecret  = 16

	refreshEvery = 200 * time.Millisecond // how often others are asked about a gate that is in use
	compareEvery = 30 * time.Second       // how often limits are compared with those of others
	rateHolds    = 90 * time.Second       // how long others see the rate that this daemon goes by
	mostCalls    = 16                     // calls about gates and rates at once; more are left out
)

// sharing is a Room's part in what daemons keep together.
type sharing struct {
	Shared
	ShareOptions
	room  *Room
	self  string // tells this daemon's own words from others'
	away  atomic.Bool
	retry atomic.Int64 // nothing is asked before, in ticks
	calls chan struct{}
}

// Share makes all limits, and all gates, those of every daemon that shares s. It is called once, before the first Stage is made.
func (r *Room) Share(s Shared, o ShareOptions) error {
	if len(o.Secret) < leastSecret {
		return errors.New("the secret that daemons share is too short")
	}
	if o.Timeout <= 0 {
		o.Timeout = usualTimeout
	}
	if o.Pause <= 0 {
		o.Pause = usualPause
	}
	self := r.fingerprint(make([]byte, secretSize)) // of a secret that is nobody else's
	r.shared = &sharing{Shared: s, ShareOptions: o, room: r, self: hex.EncodeToString([]byte(self)), calls: make(chan struct{}, mostCalls)}
	r.secret.Store(secretOf(o.Secret))
	r.metrics.share()
	return nil
}

var errAway = errors.New("the shared state did not answer a moment ago")

// limiter makes a limiter whose tokens are shared.
func (s *sharing) limiter(l *limits, k state.Key, c *counted) *memory.Limiter {
	key := strings.Join([]string{"limit", l.level, k.Authority.String(), k.Tenant, hex.EncodeToString([]byte(k.Credential))}, "\n")
	var away atomic.Bool
	compared := &comparison{sharing: s, level: l.level, key: "rate\n" + key, counted: c}
	return memory.NewShared(*l.rate.Load(), l.room.spread, memory.Remote{
		Ask: func(ctx context.Context, rate memory.Rate, want int) (int, time.Duration, error) {
			if exchange.Ticks() < s.retry.Load() {
				return 0, 0, errAway // one limit's question is enough to know it
			}
			granted, wait, err := s.Take(ctx, key, rate, 1, want)
			if err == nil {
				compared.now(rate)
			}
			return granted, wait, err
		},
		Timeout: s.Timeout, Pause: s.Pause, Share: s.Daemons, Refuse: s.Refuse,
		Changed: func(err error) {
			if s.note("rate_limit", err); away.Swap(err != nil) == (err != nil) {
				return
			}
			if err != nil {
				c.recent.Add("shared", "on its own", "the shared state does not answer")
			} else {
				c.recent.Add("on its own", "shared", "the shared state answers again")
			}
		},
	})
}

// note counts a failure, and writes the first one of an outage, and its end, to the log.
func (s *sharing) note(what string, err error) {
	if err == nil {
		if s.away.CompareAndSwap(true, false) {
			s.room.log.Info("the shared state answers again; limits are shared")
		}
		return
	}
	s.room.metrics.fallbacks.WithLabelValues(what).Inc()
	if !errors.Is(err, errAway) {
		s.retry.Store(exchange.Ticks() + int64(s.Pause))
	}
	if s.away.CompareAndSwap(false, true) {
		instead := "each daemon goes by its part of the limits"
		if s.Refuse {
			instead = "requests under limits are refused"
		}
		s.room.log.Warn("the shared state does not answer: "+instead+" until it does", "error", err)
	}
}

// call runs f beside what goes on, unless too much does already or nobody answers.
func (s *sharing) call(f func(context.Context) error) {
	if exchange.Ticks() < s.retry.Load() {
		return
	}
	select {
	case s.calls <- struct{}{}:
	default:
		return
	}
	go func() {
		defer func() { <-s.calls }()
		ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
		defer cancel()
		s.note("gate", f(ctx))
	}()
}

func (s *sharing) gateKey(g *gates, a *account) string {
	return strings.Join([]string{"gate", g.policy, a.key.Authority.String(), a.key.Tenant, hex.EncodeToString([]byte(a.key.Credential))}, "\n")
}

// shownGate is a gate as daemons tell each other. Spans count from the moment when Holds were left.
type shownGate struct {
	From  string         `json:"from"`
	Holds time.Duration  `json:"holds"`
	State quota.Snapshot `json:"state"`
}

// publish tells others that a gate is closed.
func (s *sharing) publish(g *gates, a *account, d time.Duration) {
	shown := shownGate{From: s.self, Holds: d}
	var ok bool
	if shown.State, ok = a.Snapshot(time.Now()); !ok {
		return
	}
	value, err := json.Marshal(shown)
	if len(value) > mostShown { // which paths belong to which quota everybody finds out as well
		shown.State.Paths = nil
		value, err = json.Marshal(shown)
	}
	if err != nil || len(value) > mostShown {
		return
	}
	s.call(func(ctx context.Context) error { return s.Publish(ctx, s.gateKey(g, a), value, d) })
}

// refresh asks what others know about a gate, where that was not asked lately.
func (s *sharing) refresh(g *gates, a *account) {
	now, last := exchange.Ticks(), a.asked.Load()
	if now-last < int64(refreshEvery) || !a.asked.CompareAndSwap(last, now) {
		return
	}
	s.call(func(ctx context.Context) error {
		value, left, err := s.Fetch(ctx, s.gateKey(g, a))
		if err != nil || value == nil {
			return err
		}
		g.adopt(a, value, left, s.self)
		return nil
	})
}

// mostShown is the largest gate that is told, and believed.
const mostShown = 64 << 10

// adopt closes a gate that others found closed. What makes no sense is left alone.
func (g *gates) adopt(a *account, value []byte, left time.Duration, self string) {
	var shown shownGate
	if len(value) > mostShown || json.Unmarshal(value, &shown) != nil || shown.From == self || left <= 0 || shown.Holds < left {
		return
	}
	before := longestClosed(a)
	a.Restore(shown.State, shown.Holds-left)
	g.reckon(a)
	if d := longestClosed(a); d > before+noticeable {
		a.recent.Add("open", "closed for "+d.Round(time.Second).String(), "another daemon found it so")
	}
}

func longestClosed(a *account) (d time.Duration) {
	a.Each(func(_ quota.Learnt, _ string, closed time.Duration) { d = max(d, closed) })
	return d
}

// comparison finds out whether other daemons go by another rate for the same limit.
type comparison struct {
	*sharing
	*counted
	level, key string
	mu         sync.Mutex
	next       time.Time
	told       memory.Rate // the other one, as it was last written to the log
}

// shownRate is a rate as daemons tell each other: a list of them is kept, an entry for each daemon.
type shownRate struct {
	From     string        `json:"from"`
	Requests int           `json:"requests"`
	Per      time.Duration `json:"per"`
	Burst    int           `json:"burst"`
	At       time.Time     `json:"at"`
}

func (r shownRate) rate() memory.Rate {
	return memory.Rate{Requests: r.Requests, Per: r.Per, Burst: r.Burst}
}

// Bounds of such a list.
const (
	mostRates     = 16
	longestOfRate = 4 << 10
)

func (c *comparison) now(own memory.Rate) {
	c.mu.Lock()
	now := time.Now()
	due := !now.Before(c.next)
	if due { // not in step with other daemons: two that write at once lose what one of them wrote
		c.next = now.Add(compareEvery/2 + rand.N(compareEvery))
	}
	c.mu.Unlock()
	if !due {
		return
	}
	c.call(func(ctx context.Context) error {
		value, _, err := c.Fetch(ctx, c.key)
		if err != nil {
			return err
		}
		var shown []shownRate
		if len(value) > longestOfRate || json.Unmarshal(value, &shown) != nil {
			shown = nil
		}
		now := time.Now()
		shown = slices.DeleteFunc(shown, func(o shownRate) bool { return o.From == c.self || now.Sub(o.At).Abs() > rateHolds || o.Per <= 0 })
		for _, o := range shown {
			if o.rate() != own {
				c.conflict(own, o.rate())
				break
			}
		}
		shown = append(shown[:min(len(shown), mostRates-1)], shownRate{c.self, own.Requests, own.Per, own.Burst, now})
		if value, err = json.Marshal(shown); err != nil {
			return nil
		}
		return c.Publish(ctx, c.key, value, rateHolds)
	})
}

// conflict counts a limit that daemons do not agree on, and tells of each once.
func (c *comparison) conflict(own, other memory.Rate) {
	c.room.metrics.conflicts.Inc()
	c.mu.Lock()
	news := c.told != other
	c.told = other
	c.mu.Unlock()
	if !news {
		return
	}
	c.recent.Add("", rateText(own), "another daemon goes by "+rateText(other))
	c.room.log.Warn("another daemon goes by other numbers for the same limit: give all of them one configuration",
		slog.String("level", c.level), slog.String("own", rateText(own)), slog.String("other", rateText(other)))
}
