package hedge

import (
	"context"
	"net/http"
	"testing"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// atOnce is a stage whose upstream answers at once.
func atOnce(b *testing.B, c Config, waits bool) http.RoundTripper {
	resp, body := &http.Response{StatusCode: 200}, http.MaxBytesReader(nil, http.NoBody, 1)
	var keeper state.Keeper
	budgets := state.NewTable(0, func(state.Key) *state.Budget { return state.NewBudget(0.2, 3, 10*time.Second) })
	stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, c, budgets, nil).Wrap(
		exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
			x := exchange.From(r.Context())
			if waits {
				r.Context().Done()
			}
			x.EndAttempt(x.BeginAttemptIn(r.Context(), time.Now()), time.Now(), 200, "")
			resp.Body = body
			return resp, nil
		}))
	b.ReportAllocs()
	return stage
}

func benchmark(b *testing.B, c Config, method string, waits bool) {
	stage := atOnce(b, c, waits)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	r := newRequest(ctx, newExchange(), method)
	x := exchange.From(r.Context())
	for b.Loop() {
		x.Update(func(s *exchange.Story) { s.Attempts = s.Attempts[:0] })
		resp, err := stage.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		_ = resp.Body.Close()
	}
}

func BenchmarkAtOnce(b *testing.B)       { benchmark(b, Default(), "GET", false) }
func BenchmarkAtOnceFixed(b *testing.B)  { benchmark(b, fixed(time.Second, 1), "GET", false) }
func BenchmarkNotHedgeable(b *testing.B) { benchmark(b, Default(), "POST", false) }

// Somebody below waits for the end of the attempt, as whoever sends it does; the first is what the second is to be compared with.
func BenchmarkNotHedgeableWaited(b *testing.B) { benchmark(b, Default(), "POST", true) }
func BenchmarkAtOnceWaited(b *testing.B)       { benchmark(b, Default(), "GET", true) }
