package dedup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

func TestIdenticalRequestsAreSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.next = func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			x := exchange.From(req.Context())
			x.EndAttempt(x.BeginAttempt(time.Now()), time.Now(), 200, "")
			resp := r.answer(200, "the answer", "X-One", "1")
			resp.Trailer = http.Header{"X-Sum": {"abc"}}
			return resp, nil
		}
		all := r.crowd(20, func(int) (*http.Request, *exchange.Exchange) {
			return ask(t.Context(), "GET", "", "Authorization", "Bearer a")
		})
		for _, got := range all {
			if got.err != nil || got.body != "the answer" || got.header.Get("X-One") != "1" || got.resp.Trailer.Get("X-Sum") != "abc" {
				t.Errorf("%+v", got)
			}
			if n := len(got.x.Story().Attempts); (got.dedup == roleLeader) != (n == 1) {
				t.Errorf("a %s has %d attempts", got.dedup, n)
			}
			if got.dedup == roleFollower && got.x.Story().Upstream != time.Second {
				t.Errorf("a follower says that it waited %v for the upstream", got.x.Story().Upstream)
			}
			got.header.Set("X-One", "changed") // by a stage above: nobody else may see it
			got.resp.Trailer.Set("X-Sum", "changed")
		}
		want := map[string]int{roleLeader: 1, roleFollower: 19}
		if r.sent.Load() != 1 || !maps.Equal(roles(all), want) || !maps.Equal(r.counted(), want) {
			t.Errorf("sent %d, roles %v, counted %v", r.sent.Load(), roles(all), r.counted())
		}
		if r.get("Authorization", "Bearer a").dedup != roleLeader || r.sent.Load() != 2 {
			t.Error("without linger a later request got an old answer")
		}
	})
}

// TestIdentity: the worst that this block could do (resilience: identity missing from the key; A61).
func TestIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.next = func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return r.answer(200, strings.Join(append(req.Header["Authorization"], exchange.From(req.Context()).Tenant), "")), nil
		}
		all := r.crowd(8, func(i int) (*http.Request, *exchange.Exchange) {
			req, x := ask(t.Context(), "GET", "", "Authorization", []string{"alice", "bob"}[i%2])
			x.Tenant = []string{"", "t"}[i/2%2]
			return req, x
		})
		seen := map[string]int{}
		for _, got := range all {
			seen[got.body]++
			if want := got.x.Tenant; !strings.HasSuffix(got.body, want) {
				t.Errorf("tenant %q got %q", want, got.body)
			}
		}
		if want := map[string]int{"alice": 2, "bob": 2, "alicet": 2, "bobt": 2}; !maps.Equal(seen, want) || r.sent.Load() != 4 {
			t.Errorf("sent %d, got %v", r.sent.Load(), seen)
		}
	})
}

// TestSentAlone: what a key does not tell apart shares nothing (A62).
func TestSentAlone(t *testing.T) {
	for _, c := range []struct {
		why    string
		fields []string
	}{
		{whyRange, []string{"Range", "bytes=0-1"}},
		{whyConditional, []string{"If-None-Match", `"a"`}},
		{whyConditional, []string{"If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"}},
		{whyConditional, []string{"If-Range", `"a"`}},
		{whyUpgrade, []string{"Upgrade", "websocket"}},
		{whyExpect, []string{"Expect", "100-continue"}},
		{whyFresh, []string{"Cache-Control", "max-age=1, No-Store"}},
		{whyFresh, []string{"Cache-Control", "no-cache"}},
		{whyFresh, []string{"Pragma", "no-cache"}},
		{whyOverride, []string{"X-HTTP-Method-Override", "DELETE"}},
		{whyAsked, []string{"Httpowerd-Dedup", "off"}},
		{whyBody, nil},
	} {
		t.Run(c.why+strings.Join(c.fields, ""), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.next = func(req *http.Request) (*http.Response, error) {
					if req.Header["Httpowerd-Dedup"] != nil {
						t.Error("the field that is for us went upstream")
					}
					time.Sleep(time.Second)
					return r.answer(200, "body"), nil
				}
				body := ""
				if c.fields == nil {
					body = "{}"
				}
				all := r.crowd(3, func(int) (*http.Request, *exchange.Exchange) { return ask(t.Context(), "GET", body, c.fields...) })
				if r.sent.Load() != 3 || roles(all)["bypass:"+c.why] != 3 || r.counted()[roleBypass] != 3 {
					t.Errorf("sent %d, %v, counted %v", r.sent.Load(), roles(all), r.counted())
				}
			})
		})
	}
}

