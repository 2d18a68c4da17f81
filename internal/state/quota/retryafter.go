package quota

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// RetryAfter is the wait that an answer asks for: the Retry-After field (RFC 9110 section 10.2.3) as a number of unit ("s", or "ms") or as a
// date, or a field that says by its name that it counts milliseconds. A date is taken against the answer's own Date, so that the clocks need
// not agree; one in the past is no wait. ok is false where there is no field or none that can be understood. Of several values the longest
// counts; no wait is longer than 366 days, so that it can be added to a date.
func RetryAfter(h http.Header, now time.Time, unit string) (wait time.Duration, ok bool) {
	for _, name := range millisecondFields {
		for _, v := range h[name] {
			if d, valid := number(v, time.Millisecond); valid {
				wait, ok = max(wait, d), true
			}
		}
	}
	if ok {
		return wait, true
	}
	scale := time.Second
	if unit == "ms" {
		scale = time.Millisecond
	}
	for _, v := range h["Retry-After"] {
		d, valid := number(v, scale)
		if !valid {
			d, valid = dated(v, h, now)
		}
		if valid {
			wait, ok = max(wait, d), true
		}
	}
	if ok {
		return wait, true
	}
	for _, v := range h["X-Ratelimit-Retry-After"] { // of vendors that have no Retry-After
		if d, valid := number(v, time.Second); valid {
			wait, ok = max(wait, d), true
		}
	}
	return wait, ok
}

// AsksToWait tells whether there is a Retry-After, or one of its finer forms, whatever it says.
func AsksToWait(h http.Header) bool {
	return h["Retry-After"] != nil || slices.ContainsFunc(millisecondFields[:], func(name string) bool { return h[name] != nil })
}

// millisecondFields are vendors' finer forms of Retry-After, in net/http's spelling.
var millisecondFields = [...]string{"Retry-After-Ms", "X-Ms-Retry-After-Ms", "X-Amz-Retry-After"}

// number reads a plain decimal number. However large it is, it asks for a wait: one too large to reckon with is the longest there is.
func number(s string, unit time.Duration) (time.Duration, bool) {
	if s = trim(s); len(s) > 18 && len(s) <= 40 && strings.Trim(s, "0123456789") == "" {
		return longest, true
	}
	return delta(s, unit)
}

// dated reads an HTTP date. The Date of an answer from a store tells when that was made, not what time it is. Where the clocks are far apart, ours
// may be the wrong one: the upstream's is believed if the two dates that it wrote lie near each other.
func dated(s string, h http.Header, now time.Time) (time.Duration, bool) {
	at, ok := httpDate(s)
	if !ok {
		return 0, false
	}
	if _, stored := h["Age"]; !stored {
		now = upstreamTime(h, now)
		if date, ok := httpDate(first(h, "Date")); ok && at.Sub(date).Abs() < maxSkew {
			now = date
		}
	}
	c := clock{local: now}
	return c.until(at), true
}
