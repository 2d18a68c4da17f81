package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// guarded are requests that show or change something; open are those that everybody may send.
var (
	guarded = [][2]string{{"GET", "/"}, {"GET", "/api/v1/config"}, {"POST", "/api/v1/reload"}, {"GET", "/api/v1/hosts"}, {"GET", "/api/v1/hosts/a.example.com"},
		{"GET", "/api/v1/breakers"}, {"POST", "/api/v1/breakers/a.example.com:443"}, {"GET", "/api/v1/limits"}, {"GET", "/api/v1/state"}, {"PUT", "/api/v1/log-level"},
		{"GET", "/api/v1/log-level"}, {"GET", "/api/v1/traffic"}, {"GET", "/api/v1/explain"}, {"GET", "/nothing"}, {"DELETE", "/api/v1/cache"}}
	openPages = [][2]string{{"GET", "/healthz"}, {"GET", "/readyz"}, {"GET", "/metrics"}, {"GET", "/ca.pem"}, {"HEAD", "/healthz"}, {"HEAD", "/ca.pem"}}
)

func TestToken(t *testing.T) {
	r := newRig(t, "admin: {token: let-me-in-1234}")
	for _, q := range openPages {
		r.is(r.ask(q[0], q[1], ""), 200, "")
	}
	for _, q := range guarded {
		for name, fields := range map[string][]string{
			"none": nil, "wrong": {"Authorization", "Bearer let-me-in-1235"}, "another scheme": {"Authorization", "Basic bGV0LW1lLWluLTEyMzQ="},
			"the token as a scheme": {"Authorization", "let-me-in-1234"}, "empty": {"Authorization", "Bearer "},
			"twice":  {"Authorization", "Bearer let-me-in-1234", "Authorization", "Bearer let-me-in-1234"},
			"prefix": {"Authorization", "Bearer let-me-in-123"}, "in the query only": {"X-Token", "let-me-in-1234"},
		} {
			r.handler.guesses = newGuesses()
			w := r.ask(q[0], q[1], "", fields...)
			if r.is(w, 401, "unauthorized"); !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%v with %s: WWW-Authenticate is %q", q, name, w.Header().Get("WWW-Authenticate"))
			}
		}
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
		r.is(r.ask("GET", "/api/v1/limits", "", "Authorization", scheme+"let-me-in-1234"), 200, "")
	}
	r.is(r.ask("GET", "/nothing", "", "Authorization", "Bearer let-me-in-1234"), 404, "not_found")
}

// TestTokenIsTheCurrentOne: a reload changes it.
func TestTokenIsTheCurrentOne(t *testing.T) {
	r := newRig(t, "")
	r.is(r.ask("GET", "/api/v1/limits", ""), 200, "")
	for _, token := range []string{"first-token-0001", "second-token-0002"} {
		r.write("admin: {token: " + token + "}")
		if err := r.holder.Reload(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		r.is(r.ask("GET", "/api/v1/limits", "", "Authorization", "Bearer "+token), 200, "")
		r.is(r.ask("GET", "/api/v1/limits", "", "Authorization", "Bearer zeroth-token-000"), 401, "unauthorized")
	}
	r.is(r.ask("GET", "/api/v1/limits", "", "Authorization", "Bearer first-token-0001"), 401, "unauthorized")
}

func TestMetricsAuth(t *testing.T) {
	r := newRig(t, "admin: {token: let-me-in-1234, metrics_auth: true}")
	r.is(r.ask("GET", "/metrics", ""), 401, "unauthorized")
	r.is(r.ask("GET", "/metrics", "", "Authorization", "Bearer let-me-in-1234"), 200, "")
	r.is(r.ask("GET", "/healthz", ""), 200, "")
	r.is(r.ask("GET", "/ca.pem", ""), 200, "")
}

// TestBeyondLoopback: without a token a listener that others reach serves nothing but the open pages (A67).
func TestBeyondLoopback(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:9128", "[::]:9128", "192.0.2.7:9128", "[2001:db8::1]:9128", "", "nonsense"} {
		r := newRig(t, "")
		r.options.Listen = listen
		r.handler = New(r.options)
		for _, q := range openPages {
			r.is(r.ask(q[0], q[1], ""), 200, "")
		}
		for _, q := range guarded {
			r.is(r.ask(q[0], q[1], ""), 403, "denied")
			r.is(r.ask(q[0], q[1], "", "Authorization", "Bearer "), 403, "denied")
		}
	}
	for _, listen := range []string{"127.0.0.1:9128", "127.9.9.9:1", "[::1]:9128", "[::ffff:127.0.0.1]:9128"} {
		r := newRig(t, "")
		r.options.Listen = listen
		r.handler = New(r.options)
		r.is(r.ask("GET", "/api/v1/limits", ""), 200, "")
	}
	r := newRig(t, "admin: {token: let-me-in-1234}")
	r.options.Listen = "0.0.0.0:9128"
	r.handler = New(r.options)
	r.is(r.ask("GET", "/api/v1/limits", "", "Authorization", "Bearer let-me-in-1234"), 200, "")
}

