package dedup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

func writes(c *Config) { c.Methods = []string{"GET", "POST", "PATCH", "PUT", "DELETE"} }

func (r *rig) post(body, key string, fields ...string) result {
	return r.do(ask(r.Context(), "POST", body, append(fields, "Idempotency-Key", key)...))
}

// TestDoubleClick: two hundred at once are sent once; those that come while it runs are told so, those that come later get its answer.
func TestDoubleClick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, writes)
		r.next = func(req *http.Request) (*http.Response, error) {
			b, err := io.ReadAll(req.Body)
			if string(b) != `{"amount":1}` || err != nil || req.ContentLength != 12 {
				t.Errorf("the upstream received %q, %v, length %d", b, err, req.ContentLength)
			}
			time.Sleep(time.Second)
			resp := r.answer(201, `{"id":"ch_1"}`, "X-A", "1", "X-A", "2", "Set-Cookie", "a=b", "Cache-Control", "no-store")
			resp.Trailer = http.Header{"X-Sum": {"abc"}}
			return resp, nil
		}
		all := r.crowd(200, func(int) (*http.Request, *exchange.Exchange) {
			return ask(t.Context(), "POST", `{"amount":1}`, "Idempotency-Key", "k")
		})
		for _, got := range all {
			var refusal *exchange.Refusal
			switch {
			case got.dedup == roleLeader && got.status == 201 && got.header[replayedField] == nil:
			case errors.As(got.err, &refusal) && refusal.Code == exchange.IdempotencyConflict && refusal.HTTPStatus() == 409 && refusal.RetryAfter == time.Second:
			default:
				t.Errorf("%+v", got)
			}
		}
		if r.sent.Load() != 1 || roles(all)[roleConflict] != 199 {
			t.Errorf("sent %d, %v", r.sent.Load(), roles(all))
		}
		time.Sleep(23 * time.Hour)
		for range 3 {
			got := r.post(`{"amount":1}`, "k")
			if got.status != 201 || got.body != `{"id":"ch_1"}` || got.header.Get(replayedField) != "true" || !slices.Equal(got.header["X-A"], []string{"1", "2"}) ||
				got.resp.Trailer.Get("X-Sum") != "abc" || got.dedup != roleReplayed || got.took != 0 || got.resp.ContentLength != 13 || got.header.Get("Set-Cookie") != "a=b" {
				t.Errorf("%+v", got)
			}
			got.header.Set("X-A", "changed")
		}
		if got := r.post(`{"amount":2}`, "k"); !is422(got.err) || got.dedup != roleConflict {
			t.Errorf("another body: %+v", got)
		}
		time.Sleep(time.Hour)
		if got := r.post(`{"amount":1}`, "k"); got.dedup != roleLeader || r.sent.Load() != 2 {
			t.Errorf("after keep: %+v", got)
		}
		if want := map[string]int{roleLeader: 2, roleConflict: 200, roleReplayed: 3}; !maps.Equal(r.counted(), want) {
			t.Errorf("counted %v; want %v", r.counted(), want)
		}
	})
}

func is422(err error) bool {
	var refusal *exchange.Refusal
	return errors.As(err, &refusal) && refusal.Code == exchange.IdempotencyConflict && refusal.HTTPStatus() == 422
}

// TestOtherRequests: without the key, and where the method is not listed, everything is as without the block; sequential writes least of all share.
func TestOtherRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, edit := range []func(*Config){nil, writes} {
			r := newRig(t, edit)
			for i := range 3 {
				if got := r.do(ask(t.Context(), "POST", "same")); got.status != 200 || got.dedup != "" || int(r.sent.Load()) != i+1 {
					t.Errorf("%+v", got)
				}
			}
			if edit == nil {
				if got := r.post("same", "k"); got.dedup != "" {
					t.Errorf("POST is not listed: %s", got.dedup)
				}
			}
			if len(r.counted()) != 0 {
				t.Errorf("counted %v", r.counted())
			}
		}
	})
}