// TestAnswersThatAreNotShared: nor does an answer that is one client's, or not whole (A64).
func TestAnswersThatAreNotShared(t *testing.T) {
	for name, next := range map[string]func(*rig) *http.Response{
		"set-cookie":   func(r *rig) *http.Response { return r.answer(200, "x", "Set-Cookie", "a=b") },
		"vary *":       func(r *rig) *http.Response { return r.answer(200, "x", "Vary", "Accept, *") },
		"vary unkeyed": func(r *rig) *http.Response { return r.answer(200, "x", "Vary", "x-request-id") },
		"no-store":     func(r *rig) *http.Response { return r.answer(200, "x", "Cache-Control", "private, no-store") },
		"challenge":    func(r *rig) *http.Response { return r.answer(401, "x", "Www-Authenticate", "Negotiate") },
		"partial":      func(r *rig) *http.Response { return r.answer(206, "x") },
		"too large":    func(r *rig) *http.Response { return r.answer(200, strings.Repeat("x", 2000)) },
		"grows":        func(r *rig) *http.Response { return r.stream(200, strings.NewReader(strings.Repeat("x", 2000))) },
		"events": func(r *rig) *http.Response {
			resp := r.stream(200, strings.NewReader("data: 1\n\n"))
			resp.Header.Set("Content-Type", "text/event-stream; charset=utf-8")
			return resp
		},
		"grpc": func(r *rig) *http.Response {
			resp := r.stream(200, strings.NewReader("1"))
			resp.Header.Set("Content-Type", "application/grpc+proto")
			return resp
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(c *Config) { c.MaxBody = 1000 })
				r.next = func(*http.Request) (*http.Response, error) {
					time.Sleep(time.Second)
					return next(r), nil
				}
				all := r.crowd(4, func(int) (*http.Request, *exchange.Exchange) { return ask(t.Context(), "GET", "") })
				for _, got := range all {
					if got.err != nil || got.body == "" {
						t.Errorf("%+v", got)
					}
					if got.body[0] == 'x' && len(got.body) != 1 && len(got.body) != 2000 {
						t.Errorf("%d bytes", len(got.body))
					}
				}
				if r.sent.Load() != 4 || roles(all)[roleLeader] != 1 {
					t.Errorf("sent %d, %v", r.sent.Load(), roles(all))
				}
				if got := r.get(); got.dedup != "bypass:"+whyUnshared || got.took != time.Second {
					t.Errorf("the next one waits for what it cannot have: %s after %v", got.dedup, got.took)
				}
				time.Sleep(refusing)
				if got := r.get(); got.dedup != roleLeader {
					t.Errorf("%s: what is not shared was remembered for too long", got.dedup)
				}
			})
		})
	}
}

func TestStatusesAreShared(t *testing.T) {
	for _, status := range []int{200, 204, 301, 404, 429, 500, 503} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.next = func(*http.Request) (*http.Response, error) {
				time.Sleep(time.Second)
				return r.answer(status, "", "Retry-After", "7"), nil
			}
			for _, got := range r.crowd(5, func(int) (*http.Request, *exchange.Exchange) { return ask(t.Context(), "GET", "") }) {
				if got.status != status || got.header.Get("Retry-After") != "7" {
					t.Errorf("%+v", got)
				}
			}
			if r.sent.Load() != 1 {
				t.Errorf("%d: sent %d", status, r.sent.Load())
			}
		})
	}
}

