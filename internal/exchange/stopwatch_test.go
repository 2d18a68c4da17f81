package exchange

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestStopwatch: each one on the way to whoever sends a request is told that it was written, and goes by the last time.
func TestStopwatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://a.example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		Written(ctx) // to nobody
		var outer, inner Stopwatch
		sent := outer.Start(r)
		type key struct{}
		sent = inner.Start(sent.WithContext(context.WithValue(sent.Context(), key{}, 1)))
		if sent.Method != r.Method || sent.URL != r.URL || sent.Context().Value(key{}) != 1 {
			t.Errorf("it is another request: %+v", sent)
		}
		is := func(want time.Duration, written bool) {
			t.Helper()
			for _, s := range []*Stopwatch{&outer, &inner} {
				if d, ok := s.Took(); d < want-time.Microsecond || d > want+time.Microsecond || ok != written {
					t.Errorf("%v, %v; want %v, %v", d, ok, want, written)
				}
			}
		}
		is(0, false)
		time.Sleep(time.Second)
		Written(sent.Context())
		time.Sleep(2 * time.Second)
		is(2*time.Second, true)
		Written(sent.Context()) // on another connection
		time.Sleep(time.Second)
		is(time.Second, true)
		cancel()
		if sent.Context().Err() == nil {
			t.Error("it does not end with its parent")
		}
	})
}
