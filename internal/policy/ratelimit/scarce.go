package ratelimit

import (
	"net/http"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// Scarce tells of a request whether a second one like it, which nobody needs, had better not be sent: the gate is closed, less than a tenth (or than
// two) of an announced quota is left, or a limit has no token to spare.
func (r *Room) Scarce(scope state.Scope, levels []Level) func(*exchange.Exchange, *http.Request) bool {
	g := r.gateOf(scope, levels)
	var limits []limit
	for _, l := range levels {
		if l.Config.Limits() && l.Config.Mode != setting.Observe {
			limits = append(limits, r.limitOf(scope, l))
		}
	}
	return func(x *exchange.Exchange, req *http.Request) bool {
		if g != nil && !g.observes() && (g.knows() || !g.idle()) && g.of(x, req).Scarce(req) {
			return true
		}
		for i := range limits {
			if s := limits[i].of(r, x, req).Status(); s.Waiting > 0 || s.Tokens < 1 {
				return true
			}
		}
		return false
	}
}