// TestLeaderLeaves: a follower does not die with its leader's client, before the head or in the body.
func TestLeaderLeaves(t *testing.T) {
	for _, at := range []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.next = func(req *http.Request) (*http.Response, error) {
				select {
				case <-time.After(time.Second):
				case <-req.Context().Done():
					return nil, context.Cause(req.Context())
				}
				in, out := io.Pipe()
				go func() {
					for range 10 {
						time.Sleep(100 * time.Millisecond)
						_, _ = out.Write([]byte("x"))
					}
					_ = out.Close()
				}()
				return r.stream(200, until(req.Context(), in)), nil
			}
			client, leave := context.WithCancel(t.Context())
			time.AfterFunc(at, leave)
			leader := make(chan result, 1)
			go func() { leader <- r.do(ask(client, "GET", "")) }()
			synctest.Wait()
			follower := r.get()
			if follower.body != strings.Repeat("x", 10) || follower.dedup != roleFollower || r.sent.Load() != 1 || follower.took != 2*time.Second {
				t.Errorf("%+v, sent %d", follower, r.sent.Load())
			}
			if got := <-leader; at < time.Second && !errors.Is(got.err, context.Canceled) {
				t.Errorf("an answer came for a leader whose client had left: %+v", got)
			}
		})
	}
}

// TestNobodyLeft: what nobody waits for is cancelled at once, and who comes then begins anew.
func TestNobodyLeft(t *testing.T) {
	for name, leaves := range map[string][2]time.Duration{
		"leader first":   {time.Second, 2 * time.Second},
		"follower first": {2 * time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				begin, ended := time.Now(), make(chan time.Duration, 9)
				r.next = func(req *http.Request) (*http.Response, error) {
					<-req.Context().Done()
					ended <- time.Since(begin)
					return nil, context.Cause(req.Context())
				}
				done := make(chan error, 2)
				for _, d := range leaves {
					client, leave := context.WithCancel(t.Context())
					time.AfterFunc(d, leave)
					go func() {
						_, err := r.chain.RoundTrip(func() *http.Request { req, _ := ask(client, "GET", ""); return req }())
						done <- err
					}()
					synctest.Wait()
				}
				if d := <-ended; d != 2*time.Second {
					t.Errorf("cancelled after %v", d)
				}
				for range 2 {
					if err := <-done; !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				}
				r.next = func(*http.Request) (*http.Response, error) { return r.answer(200, "new"), nil }
				if got := r.get(); got.body != "new" || got.dedup != roleLeader {
					t.Errorf("%+v", got)
				}
				if n := r.flights(); n != 0 {
					t.Errorf("%d entries are left", n)
				}
			})
		})
	}
}

// TestDyingFlight: an exchange that was cancelled and takes its time to end holds up nobody who comes then.
func TestDyingFlight(t *testing.T) {
	for name, followed := range map[string]bool{"leader alone": false, "leader and follower": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.next = func(req *http.Request) (*http.Response, error) {
					if r.sent.Load() > 1 {
						return r.answer(200, "new"), nil
					}
					<-req.Context().Done()
					time.Sleep(10 * time.Second)
					return nil, context.Cause(req.Context())
				}
				client, leave := context.WithCancel(t.Context())
				done := make(chan result, 2)
				go func() { done <- r.do(ask(client, "GET", "")) }()
				synctest.Wait()
				if followed {
					go func() { done <- r.do(ask(client, "GET", "")) }()
					synctest.Wait()
				}
				leave()
				synctest.Wait()
				if got := r.get(); got.body != "new" || got.took != 0 {
					t.Errorf("%+v", got)
				}
				if <-done; followed {
					<-done
				}
			})
		})
	}
}

func (r *rig) flights() (n int) {
	g := r.group()
	for i := range g.shard {
		g.shard[i].mu.Lock()
		n += len(g.shard[i].flights)
		g.shard[i].mu.Unlock()
	}
	if int(g.flights.Load()) != n {
		r.Errorf("%d flights, counted %d", n, g.flights.Load())
	}
	return n
}

func (r *rig) group() *group { return r.chain.(*stage).group }

