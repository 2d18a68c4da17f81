package retry

import (
	"net/http"
	"strings"
	"testing"

	"httpowerd/internal/exchange"
)

func TestRepeats(t *testing.T) {
	for _, c := range []struct {
		field, value string
		want         int
	}{
		{"x-stainless-retry-count", "0", 0}, {"x-stainless-retry-count", "2", 2}, {"X-Stainless-Retry-Count", " 1 ", 1},
		{"x-stainless-retry-count", "", 0}, {"x-stainless-retry-count", "-1", 0}, {"x-stainless-retry-count", "1.5", 0}, {"x-stainless-retry-count", "two", 0},
		{"x-stainless-retry-count", "99999999999999999999999999", maxRepeats},
		{"amz-sdk-request", "attempt=1; max=3", 0}, {"amz-sdk-request", "attempt=3; max=3", 2}, {"amz-sdk-request", "ttl=20260101T000000Z; attempt=2; max=3", 1},
		{"amz-sdk-request", "attempt=", 0}, {"amz-sdk-request", "max=3", 0}, {"amz-sdk-request", "attempt=2x", 0}, {"amz-sdk-request", "attempt=0", 0},
		{"grpc-previous-rpc-attempts", "1", 1}, {"x-envoy-attempt-count", "1", 0}, {"x-envoy-attempt-count", "2", 1}, {"x-envoy-attempt-count", "0", 0},
		{"x-goog-api-client", "gl-go/1.26 gccl/1.2 gccl-invocation-id/ab gccl-attempt-count/3", 2}, {"x-goog-api-client", "gl-go/1.26 gccl/1.2", 0},
		{"x-goog-api-client", "gccl-attempt-count/2 gl-go/1.26", 1}, {"x-other", "7", 0},
	} {
		h := http.Header{}
		h.Set(c.field, c.value)
		if got := repeats(h); got != c.want {
			t.Errorf("%s: %q is %d; want %d", c.field, c.value, got, c.want)
		}
	}
	h := http.Header{"X-Envoy-Attempt-Count": {"2"}, "X-Stainless-Retry-Count": {"3"}}
	if got := repeats(h); got != 3 {
		t.Errorf("of two accounts: %d", got)
	}
	for i := range counters {
		if f := counters[i].field; f != http.CanonicalHeaderKey(f) {
			t.Errorf("%s is never found", f)
		}
	}
}

// FuzzSignals: whatever a client or an upstream writes, a count is bounded, and only the words true and false say anything.
func FuzzSignals(f *testing.F) {
	for _, s := range []string{"", "0", "1", "-1", "attempt=2; max=3", "attempt-count/2", "attempt=attempt=1", "true", "false", " TRUE", "18446744073709551616", "1\x00"} {
		f.Add(s, s)
	}
	f.Add("false", "true")
	p := &plan{config: Config{Signal: "Vendor-Should-Retry"}}
	f.Fuzz(func(t *testing.T, a, b string) {
		for i := range counters {
			if n := repeats(http.Header{counters[i].field: {a, b}}); n < 0 || n > maxRepeats || n > 0 && !strings.ContainsAny(a, "123456789") {
				t.Fatalf("%s: %q is %d", counters[i].field, a, n)
			}
		}
		is := func(s, word string) bool { return strings.EqualFold(strings.Trim(s, " \t"), word) }
		want := exchange.Unsaid
		if is(a, "true") || is(b, "true") {
			want = exchange.Again
		}
		if is(a, "false") || is(b, "false") {
			want = exchange.Final
		}
		if got := p.signal(http.Header{"X-Should-Retry": {a}, "Vendor-Should-Retry": {b}}); got != want {
			t.Fatalf("%q and %q say %d; want %d", a, b, got, want)
		}
		if got := p.signal(http.Header{"X-Should-Retry": {a, b}}); got != want {
			t.Fatalf("%q and %q in one field say %d; want %d", a, b, got, want)
		}
	})
}
