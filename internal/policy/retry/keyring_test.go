package retry

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
)

func injecting(c *Config) {
	if err := c.IdempotencyKey.DecodeSetting(true); err != nil {
		panic(err)
	}
	c.Attempts = 1
}

// repeat is the program's nth retry.
func repeat(n int) map[string]string {
	return map[string]string{"X-Stainless-Retry-Count": fmt.Sprint(n)}
}

// pattern writes which of the keys are the same: aba is three of which the last is the first again.
func pattern(keys []string) string {
	var seen []string
	var b strings.Builder
	for _, k := range keys {
		i := slices.Index(seen, k)
		if i < 0 {
			i = len(seen)
			seen = append(seen, k)
		}
		b.WriteByte(byte('a' + i))
	}
	return b.String()
}

func TestWhoSharesAKey(t *testing.T) {
	lost := failure(exchange.UpstreamReset, true)
	with := func(h map[string]string, more ...string) map[string]string {
		out := map[string]string{}
		for k, v := range h {
			out[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	bob := map[string]string{"Authorization": "Bearer bob"}
	alice := map[string]string{"Authorization": "Bearer alice"}
	pay := "amount=1000"
	for name, c := range map[string]struct {
		calls []call
		steps []step
		want  string
	}{
		"two purchases":                          {[]call{{body: pay}, {body: pay}}, []step{{status: 200, read: -1}}, "ab"},
		"two purchases, the first lost":          {[]call{{body: pay}, {body: pay}}, []step{{err: lost, read: -1}, {status: 200, read: -1}}, "ab"},
		"a retry":                                {[]call{{body: pay}, {body: pay, header: repeat(1)}}, []step{{err: lost, read: -1}, {status: 200, read: -1}}, "aa"},
		"two retries":                            {[]call{{body: pay}, {body: pay, header: repeat(1)}, {body: pay, header: repeat(2)}}, []step{{status: 500, read: -1}}, "aaa"},
		"a retry without a body":                 {[]call{{}, {header: repeat(1)}}, []step{{status: 503}}, "aa"},
		"a retry of a lost answer":               {[]call{{body: pay}, {body: pay, header: repeat(1)}}, []step{{status: 200, read: -1}}, "aa"},
		"a retry of nothing known":               {[]call{{body: pay, header: repeat(1)}, {body: pay, header: repeat(2)}}, []step{{status: 503, read: -1}}, "aa"},
		"another body":                           {[]call{{body: pay}, {body: pay + "0", header: repeat(1)}}, []step{{err: lost, read: -1}}, "ab"},
		"another path":                           {[]call{{body: pay}, {body: pay, path: "/v2", header: repeat(1)}}, []step{{err: lost, read: -1}}, "ab"},
		"another method":                         {[]call{{body: pay}, {body: pay, method: "PATCH", header: repeat(1)}}, []step{{err: lost, read: -1}}, "ab"},
		"another tenant":                         {[]call{{body: pay}, {body: pay, tenant: "t", header: repeat(1)}}, []step{{err: lost, read: -1}}, "ab"},
		"another credential":                     {[]call{{body: pay, header: alice}, {body: pay, header: with(repeat(1), "Authorization", "Bearer bob")}}, []step{{err: lost, read: -1}}, "ab"},
		"another account":                        {[]call{{body: pay, header: map[string]string{"Stripe-Account": "1"}}, {body: pay, header: with(repeat(1), "Stripe-Account", "2")}}, []step{{err: lost, read: -1}}, "ab"},
		"the same credential":                    {[]call{{body: pay, header: bob}, {body: pay, header: with(repeat(1), "Authorization", "Bearer bob", "X-Request-Id", "9")}}, []step{{err: lost, read: -1}}, "aa"},
		"a signature made anew":                  {[]call{{body: pay, header: map[string]string{"Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101, Signature=1"}}, {body: pay, header: with(repeat(1), "Authorization", "AWS4-HMAC-SHA256 Credential=A/20260101, Signature=2")}}, []step{{err: lost, read: -1}}, "aa"},
		"the program's own key":                  {[]call{{body: pay, header: map[string]string{"Idempotency-Key": "k"}}, {body: pay, header: with(repeat(1), "Idempotency-Key", "k")}}, []step{{err: lost, read: -1}}, "aa"},
		"two lost ones, each repeated":           {[]call{{body: pay}, {body: pay}, {body: pay, header: repeat(1)}, {body: pay, header: repeat(1)}}, []step{{err: lost, read: -1}}, "abba"},
		"the lost one of two":                    {[]call{{body: pay}, {body: pay}, {body: pay, header: repeat(1)}}, []step{{err: lost, read: -1}, {status: 200, read: -1}}, "aba"},
		"the lost one, sent second":              {[]call{{body: pay}, {body: pay}, {body: pay, header: repeat(1)}}, []step{{status: 200, read: -1}, {err: lost, read: -1}, {status: 200, read: -1}}, "abb"},
		"one that never left":                    {[]call{{body: pay}, {body: pay, header: repeat(1)}}, []step{{err: failure(exchange.UpstreamConnect, false)}, {status: 200, read: -1}}, "ab"},
		"paid, then one that never left":         {[]call{{body: pay}, {body: pay}, {body: pay, header: repeat(1)}}, []step{{status: 200, read: -1}, {err: failure(exchange.UpstreamConnect, false)}, {status: 200, read: -1}}, "abc"},
		"a declined card, then another purchase": {[]call{{body: pay}, {body: pay}}, []step{{status: 402, read: -1}}, "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStand(t, injecting, c.steps...)
				for _, call := range c.calls {
					s.send(call)
					time.Sleep(time.Second)
				}
				if got := pattern(s.keys()); got != c.want {
					t.Errorf("%s; want %s", got, c.want)
				}
				if slices.Contains(s.keys(), "") {
					t.Error("a request went without a key")
				}
				for i, call := range c.calls {
					if got := s.bodies[i]; got != call.body && c.steps[min(i, len(c.steps)-1)].read != 0 {
						t.Errorf("the upstream got %q; want %q", got, call.body)
					}
				}
			})
		})
	}
}

