package retry

import (
	"maps"
	"net/http"
)

// apart is a copy of an answer with trailers of its own, for whoever goes on with the head while another goroutine still reads the body: the transport
// writes to those of the original.
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
