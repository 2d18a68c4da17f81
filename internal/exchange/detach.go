package exchange

// Detach is the same request with a story of its own, for work that may go on after the exchange has ended: whoever reads the record of x then
// never meets somebody who still writes to it. Join adds its story to x while both are there.
func (x *Exchange) Detach() *Exchange {
	d := &Exchange{
		ID: x.ID, OwnID: x.OwnID, Kind: x.Kind, Mode: x.Mode, Start: x.Start, Client: x.Client, Tenant: x.Tenant, Method: x.Method, URL: x.URL, Scheme: x.Scheme,
		Target: x.Target, Policy: x.Policy, Host: x.Host, TraceID: x.TraceID, Trace: x.Trace, Door: x.Door, Informational: x.Informational, Repeats: x.Repeats,
	}
	d.label.Store(x.label.Load())
	return d
}

// Join adds to x what the stages noted in b, once.
func (x *Exchange) Join(b *Exchange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	b.joined = x
	s := &x.story
	if s.Attempts == nil {
		s.Attempts = x.first[:0]
	}
	for _, a := range b.story.Attempts {
		a.N = len(s.Attempts) + 1
		s.Attempts = append(s.Attempts, a)
	}
	s.LimitWait += b.story.LimitWait
	s.Waits = append(s.Waits, b.story.Waits...)
	s.Backoff += b.story.Backoff
	s.Upstream += b.story.Upstream
	if b.story.Breaker != "" {
		s.Breaker = b.story.Breaker
	}
	if b.story.NotRetried != "" {
		s.NotRetried = b.story.NotRetried
	}
	s.Observed = append(s.Observed, b.story.Observed...)
	for _, f := range b.story.Sanitized {
		s.Sanitized = addSanitized(s.Sanitized, f)
	}
	if label := b.label.Load(); label != nil {
		x.label.Store(label)
	}
}
