package exchange

import "slices"

// Sanitized is what was found in the traffic itself, and what became of it; never the value.
type Sanitized struct {
	Where  string // request.url, request.headers, request.body, request.trailers, response.headers, response.body, response.trailers
	Kind   string // pan, cvv, track, secret; unreadable: content that could not be looked at
	Action string // blocked, masked, reported, observed, passed
	Count  int
}

// Sanitize adds to what was found. What was noted before is never changed in place: copies of the story share it. What is found in the body of an answer
// comes after the stories were joined, and belongs to the client's all the same.
func (x *Exchange) Sanitize(s Sanitized) {
	x.mu.Lock()
	x.story.Sanitized = addSanitized(x.story.Sanitized, s)
	joined := x.joined
	x.mu.Unlock()
	if joined != nil {
		joined.Sanitize(s)
	}
}

func addSanitized(list []Sanitized, s Sanitized) []Sanitized {
	i := slices.IndexFunc(list, func(o Sanitized) bool { return o.Where == s.Where && o.Kind == s.Kind && o.Action == s.Action })
	if i < 0 {
		return append(slices.Clip(list), s)
	}
	list = slices.Clone(list)
	list[i].Count += s.Count
	return list
}