// TestRememberedBeforeItIsHanded: a client that has the last byte of an answer finds it under its key, however the body tells its end.
func TestRememberedBeforeItIsHanded(t *testing.T) {
	for _, major := range []int{1, 2} {
		r := newRig(t, writes)
		var trailer http.Header
		r.next = func(*http.Request) (*http.Response, error) {
			resp := r.answer(201, `{"id":"ch_1"}`)
			if resp.ProtoMajor = major; major == 2 {
				resp.Body = struct {
					io.Reader
					io.Closer
				}{io.MultiReader(resp.Body, atEOF(func() { resp.Trailer = trailer })), resp.Body}
			}
			return resp, nil
		}
		trailer = http.Header{"X-Sum": {"abc"}}
		req, _ := ask(t.Context(), "POST", "b", "Idempotency-Key", "k")
		resp, err := r.chain.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := resp.Body.Read(make([]byte, 64)); n != 13 || major == 1 && err != nil {
			t.Fatal(n, err)
		}
		if got := r.post("b", "k"); got.dedup != roleReplayed || got.body != `{"id":"ch_1"}` || major == 2 && got.resp.Trailer.Get("X-Sum") != "abc" {
			t.Errorf("HTTP/%d: %+v", major, got)
		}
		if rest, err := io.ReadAll(resp.Body); len(rest) != 0 || err != nil || resp.Body.Close() != nil || r.open.Load() != 0 || r.sent.Load() != 1 {
			t.Errorf("HTTP/%d: %q, %v; %d open, %d sent", major, rest, err, r.open.Load(), r.sent.Load())
		}
	}
}

// atEOF is an empty reader that does something first.
type atEOF func()

func (f atEOF) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// TestFingerprintAndScope: what makes a write another one, and what makes it another one's.
func TestFingerprintAndScope(t *testing.T) {
	for name, c := range map[string]struct {
		other  func(*http.Request, *exchange.Exchange)
		wanted string // role, or 422
	}{
		"same":         {func(*http.Request, *exchange.Exchange) {}, roleReplayed},
		"trace":        {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("Traceparent", "x") }, roleReplayed},
		"attempt":      {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("X-Stainless-Retry-Count", "1") }, roleReplayed},
		"telemetry":    {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("X-Stripe-Client-Telemetry", "1") }, roleReplayed},
		"path":         {func(r *http.Request, _ *exchange.Exchange) { r.URL.Path += "/2" }, "422"},
		"query":        {func(r *http.Request, _ *exchange.Exchange) { r.URL.RawQuery = "a=2" }, "422"},
		"method":       {func(r *http.Request, _ *exchange.Exchange) { r.Method = "PATCH" }, "422"},
		"type":         {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("Content-Type", "text/plain") }, "422"},
		"scheme":       {func(r *http.Request, _ *exchange.Exchange) { r.URL.Scheme = "http" }, "422"},
		"tenant":       {func(_ *http.Request, x *exchange.Exchange) { x.Tenant = "t" }, roleLeader},
		"port":         {func(_ *http.Request, x *exchange.Exchange) { x.Target.Port = 8443 }, roleLeader},
		"bearer":       {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("Authorization", "Bearer b") }, roleLeader},
		"no bearer":    {func(r *http.Request, _ *exchange.Exchange) { r.Header.Del("Authorization") }, roleLeader},
		"cookie":       {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("Cookie", "s=1") }, roleLeader},
		"api key":      {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("X-Api-Key", "1") }, roleLeader},
		"account":      {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("Stripe-Account", "acct_1") }, roleLeader},
		"organization": {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("OpenAI-Organization", "o") }, roleLeader},
		"user":         {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("X-User-Id", "7") }, roleLeader},
		"other key":    {func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("Idempotency-Key", "K") }, roleLeader},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, writes)
				r.post("b", "k", "Authorization", "Bearer a")
				req, x := ask(t.Context(), "POST", "b", "Idempotency-Key", "k", "Authorization", "Bearer a")
				c.other(req, x)
				got := r.do(req, x)
				if c.wanted == "422" && is422(got.err) || got.dedup == c.wanted {
					return
				}
				t.Errorf("%s, %v; want %s", got.dedup, got.err, c.wanted)
			})
		})
	}
}

