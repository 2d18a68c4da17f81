package daemon

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPlainRequestBytes(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 201 Created\r\nContent-Length: 5\r\nEtag: W/\"x\"\r\nX-Upstream: yes\r\n\r\nhello")
	b := start(t, "")
	for _, path := range []string{"/", "/a%2Fb/%7e%41?q=%20+x&;=1", "/a/../b/./c", "//double", "/a//b", "/a;b=c", "/*'()!$&,:@", "/caf%C3%A9", "/a?", "/a?x=%0d%0a"} {
		c := b.dialProxy()
		c.send("POST " + o.url(path) + " HTTP/1.1\r\nHost: other.example\r\nX-Request-Id: my-id-1\r\nAccept-Encoding: br\r\nContent-Length: 4\r\n\r\nbody")
		a := c.answer(http.MethodPost)
		if a.StatusCode != 201 || a.body != "hello" || a.Header.Get("Etag") != `W/"x"` || a.Header.Get("X-Upstream") != "yes" ||
			a.Header.Get("Httpowerd-Request-Id") != "my-id-1" || !strings.HasPrefix(a.Header.Get("Via"), "1.1 httpowerd") {
			t.Errorf("%s: %s %v %q", path, a.Status, a.Header, a.body)
		}
		got := o.requests()
		lines := strings.Split(strings.TrimSuffix(got[len(got)-1], "\r\n\r\nbody"), "\r\n")
		slices.Sort(lines[1:])
		want := []string{"POST " + path + " HTTP/1.1", "Accept-Encoding: br", "Content-Length: 4", "Host: " + o.addr, "Via: 1.1 httpowerd-", "X-Request-Id: my-id-1"}
		for i, line := range lines {
			if strings.HasPrefix(line, "Via: 1.1 httpowerd-") {
				lines[i] = "Via: 1.1 httpowerd-"
			}
		}
		if !slices.Equal(lines, want) {
			t.Errorf("the upstream received %q; want %q", lines, want)
		}
	}
}

// TestHopByHop: what is for one connection stays on it, both ways (G11, G12, G13, A37, A41, A42).
func TestHopByHop(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 200 OK\r\nConnection: X-Internal, close\r\nX-Internal: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n"+
		"Httpowerd-Error: fake\r\nHttpowerd-Request-Id: fake\r\nProxy-Status: origin; error=x\r\nContent-Length: 2\r\n\r\nok<close>")
	b := start(t, "")
	c := b.dialProxy()
	c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\n" +
		"Proxy-Authorization: Basic eDp5\r\nTE: trailers, deflate\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\nTrailer: X-T\r\nX-Kept: 1\r\n\r\n")
	a := c.answer(http.MethodGet)
	sent := o.requests()[0]
	for _, gone := range []string{"X-Secret", "Keep-Alive", "Proxy-", "Upgrade", "Http2-Settings", "deflate", "Connection: close"} {
		if strings.Contains(strings.ToLower(sent), strings.ToLower(gone)) {
			t.Errorf("the upstream received %s: %q", gone, sent)
		}
	}
	for _, kept := range []string{"X-Kept: 1", "Te: trailers"} {
		if !strings.Contains(sent, kept) {
			t.Errorf("the upstream did not receive %s: %q", kept, sent)
		}
	}
	for _, gone := range []string{"X-Internal", "Keep-Alive", "Proxy-Authenticate", "Httpowerd-Error"} {
		if a.Header.Get(gone) != "" {
			t.Errorf("the client received %s", gone)
		}
	}
	if a.Header.Get("Httpowerd-Request-Id") == "fake" || a.Header.Get("Proxy-Status") != "origin; error=x" {
		t.Errorf("%v", a.Header)
	}
}

// TestNoUserAgentStaysNone: nothing is added to a request but Via.
func TestNoUserAgentStaysNone(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "")
	c := b.dialProxy()
	c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n\r\n")
	c.answer(http.MethodGet)
	if got := o.requests()[0]; strings.Contains(got, "User-Agent") || strings.Contains(got, "Accept-Encoding") || strings.Contains(got, "Forwarded") {
		t.Errorf("the upstream received %q", got)
	}
}

