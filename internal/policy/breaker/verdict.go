package breaker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state/quota"
)

// kind is what an attempt says about its upstream.
type kind uint8

const (
	good    kind = iota
	soft         // counts for the ratio alone
	hard         // counts for both rules
	nothing      // says nothing
)

// verdict is what gobreaker is told about an attempt; it is an error because gobreaker takes those.
type verdict struct {
	kind   kind
	code   exchange.Code
	status int
	slow   bool
	local  bool          // nothing was sent: no address, no connection, no TLS
	after  time.Duration // what the upstream asked for
}

var (
	success = &verdict{kind: good}
	neutral = &verdict{kind: nothing}
)

func (v *verdict) Error() string { return v.why() }

// why is the failure in a few words, for logs and records.
func (v *verdict) why() string {
	switch {
	case v == nil:
		return "unknown"
	case v.slow:
		return "a slow answer"
	case v.code != "":
		return string(v.code)
	}
	return "status " + strconv.Itoa(v.status)
}

// ofError judges an attempt without an answer.
func (c *circuit) ofError(ctx context.Context, err error, began int64) *verdict {
	var refusal *exchange.Refusal
	if errors.As(err, &refusal) || clientLeft(ctx) {
		return neutral
	}
	var failure *exchange.Failure
	if !errors.As(err, &failure) && !errors.As(context.Cause(ctx), &failure) {
		return neutral // nobody below says that it was the upstream
	}
	if failure.Stale {
		return neutral // a connection kept for too long; whether the upstream lives shows on the next
	}
	x := exchange.From(ctx)
	if failure.Overall && x.Owes() {
		return neutral // the client stopped sending, and the upstream has nothing to answer yet
	}
	if x.CutShort(failure) && !c.silent(began) {
		return neutral // the time went by in waits of the proxy's own
	}
	return &verdict{kind: hard, code: failure.Code, local: local(failure)}
}

// local tells a failure to come to the upstream from a failure of it.
func local(f *exchange.Failure) bool {
	switch f.Code {
	case exchange.UpstreamDNS, exchange.UpstreamConnect:
		return true
	case exchange.UpstreamTLS, exchange.UpstreamTimeout:
		return !f.Sent
	}
	return false
}

// clientLeft tells the client's leaving from a deadline, whose cause is a Failure.
func clientLeft(ctx context.Context) bool {
	if ctx.Err() == nil {
		return false
	}
	var failure *exchange.Failure
	return !errors.As(context.Cause(ctx), &failure)
}

// ofAnswer judges the head of an answer.
func (c *Config) ofAnswer(resp *http.Response, took time.Duration) *verdict {
	switch status := resp.StatusCode; {
	case status == http.StatusTooManyRequests && !c.CountFourTwoNine:
		return neutral
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		v := &verdict{kind: hard, status: status}
		if after, ok := quota.RetryAfter(resp.Header, time.Now(), c.Unit); ok {
			v.after = after
		}
		return v
	case status == http.StatusBadGateway, status == http.StatusGatewayTimeout:
		return &verdict{kind: hard, status: status}
	case status >= 500:
		return &verdict{kind: soft, status: status}
	}
	if c.Slow.On && took > c.Slow.Duration {
		return &verdict{kind: soft, slow: true}
	}
	return success
}

// ofBody judges an error of reading an answer's body: the upstream broke off, unless the client left.
func ofBody(ctx context.Context, err error) *verdict {
	if err == io.EOF && ctx.Err() == nil {
		return success // as nearly all end
	}
	if errors.Is(context.Cause(ctx), exchange.ErrSuperseded) {
		return neutral // cut off because another answer was there first
	}
	if err == io.EOF || clientLeft(ctx) || errors.As(err, new(*exchange.Refusal)) {
		return success // the head was fine, and an upload that was refused in its middle ends the answer with it
	}
	code := exchange.UpstreamReset
	var failure *exchange.Failure
	if errors.As(err, &failure) || errors.As(context.Cause(ctx), &failure) {
		code = failure.Code
	}
	return &verdict{kind: hard, code: code}
}