// TestFollowerLeaves: a follower that leaves takes nothing with it (its leaving must not remove the key).
func TestFollowerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		leader := make(chan result, 1)
		go func() { leader <- r.get() }()
		synctest.Wait()
		client, leave := context.WithCancel(t.Context())
		gone := make(chan result, 1)
		go func() { gone <- r.do(ask(client, "GET", "")) }()
		synctest.Wait()
		leave()
		if got := <-gone; !errors.Is(got.err, context.Canceled) {
			t.Error(got.err)
		}
		if got := r.get(); got.dedup != roleFollower || r.sent.Load() != 1 {
			t.Errorf("%s, sent %d", got.dedup, r.sent.Load())
		}
		if got := <-leader; got.body != "body" {
			t.Errorf("%+v", got)
		}
	})
}

// TestFailurePromotesOne: no stampede after a failure; one follower tries, the others wait for it.
func TestFailurePromotesOne(t *testing.T) {
	broken := &exchange.Failure{Code: exchange.UpstreamReset, Sent: true}
	for name, first := range map[string]func(*rig) (*http.Response, error){
		"no answer": func(*rig) (*http.Response, error) { return nil, broken },
		"no head":   func(*rig) (*http.Response, error) { return nil, nil },
		"half a body": func(r *rig) (*http.Response, error) {
			resp := r.stream(200, io.MultiReader(strings.NewReader("half"), failing{broken}))
			resp.ContentLength = 100
			return resp, nil
		},
		"panic":         func(*rig) (*http.Response, error) { panic("a defect") },
		"panic in body": func(r *rig) (*http.Response, error) { return r.stream(200, panics{}), nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				most, running := 0, 0
				r.next = func(*http.Request) (*http.Response, error) {
					running++
					most = max(most, running)
					time.Sleep(time.Second)
					running--
					if r.sent.Load() == 1 {
						return first(r)
					}
					return r.answer(200, "second"), nil
				}
				ok := 0
				for _, got := range r.crowd(10, func(int) (*http.Request, *exchange.Exchange) { return ask(t.Context(), "GET", "") }) {
					if got.err == nil && got.body == "second" {
						ok++
					}
				}
				if ok != 9 || r.sent.Load() != 2 || most != 1 {
					t.Errorf("%d answered, sent %d, %d at once", ok, r.sent.Load(), most)
				}
				want := map[string]int{roleLeader: 2, roleFollower: 8}
				if !maps.Equal(r.counted(), want) || r.flights() != 0 {
					t.Errorf("counted %v; want %v; %d entries are left", r.counted(), want, r.flights())
				}
			})
		})
	}
}

type panics struct{}

func (panics) Read([]byte) (int, error) { panic("a defect") }

// safely recovers from a panic, as the front does.
func (r *rig) safely(f func() result) (out result) {
	defer func() {
		if p := recover(); p != nil {
			out.err = fmt.Errorf("%v", p)
		}
	}()
	return f()
}

// TestRefusalsAreShared: a leader that the proxy itself refuses releases its entry, and those who wait would meet the same.
func TestRefusalsAreShared(t *testing.T) {
	for _, err := range []error{exchange.Refuse(exchange.BreakerOpen, "open"), exchange.Refuse(exchange.RateLimited, "limit"),
		&exchange.Failure{Code: exchange.UpstreamTLS, Permanent: true}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.next = func(*http.Request) (*http.Response, error) {
				time.Sleep(time.Second)
				return nil, err
			}
			for _, got := range r.crowd(5, func(int) (*http.Request, *exchange.Exchange) { return ask(t.Context(), "GET", "") }) {
				if !errors.Is(got.err, err) {
					t.Errorf("%+v", got)
				}
			}
			if r.sent.Load() != 1 || r.flights() != 0 {
				t.Errorf("sent %d", r.sent.Load())
			}
		})
	}
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Wait = seconds(5) })
		r.next = func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Minute)
			return r.answer(200, "late"), nil
		}
		leader := make(chan result, 1)
		go func() { leader <- r.get() }()
		synctest.Wait()
		if got := r.get(); code(got.err) != exchange.DedupTimeout || got.took != 5*time.Second || got.dedup != roleFollower {
			t.Errorf("%+v", got)
		}
		late, cancel := context.WithTimeoutCause(t.Context(), time.Second, &exchange.Failure{Code: exchange.UpstreamTimeout})
		defer cancel()
		if got := r.do(ask(late, "GET", "")); code(got.err) != exchange.DedupTimeout || got.took != time.Second {
			t.Errorf("by its own deadline: %+v", got)
		}
		if got := <-leader; got.body != "late" {
			t.Errorf("%+v", got)
		}
	})
}

