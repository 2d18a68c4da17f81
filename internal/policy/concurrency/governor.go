package concurrency

import (
	"errors"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state/quota"
)

// The numbers of the adaptive limit. It compares the latency of a short window with that of a time without a queue at the upstream: as long as they
// are alike the limit grows by the root of itself; where the short one is more than half as long again, it shrinks in proportion. What the latency
// without a queue is, is found out again and again: of itself where few requests are in flight, else by halving the limit for a moment.
//
// It bounds what waits for the head of an answer. What answers already has a place beyond it, up to max: streams that filled the limit would let no answer
// come by which it could grow.
const (
	firstPlaces = 20                     // at the begin, within the bounds
	windowTime  = 100 * time.Millisecond // of a short window, at least
	windowSize  = 10                     // answers in it, at least
	tolerance   = 1.5                    // of the latency without a queue are no sign of one
	noise       = 1e-3                   // nor are so many seconds more than it
	least       = 0.5                    // of the limit are left by one window
	smoothing   = 0.2                    // of what a window asks for is done
	believed    = 30 * time.Second       // is a latency without a queue, or ages times itself
	ages        = 20
	retreat     = 0.7         // of what was in flight is left after the upstream said that it was too much
	recovery    = time.Minute // in which a limit that does not adapt grows back from nothing to its whole
	leastStep   = windowTime  // of that
)

// kind tells answers whose head comes with the work done from those that only begin with it: streams, upgrades and tunnels. What these take to their head
// says little of an upstream's work, and is gone by only where hardly anything else is answered.
type kind int

const (
	whole kind = iota
	begun
	kinds
)

func kindOf(x *exchange.Exchange, resp *http.Response) kind {
	if x.Kind == exchange.KindTunnel || resp.StatusCode == http.StatusSwitchingProtocols || exchange.Streams(resp.Header) {
		return begun
	}
	return whole
}

// window is the answers of a short time.
type window struct {
	begin time.Time
	sum   float64
	n     int
	peak  int // in flight
}

// governor decides how many places there are.
type governor struct {
	on    atomic.Bool  // it adapts; written with mu held
	taken atomic.Int32 // places whose answer has begun

	mu        sync.Mutex
	halving   bool // the latency without a queue is looked for
	min, max  float64
	limit     float64
	base      float64   // latency without a queue, in seconds; 0: not known
	baseAt    time.Time // it was found
	halved    time.Time // to find it out; what was sent before had a longer queue before it
	kind      kind      // of the answers that it goes by
	judged    time.Time // by a window of whole answers
	windows   [kinds]window
	retreated time.Time // what was sent before says nothing new
	grown     time.Time // recovery is reckoned up to here
	growing   bool      // somebody calls recover again
}

// configure sets the bounds, and keeps what was found out within them.
func (g *governor) configure(c Config) {
	g.mu.Lock()
	defer g.mu.Unlock()
	low, high := c.bounds()
	switch {
	case !c.Adaptive.On:
		g.min, g.max, g.limit = 1, float64(c.Max), float64(c.Max)
	case !g.on.Load():
		g.min, g.max = float64(low), float64(high)
		g.limit = min(g.max, max(g.min, firstPlaces))
	default:
		g.min, g.max = float64(low), float64(high)
		g.limit = min(g.max, max(g.min, g.limit))
	}
	g.on.Store(c.Adaptive.On)
	g.halving = false
	g.windows = [kinds]window{}
}

// places is the limit as it is now, and how many places there should be for it.
func (g *governor) places() (limit, all int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	limit = int(g.limit)
	if !g.on.Load() {
		return limit, limit
	}
	taken := int(g.taken.Load())
	if g.halving {
		limit = max(int(g.min), (min(limit, int(g.max)-taken)+1)/2)
	}
	return limit, min(int(g.max), limit+taken)
}

// sample takes in an answer's latency, when its request was sent, and how many are in flight now. It tells whether the limit changed.
func (g *governor) sample(now, sent time.Time, took time.Duration, k kind, inFlight int) (changed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before, halving := int(g.limit), g.halving
	if !g.on.Load() || halving && sent.Before(g.halved) {
		return false
	}
	w := &g.windows[k]
	if w.n == 0 {
		w.begin = now
	}
	w.n, w.sum, w.peak = w.n+1, w.sum+max(0, took.Seconds()), max(w.peak, inFlight)
	if w.n >= windowSize && now.Sub(w.begin) >= windowTime {
		g.window(now, k)
	}
	return int(g.limit) != before || g.halving != halving
}