func TestOutcomes(t *testing.T) {
	attempt := func(req *http.Request, status int, code exchange.Code) {
		x := exchange.From(req.Context())
		x.EndAttempt(x.BeginAttempt(time.Now()), time.Now(), status, code)
	}
	type next = func(*rig, *http.Request) (*http.Response, error)
	status := func(n int, fields ...string) next {
		return func(r *rig, req *http.Request) (*http.Response, error) { return r.answer(n, "x", fields...), nil }
	}
	judged := func(v exchange.Verdict, n int, fields ...string) next {
		return func(r *rig, req *http.Request) (*http.Response, error) {
			exchange.From(req.Context()).Judge(v)
			return r.answer(n, "x", fields...), nil
		}
	}
	for name, c := range map[string]struct {
		first       next
		same, other string // what a repeat becomes, with the same body and with another one
	}{
		"200": {status(200), roleReplayed, roleConflict}, "302": {status(302), roleReplayed, roleConflict},
		"400": {status(400), roleReplayed, roleConflict}, "403": {status(403), roleReplayed, roleConflict},
		"500": {status(500), roleReplayed, roleConflict}, "202, come back": {status(202, "Retry-After", "5"), roleReplayed, roleConflict},
		"401": {status(401), roleLeader, roleLeader}, "408": {status(408), roleLeader, roleLeader}, "409": {status(409), roleLeader, roleLeader},
		"425": {status(425), roleLeader, roleLeader}, "429": {status(429), roleLeader, roleLeader}, "503": {status(503), roleLeader, roleLeader},
		"403, come back":  {status(403, "Retry-After", "5"), roleLeader, roleLeader},
		"500, again":      {status(500, "X-Should-Retry", "true"), roleLeader, roleLeader},
		"400, Again":      {status(400, "X-Should-Retry", " True"), roleLeader, roleLeader},
		"500, not again":  {status(500, "X-Should-Retry", "true", "X-Should-Retry", "false"), roleReplayed, roleConflict},
		"500, in a while": {status(500, "Retry-After-Ms", "50"), roleLeader, roleLeader}, "500, soon": {status(500, "X-Amz-Retry-After", "50"), roleLeader, roleLeader},
		"200, again":                     {status(200, "X-Should-Retry", "true"), roleReplayed, roleConflict},
		"judged: again, and told not to": {judged(exchange.Again, 500, "X-Should-Retry", "false"), roleLeader, roleLeader},
		"judged: a failure inside":       {judged(exchange.Again, 200), roleLeader, roleLeader},
		"judged: final":                  {judged(exchange.Final, 500, "X-Should-Retry", "true"), roleReplayed, roleConflict},
		"judged: final, in a while":      {judged(exchange.Final, 500, "Retry-After", "5"), roleLeader, roleLeader},
		"judged: again, but unknown":     {judged(exchange.Again, 504), roleLeader, roleConflict},
		"502":                            {status(502), roleLeader, roleConflict}, "504": {status(504), roleLeader, roleConflict}, "524": {status(524), roleLeader, roleConflict},
		"a stream": {func(r *rig, _ *http.Request) (*http.Response, error) {
			resp := r.stream(200, strings.NewReader("data: 1\n\n"))
			resp.Header.Set("Content-Type", "text/event-stream")
			return resp, nil
		}, roleLeader, roleConflict},
		"too large": {func(r *rig, _ *http.Request) (*http.Response, error) {
			return r.answer(200, strings.Repeat("x", 6<<20)), nil
		}, roleLeader, roleConflict},
		"grows": {func(r *rig, _ *http.Request) (*http.Response, error) {
			return r.stream(200, strings.NewReader(strings.Repeat("x", 6<<20))), nil
		}, roleLeader, roleConflict},
		"breaks off": {func(r *rig, _ *http.Request) (*http.Response, error) {
			return r.stream(200, io.MultiReader(strings.NewReader("x"), failing{io.ErrUnexpectedEOF})), nil
		}, roleLeader, roleConflict},
		"no content": {func(*rig, *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 204, ProtoMajor: 2, Header: http.Header{}, Body: http.NoBody}, nil
		}, roleReplayed, roleConflict},
		"refused": {func(*rig, *http.Request) (*http.Response, error) {
			return nil, exchange.Refuse(exchange.BreakerOpen, "")
		}, roleLeader, roleLeader},
		"refused after an answer": {func(_ *rig, req *http.Request) (*http.Response, error) {
			attempt(req, 200, "")
			return nil, exchange.Refuse(exchange.BlockedContent, "")
		}, roleLeader, roleConflict},
		"cut by a drain": {func(_ *rig, req *http.Request) (*http.Response, error) {
			attempt(req, 0, exchange.Draining)
			return nil, exchange.Refuse(exchange.Draining, "")
		}, roleLeader, roleConflict},
		"cut by a drain before it was sent": {func(*rig, *http.Request) (*http.Response, error) {
			return nil, exchange.Refuse(exchange.Draining, "")
		}, roleLeader, roleLeader},
		"not sent": {func(_ *rig, req *http.Request) (*http.Response, error) {
			attempt(req, 0, exchange.UpstreamConnect)
			return nil, &exchange.Failure{Code: exchange.UpstreamConnect}
		}, roleLeader, roleLeader},
		"sent before": {func(_ *rig, req *http.Request) (*http.Response, error) {
			attempt(req, 0, exchange.UpstreamReset)
			attempt(req, 0, exchange.UpstreamConnect)
			return nil, &exchange.Failure{Code: exchange.UpstreamConnect}
		}, roleLeader, roleConflict},
		"sent": {func(*rig, *http.Request) (*http.Response, error) {
			return nil, &exchange.Failure{Code: exchange.UpstreamReset, Sent: true}
		}, roleLeader, roleConflict},
		"panic": {func(*rig, *http.Request) (*http.Response, error) { panic("a defect") }, roleLeader, roleConflict},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for body, want := range map[string]string{"b": c.same, "other": c.other} {
					r := newRig(t, writes)
					r.next = func(req *http.Request) (*http.Response, error) {
						if r.sent.Load() == 1 {
							return c.first(r, req)
						}
						return r.answer(200, "second"), nil
					}
					first := r.safely(func() result { return r.post("b", "k") })
					got := r.post(body, "k")
					if got.dedup != want || want == roleReplayed && (got.status != first.status || got.body != first.body) || want == roleConflict && !is422(got.err) {
						t.Errorf("with the body %s: %+v; want %s", body, got, want)
					}
				}
			})
		})
	}
}