// TestOriginForm: the proxy port is no web server (A20, G29).
func TestOriginForm(t *testing.T) {
	b := start(t, "")
	for _, target := range []string{"/metrics", "/healthz", "*"} {
		c := b.dialProxy()
		method := "GET"
		if target == "*" {
			method = "OPTIONS"
		}
		c.send(method + " " + target + " HTTP/1.1\r\nHost: " + b.ProxyAddrs()[0] + "\r\n\r\n")
		refused(t, c.answer(method), 400, "bad_request")
	}
}

// TestBadTargets: what could be read in two ways is refused (A2, A3, A4, A5, A6, A7, A19).
func TestBadTargets(t *testing.T) {
	b := start(t, "")
	for _, target := range []string{"http://user:pw@example.com/", "http://127.1/", "http://2130706433/", "http://0x7f.0.0.1/", "http://example.com:0/",
		"http://example.com:99999/", "http://example.com:/", "http://example.com:0080/", "http://[example.com]/", "http://[fe80::1%25lo]/",
		"ftp://example.com/", "file:///etc/passwd", "ws://example.com/", "http:///x", "http://exa%6dple.com/", "gopher://example.com:70/"} {
		c := b.dialProxy()
		c.send("GET " + target + " HTTP/1.1\r\nHost: example.com\r\n\r\n")
		a := c.answer(http.MethodGet)
		if a.StatusCode != 400 {
			t.Errorf("%s: %s %s", target, a.Status, a.body)
		}
	}
	for _, target := range []string{"example.com", "example.com:0", ":443", "user@example.com:443", "127.1:443", "example.com:99999", "[example.com]:443",
		"http://example.com:443", "example.com:443/x", "fe80::1%lo:443"} {
		c := b.dialProxy()
		c.send("CONNECT " + target + " HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if a := c.answer(http.MethodConnect); a.StatusCode != 400 {
			t.Errorf("CONNECT %s: %s %s", target, a.Status, a.body)
		}
	}
}

// TestAmbiguousFraming: one refusal, and nothing behind it is served (A22, A23).
func TestAmbiguousFraming(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "")
	smuggled := "GET " + o.url("/smuggled") + " HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, head := range map[string]string{
		"length and chunked": "POST " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":        "POST " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbodyb",
		"fold":               "GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
		"bare LF":            "GET " + o.url("/") + " HTTP/1.1\nHost: x\n\n",
		"no host":            "GET " + o.url("/") + " HTTP/1.1\r\n\r\n",
	} {
		c := b.dialProxy()
		c.send(head + smuggled)
		refused(t, c.answer(http.MethodGet), 400, "bad_request")
		if rest := c.rest(); rest != "" {
			t.Errorf("%s: after the refusal came %q", name, rest)
		}
	}
	if got := o.requests(); len(got) > 0 {
		t.Errorf("the upstream received %q", got)
	}
	for _, r := range b.records(5) {
		r.want(t, map[string]any{"outcome": "bad_request", "status": 400, "status_by": "proxy"})
	}
}

// TestBrokenChunk: a chunked upload that loses its framing in the middle is a bad request, and the connection ends.
func TestBrokenChunk(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "")
	c := b.dialProxy()
	c.send("POST " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n\r\n")
	refused(t, c.answer(http.MethodPost), 400, "bad_request")
	if rest := c.rest(); rest != "" {
		t.Errorf("after the refusal came %q", rest)
	}
	if got := o.requests(); len(got) > 0 {
		t.Errorf("the upstream received a whole request: %q", got)
	}
}

