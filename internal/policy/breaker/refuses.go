package breaker

import (
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// Refuses tells whether requests of a policy would be refused now. It makes no breaker, and changes none.
func (r *Room) Refuses(policy string, k state.Key) bool {
	r.mu.Lock()
	var groups []*group
	for g := range r.groups {
		if g.policy == policy && g.config.Load().Mode == setting.Enforce {
			groups = append(groups, g)
		}
	}
	r.mu.Unlock()
	for _, g := range groups {
		if c, ok := g.table.Peek(k); ok && c.look() != nil {
			return true
		}
	}
	return false
}
