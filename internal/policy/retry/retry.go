// Package retry sends a failed request again, where that is safe, worth it and within budget.
package retry

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// Room owns what the block counts, and what outlives a policy: the memory that bodies take, and the keys that were made.
type Room struct {
	metrics *metrics
	account account
	keys    keyring

	mu    sync.Mutex
	known map[*budgets]struct{}
}

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer) *Room {
	r := &Room{account: account{limit: memory}}
	r.metrics = newMetrics(reg, &r.account)
	return r
}

// Short says when memory is short: request bodies are not kept then, and are sent once. It must come before the first Stage.
func (r *Room) Short(f func() bool) { r.account.short = f }

// Stage makes one policy's stage: everything below it runs once for each attempt. It counts first attempts in the budget even where it makes no
// others, because whatever else sends a request again draws on the same one (state.Budgets with the settings of Config.Budget).
func (r *Room) Stage(scope state.Scope, c Config) exchange.Stage { return r.stage(scope, c, false) }

// TunnelStage is for CONNECT: only connections that could not be made are tried again, on the same budget.
func (r *Room) TunnelStage(scope state.Scope, c Config) exchange.Stage {
	return r.stage(scope, c, true)
}

func (r *Room) stage(scope state.Scope, c Config, tunnel bool) exchange.Stage {
	c.Signal = http.CanonicalHeaderKey(c.Signal)
	p := plan{config: c, room: r, metrics: r.metrics, tunnel: tunnel, idle: c.Attempts <= 1 && !c.IdempotencyKey.On,
		budgets: r.budgets(scope, c.Budget)}
	for _, s := range c.Statuses {
		p.statuses[s-firstError] = true
	}
	if c.FailureWhen != "" && !tunnel {
		p.when, _ = compile(c.FailureWhen) // Validate has tried
	}
	return exchange.Stage{Name: "retry", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if p.idle && tunnel {
			return next
		}
		linked := p
		linked.next = next
		return &linked
	}}
}

// firstError is the lowest status that can be a failure; there are two hundred.
const firstError = 400

// plan is one policy's block.
type plan struct {
	config   Config
	room     *Room
	metrics  *metrics
	budgets  *state.Table[*state.Budget]
	statuses [200]bool
	when     *predicate // nil: a status is all there is to judge by
	tunnel   bool
	idle     bool // nothing is sent again, only counted
	next     http.RoundTripper
}

func (p *plan) observes() bool { return p.config.Mode == setting.Observe }

// course is the way of one exchange through its attempts.
type course struct {
	*plan
	request    *http.Request
	edited     bool // request's header is ours
	x          *exchange.Exchange
	budget     *state.Budget
	repeat     int               // how often the program has sent it before, by its own account
	charge     state.Reservation // for that
	charged    bool
	repeatable bool // although the upstream may have acted on it
	journal    *journal
	made       *made // the idempotency key; nil: none was made
	base       identity
	unjudged   bool             // noted
	verdict    exchange.Verdict // of the last answer
	stale      bool             // the last attempt met a dead connection, the first one to
	staleSeen  bool
}

// RoundTrip makes the first attempt and, where it failed, those that may follow.
func (p *plan) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchange.From(r.Context())
	c := course{plan: p, request: r, x: x, budget: p.budgets.Get(state.KeyOf(x))}
	c.enter()
	if p.idle {
		return c.once()
	}
	if r.Body != nil && r.Body != http.NoBody && !p.tunnel {
		c.journal = newJournal(r, &p.config, &p.room.account)
		defer c.leave()
	}
	if err := c.prepare(); err != nil {
		return nil, err
	}
	x.Repeats = c.repeatable && !p.tunnel && !c.observes() && p.config.Attempts > 1
	resp, err := c.send()
	c.refund(err)
	if err != nil || p.when != nil || resp.StatusCode >= firstError {
		resp, err = c.follow(resp, err)
		c.tell()
	}
	if c.made != nil {
		c.ended(resp, err)
	}
	return resp, err
}