// TestWhoAsks: a web page of another origin reaches nothing, by whatever name it calls the listener (A68).
func TestWhoAsks(t *testing.T) {
	for _, row := range []struct {
		fields []string
		pass   bool
	}{
		{nil, true},
		{[]string{"Host", "localhost:9128"}, true},
		{[]string{"Host", "LOCALHOST"}, true},
		{[]string{"Host", "127.0.0.1"}, true},
		{[]string{"Host", "[::1]:9128"}, true},
		{[]string{"Host", "192.0.2.1:80"}, true},
		{[]string{"Host", "proxy.example.com:9128"}, true},
		{[]string{"Host", "proxy.example.com."}, true},
		{[]string{"Host", ""}, true},
		{[]string{"Host", "rebind.example.net:9128"}, false},
		{[]string{"Host", "a.proxy.example.com"}, false},
		{[]string{"Host", "localhost.example.net"}, false},
		{[]string{"Host", "127.0.0.1.example.net"}, false},
		{[]string{"Host", "httpowerd"}, false},
		{[]string{"Host", "127.1"}, false},
		{[]string{"Host", "0x7f000001"}, false},
		{[]string{"Host", "localhost@rebind.example.net"}, false},
		{[]string{"Host", "[fe80::1%25lo]:9128"}, false},
		{[]string{"Origin", "http://127.0.0.1:9128"}, true},
		{[]string{"Origin", "https://127.0.0.1:9128"}, true},
		{[]string{"Origin", "http://localhost:9128"}, false},
		{[]string{"Origin", "http://127.0.0.1:8080"}, false},
		{[]string{"Origin", "http://127.0.0.1"}, false},
		{[]string{"Origin", "http://evil.example.net"}, false},
		{[]string{"Origin", "null"}, false},
		{[]string{"Origin", ""}, false},
		{[]string{"Origin", "http://127.0.0.1:9128", "Origin", "http://evil.example.net"}, false},
		{[]string{"Origin", "chrome-extension://127.0.0.1:9128"}, false},
		{[]string{"Sec-Fetch-Site", "none"}, true},
		{[]string{"Sec-Fetch-Site", "same-origin"}, true},
		{[]string{"Sec-Fetch-Site", "same-site"}, false},
		{[]string{"Sec-Fetch-Site", "cross-site"}, false},
	} {
		r := newRig(t, "")
		for _, q := range append(openPages[:4:4], guarded...) {
			if q[1] == "/api/v1/traffic" {
				continue // it would go on
			}
			w := r.ask(q[0], q[1], "", row.fields...)
			if row.pass && w.Code == 403 {
				t.Errorf("%v %v: %s", q, row.fields, w.Body)
			}
			if !row.pass {
				r.is(w, 403, "denied")
			}
		}
	}
}

// TestNamesOfContainers: a name without a dot is nobody's who could point it here from outside, but is no name of a loopback listener.
func TestNamesOfContainers(t *testing.T) {
	r := newRig(t, "")
	r.options.Listen = "0.0.0.0:9128"
	r.handler = New(r.options)
	r.is(r.ask("GET", "/ca.pem", "", "Host", "httpowerd:9128"), 200, "")
	r.is(r.ask("GET", "/ca.pem", "", "Host", "httpowerd.example.net:9128"), 403, "denied")
}

// TestNoProxy: an absolute target is never answered as if it were a path (A20).
func TestNoProxy(t *testing.T) {
	r := newRig(t, "")
	for _, target := range []string{"http://victim.example.com/healthz", "http://127.0.0.1:9128/healthz"} {
		r.is(r.ask("GET", target, ""), 400, "bad_request")
	}
	q := httptest.NewRequest(http.MethodConnect, "victim.example.com:443", nil)
	w := httptest.NewRecorder()
	if r.handler.ServeHTTP(w, q); w.Code != 400 {
		t.Errorf("CONNECT: %d %s", w.Code, w.Body)
	}
}

