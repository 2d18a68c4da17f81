package dedup

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// versioned answers a GET with how many writes there were when it came.
func (r *rig) versioned(takes map[string]time.Duration, status *int) {
	var version atomic.Int32
	r.next = func(req *http.Request) (*http.Response, error) {
		body := fmt.Sprint(version.Load())
		time.Sleep(takes[req.Method])
		if req.Method == "GET" {
			return r.answer(200, body), nil
		}
		if *status < 400 {
			version.Add(1)
		}
		return r.answer(*status, "done"), nil
	}
}

// TestWritesEndLingering: nobody gets what was true before a write (RFC 9111 section 4.4).
func TestWritesEndLingering(t *testing.T) {
	for name, c := range map[string]struct {
		method, key string
		status      int
		edit        func(*http.Request, *exchange.Exchange)
		stays       bool
	}{
		"PUT": {method: "PUT"}, "PATCH": {method: "PATCH"}, "POST": {method: "POST"}, "DELETE": {method: "DELETE", status: 204},
		"a method of the upstream's": {method: "PURGE"}, "redirected": {method: "POST", status: 303}, "keyed": {method: "POST", key: "k", status: 201},
		"by another tenant":     {method: "PUT", edit: func(_ *http.Request, x *exchange.Exchange) { x.Tenant = "b" }},
		"with other fields":     {method: "PUT", edit: func(r *http.Request, _ *exchange.Exchange) { r.Header.Set("Authorization", "Bearer b") }},
		"asked to go alone":     {method: "PUT", key: "k", edit: func(r *http.Request, _ *exchange.Exchange) { r.Header.Set(skipField, "1") }},
		"spelt otherwise":       {method: "PUT", edit: func(r *http.Request, _ *exchange.Exchange) { r.URL.RawPath = "/v1/%74hings" }},
		"refused":               {method: "PUT", status: 404, stays: true},
		"failed":                {method: "PUT", status: 500, stays: true},
		"no write":              {method: "OPTIONS", stays: true},
		"TRACE":                 {method: "TRACE", stays: true},
		"another path":          {method: "PUT", edit: func(r *http.Request, _ *exchange.Exchange) { r.URL.Path = "/v1/others" }, stays: true},
		"another query":         {method: "PUT", edit: func(r *http.Request, _ *exchange.Exchange) { r.URL.RawQuery = "a=2" }, stays: true},
		"another port":          {method: "PUT", edit: func(_ *http.Request, x *exchange.Exchange) { x.Target.Port = 8443 }, stays: true},
		"another host":          {method: "PUT", edit: func(_ *http.Request, x *exchange.Exchange) { x.Target.Host = "b.example.com" }, stays: true},
		"another host's, keyed": {method: "POST", key: "k", edit: func(_ *http.Request, x *exchange.Exchange) { x.Target.Host = "b.example.com" }, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(c *Config) { writes(c); c.Linger = seconds(10) })
				if c.status == 0 {
					c.status = 200
				}
				r.versioned(nil, &c.status)
				r.get()
				r.get("X-Other", "1")
				synctest.Wait()
				req, x := ask(t.Context(), c.method, "", "Idempotency-Key", c.key)
				if c.edit != nil {
					c.edit(req, x)
				}
				if got := r.do(req, x); got.status != c.status {
					t.Errorf("%+v", got)
				}
				for _, fields := range [][]string{nil, {"X-Other", "1"}} {
					if got := r.get(fields...); (got.dedup == roleReplayed) != c.stays {
						t.Errorf("a GET with %q is then %s: %s", fields, got.dedup, got.body)
					}
					synctest.Wait()
					if got := r.get(fields...); got.dedup != roleReplayed {
						t.Errorf("the next one is %s", got.dedup)
					}
				}
				if c.key == "k" && c.edit == nil {
					if got := r.post("", "k"); got.dedup != roleReplayed {
						t.Errorf("the repeated write is %s", got.dedup)
					}
					if got := r.get(); got.dedup != roleReplayed {
						t.Errorf("after a write that was not sent a GET is %s", got.dedup)
					}
				}
			})
		})
	}
}

