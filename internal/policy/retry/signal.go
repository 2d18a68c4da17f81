package retry

import (
	"net/http"
	"strings"
)

// shouldRetry is the field by which an upstream, or this proxy, says whether a request is worth another attempt. Several SDKs obey it.
const shouldRetry = "X-Should-Retry"

// word is what an answer says about another attempt.
type word uint8

const (
	silent word = iota
	yes
	no
)

// signal is the answer's word, in X-Should-Retry or the vendor's own field. Of two words no holds.
func (p *plan) signal(h http.Header) word {
	w := read(h[shouldRetry])
	if p.config.Signal != "" {
		w = max(w, read(h[p.config.Signal]))
	}
	return w
}

func read(values []string) (w word) {
	for _, v := range values {
		switch v = strings.Trim(v, " \t"); {
		case strings.EqualFold(v, "false"):
			return no
		case strings.EqualFold(v, "true"):
			w = yes
		}
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