// TestReleasedKeyRunsAgain is what a client that was told to come back meets.
func TestReleasedKeyRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, writes)
		for i, status := range []int{429, 503, 200} {
			r.next = func(*http.Request) (*http.Response, error) { return r.answer(status, "x"), nil }
			if got := r.post("b", "k"); got.status != status || int(r.sent.Load()) != i+1 {
				t.Errorf("%+v", got)
			}
		}
		if got := r.post("b", "k"); got.status != 200 || got.dedup != roleReplayed {
			t.Errorf("%+v", got)
		}
	})
}

// TestUnknownStaysUnknown: a repeat that came to nothing does not make a sent write one that never was.
func TestUnknownStaysUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, writes)
		r.next = func(*http.Request) (*http.Response, error) {
			if r.sent.Load() == 1 {
				return nil, &exchange.Failure{Code: exchange.UpstreamReset, Sent: true}
			}
			return nil, exchange.Refuse(exchange.BreakerOpen, "")
		}
		r.post("b", "k")
		r.post("b", "k")
		if got := r.post("other", "k"); !is422(got.err) {
			t.Errorf("%+v", got)
		}
	})
}

// TestClientOfAWriteLeaves: the write goes on, before the head and in the body, and the client's repeat gets its answer.
func TestClientOfAWriteLeaves(t *testing.T) {
	for _, at := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, writes)
			r.next = func(req *http.Request) (*http.Response, error) {
				select {
				case <-time.After(time.Second):
				case <-req.Context().Done():
					return nil, context.Cause(req.Context())
				}
				in, out := io.Pipe()
				go func() {
					_, _ = out.Write([]byte("one"))
					time.Sleep(2 * time.Second)
					_, _ = out.Write([]byte("two"))
					_ = out.Close()
				}()
				return r.stream(201, until(req.Context(), in)), nil
			}
			client, leave := context.WithCancel(t.Context())
			time.AfterFunc(at, leave)
			req, _ := ask(client, "POST", "b", "Idempotency-Key", "k")
			resp, err := r.chain.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(max(0, at-time.Second))
			_ = resp.Body.Close() // as the door does when writing fails
			if got := r.post("b", "k"); got.dedup != roleConflict {
				t.Errorf("while it goes on: %+v", got)
			}
			time.Sleep(3 * time.Second)
			if got := r.post("b", "k"); got.dedup != roleReplayed || got.body != "onetwo" || got.status != 201 || r.sent.Load() != 1 {
				t.Errorf("%+v, sent %d", got, r.sent.Load())
			}
		})
	}
}

