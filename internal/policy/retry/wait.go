package retry

import (
	"math/rand/v2"
	"net/http"
	"time"

	"httpowerd/internal/state/quota"
)

// plans says after which wait attempt n+1 may be made, or why it may not.
func (c *course) plans(resp *http.Response, n int, sent bool) (wait time.Duration, why string) {
	switch {
	case sent && !c.repeatable:
		return 0, whyMethod
	case n >= c.config.Attempts:
		return 0, whyAttempts
	case c.journal != nil && !c.journal.complete():
		return 0, whyBody
	}
	left, bounded := c.left()
	if resp != nil {
		asked, ok := quota.RetryAfter(resp.Header, time.Now(), c.config.RetryAfter.Unit)
		switch {
		case !ok:
		case asked <= 0:
			return 0, ""
		case asked > c.config.RetryAfter.Max.D():
			return 0, whyRetryAfter
		case bounded && asked >= left:
			return 0, whyDeadline
		case bounded:
			return asked + upTo(min(asked, left-asked)/2), ""
		default:
			return asked + upTo(asked/2), ""
		}
	}
	if c.stale {
		c.stale = false
		return 0, ""
	}
	wait = upTo(c.config.Backoff.bound(n, throttled(resp)))
	if bounded && wait >= left {
		return 0, whyDeadline
	}
	return wait, ""
}

// left is the time until the exchange must have its answer.
func (c *course) left() (time.Duration, bool) {
	deadline, ok := c.request.Context().Deadline()
	if !ok {
		return 0, false
	}
	return time.Until(deadline), true
}

// upTo draws a wait from nothing to d. Clients that failed together come back apart.
func upTo(d time.Duration) time.Duration { return rand.N(d + 1) }

// statusOverloaded is not registered; several vendors use it for an API that has too much to do.
const statusOverloaded = 529

// throttled tells whether the upstream said that it has too much to do.
func throttled(resp *http.Response) bool {
	if resp == nil {
		return false
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, statusOverloaded:
		return true
	}
	return false
}

// bound is the longest wait after attempt n.
func (b Backoff) bound(n int, throttled bool) time.Duration {
	d, longest := b.Base.D(), b.Max.D()
	if throttled {
		d = b.Throttled.D()
	}
	for ; n > 1 && d < longest; n-- {
		d *= 2
	}
	return min(d, longest)
}
