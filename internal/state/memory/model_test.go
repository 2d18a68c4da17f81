package memory

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// model is a token bucket with a queue, written for plainness: it reckons forward from one event to the next.
type model struct {
	rate   Rate
	tokens float64
	last   time.Duration
	queue  []modelWaiter
	ends   map[int]ending
}

type modelWaiter struct {
	id, tokens, cost int
	until            time.Duration
}

// ending is how and when a request's wait ended.
type ending struct {
	how string // passed, refused, full, left
	at  time.Duration
}

func newModel(r Rate) *model {
	return &model{rate: r, tokens: float64(r.Burst), ends: map[int]ending{}}
}

func (m *model) perSecond() float64 { return float64(m.rate.Requests) / m.rate.Per.Seconds() }

// forward lets go whoever gets a turn up to now.
func (m *model) forward(now time.Duration) {
	for len(m.queue) > 0 {
		w := m.queue[0]
		at := m.last + seconds(max(0, float64(w.cost)-m.tokens)/m.perSecond())
		if at > now {
			break
		}
		m.fill(at)
		m.tokens -= float64(w.tokens)
		m.ends[w.id] = ending{"passed", at}
		m.queue = m.queue[1:]
	}
	m.fill(now)
}

func seconds(s float64) time.Duration { return time.Duration(math.Ceil(s * float64(time.Second))) }

func (m *model) fill(now time.Duration) {
	m.tokens = min(float64(m.rate.Burst), m.tokens+(now-m.last).Seconds()*m.perSecond())
	m.last = now
}

func (m *model) queued() (cost int) {
	for _, w := range m.queue {
		cost += w.tokens
	}
	return cost
}

func (m *model) take(now time.Duration, id, n int, b Bounds) {
	m.forward(now)
	cost := min(n, m.rate.Burst)
	wait := seconds(max(0, float64(m.queued()+cost)-m.tokens) / m.perSecond())
	switch {
	case len(m.queue) == 0 && m.tokens >= float64(cost):
		m.tokens -= float64(n)
		m.ends[id] = ending{"passed", now}
	case len(m.queue) >= b.Queue:
		m.ends[id] = ending{"full", now}
	case wait > b.Wait:
		m.ends[id] = ending{"refused", now}
	default:
		m.queue = append(m.queue, modelWaiter{id, n, cost, now + b.Wait})
	}
}

func (m *model) leave(now time.Duration, id int) {
	m.forward(now)
	if i := slices.IndexFunc(m.queue, func(w modelWaiter) bool { return w.id == id }); i >= 0 {
		m.queue = slices.Delete(m.queue, i, i+1)
		m.ends[id] = ending{"left", now}
		m.forward(now)
	}
}

func (m *model) giveBack(now time.Duration, n int) {
	m.forward(now)
	m.tokens = min(float64(m.rate.Burst), m.tokens+float64(n))
	m.forward(now)
}

// charge takes what was spent already. Nobody is refused for it unless the last would be.
func (m *model) charge(now time.Duration, n int) {
	m.forward(now)
	m.tokens -= float64(n)
	if len(m.queue) == 0 {
		return
	}
	last := m.queue[len(m.queue)-1]
	if now+seconds(max(0, float64(m.queued())-m.tokens)/m.perSecond()) > last.until {
		m.thin(now)
	}
	m.forward(now)
}

func (m *model) setRate(now time.Duration, r Rate) {
	m.forward(now)
	m.rate, m.tokens = r, min(m.tokens, float64(r.Burst))
	m.thin(now)
	m.forward(now)
}

// thin refuses those whose turn comes too late now.
func (m *model) thin(now time.Duration) {
	all := m.queue
	m.queue = nil
	for _, w := range all {
		w.cost = min(w.tokens, m.rate.Burst)
		if now+seconds(max(0, float64(m.queued()+w.cost)-m.tokens)/m.perSecond()) > w.until {
			m.ends[w.id] = ending{"refused", now}
			continue
		}
		m.queue = append(m.queue, w)
	}
}

// TestLimiterAgainstTheModel sends random crowds through both and compares everybody's fate.
func TestLimiterAgainstTheModel(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) { compare(t, seed) })
	}
}

func compare(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	anyRate := func() Rate {
		return Rate{Requests: 1 + random.IntN(50), Per: time.Duration(1+random.IntN(5000)) * time.Millisecond, Burst: 1 + random.IntN(8)}
	}
	begin := time.Now()
	first := anyRate()
	limiter, reference := NewLimiter(first, 0), newModel(first)
	var mu sync.Mutex
	ends := map[int]ending{}
	type leaver struct {
		id    int
		leave context.CancelFunc
	}
	var leavers []leaver
	for id := range 80 {
		time.Sleep(time.Duration(random.Int64N(int64(400 * time.Millisecond))))
		now := time.Since(begin)
		switch what := random.IntN(11); {
		case what < 6:
			n, b := 1+random.IntN(4), Bounds{Wait: time.Duration(random.Int64N(int64(3 * time.Second))), Queue: random.IntN(9)}
			ctx, cancel := context.WithCancel(t.Context())
			leavers = append(leavers, leaver{id, cancel})
			go func() {
				_, err := limiter.Take(ctx, float64(n), b)
				mu.Lock()
				defer mu.Unlock()
				ends[id] = ending{fate(err), time.Since(begin)}
			}()
			reference.take(now, id, n, b)
		case what < 8:
			if len(leavers) > 0 {
				who := random.IntN(len(leavers))
				leavers[who].leave()
				reference.leave(now, leavers[who].id)
				leavers = slices.Delete(leavers, who, who+1)
			}
		case what < 9:
			n := 1 + random.IntN(3)
			limiter.Charge(float64(-n))
			reference.giveBack(now, n)
		case what < 10:
			n := 1 + random.IntN(5)
			limiter.Charge(float64(n))
			reference.charge(now, n)
		default:
			r := anyRate()
			limiter.SetRate(r)
			reference.setRate(now, r)
		}
		synctest.Wait()
	}
	time.Sleep(time.Hour)
	reference.forward(time.Since(begin))
	for _, l := range leavers {
		l.leave()
	}
	mu.Lock()
	defer mu.Unlock()
	for id, want := range reference.ends {
		if got := ends[id]; got.how != want.how || (got.at-want.at).Abs() > time.Microsecond {
			t.Fatalf("seed %d: request %d %s after %v; the model: %s after %v", seed, id, got.how, got.at, want.how, want.at)
		}
	}
	if s := limiter.Status(); len(ends) != len(reference.ends) || s.Waiting != 0 || math.Abs(s.Tokens-reference.tokens) > 1e-3 {
		t.Fatalf("seed %d: %d of %d ended; %+v, the model has %v tokens", seed, len(ends), len(reference.ends), s, reference.tokens)
	}
}

func fate(err error) string {
	var refused *Refused
	switch {
	case err == nil:
		return "passed"
	case !errors.As(err, &refused):
		return "left"
	case refused.Full:
		return "full"
	}
	return "refused"
}