// TestEndlessAnswer: what has no length and goes on for longer than anybody waits is a stream.
func TestEndlessAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Wait = seconds(5) })
		r.next = func(req *http.Request) (*http.Response, error) {
			if r.sent.Load() > 1 {
				return r.answer(200, "own"), nil
			}
			time.Sleep(time.Second)
			in, out := io.Pipe()
			go func() {
				for range 60 {
					time.Sleep(time.Second)
					_, _ = out.Write([]byte("x"))
				}
				_ = out.Close()
			}()
			return r.stream(200, until(req.Context(), in)), nil
		}
		leader := make(chan result, 1)
		go func() { leader <- r.get() }()
		synctest.Wait()
		if got := r.get(); got.body != "own" || got.dedup != "bypass:"+whyStream || got.took != 5*time.Second {
			t.Errorf("%+v", got)
		}
		if got := <-leader; got.body != strings.Repeat("x", 60) {
			t.Errorf("%+v", got)
		}
	})
}

// TestLateComer: whoever comes when the head is there has a request of its own.
func TestLateComer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		resp, err := r.chain.RoundTrip(func() *http.Request { req, _ := ask(t.Context(), "GET", ""); return req }())
		if err != nil {
			t.Fatal(err)
		}
		if got := r.get(); got.dedup != roleLeader || r.sent.Load() != 2 {
			t.Errorf("%+v", got)
		}
		_ = resp.Body.Close()
	})
}

// TestSlowLeader: a leader whose client does not read holds nobody up, and its own first byte does not wait for the last.
func TestSlowLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.next = func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			in, out := io.Pipe()
			go func() {
				_, _ = out.Write([]byte("first"))
				time.Sleep(10 * time.Second)
				_, _ = out.Write([]byte(strings.Repeat("x", 100_000)))
				_ = out.Close()
			}()
			return r.stream(200, until(req.Context(), in)), nil
		}
		begin := time.Now()
		got := make(chan *http.Response, 1)
		go func() {
			req, _ := ask(t.Context(), "GET", "")
			resp, _ := r.chain.RoundTrip(req)
			p := make([]byte, 5)
			if _, err := io.ReadFull(resp.Body, p); err != nil || string(p) != "first" || time.Since(begin) != time.Second {
				t.Errorf("%q, %v after %v", p, err, time.Since(begin))
			}
			got <- resp
		}()
		synctest.Wait()
		if f := r.get(); len(f.body) != 100_005 || f.took != 11*time.Second {
			t.Errorf("%d bytes after %v", len(f.body), f.took)
		}
		resp := <-got
		rest, err := io.ReadAll(resp.Body)
		if len(rest) != 100_000 || err != nil {
			t.Errorf("%d, %v", len(rest), err)
		}
		_ = resp.Body.Close()
	})
}

func TestHeadAndGetAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.next = func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, ContentLength: 1 << 40}
			if req.Method == http.MethodGet {
				resp = r.answer(200, "get")
			}
			return resp, nil
		}
		for _, got := range r.crowd(6, func(i int) (*http.Request, *exchange.Exchange) {
			return ask(t.Context(), []string{"HEAD", "GET"}[i%2], "")
		}) {
			if head := got.x.Method == "HEAD"; head != (got.body == "") || head && got.resp.ContentLength != 1<<40 {
				t.Errorf("%s got %q", got.x.Method, got.body)
			}
		}
		if r.sent.Load() != 2 {
			t.Errorf("sent %d", r.sent.Load())
		}
	})
}

