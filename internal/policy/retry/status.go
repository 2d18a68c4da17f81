package retry

import "httpowerd/internal/state"

// BudgetStatus is how one budget stands.
type BudgetStatus struct {
	Policy    string `json:"policy"`
	Tenant    string `json:"tenant,omitempty"`
	Authority string `json:"authority"`
	state.BudgetStatus
}

// budgets are one policy's, for as long as they are in use.
type budgets struct {
	room   *Room
	policy string
	table  *state.Table[*state.Budget]
}

// budgets makes a policy's known to Budgets, and is them. Both are kept for as long as the settings are the same.
func (r *Room) budgets(scope state.Scope, c Budget) *state.Table[*state.Budget] {
	table := state.Budgets(scope, c.Ratio, c.Floor, c.TTL.D())
	state.Keep(scope, "retry", c, func() *budgets {
		b := &budgets{room: r, policy: scope.Policy, table: table}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.known == nil {
			r.known = map[*budgets]struct{}{}
		}
		r.known[b] = struct{}{}
		return b
	})
	return table
}

// Close forgets them.
func (b *budgets) Close() error {
	b.room.mu.Lock()
	delete(b.room.known, b)
	b.room.mu.Unlock()
	return nil
}

// Budgets calls f for every budget there is now, in no order. f must not use the Room.
func (r *Room) Budgets(f func(BudgetStatus)) {
	r.mu.Lock()
	all := make([]*budgets, 0, len(r.known))
	for b := range r.known {
		all = append(all, b)
	}
	r.mu.Unlock()
	for _, b := range all {
		b.table.Each(func(k state.Key, budget *state.Budget) {
			f(BudgetStatus{Policy: b.policy, Tenant: k.Tenant, Authority: k.Authority.String(), BudgetStatus: budget.Status()})
		})
	}
}
