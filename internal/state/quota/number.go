package quota

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// longest bounds every time that is read, so that it can be added to others and to a date.
const longest = 366 * 24 * time.Hour

// count reads a number of requests or the like: digits, perhaps with a fraction, which is dropped. -1: none.
func count(s string) int64 {
	if n, ok := whole(s); ok {
		return n // it has no blanks
	}
	n, ok := decimal(s)
	if !ok {
		return -1
	}
	return int64(n)
}

// whole reads what most fields are: a few digits, which a float64 holds exactly.
func whole(s string) (n int64, ok bool) {
	if s == "" || len(s) > 15 {
		return 0, false
	}
	for i := range len(s) {
		d := s[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + int64(d)
	}
	return n, true
}

// decimal reads a plain decimal number of at most 18 digits before the point. ParseFloat alone would take NaN, Inf, 1e9 and 1_000 besides.
func decimal(s string) (float64, bool) {
	s = trim(s)
	if n, ok := whole(s); ok {
		return float64(n), true
	}
	digits, _, _ := strings.Cut(s, ".")
	if digits == "" || len(digits) > 18 || len(s) > 40 || strings.Trim(s, "0123456789.") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil
}

// trim takes blanks away at both ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// span is a number of units as a Duration, at most longest.
func span(n float64, unit time.Duration) time.Duration {
	if n >= float64(longest)/float64(unit) {
		return longest
	}
	return time.Duration(math.Ceil(n * float64(unit)))
}

// clock reads reset fields against the clock of the answer that they came with.
type clock struct {
	kind  string      // one of the Resets
	local time.Time   // by our clock
	h     http.Header // says what time it is by the upstream's, where it has a Date; nil: it is the same
}

func newClock(h http.Header, now time.Time, kind string) clock {
	if kind == "" {
		kind = Auto
	}
	return clock{kind, now, h}
}

// now is the time by the upstream's clock. Spans need none, so nobody reads a date for them.
func (c *clock) now() time.Time { return upstreamTime(c.h, c.local) }

// maxSkew is how far an upstream's clock may be from ours and still be taken for a clock.
const maxSkew = 24 * time.Hour

// upstreamTime takes the answer's Date for the upstream's clock where it is there and sane.
func upstreamTime(h http.Header, now time.Time) time.Time {
	if date, ok := httpDate(first(h, "Date")); ok {
		if skew := now.Sub(date); skew < maxSkew && skew > -maxSkew {
			return date
		}
	}
	return now
}

// httpDate reads the three forms of an HTTP date, and two near misses: UTC or a numeric zone in place of GMT.
func httpDate(s string) (time.Time, bool) {
	s = trim(s)
	if at, ok := usualDate(s); ok {
		return at, true
	}
	if s == "" || len(s) > 64 {
		return time.Time{}, false
	}
	if utc, ok := strings.CutSuffix(s, " UTC"); ok {
		s = utc + " GMT"
	}
	at, err := http.ParseTime(s)
	if err != nil {
		at, err = time.Parse(time.RFC1123Z, s)
	}
	return at, err == nil
}

// A bare number of seconds from this on is a date: nobody announces a wait of three years, and such dates begin in 1973. One of milliseconds
// since 1970 would lie beyond the year 30000 if it were taken for seconds.
const (
	leastEpoch       = 1e8
	leastEpochMillis = 1e12
)

// wait is the time until the reset, from 0 to longest; ok is false for what cannot be understood.
func (c *clock) wait(s string) (d time.Duration, ok bool) {
	s = trim(s)
	switch c.kind {
	case Seconds:
		return delta(s, time.Second)
	case Milliseconds:
		return delta(s, time.Millisecond)
	case Epoch:
		return c.epoch(s, time.Second)
	case EpochMillis:
		return c.epoch(s, time.Millisecond)
	case Duration:
		return units(s)
	case Date:
		return c.date(s)
	}
	if n, ok := whole(s); ok && n < leastEpoch {
		return min(time.Duration(n)*time.Second, longest), true // as most are written
	}
	if n, ok := decimal(s); ok {
		switch {
		case n >= leastEpochMillis:
			return c.epoch(s, time.Millisecond)
		case n >= leastEpoch:
			return c.epoch(s, time.Second)
		}
		return span(n, time.Second), true
	}
	if d, ok := c.date(s); ok {
		return d, true
	}
	return units(s)
}

func delta(s string, unit time.Duration) (time.Duration, bool) {
	n, ok := decimal(s)
	return span(n, unit), ok
}

func (c *clock) epoch(s string, unit time.Duration) (time.Duration, bool) {
	n, ok := decimal(s)
	if !ok {
		return 0, false
	}
	per := float64(time.Second / unit)
	return c.left(n/per - float64(c.now().UnixNano())/1e9), true
}

func (c *clock) left(seconds float64) time.Duration {
	// Seconds since 1970 as a float are exact to a microsecond only.
	return span(max(0, math.Round(seconds*1e5)/1e5), time.Second)
}

// date reads RFC 3339, also without seconds, and the three forms of an HTTP date.
func (c *clock) date(s string) (time.Duration, bool) {
	if len(s) > 64 {
		return 0, false
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00"} {
		if at, err := time.Parse(layout, s); err == nil {
			return c.until(at), true
		}
	}
	at, ok := httpDate(s)
	if !ok {
		return 0, false
	}
	return c.until(at), true
}

// until is the time to a date: 0 for one in the past.
func (c *clock) until(at time.Time) time.Duration { return min(max(0, at.Sub(c.now())), longest) }

// units reads 6m0s, 12ms, 1d2h.
func units(s string) (time.Duration, bool) {
	if len(s) > 40 || strings.ContainsAny(s, "+-") {
		return 0, false
	}
	days, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		days, rest = "0", s
	}
	n, ok := decimal(days)
	if !ok {
		return 0, false
	}
	total := span(n, 24*time.Hour)
	if rest == "" && hasDays {
		return total, true
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, false
	}
	return min(total+min(d, longest), longest), true
}