// once sends a request that is not sent again, and judges its answer where somebody keeps it.
func (c *course) once() (*http.Response, error) {
	judged := c.config.Kept && !c.observes()
	if judged && c.when != nil && c.when.reads {
		c.readable()
	}
	resp, err := c.next.RoundTrip(c.request)
	c.refund(err)
	if judged && err == nil {
		resp, _, _ = c.judge(resp, nil)
		c.tell()
	}
	return resp, err
}

// tell tells those who may keep the last answer what it asks for. In observe mode it asks for what its fields say.
func (c *course) tell() {
	if c.verdict != exchange.Unsaid && !c.observes() {
		c.x.Judge(c.verdict)
	}
}

// enter counts the exchange in the budget: as a first attempt, or as the retry that the program says it is. There is at most one budget of retries,
// whoever makes them.
func (c *course) enter() {
	if !c.tunnel {
		c.repeat = repeats(c.request.Header)
	}
	if c.repeat == 0 {
		c.budget.First()
		return
	}
	c.charge, c.charged = c.budget.Reserve()
}

// refund gives back the charge for an attempt that was not made.
func (c *course) refund(err error) {
	if c.charged && notAdmitted(err) != "" {
		c.budget.Return(c.charge)
	}
}

// leave frees what was kept of the body.
func (c *course) leave() {
	if why := c.journal.stop(); why != "" {
		c.metrics.unkept.inc(c.x.Label(), why)
	}
}

// failed tells whether the answer's head is a failure. The upstream's own word beats the list of statuses.
func (p *plan) failed(resp *http.Response) bool {
	s := resp.StatusCode - firstError
	if p.tunnel || s < 0 || s >= len(p.statuses) || resp.StatusCode == http.StatusNotImplemented {
		return false
	}
	switch p.signal(resp.Header) {
	case exchange.Again:
		return true
	case exchange.Final:
		return false
	}
	return p.statuses[s]
}

// send makes an attempt, with its own view of the body.
func (c *course) send() (resp *http.Response, err error) {
	if c.journal == nil {
		return c.next.RoundTrip(c.request)
	}
	v := c.journal.open()
	defer func() {
		if resp == nil { // whoever refuses a request need not close it, and whoever panics does not
			_ = v.Close()
		}
	}()
	r := *c.request
	r.Body, r.Trailer = v, v.trailer
	r.GetBody = nil // whether a request is sent again is decided here alone
	return c.next.RoundTrip(&r)
}

// follow judges an attempt, and makes another one for as long as that may help.
func (c *course) follow(resp *http.Response, err error) (*http.Response, error) {
	for n := 1; ; n++ {
		var reason string
		var sent bool
		resp, reason, sent = c.judge(resp, err)
		if reason == "" {
			mark(resp, n)
			return resp, err
		}
		wait, why := c.plans(resp, n, sent)
		if why != "" {
			return c.giveUp(resp, err, n, why)
		}
		reservation, ok := c.reserve()
		if !ok {
			return c.giveUp(resp, err, n, whyBudget)
		}
		if c.observes() {
			c.budget.Return(reservation)
			c.x.Observe("retry:" + reason)
			c.metrics.observed.inc(c.x.Label(), reason)
			return resp, err
		}
		if c.journal != nil && !c.journal.seal() {
			c.budget.Return(reservation)
			return c.giveUp(resp, err, n, whyBody)
		}
		last := keep(c.request.Method, resp, err)
		if slept, gone := sleep(c.request.Context(), wait); gone != nil {
			c.x.Paused(slept)
			c.budget.Return(reservation)
			last.abandon()
			return nil, gone
		}
		c.x.NextAttempt(reason, wait)
		last.watch(c.request.Context(), c.x)
		before := begun(c.x)
		resp, err = c.send()
		if why := notAdmitted(err); why != "" {
			c.budget.Return(reservation)
			resp, err = last.restore()
			return c.giveUp(resp, err, n, why)
		}
		last.drop()
		if err != nil && c.request.Context().Err() != nil && begun(c.x) == before { // the client left, or its time was over, while the attempt waited for a limit
			c.budget.Return(reservation)
			continue
		}
		c.metrics.retries.inc(c.x.Label(), reason)
	}
}