// TestLinger: only a good answer is repeated, only to whom it was for, and only for its time (A61, A64).
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Linger = seconds(10) })
		fields := []string{"X-A", "1"}
		r.next = func(*http.Request) (*http.Response, error) {
			return r.answer(200, fmt.Sprint("body", r.sent.Load()), fields...), nil
		}
		if got := r.get(); got.body != "body1" {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		time.Sleep(9 * time.Second)
		if got := r.get(); got.body != "body1" || got.dedup != roleReplayed || got.header.Get("Age") != "9" || got.header.Get("X-A") != "1" {
			t.Errorf("%+v", got)
		}
		if got := r.get("Authorization", "somebody else"); got.body != "body2" {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Second)
		if got := r.get(); got.body != "body3" {
			t.Errorf("%+v", got)
		}
		for i, fields := range [][]string{{"Set-Cookie", "a=b"}, {"Cache-Control", "no-store"}, {"Cache-Control", "no-cache"}, {"Cache-Control", "max-age=0"}} {
			r.next = func(*http.Request) (*http.Response, error) { return r.answer(200, "one", fields...), nil }
			r.get("X-Case", fmt.Sprint(i))
			synctest.Wait()
			if got := r.get("X-Case", fmt.Sprint(i)); got.dedup == roleReplayed {
				t.Errorf("%v lingers", fields)
			}
		}
		for i, c := range []struct {
			verdict exchange.Verdict
			status  int
			fields  []string
		}{{exchange.Again, 200, nil}, {exchange.Again, 404, nil}, {exchange.Unsaid, 404, []string{"X-Should-Retry", "true"}}, {exchange.Unsaid, 410, []string{"Retry-After", "1"}}} {
			r.next = func(req *http.Request) (*http.Response, error) {
				exchange.From(req.Context()).Judge(c.verdict)
				return r.answer(c.status, "one", c.fields...), nil
			}
			r.get("X-Asks", fmt.Sprint(i))
			synctest.Wait()
			if got := r.get("X-Asks", fmt.Sprint(i)); got.dedup == roleReplayed {
				t.Errorf("%+v lingers", c)
			}
		}
		r.next = func(*http.Request) (*http.Response, error) { return r.answer(503, "one"), nil }
		r.get("X-Case", "503")
		synctest.Wait()
		if got := r.get("X-Case", "503"); got.dedup == roleReplayed {
			t.Error("an error lingers")
		}
	})
}

// TestBudget: where memory is used up nobody shares, and nobody fails (A65).
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.room.memory.limit = 1000
		r.next = func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return r.stream(200, strings.NewReader(strings.Repeat("x", 100_000))), nil
		}
		all := r.crowd(4, func(int) (*http.Request, *exchange.Exchange) { return ask(t.Context(), "GET", "") })
		for _, got := range all {
			if got.err != nil || len(got.body) != 100_000 {
				t.Errorf("%d, %v", len(got.body), got.err)
			}
		}
		if n := roles(all)["bypass:"+whyMemory]; n != 3 || r.sent.Load() != 4 {
			t.Errorf("%v", roles(all))
		}
	})
}

func TestBoundOnFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		all := r.crowd(maxFollowers+3, func(int) (*http.Request, *exchange.Exchange) { return ask(t.Context(), "GET", "") })
		if got := roles(all); got["bypass:"+whyCrowd] != 2 || got[roleFollower] != maxFollowers {
			t.Errorf("%v", got)
		}
	})
}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Mode = setting.Observe })
		all := r.crowd(5, func(int) (*http.Request, *exchange.Exchange) { return ask(t.Context(), "GET", "") })
		observed := 0
		for _, got := range all {
			if len(got.x.Story().Observed) == 1 && got.x.Story().Observed[0] == observedFollower {
				observed++
			}
		}
		if r.sent.Load() != 5 || observed != 4 || !maps.Equal(r.counted(), map[string]int{roleLeader: 1, roleObserved: 4}) || r.flights() != 0 {
			t.Errorf("sent %d, observed %d, counted %v", r.sent.Load(), observed, r.counted())
		}
	})
}

type socket struct{ strings.Builder }

func (*socket) Read([]byte) (int, error) { return 0, io.EOF }
func (*socket) Close() error             { return nil }

func TestSwitchedBodyStaysWritable(t *testing.T) {
	r := newRig(t, nil)
	s := &socket{}
	r.next = func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 101, Header: http.Header{}, Body: s}, nil
	}
	req, _ := ask(t.Context(), "GET", "")
	resp, err := r.chain.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := resp.Body.(io.ReadWriteCloser).Write([]byte("ping")); err != nil || s.String() != "ping" {
		t.Error(err, s.String())
	}
	_ = resp.Body.Close()
}

