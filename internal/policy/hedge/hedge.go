// Package hedge sends another attempt beside one that takes unusually long, and takes the good answer that comes first.
package hedge

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// Room owns what the block counts, and its timers.
type Room struct {
	metrics *metrics
	timers  timers
}

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer) *Room { return &Room{metrics: newMetrics(reg)} }

// The budget of a policy that retries nothing.
const (
	ownRatio = 0.2
	ownFloor = 3
	ownTTL   = 10 * time.Second
)

// Stage makes one policy's stage: everything below it runs once for each attempt, and may run several times at once. budgets are those of the
// policy's retries, whose stage counts the first attempts; nil is for a policy without one, which gets a budget of its own. scarce tells
// whether the upstream's quota is used up or low for a request; it is asked just before a hedge would be sent, must not wait, and may be nil. fails
// tells whether an answer whose status is good is none all the same; it is asked while there is another attempt, may read the body, returns the answer
// that is to be used in the place of the one that it got, and may be nil.
func (r *Room) Stage(scope state.Scope, c Config, budgets *state.Table[*state.Budget], scarce func(*exchange.Exchange, *http.Request) bool,
	fails func(*http.Request, *http.Response) (*http.Response, bool)) exchange.Stage {
	p := plan{config: c, metrics: r.metrics, timers: &r.timers, budgets: budgets, scarce: scarce, fails: fails}
	if budgets == nil {
		p.budgets, p.counts = state.Budgets(scope, ownRatio, ownFloor, ownTTL), true
	}
	if c.After.permille != 0 {
		// Kept whatever the settings are: the times are the upstream's.
		p.times = state.Keep(scope, "hedge", nil, func() *state.Table[*latency] {
			return state.NewTable(trackers, func(state.Key) *latency { return newLatency() })
		})
	}
	return exchange.Stage{Name: "hedge", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if c.Extra < 1 {
			return next
		}
		linked := p
		linked.next = next
		return &linked
	}}
}

// plan is one policy's block.
type plan struct {
	config  Config
	metrics *metrics
	timers  *timers
	budgets *state.Table[*state.Budget]
	counts  bool                   // first attempts, because nobody above does
	times   *state.Table[*latency] // nil: a fixed duration
	scarce  func(*exchange.Exchange, *http.Request) bool
	fails   func(*http.Request, *http.Response) (*http.Response, bool) // nil: a status is all there is to judge by
	next    http.RoundTripper
}

func (p *plan) observes() bool { return p.config.Mode == setting.Observe }

// RoundTrip makes the first attempt, here, and hedges it where that takes long.
func (p *plan) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchange.From(r.Context())
	if p.counts {
		p.budgets.Get(state.KeyOf(x)).First()
	}
	if !hedgeable(r) {
		return p.next.RoundTrip(r)
	}
	c := &course{plan: p, request: r, x: x}
	if p.times != nil {
		c.times = p.times.Get(state.KeyOf(x))
	}
	return c.run()
}

// delay is how long the upstream is given; 0: nothing is hedged, because too little is known of it.
func (p *plan) delay(times *latency, now time.Time) time.Duration {
	if times == nil {
		return p.config.After.duration
	}
	q, known := times.quantile(now, p.config.After.permille, p.config.Minimum)
	if !known {
		return 0
	}
	return max(q, shortest)
}

// hedgeable tells whether sending the request twice at once is safe and can help.
func hedgeable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "":
	default:
		return false
	}
	if r.Body != nil && r.Body != http.NoBody || r.Header["Upgrade"] != nil || r.Header["Expect"] != nil {
		return false
	}
	for _, accept := range r.Header["Accept"] {
		if strings.Contains(accept, "text/event-stream") { // whose head may wait for its first event
			return false
		}
	}
	return true
}

// good tells whether an attempt's end is worth being taken at once. What is not is what a retry would follow.
func good(resp *http.Response, err error) bool {
	if err != nil || resp == nil {
		return false
	}
	switch s := resp.StatusCode; s {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	default:
		return s < 500
	}
}