// TestDrainEnds: an answer that does not end is not read for ever once its client has left.
func TestDrainEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { writes(c); c.Wait = seconds(5) })
		r.next = func(req *http.Request) (*http.Response, error) {
			if r.sent.Load() > 1 {
				return r.answer(200, "x"), nil
			}
			in, _ := io.Pipe()
			return r.stream(200, until(req.Context(), in)), nil
		}
		req, _ := ask(t.Context(), "POST", "b", "Idempotency-Key", "k")
		resp, err := r.chain.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		time.Sleep(4 * time.Second)
		if got := r.post("b", "k"); got.dedup != roleConflict {
			t.Errorf("%+v", got)
		}
		time.Sleep(2 * time.Second)
		if got := r.post("b", "k"); got.dedup != roleLeader {
			t.Errorf("%+v", got)
		}
	})
}

// TestLeaseIsRenewed: a write that takes long keeps its key.
func TestLeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, writes)
		r.next = func(*http.Request) (*http.Response, error) {
			time.Sleep(20 * lease)
			return r.answer(200, "x"), nil
		}
		done := make(chan result, 1)
		go func() { done <- r.post("b", "k") }()
		for range 19 {
			time.Sleep(lease)
			if got := r.post("b", "k"); got.dedup != roleConflict {
				t.Fatalf("%+v", got)
			}
		}
		if got := <-done; got.status != 200 {
			t.Errorf("%+v", got)
		}
	})
}

func TestDeadlineOfAWrite(t *testing.T) {
	for name, leaves := range map[string]bool{"stays": false, "leaves": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, writes)
				r.next = func(req *http.Request) (*http.Response, error) {
					<-req.Context().Done()
					return nil, context.Cause(req.Context())
				}
				client, leave := context.WithCancel(t.Context())
				late, cancel := context.WithTimeoutCause(client, 10*time.Second, errLate)
				defer cancel()
				if leaves {
					time.AfterFunc(time.Second, leave)
				}
				got := r.do(ask(late, "POST", "b", "Idempotency-Key", "k"))
				if code(got.err) != exchange.UpstreamTimeout || got.took != 10*time.Second {
					t.Errorf("%+v", got)
				}
				leave()
			})
		})
	}
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		values []string
		quoted bool
		want   string // "": refused
	}{
		{[]string{"abc"}, false, "abc"}, {[]string{" abc\t"}, false, "abc"}, {[]string{`"abc"`}, false, `"abc"`},
		{[]string{`"abc"`}, true, "abc"}, {[]string{"abc"}, true, "abc"}, {[]string{`"a\"\\b"`}, true, `a"\b`},
		{[]string{`"a\b"`}, true, `"a\b"`}, {[]string{`"a"b"`}, true, `"a"b"`}, {[]string{`"abc`}, true, `"abc`}, {[]string{`"a\`}, true, `"a\`},
		{[]string{`"a"; p=1`}, true, `"a"; p=1`}, {[]string{`"`}, true, `"`},
		{[]string{strings.Repeat("k", 255)}, false, strings.Repeat("k", 255)}, {[]string{strings.Repeat("k", 256)}, false, ""},
		{[]string{`"` + strings.Repeat("k", 255) + `"`}, true, strings.Repeat("k", 255)},
		{[]string{`""`}, true, ""}, {[]string{" "}, false, ""}, {[]string{"a", "a"}, false, ""},
	} {
		got, err := parseKey(c.values, c.quoted)
		if got != c.want || (c.want == "") != (code(err) == exchange.BadRequest) {
			t.Errorf("%q, %t: %q, %v; want %q", c.values, c.quoted, got, err, c.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, writes)
		r.load(writes, Key{Header: "x-idem", Quoted: true})
		first := r.do(ask(t.Context(), "POST", "b", "X-Idem", `"k"`))
		second := r.do(ask(t.Context(), "POST", "b", "X-Idem", "k"))
		third := r.do(ask(t.Context(), "POST", "b", "X-Idem", strings.Repeat("k", 300)))
		if first.dedup != roleLeader || second.dedup != roleReplayed || third.dedup != roleRefused || code(third.err) != exchange.BadRequest {
			t.Errorf("%s, %s, %s", first.dedup, second.dedup, third.dedup)
		}
	})
}

func TestLargeWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { writes(c); c.MaxBody = 100_000 })
		body := strings.Repeat("x", 100_001)
		r.next = func(req *http.Request) (*http.Response, error) {
			b, err := io.ReadAll(req.Body)
			_ = req.Body.Close()
			if string(b) != body || err != nil {
				t.Errorf("the upstream received %d bytes, %v", len(b), err)
			}
			return r.answer(200, "x"), nil
		}
		for _, length := range []int64{100_001, -1} {
			req, x := ask(t.Context(), "POST", body, "Idempotency-Key", "k")
			req.ContentLength = length
			if got := r.do(req, x); got.status != 200 || got.dedup != "bypass:"+whyTooLarge {
				t.Errorf("%+v", got)
			}
		}
		body = strings.Repeat("x", 100_000)
		if got := r.post(body, "k"); got.dedup != roleLeader {
			t.Errorf("%+v", got)
		}
		r.room.memory.limit = 10_000
		if got := r.post(body, "k2"); got.dedup != roleRefused || code(got.err) != exchange.Overloaded {
			t.Errorf("%+v", got)
		}
		req, x := ask(t.Context(), "POST", "", "Idempotency-Key", "k3")
		req.Body, req.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{io.ErrUnexpectedEOF})), 100
		if got := r.do(req, x); code(got.err) != exchange.BadRequest || got.dedup != roleRefused {
			t.Errorf("%+v", got)
		}
	})
}

