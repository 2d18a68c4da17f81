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
func atOnce(b *testing.B, c Config, waits waiting) http.RoundTripper {
	resp, body := &http.Response{StatusCode: 200}, http.MaxBytesReader(nil, http.NoBody, 1)
	var keeper state.Keeper
	budgets := state.NewTable(0, func(state.Key) *state.Budget { return state.NewBudget(0.2, 3, 10*time.Second) })
	stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, c, budgets, nil, nil).Wrap(
		exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
			x := exchange.From(r.Context())
			switch waits {
			case channel:
				r.Context().Done()
			case followed:
				var heir exchange.Heir
				heir.Follow(r.Context(), deaf{})
				defer heir.Leave()
			}
			x.EndAttempt(x.BeginAttemptIn(r.Context(), time.Now()), time.Now(), 200, "")
			resp.Body = body
			return resp, nil
		}))
	b.ReportAllocs()
	return stage
}

// How somebody below waits for the attempt's end.
type waiting int

const (
	nobody   waiting = iota
	channel          // by a channel, as for a limit
	followed         // as whoever sends it does
)

type deaf struct{}

func (deaf) ParentEnded() {}

func benchmark(b *testing.B, c Config, method string, waits waiting) {
	stage := atOnce(b, c, waits)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	r := newRequest(ctx, newExchange(), method)
	above := new(exchange.Branch) // timeout's, in most chains
	above.From(r.Context())
	defer above.Cancel(nil)
	r = r.WithContext(above)
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

func BenchmarkAtOnce(b *testing.B)       { benchmark(b, Default(), "GET", nobody) }
func BenchmarkAtOnceFixed(b *testing.B)  { benchmark(b, fixed(time.Second, 1), "GET", nobody) }
func BenchmarkAtOnceWaited(b *testing.B) { benchmark(b, Default(), "GET", channel) }
func BenchmarkAtOnceSent(b *testing.B)   { benchmark(b, Default(), "GET", followed) }

// BenchmarkNotHedgeable is what the others are to be compared with.
func BenchmarkNotHedgeable(b *testing.B) { benchmark(b, Default(), "POST", nobody) }