func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "admin: {token: let-me-in-1234}")
		guess := func(token, from string) *httptest.ResponseRecorder {
			return r.ask("GET", "/api/v1/limits", "", "Authorization", "Bearer "+token, "From", from)
		}
		for range maxGuesses {
			r.is(guess("let-me-in-1234", "192.0.2.1:1000"), 200, "")
			r.is(guess("wrong-one-123456", "192.0.2.1:1000"), 401, "unauthorized")
			r.is(r.ask("GET", "/api/v1/limits", "", "From", "192.0.2.1:1"), 401, "unauthorized") // says nothing, costs nothing
		}
		w := guess("wrong-one-123456", "192.0.2.1:2000")
		if r.is(w, 429, "rate_limited"); w.Header().Get("Retry-After") != "6" {
			t.Errorf("Retry-After: %s", w.Header().Get("Retry-After"))
		}
		r.is(guess("let-me-in-1234", "192.0.2.1:2000"), 429, "rate_limited")
		r.is(guess("let-me-in-1234", "192.0.2.2:2000"), 200, "")
		r.is(r.ask("GET", "/metrics", "", "From", "192.0.2.1:1"), 200, "")
		time.Sleep(guessEvery)
		r.is(guess("wrong-one-123456", "192.0.2.1:2000"), 401, "unauthorized")
		r.is(guess("let-me-in-1234", "192.0.2.1:2000"), 429, "rate_limited")
		time.Sleep(guessEvery)
		r.is(guess("let-me-in-1234", "192.0.2.1:2000"), 200, "")
		for i := range maxGuesses { // a network's addresses are one guesser
			r.is(guess("wrong-one-123456", "[2001:db8::"+string(rune('a'+i%6))+"]:1000"), 401, "unauthorized")
		}
		r.is(guess("wrong-one-123456", "[2001:db8::ffff]:1000"), 429, "rate_limited")
		r.is(guess("wrong-one-123456", "[2001:db8:0:1::1]:1000"), 401, "unauthorized")
	})
}

// TestPaths: a path has one spelling, a page its methods.
func TestPaths(t *testing.T) {
	r := newRig(t, "")
	for _, path := range []string{"/x", "/healthz/", "//healthz", "/health%7a", "/api", "/api/v1", "/api/v1/", "/api/v1/hosts/", "/api/v1/config/x", "/api/v2/config",
		"/api/v1/cache", "/debug/pprof/", "/api/v1/../../healthz", "/api/v1/hosts/a/b", "/api/v1/breakers/"} {
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		q.URL.Path, q.URL.RawPath, q.Host = path, path, "localhost"
		if strings.Contains(path, "%") {
			q.URL.Path = "/healthz"
		}
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, q)
		r.is(w, 404, "not_found")
	}
	for _, row := range [][3]string{
		{"POST", "/healthz", "GET, HEAD"}, {"DELETE", "/", "GET, HEAD"}, {"GET", "/api/v1/reload", "POST"}, {"HEAD", "/api/v1/reload", "POST"},
		{"GET", "/api/v1/breakers/a.example.com:443", "POST"}, {"PATCH", "/api/v1/log-level", "GET, HEAD, PUT"}, {"OPTIONS", "/metrics", "GET, HEAD"},
		{"TRACE", "/", "GET, HEAD"}, {"get", "/", "GET, HEAD"},
	} {
		w := r.ask(row[0], row[1], "")
		if r.is(w, 405, "method_not_allowed"); w.Header().Get("Allow") != row[2] {
			t.Errorf("%v: Allow is %q", row, w.Header().Get("Allow"))
		}
	}
	r.is(r.ask("DELETE", "/api/v1/cache?host=a.example.com", ""), 404, "not_found")
}

// TestPlaces: whoever takes all places of the open pages takes none of the operator's.
func TestPlaces(t *testing.T) {
	r := newRig(t, "")
	for range maxOpen {
		r.handler.open <- struct{}{}
	}
	w := r.ask("GET", "/metrics", "")
	if r.is(w, 503, "overloaded"); w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.is(r.ask("GET", "/healthz", ""), 200, "")
	r.is(r.ask("GET", "/api/v1/limits", ""), 200, "")
	<-r.handler.open
	for range maxOpen { // a place is given back
		r.is(r.ask("GET", "/metrics", ""), 200, "")
	}
}

func TestPanic(t *testing.T) {
	r := newRig(t, "")
	r.handler.Limits = nil
	w := r.ask("GET", "/api/v1/limits", "")
	r.is(w, 500, "internal")
	if strings.Contains(w.Body.String(), "nil pointer") || !strings.Contains(r.log.String(), "nil pointer") {
		t.Errorf("answer %s, log %s", w.Body, r.log.String())
	}
	for range maxGuarded {
		r.ask("GET", "/api/v1/limits", "")
	}
	r.is(r.ask("GET", "/api/v1/breakers", ""), 200, "") // the places were given back
	r.handler.Breakers = nil
	r.ask("POST", "/api/v1/breakers/a.example.com:443", `{"state": "open"}`)
	if got := r.recorded(); len(got) != 1 || got[0]["result"] != "internal" {
		t.Errorf("%v", got)
	}
}