// brokenStore fails.
type brokenStore struct{ Store }

var errStore = errors.New("the store is away")

func (brokenStore) Begin(context.Context, Claim, time.Duration) (Standing, error) {
	return Standing{}, errStore
}

func (brokenStore) Release(context.Context, Claim, time.Duration) error { return errStore }

func TestStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, writes)
		r.room.Share(brokenStore{}, [32]byte{1})
		r.load(writes, Key{})
		if got := r.post("b", "k"); code(got.err) != exchange.Overloaded || !errors.Is(got.err, errStore) || r.sent.Load() != 0 {
			t.Errorf("%+v", got)
		}
		r.load(func(c *Config) { writes(c); c.Mode = setting.Observe }, Key{})
		if got := r.post("b", "k"); got.status != 200 || got.dedup != "bypass:"+whyStore {
			t.Errorf("%+v", got)
		}
		time.Sleep(again) // it is told twice that the claim is off
	})
}

// lateStore claims what it is asked for, after it was given up.
type lateStore struct {
	Store
	late time.Duration // 0: it is in time
}

func (s *lateStore) Begin(ctx context.Context, claim Claim, lease time.Duration) (Standing, error) {
	if s.late == 0 {
		return s.Store.Begin(ctx, claim, lease)
	}
	time.AfterFunc(s.late, func() { _, _ = s.Store.Begin(context.Background(), claim, lease) })
	time.Sleep(100 * time.Millisecond)
	return Standing{}, errStore
}

// TestClaimOfNobody: a write that was refused because the store said nothing in time is no write that runs.
func TestClaimOfNobody(t *testing.T) {
	for _, late := range []time.Duration{50 * time.Millisecond, 300 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, writes)
			memory := newMemoryStore(Default().Writes)
			defer memory.Close()
			store := &lateStore{memory, late}
			r.room.Share(store, [32]byte{1})
			r.load(writes, Key{})
			if got := r.post("b", "k"); code(got.err) != exchange.Overloaded || r.sent.Load() != 0 {
				t.Errorf("%v: %+v", late, got)
			}
			store.late = 0
			time.Sleep(2 * time.Second)
			if got := r.post("b", "k"); got.status != 200 || got.dedup != roleLeader || r.sent.Load() != 1 {
				t.Errorf("%v: the repeat: %+v", late, got)
			}
		})
	}
}

// slowStore takes its time to end claims.
type slowStore struct{ Store }

func (s slowStore) Finish(ctx context.Context, claim Claim, record []byte, keep time.Duration) error {
	time.Sleep(storeTime)
	return s.Store.Finish(ctx, claim, record, keep)
}

func (s slowStore) Release(ctx context.Context, claim Claim, keep time.Duration) error {
	time.Sleep(storeTime)
	return s.Store.Release(ctx, claim, keep)
}

