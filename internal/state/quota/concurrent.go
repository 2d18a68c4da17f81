package quota

import (
	"net/http"
	"strings"
	"time"
)

// Concurrent tells whether a refusal (429 or 503) is about how many requests are in flight, and not about how many there were: then fewer at once
// help, and a pause for all does not.
func Concurrent(resp *http.Response) bool {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable || stored(resp.Header) {
		return false
	}
	if strings.HasSuffix(first(resp.Header, "Stripe-Rate-Limited-Reason"), "-concurrency") {
		return true
	}
	if resp.StatusCode == http.StatusTooManyRequests && len(resp.Header["Twilio-Concurrent-Requests"]) > 0 {
		return true
	}
	if len(resp.Header["Ratelimit"]) == 0 {
		return false
	}
	a, _ := Read(resp.Header, time.Now(), Options{Dialect: IETF})
	full := false
	for _, q := range a.Quotas {
		switch {
		case q.Remaining != 0:
		case q.Unit == Concurrency:
			full = true
		default:
			return false
		}
	}
	return full
}
