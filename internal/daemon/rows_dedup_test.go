package daemon

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// numbered answers with the number of the request.
func numbered(n int, _ string) string {
	body := fmt.Sprint("answer ", n)
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// TestDedupKeys: there is no cache, but dedup repeats answers for a while. Nobody gets one that was for somebody else, or for another question, and nobody can leave one
// behind for others: what the upstream may look at is part of the question, or the request is sent alone (A61, A62, A63).
func TestDedupKeys(t *testing.T) {
	const host = " HTTP/1.1\r\nHost: {H}\r\n"
	victim := "GET {T}/account" + host + "Authorization: Bearer alice\r\n\r\n"
	others := map[string]string{"no credentials": "GET {T}/account" + host + "\r\n", "others": "GET {T}/account" + host + "Authorization: Bearer mallory\r\n\r\n",
		"another scheme": "GET {T}/account" + host + "Authorization: bearer alice\r\n\r\n", "HEAD": "HEAD {T}/account" + host + "Authorization: Bearer alice\r\n\r\n"}
	for _, field := range []string{"Cookie: session=1", "X-Api-Key: 1", "X-Tenant: 1", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: evil.example.com", "X-Forwarded-Proto: http",
		"X-Forwarded-Scheme: http", "Forwarded: host=evil.example.com", "X-Original-Url: /admin", "X-Rewrite-Url: /admin", "X-Host: evil.example.com", "Range: bytes=0-1",
		"Accept-Encoding: gzip", "Accept: text/html", "Accept-Language: de", "Origin: https://evil.example.com", "User-Agent: x", "X-HTTP-Method-Override: POST",
		"X-HTTP-Method: DELETE", "X-Method-Override: PUT", "X_Api_Key: 1", "If-None-Match: \"a\"", "Authorization: Bearer mallory", "Content-Type: text/plain",
		"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0", "Content-Length: 4\r\n\r\nbody"} {
		others[field] = "GET {T}/account" + host + "Authorization: Bearer alice\r\n" + field + "\r\n\r\n"
		if strings.HasSuffix(field, "body") { // which ends there
			others[field] = strings.TrimSuffix(others[field], "\r\n\r\n")
		}
	}
	for _, path := range []string{"/account/a.css", "/account%0a.css", "/account%0d%0aX-A:1", "/account;a.css", "/account;", "/account?", "/account?a.css", "/account/", "//account", "/Account",
		"/account%3fa", "/account%2fa.css", "/account/../account", "/account/.", "/%61ccount", "/account%00", "/account%20", "/account?a=1;b", "/account?a=1&b", "/account?a=1%3bb"} {
		others[path] = "GET {T}" + path + host + "Authorization: Bearer alice\r\n\r\n"
	}
	for _, w := range scriptedWays(t, "dedup: {linger: 60s}", numbered) {
		send := func(text string) string {
			c := w.open()
			defer c.Close()
			c.send(w.text(text))
			method, _, _ := strings.Cut(text, " ")
			a := c.answer(method)
			if a.StatusCode != http.StatusOK {
				t.Errorf("%s: %q: %s %s", w.name, text, a.Status, a.body)
			}
			return a.body
		}
		first := send(victim)
		for name, text := range others {
			before := len(w.origin.requests())
			if got := send(text); got == first || len(w.origin.requests()) != before+1 {
				t.Errorf("%s, %s: got %q, of which %d were sent", w.name, name, got, len(w.origin.requests())-before)
			}
		}
		before := len(w.origin.requests())
		if again := send(victim); again != first || len(w.origin.requests()) != before {
			t.Errorf("%s: the same question got %q and %q, so nothing is shown", w.name, first, again)
		}
	}
}

// TestDedupTenants: one tenant's answer is no other's, although they ask for the same in the same words (A61).
func TestDedupTenants(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := serveRaw(t, l, numbered)
	b := start(t, "defaults: {dedup: {linger: 60s}}\ntenants:\n  a: {auth: [{bearer: {token: \"a token of a\"}}]}\n  b: {auth: [{bearer: {token: \"a token of b\"}}]}\n")
	send := func(tenant string) string {
		c := b.dialProxy()
		defer c.Close()
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer same\r\nProxy-Authorization: Bearer a token of " + tenant + "\r\n\r\n")
		return c.answer(http.MethodGet).body
	}
	a, of := send("a"), send("b")
	again, upstream := send("a"), 2
	for ; again != a && again != of && upstream < 10; upstream++ { // an answer is kept a moment after its client has it
		a, again = again, send("a")
	}
	if a == of || a != again || len(o.requests()) != upstream {
		t.Errorf("a got %q and %q, b %q, by %d requests", a, again, of, len(o.requests()))
	}
}

// TestNotRepeated: what is not whole, not good, or one client's is never repeated to the next one, and a part is never taken for the whole (A64).
func TestNotRepeated(t *testing.T) {
	answers := map[string]string{
		"aborted":          "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf<close>",
		"reset":            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf<reset>",
		"aborted chunks":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n<close>",
		"broken chunks":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n<close>",
		"partial":          "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/10\r\nContent-Length: 2\r\n\r\nok",
		"error":            "HTTP/1.1 500 Broken\r\nContent-Length: 2\r\n\r\nno",
		"unavailable":      "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno",
		"unauthorized":     "HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno",
		"too many":         "HTTP/1.1 429 Slowly\r\nContent-Length: 2\r\n\r\nno",
		"temporary":        "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
		"cookie":           "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok",
		"vary":             "HTTP/1.1 200 OK\r\nVary: Accept, *\r\nContent-Length: 2\r\n\r\nok",
		"vary on the id":   "HTTP/1.1 200 OK\r\nVary: X-Request-Id\r\nContent-Length: 2\r\n\r\nok",
		"no-store":         "HTTP/1.1 200 OK\r\nCache-Control: No-Store\r\nContent-Length: 2\r\n\r\nok",
		"no-cache":         "HTTP/1.1 200 OK\r\nCache-Control: no-cache=\"a\"\r\nContent-Length: 2\r\n\r\nok",
		"expired":          "HTTP/1.1 200 OK\r\nCache-Control: s-maxage=0\r\nContent-Length: 2\r\n\r\nok",
		"events":           "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"garbage":          "nonsense\r\n\r\n<close>",
		"ambiguous length": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok<close>",
	}
	named := map[string]string{}
	for name, text := range answers {
		named[plain(name)] = text
	}
	for _, w := range scriptedWays(t, "dedup: {linger: 60s}, retry: off, breaker: off", byName(named)) {
		for name := range named {
			before := len(w.origin.requests())
			for range 2 {
				c := w.open()
				c.send(w.text("GET {T}/" + name + " HTTP/1.1\r\nHost: {H}\r\n\r\n"))
				if resp, err := http.ReadResponse(c.r, nil); err == nil {
					_ = resp.Body.Close()
				}
				c.Close()
			}
			if n := len(w.origin.requests()) - before; n < 2 { // net/http asks again by itself where a kept connection gave nothing
				t.Errorf("%s, %s: 2 requests were sent %d times", w.name, name, n)
			}
		}
	}
}

// TestFailuresAreNotKept: what asks for another attempt, by the upstream's word or the operator's, is not what the next request gets, although all attempts are used up.
func TestFailuresAreNotKept(t *testing.T) {
	answer := func(status int, fields, body string) string {
		return fmt.Sprintf("HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s", status, fields, len(body), body)
	}
	for name, c := range map[string]struct {
		retry, first string
		kept         bool
	}{
		"500, again":            {"attempts: 2", answer(500, "X-Should-Retry: true\r\n", ""), false},
		"500, again, once":      {"attempts: 1", answer(500, "X-Should-Retry: True\r\n", ""), false},
		"400, again":            {"attempts: 2", answer(400, "X-Should-Retry: true\r\n", ""), false},
		"400, a vendor's again": {"attempts: 2, signal: Stripe-Should-Retry", answer(400, "Stripe-Should-Retry: true\r\n", ""), false},
		"once":                  {"attempts: 1, signal: Stripe-Should-Retry", answer(400, "Stripe-Should-Retry: true\r\n", ""), false},
		"a listed status":       {"attempts: 2, statuses: [423, 503]", answer(423, "", ""), false},
		"500, in a while":       {"attempts: 1", answer(500, "Retry-After-Ms: 50\r\n", ""), false},
		"a failure inside":      {`attempts: 2, failure_when: "response.json.ok == false"`, answer(200, "", `{"ok":false}`), false},
		"inside, once":          {`attempts: 1, failure_when: "response.json.ok == false"`, answer(200, "", `{"ok":false}`), false},
		"a plain 500":           {"attempts: 2", answer(500, "", ""), true},
	} {
		for _, key := range []string{"off", "{header: Idempotency-Key, inject: false}"} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var recovered atomic.Bool
			o := serveRaw(t, l, func(int, string) string {
				if recovered.Load() {
					return answer(200, "", `{"ok":true}`)
				}
				return c.first
			})
			b := start(t, "defaults: {dedup: {methods: [GET, POST], linger: 60s}, breaker: off, retry: {backoff: {base: 1ms, throttled: 1ms}, idempotency_key: "+key+", "+c.retry+"}}\n")
			send := func(method, fields string) string {
				c := b.dialProxy()
				defer c.Close()
				c.send(method + " " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n")
				return c.answer(method).body
			}
			const post = "Idempotency-Key: k\r\nContent-Length: 0\r\n"
			send(http.MethodPost, post)
			send(http.MethodGet, "")
			recovered.Store(true)
			if got := send(http.MethodGet, ""); got != `{"ok":true}` {
				t.Errorf("%s, key %s: a GET then got %q", name, key, got)
			}
			if got := send(http.MethodPost, post); got == `{"ok":true}` == c.kept {
				t.Errorf("%s, key %s: a repeated POST then got %q", name, key, got)
			}
		}
	}
}
