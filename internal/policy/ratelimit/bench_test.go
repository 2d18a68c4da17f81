package ratelimit

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

func BenchmarkStage(b *testing.B) {
	plenty := level("defaults", maxRequests, time.Second, func(c *Config) { c.Learn = false })
	learning := level("defaults", maxRequests, time.Second, nil)
	keyed := level("defaults", maxRequests, time.Second, func(c *Config) { c.Key = []string{"tenant", "credential", "path"} })
	usual := []string{"Content-Type: application/json", "Date: Thu, 15 Jan 2026 12:00:00 GMT", "Content-Length: 5", "Server: x", "Vary: Accept"}
	for _, c := range []struct {
		name   string
		levels []Level
		lines  []string
	}{
		{"nothing", nil, usual}, // what the others are to be compared with
		{"limit", []Level{plenty}, usual},
		{"limit-and-learn", []Level{learning}, usual},
		{"keyed", []Level{keyed}, usual},
		{"two", []Level{plenty, level("hosts", maxRequests, time.Second, nil)}, usual},
		{"announced", []Level{learning}, append(usual, "X-RateLimit-Limit: 60", "X-RateLimit-Remaining: 42", "X-RateLimit-Reset: 60")},
		{"announced-anew", []Level{learning}, append(usual, "X-RateLimit-Limit: 1000000000", "X-RateLimit-Remaining: 1000000000", "X-RateLimit-Reset: 60")},
	} {
		b.Run(c.name, func(b *testing.B) {
			var keeper state.Keeper
			g := keeper.Begin()
			scope := state.Scope{Generation: g, Policy: policy}
			room := New(nil)
			resp := reply(200, c.lines...)
			left, falls := int64(1_000_000_000), c.name == "announced-anew"
			next := exchange.RoundTripperFunc(func(*http.Request) (*http.Response, error) {
				delete(resp.Header, "Ratelimit")
				delete(resp.Header, "Ratelimit-Policy")
				if falls { // with each answer, as most do; an allocation is this one
					left--
					resp.Header["X-Ratelimit-Remaining"][0] = strconv.FormatInt(left, 10)
				}
				return resp, nil
			})
			chain := exchange.Chain(next, room.Look(scope, c.levels), room.Stage(scope, c.levels, nil))
			g.Commit()
			req := request(context.Background(), api, header("Authorization", "Bearer abc"), path("/v1/things"))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := chain.RoundTrip(req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
