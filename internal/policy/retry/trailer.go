package retry

import (
	"maps"
	"net/http"
)

// apart is a copy of an answer whose body somebody reads on whom whoever gets the copy need not wait for: the transport writes to the trailers of what it
// is a copy of.
func apart(resp *http.Response) *http.Response {
	own := *resp
	if resp.Trailer != nil {
		own.Trailer = make(http.Header, len(resp.Trailer))
		for name := range resp.Trailer {
			own.Trailer[name] = nil
		}
	}
	return &own
}

// trail gives the copy the trailers, behind the body's end.
func trail(own, from *http.Response) {
	if own.Trailer == nil {
		own.Trailer = from.Trailer
		return
	}
	maps.Copy(own.Trailer, from.Trailer)
}