// TestWriteBesideARead: who came before the write may get what was true then, who comes after it does not, and nothing of it lingers.
func TestWriteBesideARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Linger = seconds(10) })
		status := 200
		r.versioned(map[string]time.Duration{"GET": 4 * time.Second, "PUT": time.Second}, &status)
		var mu sync.Mutex
		results := map[string]result{}
		send := func(name, method string) {
			go func() {
				got := r.do(ask(t.Context(), method, ""))
				mu.Lock()
				defer mu.Unlock()
				results[name] = got
			}()
			time.Sleep(time.Second)
			synctest.Wait()
		}
		send("first", "GET")
		send("write", "PUT") // from 1 s to 2 s; its answer is here
		send("later", "GET") // at 2 s
		send("latest", "GET")
		time.Sleep(500 * time.Millisecond) // 4.5 s: the first one is through
		synctest.Wait()
		send("follower", "GET")
		time.Sleep(2 * time.Second)
		send("replayed", "GET")
		for name, want := range map[string][2]string{"first": {"0", roleLeader}, "write": {"done", ""}, "later": {"1", roleLeader}, "latest": {"1", roleFollower},
			"follower": {"1", roleFollower}, "replayed": {"1", roleReplayed}} {
			if got := results[name]; got.body != want[0] || got.dedup != want[1] {
				t.Errorf("%s: %s as %s; want %s as %s; %v", name, got.body, got.dedup, want[0], want[1], got.err)
			}
		}
		if r.sent.Load() != 3 {
			t.Errorf("%d were sent", r.sent.Load())
		}
	})
}

// TestFollowersBeforeAWrite: they get the answer that they wait for, which does not linger.
func TestFollowersBeforeAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Linger = seconds(10) })
		status := 200
		r.versioned(map[string]time.Duration{"GET": 4 * time.Second, "PUT": time.Second}, &status)
		time.AfterFunc(time.Second, func() { r.do(ask(t.Context(), "PUT", "")) })
		all := r.crowd(5, func(int) (*http.Request, *exchange.Exchange) { return ask(t.Context(), "GET", "") })
		if n := roles(all); n[roleLeader] != 1 || n[roleFollower] != 4 || r.sent.Load() != 2 {
			t.Errorf("%v, sent %d", n, r.sent.Load())
		}
		synctest.Wait()
		if n := r.group().kept.Load(); n != 0 {
			t.Errorf("%d answers linger", n)
		}
		if got := r.get(); got.dedup != roleLeader || got.body != "1" {
			t.Errorf("%+v", got)
		}
	})
}

// TestWriteOfAnotherPolicy: a route may have the writes of what another one reads.
func TestWriteOfAnotherPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Linger = seconds(10) })
		status := 200
		r.versioned(nil, &status)
		r.get()
		synctest.Wait()
		reads := r.chain
		g := r.keeper.Begin()
		scope := state.Scope{Generation: g, Policy: api}
		c := Default()
		c.Linger = seconds(10)
		_ = r.room.Stage(scope, c, Key{}) // stays
		scope.Policy = api + "#writes"
		other := r.room.Stage(scope, Default(), Key{}).Wrap(exchange.RoundTripperFunc(func(req *http.Request) (*http.Response, error) { return r.next(req) }))
		g.Commit()
		r.chain = other
		r.do(ask(t.Context(), "PUT", ""))
		r.chain = reads
		if got := r.get(); got.dedup != roleLeader || got.body != "1" {
			t.Errorf("%+v", got)
		}
	})
}

// TestWritesAreBounded: beyond the targets that are told apart, everything from before is forgotten. Where nothing lingers, nothing is noted.
func TestWritesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Linger = seconds(10) })
		status := 200
		r.versioned(nil, &status)
		r.get()
		synctest.Wait()
		write := func(i int) {
			req, x := ask(t.Context(), "PUT", "")
			req.URL.RawQuery = fmt.Sprint("n=", i)
			r.do(req, x)
		}
		for i := range maxChanges {
			write(i)
		}
		if got := r.get(); got.dedup != roleReplayed {
			t.Errorf("writes to other targets made it %s", got.dedup)
		}
		write(0)
		if got := r.get(); got.dedup != roleReplayed {
			t.Errorf("a write to one that is known made it %s", got.dedup)
		}
		write(maxChanges)
		if got := r.get(); got.dedup != roleLeader {
			t.Errorf("one write too many made it %s", got.dedup)
		}
		synctest.Wait()
		write(maxChanges + 1)
		if got := r.get(); got.dedup != roleReplayed {
			t.Errorf("the next one made it %s", got.dedup)
		}
		if n := len(r.room.changes.to); n != 2 {
			t.Errorf("%d targets are noted", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Linger = seconds(10) })
		r.load(nil, Key{})
		r.do(ask(t.Context(), "PUT", ""))
		if n := r.room.changes.last.Load(); n != 0 {
			t.Errorf("without linger %d writes are noted", n)
		}
	})
}