// TestLeaderDeadline: the deadline of the leader ends its own turn, and the next has its own time.
func TestLeaderDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.next = func(req *http.Request) (*http.Response, error) {
			if at, ok := req.Context().Deadline(); r.sent.Load() == 1 && (!ok || time.Until(at) != 3*time.Second) {
				t.Errorf("the stages below see the deadline %v, %v", time.Until(at), ok)
			}
			select {
			case <-req.Context().Done():
				return nil, context.Cause(req.Context())
			case <-time.After(4 * time.Second):
				return r.answer(200, "in time"), nil
			}
		}
		late, cancel := context.WithTimeoutCause(t.Context(), 3*time.Second, &exchange.Failure{Code: exchange.UpstreamTimeout})
		defer cancel()
		leader := make(chan result, 1)
		go func() { leader <- r.do(ask(late, "GET", "")) }()
		synctest.Wait()
		if got := r.get(); got.body != "in time" || got.took != 7*time.Second || got.dedup != roleLeader {
			t.Errorf("%+v", got)
		}
		if got := <-leader; code(got.err) != exchange.UpstreamTimeout || got.took != 3*time.Second {
			t.Errorf("%+v", got)
		}
	})
}

// ear hears of an end.
type ear struct{ atomic.Bool }

func (e *ear) ParentEnded() { e.Store(true) }

// holder has a leash.
type holder struct {
	context.Context
	left func() bool
}

func (h holder) clientLeft() bool  { return h.left() }
func (h holder) value(key any) any { return h.Value(key) }

// Nobody need wait for a leash's end; whoever looks at it learns what has become of it all the same.
func TestLeashUnwaited(t *testing.T) {
	type step func(l *leash, leave context.CancelCauseFunc)
	leaves := func(_ *leash, leave context.CancelCauseFunc) { leave(errors.New("the client left")) }
	late := func(_ *leash, leave context.CancelCauseFunc) { leave(errLate) }
	for name, c := range map[string]struct {
		steps []step
		goes  bool // the work, without its client
		ended string
	}{
		"nothing happened":              {goes: true},
		"the client left, and it ends":  {steps: []step{leaves}, ended: "the client left"},
		"the client left, and it goes":  {steps: []step{leaves}, goes: true},
		"the time is over":              {steps: []step{late}, goes: true, ended: errLate.Error()},
		"nobody waits for it any more":  {steps: []step{func(l *leash, _ context.CancelCauseFunc) { l.cancel(errNobody) }}, goes: true, ended: errNobody.Error()},
		"it is over":                    {steps: []step{func(l *leash, _ context.CancelCauseFunc) { l.loose() }}, goes: true, ended: context.Canceled.Error()},
		"it is over, and then he left":  {steps: []step{func(l *leash, _ context.CancelCauseFunc) { l.loose() }, leaves}, goes: true, ended: context.Canceled.Error()},
		"it was cancelled, and is over": {steps: []step{func(l *leash, _ context.CancelCauseFunc) { l.cancel(errNobody); l.loose() }}, ended: errNobody.Error()},
	} {
		for how, look := range map[string]func(context.Context) error{
			"Cause": context.Cause,
			"Err":   func(ctx context.Context) error { _ = ctx.Err(); return context.Cause(ctx) },
			"Done": func(ctx context.Context) error {
				select {
				case <-ctx.Done():
				default:
				}
				synctest.Wait()
				return context.Cause(ctx)
			},
			"a child's": func(ctx context.Context) error {
				child, cancel := context.WithCancel(ctx)
				defer cancel()
				synctest.Wait()
				return context.Cause(child)
			},
			"an heir's": func(ctx context.Context) error {
				var ear ear
				new(exchange.Heir).Follow(ctx, &ear)
				synctest.Wait()
				if !ear.Load() {
					return nil
				}
				return context.Cause(ctx)
			},
		} {
			synctest.Test(t, func(t *testing.T) {
				type key struct{}
				parent, leave := context.WithCancelCause(context.WithValue(t.Context(), key{}, name))
				r, _ := ask(parent, "GET", "")
				var l leash
				asked := 0
				l.hold(r.Context(), holder{r.Context(), func() bool { asked++; return c.goes }})
				ctx := context.Context(&l)
				for _, s := range c.steps {
					s(&l, leave)
				}
				ended := ""
				if err := look(ctx); err != nil {
					ended = err.Error()
				}
				if ended != c.ended || (ctx.Err() != nil) != (c.ended != "") || ctx.Value(key{}) != name || asked > 1 {
					t.Errorf("%s, by its %s: ended with %q, %v; want %q; asked %d times", name, how, ended, ctx.Err(), c.ended, asked)
				}
				select {
				case <-ctx.Done():
					if c.ended == "" {
						t.Errorf("%s, by its %s: its channel is closed, and it goes on", name, how)
					}
				default:
					if c.ended != "" {
						t.Errorf("%s, by its %s: it has ended, and its channel is open", name, how)
					}
				}
				l.loose()
				<-ctx.Done()
				leave(nil)
			})
		}
	}
}