// reserve takes a retry from the budget. Where the program's own retry found nothing there, none of ours follows it.
func (c *course) reserve() (state.Reservation, bool) {
	if c.repeat > 0 && !c.charged {
		return state.Reservation{}, false
	}
	return c.budget.Reserve()
}

// judge says of what the attempt failed ("": it did not, or another one would not help), and whether the upstream may have acted on it.
func (c *course) judge(resp *http.Response, err error) (seen *http.Response, reason string, sent bool) {
	c.verdict = exchange.Unsaid
	if err == nil {
		switch {
		case c.failed(resp):
			reason = exchange.ReasonStatus
		case c.when != nil:
			resp, reason = c.examine(resp)
		}
		c.verdict = c.judgement(resp, reason)
		return resp, reason, true
	}
	var refusal *exchange.Refusal
	var failure *exchange.Failure
	if errors.As(err, &refusal) || !errors.As(err, &failure) || failure.Permanent {
		return resp, "", true
	}
	if cause := context.Cause(c.request.Context()); cause != nil {
		var deadline *exchange.Failure
		if errors.As(cause, &deadline) { // else the client left
			c.refused(whyDeadline)
		}
		return resp, "", true
	}
	c.stale = failure.Stale && !c.staleSeen
	c.staleSeen = c.staleSeen || c.stale
	return resp, failure.Reason(), failure.Sent
}

// Why a failed exchange is not tried again, as metrics and records name it.
const (
	whyMethod     = "method"
	whyBudget     = "budget"
	whyBody       = "body"
	whyDeadline   = "deadline"
	whyAttempts   = "attempts"
	whyRetryAfter = "retry_after"
	whyBreaker    = "breaker"
	whyGate       = "gate"
)

// notAdmitted tells whether the proxy itself kept an attempt from starting.
func notAdmitted(err error) string {
	if err == nil {
		return ""
	}
	var refusal *exchange.Refusal
	if !errors.As(err, &refusal) {
		return ""
	}
	switch refusal.Code {
	case exchange.BreakerOpen:
		return whyBreaker
	case exchange.RateLimited, exchange.QuotaExhausted, exchange.ConcurrencyLimited, exchange.Overloaded, exchange.Draining:
		return whyGate
	}
	return ""
}

func (c *course) refused(why string) {
	c.x.Update(func(s *exchange.Story) { s.NotRetried = why })
	c.metrics.refused.inc(c.x.Label(), why)
}

// giveUp hands the last failure on, as it is but for a word to programs that would go on retrying by themselves.
func (c *course) giveUp(resp *http.Response, err error, n int, why string) (*http.Response, error) {
	if c.observes() {
		return resp, err // nothing would have been sent
	}
	c.refused(why)
	mark(resp, n)
	if resp == nil {
		return resp, err
	}
	switch why {
	case whyAttempts, whyBudget, whyDeadline:
		if n > 1 || c.repeat > 0 {
			if resp.Header == nil {
				resp.Header = http.Header{}
			}
			c.forbid(resp.Header)
		}
	}
	return resp, err
}

// mark adds a Proxy-Status member (RFC 9209) to an answer that took more than one attempt.
func mark(resp *http.Response, n int) {
	if resp == nil || n < 2 {
		return
	}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	member := "httpowerd; received-status=" + strconv.Itoa(resp.StatusCode) + `; details="` + strconv.Itoa(n) + ` attempts"`
	resp.Header["Proxy-Status"] = append(resp.Header["Proxy-Status"], member)
}

// sleep waits, unless the context ends; then it says how long it has waited.
func sleep(ctx context.Context, d time.Duration) (slept time.Duration, gone error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if d <= 0 {
		return 0, nil
	}
	begin, t := time.Now(), time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return d, nil
	case <-ctx.Done():
		return time.Since(begin), context.Cause(ctx)
	}
}