func TestOwnKeys(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   keys
	}{
		{nil, none}, {[]string{""}, none}, {[]string{" \t"}, none}, {[]string{`""`}, none}, {[]string{"", ""}, none},
		{[]string{"a"}, one}, {[]string{`"a"`}, one}, {[]string{"a", "b"}, several}, {[]string{"", "b"}, several},
	} {
		if got := own(c.values); got != c.want {
			t.Errorf("%q: %d; want %d", c.values, got, c.want)
		}
	}
}

func TestKeysAreForgotten(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  string
	}{{keyLife - time.Second, "aa"}, {keyLife, "ab"}} {
		synctest.Test(t, func(t *testing.T) {
			s := newStand(t, injecting, step{status: 503, read: -1, takes: time.Minute})
			s.send(call{body: "b"})
			time.Sleep(c.after)
			s.send(call{body: "b", header: repeat(1)})
			if got := pattern(s.keys()); got != c.want {
				t.Errorf("after %v: %s; want %s", c.after, got, c.want)
			}
			time.Sleep(keyLife)
			s.send(call{body: "c"})
			if n := len(s.room.keys.keys); n != 1 {
				t.Errorf("%d keys are remembered", n)
			}
		})
	}
}

func TestKeysAreBounded(t *testing.T) {
	var k keyring
	now := time.Now()
	for i := range maxKeys + 100 {
		m := &made{}
		k.add(identity{byte(i), byte(i >> 8), byte(i >> 16)}, m, now)
		k.end(identity{}, m, failed, false, now)
	}
	if len(k.queue) > maxKeys || len(k.keys) > maxKeys || len(k.keys) < maxKeys/2-1 {
		t.Errorf("%d keys in %d places", len(k.keys), len(k.queue))
	}
}

// Of very many that are alike, those that lack an answer are remembered longest.
func TestManyAlike(t *testing.T) {
	var k keyring
	now := time.Now()
	lost := &made{}
	k.add(identity{1}, lost, now)
	k.end(identity{}, lost, failed, false, now)
	for range 10 * maxLike {
		m := &made{}
		k.add(identity{1}, m, now)
		k.end(identity{}, m, answered, false, now)
	}
	if n := len(k.keys[identity{1}]); n != maxLike {
		t.Errorf("%d are remembered", n)
	}
	if m := k.repeated(identity{}, identity{1}, 1, now); m != lost {
		t.Errorf("the lost one is not the one that is repeated: %+v", m)
	}
}

// A client that gave up may repeat a request whose exchange still runs. Of two that run nobody can tell which it was.
func TestRepeatsOfWhatRuns(t *testing.T) {
	for n, want := range map[int]string{1: "aa", 2: "abc"} {
		synctest.Test(t, func(t *testing.T) {
			s := newStand(t, injecting, step{status: 200, read: -1, takes: time.Minute})
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() { s.send(call{body: "b"}) })
				synctest.Wait()
			}
			wg.Go(func() { s.send(call{body: "b", header: repeat(1)}) })
			wg.Wait()
			if got := pattern(s.keys()); got != want {
				t.Errorf("%s; want %s", got, want)
			}
		})
	}
}

// A repeated request is read before it is sent; where that is more than may be kept, it gets a new key and goes out as it is.
func TestRepeatsOfLargeRequests(t *testing.T) {
	for name, c := range map[string]struct {
		size   int
		stream bool
		memory int64
		want   string
	}{
		"fits": {100, false, memory, "aa"}, "fits, streamed": {99, true, memory, "aa"}, "too large": {101, false, memory, "ab"},
		"too large, streamed": {300, true, memory, "ab"}, "no memory left": {100, false, 50, "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStand(t, func(c *Config) { injecting(c); c.Buffer = 100 }, step{status: 503, read: -1})
				s.room.account.limit = c.memory
				text := strings.Repeat("x", c.size)
				for n := range 2 {
					r := call{body: text}
					if n > 0 {
						r.header = repeat(n)
					}
					if c.stream {
						r.body, r.reader = "", io.NopCloser(strings.NewReader(text))
					}
					s.send(r)
					if got := s.bodies[n]; got != text {
						t.Errorf("the upstream got %d bytes of %d", len(got), c.size)
					}
				}
				if got := pattern(s.keys()); got != c.want {
					t.Errorf("%s; want %s", got, c.want)
				}
				if used := s.room.account.used.Load(); used != 0 {
					t.Errorf("%d bytes are still taken", used)
				}
			})
		})
	}
}

// Reading ahead ends with the exchange, however slow the client is.
func TestReadingAheadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStand(t, injecting, step{status: 200})
		body := newClient()
		body.pieces <- "begin"
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if status, _ := s.send(call{ctx: ctx, reader: body, header: repeat(1)}); status != 0 || time.Since(s.begin) != time.Second || s.sent() != 0 {
			t.Errorf("status %d after %v, %d attempts", status, time.Since(s.begin), s.sent())
		}
		close(body.pieces)
		synctest.Wait()
		if used := s.room.account.used.Load(); used != 0 || body.closed.Load() != 1 {
			t.Errorf("%d bytes are still taken, the body was closed %d times", used, body.closed.Load())
		}
	})
}

func BenchmarkInjectedKey(b *testing.B) {
	c := Default()
	injecting(&c)
	stage, r := benchStage(b, c)
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(strings.NewReader("amount=1000"))
		_, _ = stage.RoundTrip(r)
	}
}