func TestSizes(t *testing.T) {
	b := start(t, "proxy: {limits: {header_bytes: 8KiB}}")
	c := b.dialProxy()
	c.send("GET http://example.com/" + strings.Repeat("a", 9000) + " HTTP/1.1\r\nHost: x\r\n\r\n")
	refused(t, c.answer(http.MethodGet), 414, "too_large")
	c = b.dialProxy()
	c.send("GET http://example.com/ HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 9000) + "\r\n\r\n")
	refused(t, c.answer(http.MethodGet), 431, "too_large")
}

// lengthOf304 is what becomes of the length that a 304 announces (RFC 9110 section 8.6): net/http drops it.
func lengthOf304() string {
	if onStandard() {
		return ""
	}
	return "10"
}

// TestBodilessAnswers: HEAD, 204 and 304 are framed exactly, and the connection stays usable (G17, A25).
func TestBodilessAnswers(t *testing.T) {
	for _, row := range []struct{ method, upstream, want string }{
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "1234"},
		{"GET", "HTTP/1.1 204 No Content\r\n\r\n", ""},
		{"GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\n\r\n", ""},
		{"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", lengthOf304()},
		{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "0"},
	} {
		o := newRawOrigin(t, row.upstream, okAnswer)
		b := start(t, "")
		c := b.dialProxy()
		c.send(row.method + " " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n\r\n")
		a := c.answer(row.method)
		if a.Header.Get("Content-Length") != row.want || len(a.TransferEncoding) > 0 || a.body != "" {
			t.Errorf("%s of %q: %v %v %q", row.method, row.upstream, a.Header, a.TransferEncoding, a.body)
		}
		c.send("GET " + o.url("/again") + " HTTP/1.1\r\nHost: x\r\n\r\n")
		if a := c.answer(http.MethodGet); a.body != "ok" {
			t.Errorf("the second answer is %q", a.body)
		}
	}
}

// TestEncodedBodiesStay: what the upstream compressed stays compressed (G14).
func TestEncodedBodiesStay(t *testing.T) {
	body := "\x1f\x8b not really gzip"
	o := newRawOrigin(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	b := start(t, "")
	a := get(t, b.client(), o.url("/"))
	if a.body != body || a.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%v %q", a.Header, a.body)
	}
}

// TestStreams: bytes of unknown length reach the client as they come (G15).
func TestStreams(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "application/x-ndjson", "application/grpc-web", "application/octet-stream"} {
		next := make(chan struct{})
		o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			for i := range 3 {
				fmt.Fprintf(w, "part %d\n", i)
				w.(http.Flusher).Flush()
				<-next // the next part comes only when the client has this one
			}
		}))
		defer o.Close()
		b := start(t, "")
		resp, err := b.client().Get(o.URL)
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(resp.Body)
		for i := range 3 {
			if line, err := r.ReadString('\n'); line != fmt.Sprintf("part %d\n", i) {
				t.Fatalf("%s: %q, %v", kind, line, err)
			}
			next <- struct{}{}
		}
		resp.Body.Close()
	}
}

// TestTrailers both ways (G33).
func TestTrailers(t *testing.T) {
	seen := make(chan http.Header, 1)
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Trailer
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
		w.Header().Set(http.TrailerPrefix+"X-Late", "43")
	}))
	defer o.Close()
	b := start(t, "")
	r, _ := http.NewRequest(http.MethodPost, o.URL, io.NopCloser(strings.NewReader("upload")))
	r.Trailer = http.Header{"X-Up": {"7"}}
	a := do(t, b.client(), r)
	if got := (<-seen).Get("X-Up"); got != "7" {
		t.Errorf("the upstream's trailer is %q", got)
	}
	if a.Trailer.Get("X-Sum") != "42" || a.Trailer.Get("X-Late") != "43" {
		t.Errorf("the client's trailers are %v", a.Trailer)
	}
}

