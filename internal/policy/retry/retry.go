// Package retry sends a failed request again, where that is safe, worth it and within budget.
package retry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// Room owns what the block counts.
type Room struct{ metrics *metrics }

// New makes a Room and registers its metrics.
func New(reg prometheus.Registerer) *Room { return &Room{newMetrics(reg)} }

// Stage makes one policy's stage: everything below it runs once for each attempt.
func (r *Room) Stage(scope state.Scope, c Config) exchange.Stage { return r.stage(scope, c, false) }

// TunnelStage is for CONNECT: only connections that could not be made are tried again, on the same budget.
func (r *Room) TunnelStage(scope state.Scope, c Config) exchange.Stage {
	return r.stage(scope, c, true)
}

func (r *Room) stage(scope state.Scope, c Config, tunnel bool) exchange.Stage {
	budgets := state.Budgets(scope, c.Budget.Ratio, c.Budget.Floor, c.Budget.TTL.D())
	p := plan{config: c, metrics: r.metrics, budgets: budgets, tunnel: tunnel}
	for _, s := range c.Statuses {
		p.statuses[s-firstError] = true
	}
	return exchange.Stage{Name: "retry", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if c.Attempts <= 1 && !c.IdempotencyKey.On {
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
	metrics  *metrics
	budgets  *state.Table[*state.Budget]
	statuses [200]bool
	tunnel   bool
	next     http.RoundTripper
}

// course is the way of one exchange through its attempts.
type course struct {
	*plan
	request    *http.Request
	x          *exchange.Exchange
	budget     *state.Budget
	repeatable bool // although the upstream may have acted on it
	journal    *journal
}

// RoundTrip makes the first attempt and, where it failed, those that may follow.
func (p *plan) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchange.From(r.Context())
	budget := p.budgets.Get(state.KeyOf(x))
	budget.First()
	r, repeatable := p.keyed(r)
	if r.Body == nil || r.Body == http.NoBody || p.tunnel {
		resp, err := p.next.RoundTrip(r)
		if err == nil && !p.failed(resp) {
			return resp, nil
		}
		c := course{plan: p, request: r, x: x, budget: budget, repeatable: repeatable}
		return c.follow(resp, err)
	}
	c := course{plan: p, request: r, x: x, budget: budget, repeatable: repeatable, journal: newJournal(r, p.config)}
	defer c.journal.stop()
	resp, err := c.send()
	return c.follow(resp, err)
}

// keyed tells whether the request may be sent again after the upstream may have acted on it, and gives it an idempotency key where that is wanted.
func (p *plan) keyed(r *http.Request) (*http.Request, bool) {
	if p.tunnel {
		return r, false
	}
	repeatable := p.config.Methods.has(r.Method)
	k := &p.config.IdempotencyKey
	if !k.On || !slices.Contains(k.Methods, r.Method) {
		return r, repeatable
	}
	if values, sent := r.Header[k.Header]; sent {
		return r, repeatable || (len(values) > 0 && values[0] != "")
	}
	if !k.Inject {
		return r, repeatable
	}
	keyed := *r
	keyed.Header = maps.Clone(r.Header)
	if keyed.Header == nil {
		keyed.Header = http.Header{}
	}
	keyed.Header[k.Header] = []string{newKey(k.Quoted)}
	return &keyed, true
}

// newKey is a random UUID (RFC 9562 section 5.4), in quotes where the field is a structured one (RFC 8941 section 3.3.3).
func newKey(quoted bool) string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	b := make([]byte, 0, 38)
	if quoted {
		b = append(b, '"')
	}
	for i, part := range [][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	if quoted {
		b = append(b, '"')
	}
	return string(b)
}

// failed tells whether the answer is a failure. The upstream's own word beats the list of statuses.
func (p *plan) failed(resp *http.Response) bool {
	s := resp.StatusCode - firstError
	if p.tunnel || s < 0 || s >= len(p.statuses) {
		return false
	}
	if v := resp.Header["X-Should-Retry"]; len(v) > 0 {
		switch v[0] {
		case "true":
			return true
		case "false":
			return false
		}
	}
	return p.statuses[s]
}

// send makes an attempt, with its own view of the body.
func (c *course) send() (*http.Response, error) {
	if c.journal == nil {
		return c.next.RoundTrip(c.request)
	}
	r := *c.request
	r.Body = c.journal.open()
	r.GetBody = nil // whether a request is sent again is decided here alone
	return c.next.RoundTrip(&r)
}

// follow judges an attempt, and makes another one for as long as that may help.
func (c *course) follow(resp *http.Response, err error) (*http.Response, error) {
	for n := 1; ; n++ {
		reason, sent := c.judge(resp, err)
		if reason == "" {
			mark(resp, n)
			return resp, err
		}
		wait, why := c.when(resp, n, sent)
		if why != "" {
			return c.giveUp(resp, err, n, why)
		}
		reservation, ok := c.budget.Reserve()
		if !ok {
			return c.giveUp(resp, err, n, whyBudget)
		}
		if c.journal != nil && !c.journal.seal() {
			c.budget.Return(reservation)
			return c.giveUp(resp, err, n, whyBody)
		}
		last := keep(c.request.Method, resp, err)
		if gone := sleep(c.request.Context(), wait); gone != nil {
			c.budget.Return(reservation)
			last.drop()
			return nil, gone
		}
		c.x.NextAttempt(reason, wait)
		resp, err = c.send()
		if why := notAdmitted(err); why != "" {
			c.budget.Return(reservation)
			resp, err = last.restore()
			return c.giveUp(resp, err, n, why)
		}
		last.drop()
		c.metrics.retried(c.x.Label(), reason)
	}
}

// judge says of what the attempt failed ("": it did not, or another one would not help), and whether the upstream may have acted on it.
func (c *course) judge(resp *http.Response, err error) (reason string, sent bool) {
	if err == nil {
		if !c.failed(resp) {
			return "", true
		}
		return exchange.ReasonStatus, true
	}
	var refusal *exchange.Refusal
	var failure *exchange.Failure
	if errors.As(err, &refusal) || !errors.As(err, &failure) || failure.Permanent {
		return "", true
	}
	if cause := context.Cause(c.request.Context()); cause != nil {
		var deadline *exchange.Failure
		if errors.As(cause, &deadline) { // else the client left
			c.refused(whyDeadline)
		}
		return "", true
	}
	return failure.Reason(), failure.Sent
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
	c.metrics.refusal(c.x.Label(), why)
}

// giveUp hands the last failure on, as it is but for a word to programs that would go on retrying by themselves.
func (c *course) giveUp(resp *http.Response, err error, n int, why string) (*http.Response, error) {
	c.refused(why)
	mark(resp, n)
	if resp != nil && n > 1 && (why == whyAttempts || why == whyBudget || why == whyDeadline) {
		resp.Header["X-Should-Retry"] = []string{"false"}
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

// sleep waits, unless the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
