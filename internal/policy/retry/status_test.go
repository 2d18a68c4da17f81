package retry

import (
	"context"
	"net/http"
	"testing"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// TestBudgets: what is listed is what is in use, and a reload neither loses nor doubles it.
func TestBudgets(t *testing.T) {
	room, keeper := New(nil), &state.Keeper{}
	defer keeper.Close()
	load := func(budgets map[string]Budget) map[string]http.RoundTripper {
		g, stages := keeper.Begin(), map[string]http.RoundTripper{}
		for policy, b := range budgets {
			c, scope := Default(), state.Scope{Generation: g, Policy: policy}
			c.Budget, c.Attempts = b, 2
			room.TunnelStage(scope, c) // shares it
			stages[policy] = room.Stage(scope, c).Wrap(exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusInternalServerError, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
			}))
		}
		g.Commit()
		return stages
	}
	send := func(next http.RoundTripper) {
		x := &exchange.Exchange{Kind: exchange.KindRequest, Method: http.MethodGet, Target: exchange.Authority{Host: "api.example.com", Port: 443}}
		r, _ := http.NewRequestWithContext(exchange.NewContext(context.Background(), x), http.MethodGet, "https://api.example.com/", nil)
		if resp, err := next.RoundTrip(r); err != nil || resp.StatusCode != http.StatusInternalServerError {
			t.Fatal(resp, err)
		}
	}
	listed := func() map[string]BudgetStatus {
		out := map[string]BudgetStatus{}
		room.Budgets(func(s BudgetStatus) {
			if _, twice := out[s.Policy]; twice {
				t.Errorf("%s is listed twice", s.Policy)
			}
			out[s.Policy] = s
		})
		return out
	}
	small, large := Default().Budget, Default().Budget
	small.Ratio, small.Floor, large.Floor = 1, 0, 100
	stages := load(map[string]Budget{"a": small, "b": large})
	send(stages["a"])
	send(stages["b"])
	if got := listed(); len(got) != 2 || got["a"].Firsts != 1 || got["a"].Retries != 1 || got["a"].Left != 0 || got["b"].Left != 999 ||
		got["a"].Authority != "api.example.com:443" || got["a"].TTL != 10 {
		t.Errorf("%+v", got)
	}
	load(map[string]Budget{"a": small})
	if got := listed(); len(got) != 1 || got["a"].Retries != 1 {
		t.Errorf("after a reload that drops b: %+v", got)
	}
	small.Ratio = 0
	stages = load(map[string]Budget{"a": small})
	send(stages["a"])
	got := listed()["a"]
	if got.Firsts != 1 || got.Retries != 0 || len(got.Changes) != 1 || got.Changes[0].To != state.Exhausted {
		t.Errorf("after a reload that changes it, and a refusal: %+v", got)
	}
}
