package quota

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return h
	}
	for _, c := range []struct {
		header http.Header
		unit   string
		want   time.Duration
		ok     bool
	}{
		{header(), "s", 0, false},
		{header("Retry-After", "120"), "s", 2 * time.Minute, true},
		{header("Retry-After", "120"), "", 2 * time.Minute, true},
		{header("Retry-After", " 5 "), "s", 5 * time.Second, true},
		{header("Retry-After", "1.5"), "s", 1500 * time.Millisecond, true},
		{header("Retry-After", "0"), "s", 0, true},
		{header("Retry-After", "250"), "ms", 250 * time.Millisecond, true},
		{header("Retry-After", "99999999999999"), "s", longest, true},
		{header("Retry-After", "9999999999999999999"), "s", longest, true},
		{header("Retry-After", "99999999999999999999.9"), "s", 0, false},
		{header("Retry-After", "Sun, 01 Mar 2037 12:00:30 GMT", "Date", "Sun, 01 Mar 2037 12:00:00 GMT"), "s", 30 * time.Second, true},
		{header("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"), "s", longest, true},
		{header("Retry-After", "Sun, 01 Mar 2026 12:00:30 UTC"), "s", 30 * time.Second, true},
		{header("Retry-After", "Sun, 01 Mar 2026 13:00:30 +0100"), "s", 30 * time.Second, true},
		{header("Retry-After", "Sun Mar  1 12:00:30 2026"), "s", 30 * time.Second, true},
		{header("Retry-After", "Sun, 01 Mar 2026 12:00:30 GMT", "Date", "Thu, 01 Jan 1970 00:00:00 GMT"), "s", 30 * time.Second, true},
		{header("Retry-After", "Sun, 01 Mar 2026 12:00:30 GMT", "Date", "yesterday"), "s", 30 * time.Second, true},
		{header("x-amz-retry-after", "1500"), "s", 1500 * time.Millisecond, true},
		{header("retry-after-ms", "10", "x-ms-retry-after-ms", "40", "Retry-After", "1"), "s", 40 * time.Millisecond, true},
		{header("retry-after-ms", "99999999999999999"), "s", longest, true},
		{header("X-RateLimit-Retry-After", "7"), "ms", 7 * time.Second, true},
		{header("X-RateLimit-Retry-After", "7", "Retry-After", "9"), "s", 9 * time.Second, true},
		{header("X-RateLimit-Retry-After", "7", "Retry-After", "soon"), "s", 7 * time.Second, true},
		{header("Retry-After", "Sun, 01 Mar 2026 12:00:30 GMT"), "s", 30 * time.Second, true},
		{header("Retry-After", "Sun, 01 Mar 2026 12:00:30 GMT"), "ms", 30 * time.Second, true},
		{header("Retry-After", "Sunday, 01-Mar-26 12:00:30 GMT"), "s", 30 * time.Second, true},
		{header("Retry-After", "Sun, 01 Mar 2026 11:00:00 GMT"), "s", 0, true},
		{header("Retry-After", "Sun, 01 Mar 2026 13:00:30 GMT", "Date", "Sun, 01 Mar 2026 13:00:00 GMT"), "s", 30 * time.Second, true},
		{header("Retry-After", "Sun, 01 Mar 2026 12:00:30 GMT", "Date", "Sun, 01 Mar 2026 11:00:00 GMT", "Age", "3600"), "s", 30 * time.Second, true},
		{header("Retry-After", "3", "Retry-After", "7"), "s", 7 * time.Second, true},
		{header("Retry-After", "soon", "Retry-After", "7"), "s", 7 * time.Second, true},
		{header("Retry-After", "1", "retry-after-ms", "620.5"), "s", 620500 * time.Microsecond, true},
		{header("Retry-After", "1", "retry-after-ms", "x"), "s", time.Second, true},
		{header("x-ms-retry-after-ms", "40"), "s", 40 * time.Millisecond, true},
		{header("Retry-After", "-1"), "s", 0, false},
		{header("Retry-After", "+1"), "s", 0, false},
		{header("Retry-After", ""), "s", 0, false},
		{header("Retry-After", "1e3"), "s", 0, false},
		{header("Retry-After", "0x10"), "s", 0, false},
		{header("Retry-After", "NaN"), "s", 0, false},
		{header("Retry-After", "Inf"), "s", 0, false},
		{header("Retry-After", "1.2.3"), "s", 0, false},
		{header("Retry-After", "5s"), "s", 0, false},
		{header("Retry-After", "2026-03-01T12:00:30Z"), "s", 0, false},
	} {
		if got, ok := RetryAfter(c.header, now, c.unit); got != c.want || ok != c.ok {
			t.Errorf("%v in %q: %v, %v; want %v, %v", c.header, c.unit, got, ok, c.want, c.ok)
		}
	}
}

// FuzzRetryAfter: nothing that an upstream writes makes a wait negative or endless, or a wait out of nothing.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "-1", "1.5", "99999999999999999999", "Sun, 01 Mar 2026 12:00:30 GMT", "Sun, 01 Mar 0000 12:00:30 GMT", ".", ""} {
		f.Add(s, "Sun, 01 Mar 2026 12:00:00 GMT", "s")
		f.Add(s, "Fri, 31 Dec 9999 23:59:59 GMT", "ms")
	}
	f.Fuzz(func(t *testing.T, value, date, unit string) {
		wait, ok := RetryAfter(http.Header{"Retry-After": {value}, "Date": {date}}, time.Unix(1772366400, 0), unit)
		if wait < 0 || wait > longest || !ok && wait != 0 {
			t.Fatalf("%q (%q): %v, %v", value, date, wait, ok)
		}
	})
}

func BenchmarkRetryAfter(b *testing.B) {
	h, now := http.Header{"Retry-After": {"30"}}, time.Now()
	b.ReportAllocs()
	for b.Loop() {
		RetryAfter(h, now, "s")
	}
}
