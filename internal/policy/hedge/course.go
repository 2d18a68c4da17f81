package hedge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// course is the way of one request. Its first attempt runs in the caller's goroutine and costs no other one; a timer, started when that attempt
// begins below the proxy's own limits, runs each hedge. A hedge that wins cancels the first attempt, which makes the caller return.
type course struct {
	*plan
	request *http.Request
	x       *exchange.Exchange
	times   *latency // nil: a fixed duration
	lane    exchange.LaneContext
	first   http.Request // the first attempt's: here, so that all of it is made at once
	body    held

	mu     sync.Mutex
	began  time.Time     // the first attempt; zero: not yet
	after  time.Duration // that, a hedge is sent; 0: none is
	timer  *timer        // nil: not started
	out    []*hedge      // hedges that run
	sent   int32         // hedges
	closed bool          // no more hedges
	over   bool          // an answer was taken, or nobody waits any more
	winner *hedge        // nil: none, or the first attempt
	landed chan struct{}
}

// run makes the first attempt and returns the answer that was taken.
func (c *course) run() (*http.Response, error) {
	c.first = *c.request.WithContext(c.x.WithLaneIn(&c.lane, c.request.Context(), c))
	returned := false
	defer func() {
		if !returned {
			c.abandon() // the panic goes on to whoever called
		}
	}()
	resp, err := c.next.RoundTrip(&c.first)
	resp, err = c.settle(resp, err)
	returned = true
	return resp, err
}

// Begin is the first attempt's: the upstream's time starts now, not while the proxy's own limits hold the request.
func (c *course) Begin(now time.Time) (string, time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.began.IsZero() {
		c.began, c.after = now, c.delay(c.times, now)
		if c.after > 0 && !c.closed {
			c.timer = c.timers.start(now, c.after, c)
		}
	}
	return "", 0, false
}

// settle takes the first attempt's end, where it is good or nothing better can come, or else waits for the hedges that are out.
func (c *course) settle(resp *http.Response, err error) (*http.Response, error) {
	fine, ctx := good(resp, err), c.request.Context()
	took := c.sinceBegin()
	c.mu.Lock()
	c.close()
	if fine && c.fails != nil && len(c.out) > 0 { // else there is nothing better
		c.mu.Unlock()
		resp, fine = c.judge(&c.first, resp)
		c.mu.Lock()
	}
	for !fine && c.winner == nil && len(c.out) > 0 && ctx.Err() == nil {
		c.mu.Unlock()
		select {
		case <-c.landed:
		case <-ctx.Done():
		}
		c.mu.Lock()
	}
	won, losers := c.winner, c.end()
	c.mu.Unlock()
	c.free(losers)
	if c.times != nil && !c.began.IsZero() && (fine || won != nil) {
		if won != nil { // this is how long the first attempt would have taken at least: what hedging cuts off must not make the quantile sink
			took = c.sinceBegin()
		}
		c.times.add(c.began.Add(took), took)
	}
	if won == nil {
		return c.body.hold(resp, err, &c.lane)
	}
	c.lane.Cancel(nil)
	if resp != nil {
		go drop(resp)
	}
	return won.body.hold(won.resp, nil, &won.lane)
}

// sinceBegin is how long the first attempt has been with the upstream, where somebody keeps account of that.
func (c *course) sinceBegin() time.Duration {
	if c.times == nil || c.began.IsZero() {
		return 0
	}
	return time.Since(c.began)
}

// close sends no more hedges. c.mu is held.
func (c *course) close() {
	c.closed = true
	c.timers.stop(&c.timer)
}

// end lets nobody win any more, and returns the hedges that are still out. c.mu is held.
func (c *course) end() []*hedge {
	losers := c.out
	c.over, c.out = true, nil
	return losers
}

// free ends the attempts that are still open, after end.
func (c *course) free(losers []*hedge) {
	if c.sent == 0 {
		return
	}
	c.x.EndOpen(time.Now(), endOf(c.request.Context()))
	for _, h := range losers {
		h.lane.Cancel(exchange.ErrSuperseded)
	}
}

// endOf names what ended the attempts that are still open.
func endOf(ctx context.Context) exchange.Code {
	var failure *exchange.Failure
	var refusal *exchange.Refusal
	switch {
	case ctx.Err() == nil:
		return exchange.Superseded
	case errors.As(context.Cause(ctx), &failure):
		return failure.Code
	case errors.As(context.Cause(ctx), &refusal):
		return refusal.Code
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return exchange.UpstreamTimeout
	}
	return exchange.ClientGone
}

// abandon frees everything where the first attempt panicked.
func (c *course) abandon() {
	c.mu.Lock()
	c.close()
	won, losers := c.winner, c.end()
	c.mu.Unlock()
	c.free(losers)
	c.lane.Cancel(nil)
	if won != nil {
		won.lane.Cancel(nil)
		go drop(won.resp)
	}
}

// fire is the timer's: it sends a hedge, in a goroutine of its own.
func (c *course) fire() {
	if h := c.launch(); h != nil {
		h.run()
	}
}

