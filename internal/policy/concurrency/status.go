package concurrency

import "httpowerd/internal/state"

// Status is how one bulkhead stands.
type Status struct {
	Level     string        `json:"level"` // that wrote the bound
	Authority string        `json:"authority,omitempty"`
	Pattern   string        `json:"pattern,omitempty"` // in place of Authority, with scope: pattern
	Max       int           `json:"max"`               // as it is written
	Adaptive  string        `json:"adaptive"`
	Limit     int           `json:"limit"` // places that there are now, with those that an adaptive limit does not count
	Held      int           `json:"held"`
	Begun     int           `json:"begun"` // of Held, whose answer has begun: a limit that adapts does not count them
	Waiting   int           `json:"waiting"`
	Changes   []state.Event `json:"changes,omitempty"` // the last ones of the limit, without those, oldest first
}

// Status calls f for every bulkhead there is now, in no order. f must not use the Room.
func (r *Room) Status(f func(Status)) {
	r.each(func(b *bulkheads, k state.Key, h *bulkhead) {
		c := b.config.Load()
		s := Status{Level: b.level, Max: c.Max, Adaptive: c.Adaptive.String(), Changes: h.recent.List()}
		s.Held, s.Limit, s.Waiting = h.Held()
		s.Begun = int(h.governor.taken.Load())
		if k.Authority.Port == 0 {
			s.Pattern = k.Authority.Host
		} else {
			s.Authority = k.Authority.String()
		}
		f(s)
	})
}

func (r *Room) each(f func(*bulkheads, state.Key, *bulkhead)) {
	r.mu.Lock()
	all := make([]*bulkheads, 0, len(r.all))
	for b := range r.all {
		all = append(all, b)
	}
	r.mu.Unlock()
	for _, b := range all {
		b.table.Each(func(k state.Key, h *bulkhead) { f(b, k, h) })
	}
}
