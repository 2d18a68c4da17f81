package retry

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

func BenchmarkSuccess(b *testing.B) {
	resp := &http.Response{StatusCode: 200, Body: http.NoBody}
	var keeper state.Keeper
	stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, Default()).Wrap(
		exchange.RoundTripperFunc(func(*http.Request) (*http.Response, error) { return resp, nil }))
	r := request(b.Context(), newExchange("GET"), nil)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = stage.RoundTrip(r)
	}
}

// benchStage is a stage over an upstream that reads the request and answers 200, and a POST of eleven bytes for it.
func benchStage(b *testing.B, c Config) (http.RoundTripper, *http.Request) {
	resp := &http.Response{StatusCode: 200, Body: http.NoBody}
	var keeper state.Keeper
	buf := make([]byte, 4096)
	stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, c).Wrap(
		exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
			for {
				if _, err := r.Body.Read(buf); err != nil {
					return resp, r.Body.Close()
				}
			}
		}))
	r := request(b.Context(), newExchange("POST"), nil)
	r.ContentLength = 11
	return stage, r
}

func BenchmarkSuccessWithBody(b *testing.B) {
	resp := &http.Response{StatusCode: 200, Body: http.NoBody}
	var keeper state.Keeper
	buf := make([]byte, 4096)
	stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, Default()).Wrap(
		exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
			for {
				if _, err := r.Body.Read(buf); err != nil {
					return resp, r.Body.Close()
				}
			}
		}))
	text := strings.Repeat("x", 1024)
	r := request(b.Context(), newExchange("POST"), nil)
	r.ContentLength = int64(len(text))
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(strings.NewReader(text))
		_, _ = stage.RoundTrip(r)
	}
}