// TestTrailerWithoutChunks: an answer whose framing has no place for trailers has none, whatever it announces: its fields stay where they are.
func TestTrailerWithoutChunks(t *testing.T) {
	value := strings.Repeat("v", 2<<10)
	fields := "Trailer: " + strings.Repeat("X-A,", 2<<10) + "X-B\r\nX-A: " + value + "\r\nX-B: w\r\n\r\nok<close>"
	for name, answer := range map[string]string{"to the end": "HTTP/1.1 200 OK\r\n" + fields, "with a length": "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + fields} {
		o := newRawOrigin(t, answer)
		b := start(t, "")
		c := b.dialProxy()
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n\r\n")
		a := c.answer(http.MethodGet)
		if a.body != "ok" || len(a.Trailer) > 0 || a.Header.Get("X-A") != value || a.Header.Get("X-B") != "w" || a.Header["Trailer"] != nil {
			t.Errorf("%s: %q, trailers %v, fields %.200v", name, a.body, a.Trailer, a.Header)
		}
	}
}

// TestInformational: 103 passes, in order, before the final answer (G16).
func TestInformational(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nKeep-Alive: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Final: 1\r\n\r\nok")
	b := start(t, "")
	c := b.dialProxy()
	c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n\r\n")
	first := c.answer(http.MethodGet)
	if first.StatusCode != 103 || first.Header.Get("Link") != "</a.css>" || first.Header.Get("Keep-Alive") != "" {
		t.Errorf("first came %s %v", first.Status, first.Header)
	}
	if a := c.answer(http.MethodGet); a.StatusCode != 200 || a.Header.Get("Link") != "" || a.body != "ok" {
		t.Errorf("then came %s %v %q", a.Status, a.Header, a.body)
	}
}

// TestExpectContinue: the body is asked for when the upstream asks, and a refusal before it does not hang (G18, A34).
func TestExpectContinue(t *testing.T) {
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Header.Get("Expect"), body)
	}))
	defer o.Close()
	b := start(t, "")
	c := b.dialProxy()
	c.send("PUT " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if a := c.answer(http.MethodPut); a.StatusCode != 100 {
		t.Fatalf("first came %s", a.Status)
	}
	c.send("body")
	if a := c.answer(http.MethodPut); a.body != "100-continue body" {
		t.Errorf("%s %q", a.Status, a.body)
	}
	c = b.dialProxy()
	c.send("PUT " + o.URL + "/no HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if a := c.answer(http.MethodPut); a.StatusCode != 403 {
		t.Errorf("an early refusal became %s", a.Status)
	}
}

// TestOldClient: HTTP/1.0 is answered so that it can tell the end.
func TestOldClient(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	b := start(t, "")
	c := b.dialProxy()
	c.send("GET " + o.url("/") + " HTTP/1.0\r\n\r\n")
	a := c.answer(http.MethodGet)
	if a.body != "hello" || len(a.TransferEncoding) > 0 {
		t.Errorf("%q %v", a.body, a.TransferEncoding)
	}
}

// TestBrokenUpstreams: what an upstream does wrong has a code, and the daemon lives (A24).
func TestBrokenUpstreams(t *testing.T) {
	for name, row := range map[string]struct {
		answer  string
		status  int
		outcome string
	}{
		"garbage":      {"SSH-2.0-nonsense\r\n<close>", 502, "upstream_protocol"},
		"silence":      {"<close>", 502, "upstream_reset"},
		"reset":        {"<reset>", 502, "upstream_reset"},
		"half a head":  {"HTTP/1.1 200 OK\r\nContent-Le<close>", 502, "upstream_reset"},
		"two lengths":  {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok<close>", 502, "upstream_protocol"},
		"status":       {"HTTP/1.1 abc OK\r\n\r\n<close>", 502, "upstream_protocol"},
		"hang":         {"<hang>", 504, "upstream_timeout"},
		"switch":       {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n<close>", 502, "upstream_protocol"},
		"endless head": {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 1<<20) + "<close>", 502, "upstream_protocol"},
	} {
		o := newRawOrigin(t, row.answer)
		b := start(t, "defaults: {retry: off, timeout: {attempt: 1s}}")
		a := get(t, b.client(), o.url("/"))
		refused(t, a, row.status, row.outcome)
		if strings.Contains(a.body, o.addr) || strings.Contains(a.body, "tcp") {
			t.Errorf("%s: the answer tells an address or an error text: %s", name, a.body)
		}
		b.records(1)[0].want(t, map[string]any{"outcome": row.outcome, "status": row.status, "status_by": "proxy"})
		if again := get(t, b.client(), newRawOrigin(t, okAnswer).url("/")); again.body != "ok" {
			t.Errorf("%s: afterwards %q", name, again.body)
		}
	}
}

// TestShortBody: an answer that breaks off must look broken to the client too, never like a whole one.
func TestShortBody(t *testing.T) {
	for name, upstream := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort<close>",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n<close>",
		"chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nnonsense\r\n<close>",
	} {
		o := newRawOrigin(t, upstream)
		b := start(t, "")
		resp, err := b.client().Get(o.url("/"))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the client took a part for the whole", name)
		}
		if outcome := b.records(1)[0].text("outcome"); !strings.HasPrefix(outcome, "upstream_") {
			t.Errorf("%s: the outcome is %s", name, outcome)
		}
	}
}