// recover grows a limit that does not adapt back to what is written, and tells when the next place is due; 0: nothing is lost any more.
func (g *governor) recover(now time.Time) (next time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	each := float64(recovery) / g.max
	if !g.on.Load() {
		g.limit = min(g.max, g.limit+float64(now.Sub(g.grown))/each)
		g.grown = now
	}
	if g.growing = !g.on.Load() && g.limit < g.max; !g.growing {
		return 0
	}
	return max(leastStep, time.Duration((math.Floor(g.limit)+1-g.limit)*each))
}

// window ends a short window of answers of a kind.
func (g *governor) window(now time.Time, k kind) {
	w := g.windows[k]
	g.windows[k] = window{}
	if k == begun && !g.judged.IsZero() && now.Sub(g.judged) < believed {
		return
	}
	if k == whole {
		g.judged = now
	}
	if k != g.kind {
		g.kind, g.base, g.halving = k, 0, false // one kind's latency says nothing of the other's
	}
	short := max(w.sum/float64(w.n), 1e-6)
	busy := 2*w.peak >= int(g.limit)
	if g.halving {
		g.base, g.baseAt, g.halving = short, now, false
		return
	}
	old := now.Sub(g.baseAt).Seconds() >= max(believed.Seconds(), ages*g.base)
	if g.base == 0 || short <= g.base || old && !busy {
		g.base, g.baseAt, old = short, now, false
	}
	if old {
		g.halved, g.halving = now, true
		g.windows = [kinds]window{}
		return
	}
	gradient := min(1, max(least, max(tolerance*g.base, g.base+noise)/short))
	if gradient == 1 && !busy {
		return // more places would tell nothing: these are not used
	}
	next := g.limit*gradient + math.Sqrt(g.limit)
	g.limit = min(g.max, max(g.min, g.limit+(next-g.limit)*smoothing))
}

// back takes places away because an upstream said, or showed, that too many were in flight. What was sent before it last did so is no news. recovers asks
// for a first call of recover.
func (g *governor) back(now, sent time.Time, inFlight int) (changed, recovers bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.retreated.IsZero() && !sent.After(g.retreated) {
		return false, false
	}
	g.retreated, g.grown = now, now
	g.halving = false
	g.limit = max(g.min, retreat*min(g.limit, float64(inFlight)))
	g.windows = [kinds]window{}
	recovers = !g.on.Load() && !g.growing
	g.growing = g.growing || recovers
	return true, recovers
}

// watch is what is remembered of an attempt until its answer comes.
type watch struct {
	on     bool
	sent   time.Time
	waited time.Duration       // for limits, up to then
	clock  *exchange.Stopwatch // nil: it is a tunnel's, or nobody wants to know
}

// begin is r as the stages below get it.
func (w *watch) begin(x *exchange.Exchange, r *http.Request) *http.Request {
	if !w.on || x.Kind == exchange.KindTunnel {
		return r
	}
	w.clock = new(exchange.Stopwatch)
	return w.clock.Start(r)
}

// took is the latency of the answer that is there now. It is false where the answer came before all of its request was sent, and tells nothing.
func (w *watch) took(x *exchange.Exchange, now time.Time) (time.Duration, bool) {
	if w.clock != nil {
		return w.clock.Took()
	}
	return now.Sub(w.sent) - (limitWait(x) - w.waited), true
}

func (p *places) watch(x *exchange.Exchange) watch {
	w := watch{sent: time.Now()}
	for _, h := range p.held {
		w.on = w.on || h.governor.on.Load()
	}
	if w.on {
		w.waited = limitWait(x)
	}
	return w
}

func limitWait(x *exchange.Exchange) (d time.Duration) {
	x.Read(func(s *exchange.Story) { d = s.LimitWait })
	return d
}

// refuses tells whether an answer of that status may say that too many requests are in flight.
func refuses(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

// report tells the governors how an attempt ended. Errors and refusals say nothing about latency; a timeout says that it was too long.
func (w watch) report(p *places, x *exchange.Exchange, resp *http.Response, err error) {
	now := time.Now()
	var failure *exchange.Failure
	late := errors.As(err, &failure) && failure.Code == exchange.UpstreamTimeout && !x.CutShort(failure) && !(failure.Overall && x.Owes())
	crowded := err == nil && quota.Concurrent(resp)
	answered := err == nil && resp.StatusCode < http.StatusInternalServerError && !refuses(resp.StatusCode)
	var took time.Duration
	var k kind
	if answered = answered && w.on; answered {
		took, answered = w.took(x, now)
		k = kindOf(x, resp)
	}
	for _, h := range p.held {
		inFlight := h.inFlight()
		switch g := &h.governor; {
		case crowded:
			h.back(now, w.sent, inFlight, "the upstream refused a request because too many are in flight")
		case late && g.on.Load():
			h.back(now, w.sent, inFlight, "a request timed out")
		case answered && g.on.Load():
			if g.sample(now, w.sent, took, k, inFlight) {
				h.change(latency)
			}
		}
	}
}
