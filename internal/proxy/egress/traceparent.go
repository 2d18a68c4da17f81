package egress

import (
	"maps"
	"net/http"

	"httpowerd/internal/exchange"
)

// carrying is the request as the attempt of that index sends it: with its own place in a trace. The fields are copied then: others may read them.
func carrying(x *exchange.Exchange, index int, r *http.Request) *http.Request {
	own := x.Traceparent(index)
	if own == "" {
		return r
	}
	c := *r
	c.Header = maps.Clone(r.Header)
	c.Header["Traceparent"] = []string{own}
	return &c
}