// TestClientGone: a client that leaves is noted, and the upstream is let go.
func TestClientGone(t *testing.T) {
	left := make(chan struct{})
	began := make(chan struct{})
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(left)
	}))
	defer o.Close()
	b := start(t, "")
	c := b.dialProxy()
	c.send("GET " + o.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
	<-began
	c.Close()
	select {
	case <-left:
	case <-time.After(5 * time.Second):
		t.Error("the upstream's request went on")
	}
	b.records(1)[0].want(t, map[string]any{"outcome": "client_gone"})
}

// TestUpstreamTLS: no certificate that does not verify is accepted (G3, A55).
func TestUpstreamTLS(t *testing.T) {
	o := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "secret") }))
	defer o.Close()
	o.Config.ErrorLog = nil
	b := start(t, "defaults: {tls: intercept}")
	a := get(t, b.client(), o.URL)
	refused(t, a, 502, "upstream_tls")
	if status, again := a.Header.Get("Proxy-Status"), a.Header.Get("X-Should-Retry"); status != "httpowerd; error=tls_certificate_error" || again != "false" {
		t.Errorf("Proxy-Status %q, X-Should-Retry %q", status, again)
	}
	b.records(1)[0].want(t, map[string]any{"outcome": "upstream_tls", "status": 502.0, "detail": "the upstream's certificate is from an authority that is not trusted"})
	trusting := start(t, "defaults: {tls: intercept, upstream: {ca: "+originCA(t, o)+"}}")
	if a := get(t, trusting.client(), o.URL); a.body != "secret" {
		t.Errorf("%s %q", a.Status, a.body)
	}
	old := start(t, "defaults: {tls: intercept, upstream: {ca: "+originCA(t, o)+", min_version: \"1.3\"}}")
	o.TLS.MaxVersion = tls.VersionTLS12
	a = get(t, old.client(), o.URL)
	refused(t, a, 502, "upstream_tls")
	if status := a.Header.Get("Proxy-Status"); status != "httpowerd; error=tls_alert_received; alert-id=70" {
		t.Error(status)
	}
}

// TestAbsoluteHTTPS: https:// in absolute form is a request, and the TLS is the proxy's.
func TestAbsoluteHTTPS(t *testing.T) {
	o := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, " ", r.TLS != nil) }))
	defer o.Close()
	b := start(t, "defaults: {upstream: {ca: "+originCA(t, o)+"}}")
	c := b.dialProxy()
	c.send("GET " + o.URL + "/x HTTP/1.1\r\nHost: wrong.example\r\n\r\n")
	if a := c.answer(http.MethodGet); a.body != o.Listener.Addr().String()+" true" {
		t.Errorf("%s %q", a.Status, a.body)
	}
	b.records(1)[0].want(t, map[string]any{"mode": "plain", "url": o.URL + "/x"})
}

