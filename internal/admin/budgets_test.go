package admin

import (
	"encoding/json"
	"slices"
	"testing"

	"httpowerd/internal/policy/retry"
	"httpowerd/internal/state"
)

// TestBudgets: a host shows the budgets of its policies, routes' too, in a lasting order and no others.
func TestBudgets(t *testing.T) {
	r := newRig(t, `hosts: {a.example.com: {}, "*.example.org": {}}`)
	left := func(policy, authority string, n float64) retry.BudgetStatus {
		return retry.BudgetStatus{Policy: policy, Authority: authority, BudgetStatus: state.BudgetStatus{Ratio: 0.2, Firsts: 10, Retries: 2, Left: n}}
	}
	r.budgets = []retry.BudgetStatus{left("a.example.com#reports", "a.example.com:443", 2), left("*.example.org", "y.example.org:443", 3),
		left("a.example.com", "a.example.com:443", 1), left("*.example.org", "x.example.org:443", 4)}
	for name, want := range map[string][]float64{"a.example.com": {1, 2}, "*.example.org": {4, 3}, "y.example.org": {3}, "z.example.org": {}} {
		var view struct {
			Budgets []struct {
				Authority, Policy string
				Ratio, Left       float64
				Firsts, Retries   int
			} `json:"retry_budgets"`
		}
		if err := json.Unmarshal(r.ask("GET", "/api/v1/hosts/"+name, "").Body.Bytes(), &view); err != nil {
			t.Fatal(err)
		}
		var got []float64
		for _, b := range view.Budgets {
			got = append(got, b.Left)
			if b.Ratio != 0.2 || b.Firsts != 10 || b.Retries != 2 {
				t.Errorf("%+v", b)
			}
		}
		if !slices.Equal(got, want) || view.Budgets == nil {
			t.Errorf("%s shows %+v; want those with %v left", name, view.Budgets, want)
		}
	}
}