// launch makes the next hedge, where there may be one. The lock keeps the caller, and with it the request, here meanwhile.
func (c *course) launch() (h *hedge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	defer func() {
		if recover() != nil {
			h = nil
			c.refuse(resultPanicked)
		}
	}()
	if c.scarce != nil && c.scarce(c.x, c.request) {
		return c.refuse(resultScarce)
	}
	budget := c.budgets.Get(state.KeyOf(c.x))
	reservation, ok := budget.Reserve()
	switch {
	case !ok:
		return c.refuse(resultBudget)
	case c.observes():
		budget.Return(reservation)
		c.x.Observe("hedge")
		return c.refuse(resultObserved)
	}
	h = &hedge{course: c, budget: budget, reservation: reservation}
	// A copy: a hedge that loses may outlive the exchange, whose fields are then anybody's to change.
	h.request = c.request.Clone(c.x.WithLaneIn(&h.lane, c.request.Context(), h))
	if c.landed == nil {
		c.landed = make(chan struct{}, c.config.Extra)
	}
	c.sent++
	c.out = append(c.out, h)
	return h
}

// refuse counts why there is no hedge, and that there will be none. c.mu is held.
func (c *course) refuse(result string) *hedge {
	c.close()
	c.metrics.count(c.x.Label(), result)
	return nil
}

// hedge is one more attempt.
type hedge struct {
	course      *course
	request     *http.Request
	lane        exchange.LaneContext
	budget      *state.Budget
	reservation state.Reservation
	begun       bool // course.mu guards it
	resp        *http.Response
	body        held
}

// Begin is the hedge's: its limits let it through, and the time until the next one starts.
func (h *hedge) Begin(now time.Time) (string, time.Duration, bool) {
	c := h.course
	c.mu.Lock()
	defer c.mu.Unlock()
	h.begun = true
	if !c.closed && int(c.sent) < c.config.Extra {
		c.timer.set(now, c.after, c)
	}
	return exchange.ReasonHedge, c.after, true
}

// judge tells whether an answer of a good status is good, and is the answer to be used in its place.
func (c *course) judge(r *http.Request, resp *http.Response) (seen *http.Response, fine bool) {
	seen, failed := c.fails(r, resp)
	return seen, !failed
}

// run sends the hedge. A defect below must not end the process: nobody else is on this goroutine to catch it.
func (h *hedge) run() {
	var resp *http.Response
	err, fine := errPanicked, false
	defer func() {
		_ = recover()
		h.land(resp, err, fine)
	}()
	c := h.course
	resp, err = c.next.RoundTrip(h.request)
	if fine = good(resp, err) && resp.StatusCode != http.StatusSwitchingProtocols; fine && c.fails != nil {
		resp, fine = c.judge(h.request, resp)
	}
}

var errPanicked = errors.New("the attempt panicked")

// land takes the hedge's end, and whether it is good.
func (h *hedge) land(resp *http.Response, err error, fine bool) {
	c := h.course
	c.mu.Lock()
	result := h.result(err, fine)
	if !c.over {
		c.close() // an upstream in trouble, or a limit that is reached, gets no more of them
		c.out = slices.DeleteFunc(c.out, func(other *hedge) bool { return other == h })
	}
	var losers []*hedge
	if result == resultWon {
		c.winner, c.over, h.resp = h, true, resp
		losers, c.out = c.out, nil
		c.x.EndOpen(time.Now(), exchange.Superseded)
	}
	begun := h.begun
	c.mu.Unlock()

	if !begun {
		h.budget.Return(h.reservation)
	}
	c.metrics.count(c.x.Label(), result)
	if result == resultWon {
		for _, other := range losers {
			other.lane.Cancel(exchange.ErrSuperseded)
		}
		c.lane.Cancel(exchange.ErrSuperseded)
	} else {
		h.lane.Cancel(nil)
		if resp != nil {
			drop(resp)
		}
	}
	c.landed <- struct{}{} // has room for every hedge
}

// result says what became of the hedge. c.mu is held.
func (h *hedge) result(err error, fine bool) string {
	switch {
	case err == errPanicked:
		return resultPanicked
	case h.course.over:
		return resultLost
	case fine:
		return resultWon
	case !h.begun && errors.As(err, new(*exchange.Refusal)):
		return resultRefused
	}
	return resultFailed
}

// drop closes an answer that nobody takes.
func drop(resp *http.Response) {
	defer func() { _ = recover() }() // as in run
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
}

// held is a body that keeps its attempt's context until it is closed.
type held struct {
	io.ReadCloser
	lane *exchange.LaneContext
}

func (h *held) hold(resp *http.Response, err error, lane *exchange.LaneContext) (*http.Response, error) {
	if err != nil || resp == nil || resp.Body == nil || resp.Body == http.NoBody {
		lane.Cancel(nil)
		return resp, err
	}
	h.ReadCloser, h.lane = resp.Body, lane
	resp.Body = h
	if w, ok := h.ReadCloser.(io.Writer); ok {
		resp.Body = &heldDuplex{h, w}
	}
	return resp, nil
}

// Unseen and Take make it an exchange.Direct.
func (h *held) Unseen() int64 { return exchange.Unseen(h.ReadCloser) }

// Take is a Read by m.
func (h *held) Take(m exchange.Mover) (int, error) { return exchange.Take(h.ReadCloser, m) }

// Close closes the body and frees the attempt.
func (h *held) Close() error {
	err := h.ReadCloser.Close()
	h.lane.Cancel(nil)
	return err
}

// heldDuplex is the body of a 101 that nobody asked for: the front must still be able to tell.
type heldDuplex struct {
	*held
	io.Writer
}