// TestUpgradeToHTTPS: the app says http://, the proxy speaks https://.
func TestUpgradeToHTTPS(t *testing.T) {
	o := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, " ", r.TLS != nil) }))
	defer o.Close()
	b := start(t, "defaults: {upgrade: https, upstream: {ca: "+originCA(t, o)+"}}")
	if a := get(t, b.client(), "http://"+o.Listener.Addr().String()+"/"); a.body != o.Listener.Addr().String()+" true" {
		t.Errorf("%s %q", a.Status, a.body)
	}
	b.records(1)[0].want(t, map[string]any{"mode": "upgrade", "status": 200})
}

// TestLoops: the daemon never goes round in circles (A13, A14).
func TestLoops(t *testing.T) {
	b := start(t, "")
	_, port, _ := net.SplitHostPort(b.ProxyAddrs()[0])
	_, admin, _ := net.SplitHostPort(b.AdminAddr())
	for _, host := range []string{"127.0.0.1:" + port, "localhost:" + port, "[::ffff:127.0.0.1]:" + port, "127.0.0.1:" + admin} {
		refused(t, get(t, b.client(), "http://"+host+"/"), 502, "loop")
		if a := b.dialProxy().connect(host); a.StatusCode != 502 || a.Header.Get("Httpowerd-Error") != "loop" {
			t.Errorf("CONNECT %s: %s %s", host, a.Status, a.body)
		}
	}
	// Through a second proxy that sends it back.
	second := start(t, "defaults: {upstream: {proxy: \"http://"+b.ProxyAddrs()[0]+"\"}}")
	b.write("defaults: {upstream: {proxy: \"http://" + second.ProxyAddrs()[0] + "\"}}")
	if err := b.Reload(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	if a := get(t, b.client(), "http://loop.example.com/"); a.StatusCode != 502 || !strings.Contains(a.body, `"code":"loop"`) {
		t.Errorf("%s %s", a.Status, a.body) // the code's own field is the last proxy's to write, so it is gone
	}
}

// TestMaxForwards: RFC 9110 section 7.6.2.
func TestMaxForwards(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "")
	r := request(t, http.MethodOptions, o.url("/"), "")
	r.Header.Set("Max-Forwards", "0")
	if a := do(t, b.client(), r); a.StatusCode != 200 || a.Header.Get("Allow") == "" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
	r = request(t, http.MethodOptions, o.url("/"), "")
	r.Header.Set("Max-Forwards", "3")
	do(t, b.client(), r)
	if got := o.requests(); len(got) != 1 || !strings.Contains(got[0], "Max-Forwards: 2\r\n") {
		t.Errorf("the upstream received %q", got)
	}
}

// TestSlowHead: a head that drips in is cut off, and others are served meanwhile (A29, G9).
func TestSlowHead(t *testing.T) {
	b := start(t, "proxy: {limits: {header_timeout: 1s, idle: 1s}}")
	c := b.dialProxy()
	c.send("GET http://example.com/ HTTP/1.1\r\nHo")
	began := time.Now()
	c.rest()
	if waited := time.Since(began); waited > 5*time.Second {
		t.Errorf("a head that never ends was waited for %v", waited)
	}
	idle := b.dialProxy()
	idle.rest()
}

// TestCeilings: connections and tunnels past the limit are told why.
func TestCeilings(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "proxy: {limits: {connections: 3, tunnels: 1}}")
	first := b.dialProxy()
	if a := first.connect(o.addr); a.StatusCode != 200 {
		t.Fatalf("%s", a.Status)
	}
	second := b.dialProxy()
	a := second.connect(o.addr)
	if a.StatusCode != 503 || a.Header.Get("Httpowerd-Error") != "overloaded" || a.Header.Get("Retry-After") == "" || a.Header.Get("X-Should-Retry") != "" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
	second.rest()
	for range 2 {
		b.dialProxy().send("GET ")
	}
	time.Sleep(50 * time.Millisecond) // the two must be accepted before the third
	if a := b.dialProxy().answer(http.MethodGet); a.StatusCode != 503 || a.Header.Get("Httpowerd-Error") != "overloaded" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
}
