package retry

import (
	"io"
	"net/http"
	"testing"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// TestTrailersOfARestoredAnswer: what reads a failed answer's body meanwhile may come to its trailers while the client is already given its head.
func TestTrailersOfARestoredAnswer(t *testing.T) {
	failed := &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, ContentLength: -1, Trailer: http.Header{"X-Sum": nil}}
	body := trailing{newClient(), failed.Trailer}
	body.pieces <- "sorry"
	failed.Body = body
	var keeper state.Keeper
	attempts := 0
	stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, Default()).Wrap(exchange.RoundTripperFunc(func(*http.Request) (*http.Response, error) {
		if attempts++; attempts == 1 {
			return failed, nil
		}
		return nil, exchange.Refuse(exchange.BreakerOpen, "it is open")
	}))
	resp, err := stage.RoundTrip(request(t.Context(), newExchange("GET"), nil))
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatal(resp, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		close(body.pieces)
	}()
	for range 1000 { // as a head is written
		for name, values := range resp.Trailer {
			if name != "X-Sum" || values != nil {
				t.Errorf("before the body's end: %v", resp.Trailer)
			}
		}
	}
	<-ended
	text, err := io.ReadAll(resp.Body)
	if string(text) != "sorry" || err != nil || resp.Trailer.Get("X-Sum") != "42" {
		t.Errorf("%q, %v, %v", text, err, resp.Trailer)
	}
	_ = resp.Body.Close()
}