// A leader that reads a shared answer hears of its client leaving, even where nobody below waits for that.
func TestLeavingLeaderIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		in, out := io.Pipe()
		r.next = func(*http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return r.stream(200, in), nil
		}
		ctx, leave := context.WithCancel(t.Context())
		leader, follower := make(chan error, 1), make(chan result)
		go func() {
			resp, err := r.chain.RoundTrip(first(ask(ctx, "GET", "")))
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
			leader <- err
		}()
		synctest.Wait()
		go func() { follower <- r.get() }()
		time.Sleep(2 * time.Second)
		leave()
		synctest.Wait()
		select {
		case err := <-leader:
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		default:
			t.Error("the leader still reads")
		}
		_, _ = out.Write([]byte("body"))
		_ = out.Close()
		if got := <-follower; got.body != "body" || got.err != nil {
			t.Errorf("the follower got %q, %v", got.body, got.err)
		}
	})
}

func first(r *http.Request, _ *exchange.Exchange) *http.Request { return r }

// TestLingeringIsBounded: however many answers there are, those that linger are bounded in number and in bytes; whoever finds no room is answered all the same, and
// what is over gives its room back (A65).
func TestLingeringIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Linger = seconds(10) })
		r.room.memory.limit = 256 << 10
		r.next = func(*http.Request) (*http.Response, error) { return r.answer(200, strings.Repeat("x", 4<<10)), nil }
		fill := func() (kept int) {
			t.Helper()
			for i := range 200 {
				if got := r.get("X-Key", fmt.Sprint(i)); got.err != nil || len(got.body) != 4<<10 {
					t.Fatalf("%d: %+v", i, got)
				}
				if used := r.room.memory.used.Load(); used > r.room.memory.limit {
					t.Fatalf("%d bytes are used after %d answers", used, i)
				}
				synctest.Wait()
			}
			return int(r.group().kept.Load())
		}
		kept := fill()
		if kept < 20 || kept > 64 {
			t.Errorf("%d answers linger", kept)
		}
		if got := r.get("X-Key", "0"); got.dedup != roleReplayed {
			t.Errorf("the first one does not linger: %s", got.dedup)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n, used := r.group().kept.Load(), r.room.memory.used.Load(); n != 0 || used != 0 {
			t.Errorf("%d linger and take %d bytes when their time is over", n, used)
		}
		if again := fill(); again != kept {
			t.Errorf("then there is room for %d, not for %d", again, kept)
		}
		time.Sleep(10 * time.Second)
		r.room.memory.limit = 1 << 30
		r.next = func(*http.Request) (*http.Response, error) { return r.answer(204, ""), nil }
		for i := range maxLingering + 50 {
			r.get("X-Key", fmt.Sprint(i))
		}
		synctest.Wait()
		if n := r.group().kept.Load(); n != maxLingering {
			t.Errorf("%d of %d answers linger", n, maxLingering+50)
		}
		time.Sleep(10 * time.Second)
	})
}
