package ratelimit

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
)

// Two requests share a limit of one exactly where nothing tells them apart.
func TestWhomALimitCounts(t *testing.T) {
	type edits = []func(*http.Request, *exchange.Exchange)
	pattern := func(p string) func(*http.Request, *exchange.Exchange) {
		return func(_ *http.Request, x *exchange.Exchange) { x.Policy = p }
	}
	port := func(_ *http.Request, x *exchange.Exchange) { x.Target.Port = 8443 }
	many := func(r *http.Request, _ *exchange.Exchange) {
		for i := range few + 1 {
			r.Header.Set("X-"+strconv.Itoa(i), "x")
		}
	}
	signed := func(signature string) string {
		return "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260115/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=" + signature
	}
	for name, c := range map[string]struct {
		scope      string
		key        []string
		a, b       edits
		otherHost  bool
		shareLimit bool
	}{
		"the same authority":         {shareLimit: true},
		"another host":               {otherHost: true},
		"another port":               {b: edits{port}},
		"another path, tenant, user": {b: edits{path("/b"), tenant("b"), header("Authorization", "b")}, shareLimit: true},
		"another host of a pattern":  {scope: ScopePattern, otherHost: true, b: edits{port}, shareLimit: true},
		"another route of a pattern": {scope: ScopePattern, b: edits{pattern("*.example.com#3")}, shareLimit: true},
		"another pattern":            {scope: ScopePattern, b: edits{pattern("*.example.org")}},
		"tenant":                     {key: []string{"tenant"}, a: edits{tenant("a")}, b: edits{tenant("b")}},
		"tenant, the same":           {key: []string{"tenant"}, a: edits{tenant("a")}, b: edits{tenant("a"), path("/b")}, shareLimit: true},
		"credential":                 {key: []string{"credential"}, a: edits{header("Authorization", "a")}, b: edits{header("Authorization", "b")}},
		"credential, none":           {key: []string{"credential"}, a: edits{header("Authorization", "a")}},
		"credential, another field":  {key: []string{"credential"}, a: edits{header("X-Api-Key", "a")}, b: edits{header("Authorization", "a")}},
		"credential, the same": {key: []string{"credential"}, a: edits{header("X-Api-Key", "a")},
			b: edits{header("X-Api-Key", "a"), header("X", "b")}, shareLimit: true},
		"credential, another signature": {key: []string{"credential"}, a: edits{header("Authorization", signed("aa"))},
			b: edits{header("Authorization", signed("bb"))}, shareLimit: true},
		"credential, another signer": {key: []string{"credential"}, a: edits{header("Authorization", signed("aa"))},
			b: edits{header("Authorization", strings.Replace(signed("aa"), "AKID", "BKID", 1))}},
		"credential, two of them": {key: []string{"credential"}, a: edits{header("X-Api-Key", "a"), header("Authorization", "a")},
			b: edits{header("X-Api-Key", "a"), header("Authorization", "b")}},
		"credential, two of them, the same": {key: []string{"credential"}, a: edits{header("X-Api-Key", "a"), header("Authorization", "b")},
			b: edits{header("Authorization", "b"), header("X-Api-Key", "a")}, shareLimit: true},
		"credential, among many fields": {key: []string{"credential"}, a: edits{header("Authorization", "a")}, b: edits{header("Authorization", "a"), many}, shareLimit: true},
		"credential, another among many fields": {key: []string{"credential"}, a: edits{header("Authorization", "a"), many},
			b: edits{header("Authorization", "b"), many}},
		"path":                {key: []string{"path"}, a: edits{path("/a")}, b: edits{path("/b")}},
		"path, the same":      {key: []string{"path"}, a: edits{path("/a"), tenant("a")}, b: edits{path("/a"), tenant("b")}, shareLimit: true},
		"header":              {key: []string{"header:x-account"}, a: edits{header("X-Account", "a")}, b: edits{header("X-Account", "b")}},
		"header, none":        {key: []string{"header:x-account"}, a: edits{header("X-Account", "a")}},
		"header, the same":    {key: []string{"header:x-account"}, a: edits{header("X-ACCOUNT", "a")}, b: edits{header("x-account", "a")}, shareLimit: true},
		"all of it":           {key: []string{"path", "tenant", "header:X-A"}, a: edits{path("/a"), tenant("t"), header("X-A", "1")}, b: edits{path("/a"), tenant("t"), header("X-A", "2")}},
		"all of it, the same": {key: []string{"path", "tenant", "header:X-A"}, a: edits{path("/a"), tenant("t")}, b: edits{path("/a"), tenant("t")}, shareLimit: true},
		"one part's value in another": {key: []string{"header:X-A", "header:X-B"}, a: edits{header("X-A", "1"), header("X-B", "")},
			b: edits{header("X-A", ""), header("X-B", "1")}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			chain := r.load(level("defaults", 1, time.Hour, func(l *Config) {
				l.Wait, l.Key, l.Learn = 0, c.key, false
				if c.scope != "" {
					l.Scope = c.scope
				}
			}))
			host := api
			if c.otherHost {
				host = "other.example.com"
			}
			if _, err := chain.RoundTrip(request(t.Context(), api, c.a...)); err != nil {
				t.Fatal(err)
			}
			if _, err := chain.RoundTrip(request(t.Context(), host, c.b...)); refusal(err, limited) != c.shareLimit {
				t.Errorf("%s: the second request: %v; want it refused: %v", name, err, c.shareLimit)
			}
		})
	}
}

// A key may hold a credential: what is kept and shown of it gives nothing away, and is another in each process.
func TestKeysAreNotReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := map[string]bool{}
		for range 2 {
			r := newRig(t)
			chain := r.load(level("defaults", 1, time.Hour, func(c *Config) { c.Key = []string{"credential", "header:X-Account"} }))
			r.replies(200, "X-RateLimit-Remaining: 3", "X-RateLimit-Reset: 60")
			r.pass(chain, api, header("Authorization", "Bearer planted-token"), header("X-Account", "planted-account"))
			r.room.Limits(func(l LimitStatus) {
				if len(l.Key) != 32 || strings.Contains(l.Key, "planted") || keys[l.Key] {
					t.Errorf("%s limit of key %q", l.Kind, l.Key)
				}
				keys[l.Key] = true
			})
		}
		if len(keys) != 4 {
			t.Errorf("%d keys; want a configured and an announced limit of two processes", len(keys))
		}
	})
}

func TestTunnels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		chain := r.load(level("defaults", 1, second, func(c *Config) { c.Key = []string{"path", "credential", "header:X-A"} }))
		connect := func(req *http.Request, x *exchange.Exchange) {
			req.Method, x.Method, x.Kind = http.MethodConnect, http.MethodConnect, exchange.KindTunnel
			req.URL.Path = ""
		}
		r.replies(429, "Retry-After: 60", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60")
		if resp := r.pass(chain, api, connect); len(resp.Header) != 3 {
			t.Errorf("something was added to the answer of a CONNECT: %v", resp.Header)
		}
		r.join(t.Context(), chain, "second", api, connect)
		time.Sleep(time.Minute)
		r.wants(turn{"", 0}, turn{"second", second}) // held by the limit; nothing was learnt
		r.room.Limits(func(l LimitStatus) {
			if l.Kind == Announced {
				t.Errorf("a tunnel taught %+v", l)
			}
		})
	})
}
