package retry

import (
	"net/http"
	"slices"

	"httpowerd/internal/exchange"
)

// shouldRetry is the field by which an upstream, or this proxy, says whether a request is worth another attempt. Several SDKs obey it.
const shouldRetry = "X-Should-Retry"

// signal is the answer's word, in X-Should-Retry or the vendor's own field.
func (p *plan) signal(h http.Header) exchange.Verdict {
	w := exchange.ShouldRetry(h[shouldRetry])
	if p.config.Signal != "" {
		w = max(w, exchange.ShouldRetry(h[p.config.Signal]))
	}
	return w
}

// judgement is what the answer of an attempt that failed for a reason ("": it did not) asks for. A failed status says nothing by itself where it is one
// of the usual ones; one that somebody listed besides does.
func (p *plan) judgement(resp *http.Response, reason string) exchange.Verdict {
	switch {
	case reason == exchange.ReasonPredicate:
		return exchange.Again
	case resp.StatusCode < firstError:
		return exchange.Unsaid
	}
	w := p.signal(resp.Header)
	if w == exchange.Unsaid && reason == exchange.ReasonStatus && !slices.Contains(usualStatuses, resp.StatusCode) {
		return exchange.Again
	}
	return w
}

// forbid tells programs that would go on retrying by themselves not to.
func (p *plan) forbid(h http.Header) {
	h[shouldRetry] = []string{"false"}
	if p.config.Signal != "" {
		h[p.config.Signal] = []string{"false"}
	}
}
