package wire

import (
	"bytes"
	"math/rand/v2"
	"net/textproto"
	"strings"
	"testing"
)

// TestValidValue: eight bytes at a time say the same as one at a time.
func TestValidValue(t *testing.T) {
	slow := func(s []byte) bool {
		return bytes.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
	}
	check := func(s []byte) {
		t.Helper()
		if got := validValue(s); got != slow(s) || got != validValue(string(s)) {
			t.Fatalf("%q: %v", s, got)
		}
	}
	for n := range 25 {
		for at := range n {
			for c := range 256 {
				s := []byte(strings.Repeat("~", n))
				s[at] = byte(c)
				check(s)
			}
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	edges := []byte{0, 8, '\t', '\n', 0x1f, ' ', '!', 'a', 0x7e, 0x7f, 0x80, 0x9f, 0xa0, 0xff} // neighbours lend and borrow
	for range 200_000 {
		s := make([]byte, rnd.IntN(20))
		for i := range s {
			s[i] = edges[rnd.IntN(len(edges))]
			if rnd.IntN(4) > 0 {
				s[i] = edges[5+rnd.IntN(4)]
			}
		}
		check(s)
	}
}

// TestNames: eight bytes at a time say the same of names as one at a time, and canonical says what net/http does.
func TestNames(t *testing.T) {
	check := func(s []byte) {
		t.Helper()
		valid, plain := true, len(s) >= 4
		for _, c := range s {
			valid = valid && isToken(c)
			plain = plain && (c == '-' || 'a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80)
		}
		if isTokens(s) != valid || isTokens(string(s)) != valid || isPlain(s) != plain || isPlain(string(s)) != plain {
			t.Fatalf("%q: a token %v, plain %v", s, isTokens(s), isPlain(s))
		}
		name, ok := canonical(string(s))
		if ok != valid || ok && name != textproto.CanonicalMIMEHeaderKey(string(s)) {
			t.Fatalf("%q: %q, %v", s, name, ok)
		}
	}
	for n := range 25 {
		for at := range n {
			for c := range 256 {
				for _, like := range []string{"a", "A", "-", "Content-Security-Policy-X"} {
					s := []byte(strings.Repeat(like, n)[:n])
					s[at] = byte(c)
					check(s)
				}
			}
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	edges := []byte("aZ-bYzA-cX0_.@[`{\r\x0d\x7f\x80\xad\xe1\x00")
	for range 300_000 {
		s := make([]byte, rnd.IntN(26))
		for i := range s {
			s[i] = edges[rnd.IntN(10)]
			if rnd.IntN(12) == 0 {
				s[i] = edges[rnd.IntN(len(edges))]
			}
		}
		check(s)
	}
}

func BenchmarkHeadScan(b *testing.B) {
	var lines [][]byte
	for _, line := range []string{"POST /v1/charges?limit=10 HTTP/1.1", "Host: api.example.com", "User-Agent: example-sdk/7.1 (linux; amd64) python/3.13.1",
		"Accept: application/json", "Accept-Encoding: gzip, deflate, br", "Authorization: Bearer " + strings.Repeat("x", 40), "Content-Type: application/x-www-form-urlencoded",
		"Content-Length: 312", "Idempotency-Key: 0f2b6a4e-6a3c-4c55-9a5e-5f2d7f6d5a10"} {
		lines = append(lines, []byte(line))
	}
	b.ReportAllocs()
	for b.Loop() {
		var h headScan
		for _, line := range lines {
			if r := h.add(line); r != nil {
				b.Fatal(r.Detail)
			}
		}
	}
}

func BenchmarkCanonical(b *testing.B) {
	names := []string{"User-Agent", "Accept", "Accept-Encoding", "Authorization", "Content-Type", "Content-Length", "Idempotency-Key", "X-Request-Id"}
	for b.Loop() {
		for _, name := range names {
			canonical(name)
		}
	}
}

func BenchmarkAppendField(b *testing.B) {
	var to []byte
	for b.Loop() {
		to, _ = appendField(to[:0], "User-Agent", "example-sdk/7.1 (linux; amd64) python/3.13.1")
		to, _ = appendField(to, "Accept-Encoding", "gzip, deflate, br")
	}
}
