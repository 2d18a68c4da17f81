package dedup

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// fixed is a body. Until its end somebody may wait for that of its request's context.
type fixed struct {
	strings.Reader
	heir *exchange.Heir
}

func (f *fixed) Close() error {
	if f.heir != nil {
		f.heir.Leave()
	}
	return nil
}

// ParentEnded is nothing to a body that is there.
func (f *fixed) ParentEnded() {}

// How somebody below waits for a request's end.
type waiting int

const (
	nobody   waiting = iota
	channel          // by a channel, as for a limit
	followed         // as whoever sends it does
)

func chain(b *testing.B, waits waiting, methods ...string) (http.RoundTripper, *fixed) {
	var keeper state.Keeper
	c := Default()
	c.Methods = methods
	body := &fixed{}
	next := exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
		switch waits {
		case channel:
			r.Context().Done()
		case followed:
			body.heir = new(exchange.Heir)
			body.heir.Follow(r.Context(), body)
		}
		body.Reset("body")
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: body, ContentLength: 4}, nil
	})
	g := keeper.Begin()
	stage := New(nil).Stage(state.Scope{Generation: g, Policy: "p"}, c, Key{})
	g.Commit()
	b.Cleanup(keeper.Close)
	return exchange.Chain(next, stage), body
}

func usual(ctx context.Context, method, body string) *http.Request {
	r, _ := ask(ctx, method, body, "Accept", "application/json", "Accept-Encoding", "gzip", "Authorization", "Bearer 0123456789abcdef0123456789abcdef",
		"User-Agent", "example/1.0", "Content-Type", "application/json", "X-Request-Id", "0123456789abcdef")
	return r
}

func run(b *testing.B, chain http.RoundTripper, r *http.Request) {
	resp, err := chain.RoundTrip(r)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// BenchmarkNothing is what the others are to be compared with.
func BenchmarkNothing(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	chain, _ := chain(b, nobody, "HEAD")
	r := usual(ctx, "GET", "")
	b.ReportAllocs()
	for b.Loop() {
		run(b, chain, r)
	}
}

// A request that nobody follows; for the end of the second and the third somebody below waits.
func BenchmarkLeader(b *testing.B)       { leader(b, nobody) }
func BenchmarkLeaderWaited(b *testing.B) { leader(b, channel) }
func BenchmarkLeaderSent(b *testing.B)   { leader(b, followed) }

func leader(b *testing.B, waits waiting) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	chain, _ := chain(b, waits, "GET")
	r := usual(ctx, "GET", "")
	above := new(exchange.Branch) // timeout's, in most chains
	above.From(r.Context())
	defer above.Cancel(nil)
	r = r.WithContext(above)
	b.ReportAllocs()
	for b.Loop() {
		run(b, chain, r)
	}
}

func BenchmarkKey(b *testing.B) {
	s := &stage{room: New(nil), policy: "p"}
	r := usual(b.Context(), "GET", "")
	x := exchange.From(r.Context())
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.wantOf(r, x)
	}
}

// BenchmarkReplay is a keyed write that was answered before.
func BenchmarkReplay(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	chain, _ := chain(b, nobody, "POST")
	r := usual(ctx, "POST", "body")
	r.Header["Idempotency-Key"] = []string{"0b5f7c1e-5c0e-4f8e-9d50-0b1d0d5c7a11"}
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(strings.NewReader("body"))
		run(b, chain, r)
	}
}