// TestObservedWritesWaitForNobody: a store that others share and that is slow holds up no answer that is only watched.
func TestObservedWritesWaitForNobody(t *testing.T) {
	for _, status := range []int{200, 503, 502} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, writes)
			memory := newMemoryStore(Default().Writes)
			defer memory.Close()
			r.room.Share(slowStore{memory}, [32]byte{1})
			r.next = func(req *http.Request) (*http.Response, error) {
				take(req)
				return r.answer(status, "body"), nil
			}
			r.load(func(c *Config) { writes(c); c.Mode = setting.Observe }, Key{})
			if got := r.post("b", "k"); got.status != status || got.took != 0 {
				t.Errorf("%d: %+v after %v", status, got, got.took)
			}
			time.Sleep(storeTime)
			synctest.Wait()
			want := map[int]string{200: observedReplayed}[status]
			if got := r.post("b", "k"); strings.Join(got.x.Story().Observed, ",") != want {
				t.Errorf("%d: the repeat: %v; want %s", status, got.x.Story().Observed, want)
			}
			time.Sleep(storeTime)
		})
	}
}

func TestObservedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { writes(c); c.Mode = setting.Observe })
		body := "b"
		all := r.crowd(3, func(int) (*http.Request, *exchange.Exchange) {
			return ask(t.Context(), "POST", body, "Idempotency-Key", "k")
		})
		all = append(all, r.post("b", "k"), r.post("other", "k"))
		seen := map[string]int{}
		for _, got := range all {
			if got.status != 200 || got.body != "body" || got.header[replayedField] != nil {
				t.Errorf("%+v", got)
			}
			seen[strings.Join(got.x.Story().Observed, ",")]++
		}
		if want := map[string]int{"": 1, "idempotency_conflict": 3, observedReplayed: 1}; !maps.Equal(seen, want) || r.sent.Load() != 5 {
			t.Errorf("%v, sent %d", seen, r.sent.Load())
		}
		r.load(writes, Key{}) // what was only observed is never repeated
		if got := r.post("b", "k"); got.dedup != roleLeader {
			t.Errorf("%+v", got)
		}
	})
}

// TestObservedBodies: what is only watched goes to the upstream as it comes, whatever becomes of it, and its key is known once its body is.
func TestObservedBodies(t *testing.T) {
	for name, row := range map[string]struct {
		length int64
		parts  []string
		early  bool // the upstream answers when it has the first part
		dedup  string
		again  string // what the repeat is found to be
	}{
		"chunked":      {-1, []string{"a", "b"}, false, roleLeader, observedReplayed},
		"with length":  {2, []string{"a", "b"}, false, roleLeader, observedReplayed},
		"answered":     {2, []string{"a"}, true, roleBypass + ":" + whyUnread, ""},
		"grows beyond": {-1, []string{strings.Repeat("a", 10), "b"}, false, roleBypass + ":" + whyTooLarge, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(c *Config) { writes(c); c.Mode, c.MaxBody = setting.Observe, 10 })
				for _, want := range []string{"", row.again} {
					body, write := io.Pipe()
					got := make(chan string, len(row.parts))
					r.next = func(req *http.Request) (*http.Response, error) {
						for range row.parts {
							p := make([]byte, 100)
							n, _ := req.Body.Read(p)
							got <- string(p[:n])
						}
						if !row.early && req.ContentLength < 0 {
							take(req)
						}
						return r.answer(200, "body"), nil
					}
					req, x := ask(t.Context(), "POST", "", "Idempotency-Key", "k")
					req.Body, req.ContentLength = body, row.length
					done := make(chan result, 1)
					go func() { done <- r.do(req, x) }()
					for _, part := range row.parts {
						if _, err := io.WriteString(write, part); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
						if sent := <-got; sent != part { // before the next part is there
							t.Fatalf("the upstream received %q; want %q", sent, part)
						}
					}
					if !row.early {
						_ = write.Close()
					}
					a := <-done
					if a.status != 200 || strings.Join(x.Story().Observed, ",") != want || want == "" && a.dedup != row.dedup {
						t.Errorf("%+v, observed %v; want %q", a, x.Story().Observed, want)
					}
					_ = body.Close()
				}
			})
		})
	}
}

// TestReloadKeepsKeys: a write is not sent twice because somebody changed a setting.
func TestReloadKeepsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, writes)
		for i := range 3 {
			r.post("b", fmt.Sprint(i))
		}
		r.load(func(c *Config) { writes(c); c.MaxBody, c.Linger, c.Writes.MaxEntries = 1000, seconds(1), 2 }, Key{})
		if got := r.post("b", "2"); got.dedup != roleReplayed {
			t.Errorf("%+v", got)
		}
		if got := r.post("b", "0"); got.dedup != roleLeader {
			t.Errorf("what a lower bound has no room for is still there: %+v", got)
		}
	})
}
