package exchange

import (
	"testing"
	"time"
)

// Each attempt of a sampled exchange has a span of its own; the first one's is that which the request carries from the front on.
func TestAttemptsHaveSpans(t *testing.T) {
	x := &Exchange{Trace: Trace{ID: [16]byte{1}, Span: NewSpan(), First: NewSpan(), Flags: 1, Sampled: true, Carried: true}}
	now := time.Unix(1000, 0)
	first, second := x.BeginAttempt(now), x.BeginAttempt(now)
	s := x.Story().Attempts
	if s[first].Span != x.Trace.First || s[second].Span == x.Trace.First || s[second].Span == [8]byte{} || s[second].Span == x.Trace.Span {
		t.Errorf("spans %x and %x of %+v", s[first].Span, s[second].Span, x.Trace)
	}
	if got := x.Traceparent(first); got != "" {
		t.Errorf("the first attempt's request is changed: %s", got)
	}
	if got := x.Traceparent(second); got != x.Trace.Traceparent(s[second].Span) || len(got) != traceparentLength {
		t.Errorf("the second attempt carries %q", got)
	}
	x.SwapSpans(first, second)
	if now := x.Story().Attempts; now[second].Span != x.Trace.First || now[first].Span == x.Trace.First {
		t.Error("what was sent once more by itself lost its span")
	}
}

// Where nobody reads the spans none are made, and all attempts carry what the front wrote.
func TestUnsampledAttemptsHaveNoSpans(t *testing.T) {
	for name, trace := range map[string]Trace{"off": {}, "unsampled": {ID: [16]byte{1}, Span: NewSpan(), First: NewSpan(), Carried: true}} {
		x := &Exchange{Trace: trace}
		x.BeginAttempt(time.Unix(1, 0))
		second := x.BeginAttempt(time.Unix(1, 0))
		x.Waited(time.Second)
		s := x.Story()
		if x.Traceparent(second) != "" || s.Attempts[second].Span != [8]byte{} || s.Waits != nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// Waits are kept one by one up to a bound, and their sum beyond it.
func TestWaitsAreBounded(t *testing.T) {
	x := &Exchange{Trace: Trace{Sampled: true}}
	for range 1000 {
		x.Waited(time.Second)
	}
	if s := x.Story(); len(s.Waits) != maxWaits || s.LimitWait != 1000*time.Second {
		t.Errorf("%d waits, %v", len(s.Waits), s.LimitWait)
	}
}

func TestNewSpanIsNeverZero(t *testing.T) {
	seen := map[[8]byte]bool{{}: true}
	for range 1000 {
		id := NewSpan()
		if seen[id] {
			t.Fatalf("%x comes twice, or is zero", id)
		}
		seen[id] = true
	}
}
