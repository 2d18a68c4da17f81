package daemon

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestHostileHeads: what can be read in two ways is refused in the same words on every way, nothing of it reaches the upstream, and nothing behind it is
// served; what is merely odd arrives as exactly one clean request (table 2.1; G10, A18, A22, A23, A28, A34).
func TestHostileHeads(t *testing.T) {
	const post = "POST {T}/ HTTP/1.1\r\nHost: {H}\r\n"
	refusals := map[string]struct {
		text   string
		status int
		code   string
	}{
		"length and chunked":    {post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		"chunked and length":    {post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		"two lengths":           {post + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nbodyb", 400, "bad_request"},
		"plus length":           {post + "Content-Length: +4\r\n\r\nbody", 400, "bad_request"},
		"length list":           {post + "Content-Length: 4, 4\r\n\r\nbody", 400, "bad_request"},
		"coding":                {post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "unsupported"},
		"codings":               {post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "unsupported"},
		"chunked twice":         {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		"space before colon":    {post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		"fold":                  {post + "X-A: 1\r\n 2\r\n\r\n", 400, "bad_request"},
		"fold in the coding":    {post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		"bare LF":               {"GET {T}/ HTTP/1.1\nHost: {H}\n\n", 400, "bad_request"},
		"bare LF in a field":    {post + "X-A: 1\nContent-Length: 30\r\n\r\n", 400, "bad_request"},
		"bare CR":               {post + "X-A: 1\rContent-Length: 30\r\n\r\n", 400, "bad_request"},
		"bare LF in a size":     {post + "Transfer-Encoding: chunked\r\n\r\n4\nbody\r\n0\r\n\r\n", 400, "bad_request"},
		"bare LF in extensions": {post + "Transfer-Encoding: chunked\r\n\r\n4;a\nbody\r\n0\r\n\r\n", 400, "bad_request"},
		"long chunk":            {post + "Transfer-Encoding: chunked\r\n\r\n2\r\nbody\r\n0\r\n\r\n", 400, "bad_request"},
		"NUL":                   {post + "X-A: a\x00b\r\n\r\n", 400, "bad_request"},
		"old and chunked":       {"POST {T}/ HTTP/1.0\r\nHost: {H}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"},
		"no host":               {"GET {T}/ HTTP/1.1\r\n\r\n", 400, "bad_request"},
		"two hosts":             {"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nHost: {H}\r\n\r\n", 400, "bad_request"},
		"odd host":              {"GET {T}/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_request"},
		"host with userinfo":    {"GET {T}/ HTTP/1.1\r\nHost: user@{H}\r\n\r\n", 400, "bad_request"},
		"alias":                 {post + "Transfer_Encoding: chunked\r\n\r\n", 400, "bad_request"},
		"dotted alias":          {post + "Content.Length: 4\r\n\r\n", 400, "bad_request"},
		"no field name":         {post + ": x\r\n\r\n", 400, "bad_request"},
		"no colon":              {post + "nonsense\r\n\r\n", 400, "bad_request"},
		"broken escape":         {"GET {T}/%zz HTTP/1.1\r\nHost: {H}\r\n\r\n", 400, "bad_request"},
		"fragment":              {"GET {T}/a#b HTTP/1.1\r\nHost: {H}\r\n\r\n", 400, "bad_request"},
		"space in the target":   {"GET {T}/a b HTTP/1.1\r\nHost: {H}\r\n\r\n", 400, "bad_request"},
		"version":               {"GET {T}/ HTTP/1.2\r\nHost: {H}\r\n\r\n", 505, "unsupported"},
		"no version":            {"GET {T}/\r\nHost: {H}\r\n\r\n", 400, "bad_request"},
		"expectation":           {post + "Expect: foo\r\nContent-Length: 4\r\n\r\nbody", 417, "unsupported"},
		"two expectations":      {post + "Expect: 100-continue\r\nExpect: foo\r\nContent-Length: 4\r\n\r\nbody", 417, "unsupported"},
		"long target":           {"GET {T}/" + strings.Repeat("a", 70_000) + " HTTP/1.1\r\nHost: {H}\r\n\r\n", 414, "too_large"},
		"long field":            {post + "X-A: " + strings.Repeat("a", 70_000) + "\r\n\r\n", 431, "too_large"},
		"long name":             {post + strings.Repeat("a", 70_000) + ": x\r\n\r\n", 431, "too_large"},
		"many fields":           {post + strings.Repeat("X-A: b\r\n", 3000) + "\r\n", 431, "too_large"},
	}
	for _, w := range ways(t, "", okAnswer) {
		for name, row := range refusals {
			c := w.open()
			c.send(w.text(row.text + "GET {T}/smuggled HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			refused(t, c.answer(http.MethodPost), row.status, row.code)
			if rest := c.rest(); rest != "" {
				t.Errorf("%s, %s: after the refusal came %q", w.name, name, rest)
			}
			w.record().want(t, map[string]any{"outcome": row.code, "status": row.status, "status_by": "proxy"})
			if got := w.origin.requests(); len(got) > 0 {
				t.Fatalf("%s, %s: the upstream received %q", w.name, name, got)
			}
		}
		for name, row := range map[string]struct {
			text, body string
			fields     []string // that the upstream receives beside Host and Via
		}{
			"one length twice": {post + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody", "body", []string{"Content-Length: 4"}},
			"extensions":       {post + "Transfer-Encoding: chunked\r\n\r\n4;a=\"b\"\r\nbody\r\n0;x\r\n\r\n", "4\r\nbody\r\n0\r\n\r\n", []string{"Transfer-Encoding: chunked"}},
			"coding's case":    {post + "Transfer-Encoding: CHUNKED\r\n\r\n4\r\nbody\r\n0\r\n\r\n", "4\r\nbody\r\n0\r\n\r\n", []string{"Transfer-Encoding: chunked"}},
			"underscore":       {post + "X_Api_Version: 2\r\n\r\n", "", []string{"Content-Length: 0", "X_api_version: 2"}},
		} {
			before := len(w.origin.requests())
			c := w.open()
			c.send(w.text(row.text))
			if a := c.answer(http.MethodPost); a.body != "ok" {
				t.Errorf("%s, %s: %s %s", w.name, name, a.Status, a.body)
			}
			w.record().want(t, map[string]any{"outcome": "ok", "mode": w.mode})
			got := w.origin.requests()[before:]
			if len(got) != 1 {
				t.Fatalf("%s, %s: the upstream received %q", w.name, name, got)
			}
			head, body, _ := strings.Cut(got[0], "\r\n\r\n")
			lines := strings.Split(head, "\r\n")
			fields := slices.DeleteFunc(lines[1:], func(l string) bool { return strings.HasPrefix(l, "Via: ") })
			slices.Sort(fields)
			want := append([]string{"Host: " + w.origin.addr}, row.fields...)
			slices.Sort(want)
			if lines[0] != "POST / HTTP/1.1" || body != row.body || !slices.Equal(fields, want) {
				t.Errorf("%s, %s: the upstream received %q", w.name, name, got[0])
			}
		}
	}
}

// TestPipeline: requests that arrive together are answered in their turn, and a bad one ends the connection without touching those before it (A23).
func TestPipeline(t *testing.T) {
	for _, w := range ways(t, "", okAnswer) {
		c := w.open()
		c.send(w.text("GET {T}/1 HTTP/1.1\r\nHost: {H}\r\n\r\nPOST {T}/2 HTTP/1.1\r\nHost: {H}\r\nContent-Length: 4\r\n\r\nbodyGET {T}/3 HTTP/1.1\r\nHost: {H}\r\n\r\n" +
			"GET {T}/4 HTTP/1.1\r\nHost: {H}\r\nX-A : 1\r\n\r\nGET {T}/5 HTTP/1.1\r\nHost: {H}\r\n\r\n"))
		for range 3 {
			if a := c.answer(http.MethodGet); a.body != "ok" {
				t.Errorf("%s: %s %s", w.name, a.Status, a.body)
			}
		}
		refused(t, c.answer(http.MethodGet), 400, "bad_request")
		if rest := c.rest(); rest != "" {
			t.Errorf("%s: then came %q", w.name, rest)
		}
		var lines []string
		for _, r := range w.origin.requests() {
			line, _, _ := strings.Cut(r, "\r\n")
			lines = append(lines, line)
		}
		if want := []string{"GET /1 HTTP/1.1", "POST /2 HTTP/1.1", "GET /3 HTTP/1.1"}; !slices.Equal(lines, want) {
			t.Errorf("%s: the upstream received %q", w.name, lines)
		}
	}
}

// TestPathBytes: path and query arrive as they were sent, whichever way they take (A27).
func TestPathBytes(t *testing.T) {
	paths := []string{"/", "/a%2Fb/%7e%41?q=%20+x&;=1", "/a/../b/./c", "/a//b", "//a", "/a;b=c", "/*'()!$&,:@", "/caf\xc3\xa9", "/a?", "/%0d%0aX:%201",
		"/%00", "/%c0%af", "/a?x=%0d%0a&y=|\\", "/a|b\\c", "/a%5cb", "/a?b?c"}
	for _, w := range ways(t, "", okAnswer) {
		c := w.open()
		for i, path := range paths {
			c.send(w.text("GET {T}" + path + " HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			if a := c.answer(http.MethodGet); a.body != "ok" {
				t.Fatalf("%s, %s: %s %s", w.name, path, a.Status, a.body)
			}
			if got := w.origin.requests()[i]; !strings.HasPrefix(got, "GET "+path+" HTTP/1.1\r\n") {
				t.Errorf("%s, %s: the upstream received %q", w.name, path, got)
			}
		}
		if w.name != "intercepted" {
			continue
		}
		for i, path := range paths {
			h := w.box.dialH2(w.origin.addr)
			h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", w.origin.addr, ":path", path)
			if body := h.body(1); body != "ok" {
				t.Fatalf("h2, %s: %q", path, body)
			}
			if got := w.origin.requests()[len(paths)+i]; !strings.HasPrefix(got, "GET "+path+" HTTP/1.1\r\n") {
				t.Errorf("h2, %s: the upstream received %q", path, got)
			}
		}
	}
}

// TestHopByHopOnAllWays: what is for one connection stays on it (G11, G12, G13, G23, A41, A42).
func TestHopByHopOnAllWays(t *testing.T) {
	for _, w := range ways(t, "", "HTTP/1.1 200 OK\r\nConnection: X-Internal, close\r\nX-Internal: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n"+
		"Upgrade: h2c\r\nProxy-Connection: x\r\nHttpowerd-Error: fake\r\nHttpowerd-Request-Id: fake\r\nTransfer-Encoding: chunked\r\nTrailer: Httpowerd-Error\r\n\r\n"+
		"2\r\nok\r\n0\r\nHttpowerd-Error: fake\r\nProxy-Authenticate: Basic\r\nX-Sum: 1\r\n\r\n<close>") {
		c := w.open()
		c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: close, X-Secret\r\nConnection: X-Other\r\nX-Secret: 1\r\nX-Other: 1\r\nKeep-Alive: 5\r\n" +
			"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: trailers, deflate\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\nX-Kept: 1\r\n\r\n"))
		a := c.answer(http.MethodGet)
		sent := strings.ToLower(w.origin.requests()[0])
		for _, gone := range []string{"x-secret", "x-other", "keep-alive", "proxy-", "upgrade", "http2-settings", "deflate"} {
			if strings.Contains(sent, gone) {
				t.Errorf("%s: the upstream received %s: %q", w.name, gone, sent)
			}
		}
		if strings.Count(sent, "connection:") != 1 || !strings.Contains(sent, "\r\nconnection: te\r\n") { // goes with TE (RFC 9110 section 10.1.4)
			t.Errorf("%s: the upstream received %q", w.name, sent)
		}
		if !strings.Contains(sent, "x-kept: 1\r\n") || !strings.Contains(sent, "te: trailers\r\n") {
			t.Errorf("%s: the upstream received %q", w.name, sent)
		}
		for _, gone := range []string{"X-Internal", "Keep-Alive", "Proxy-Authenticate", "Httpowerd-Error", "Upgrade", "Proxy-Connection"} {
			if a.Header.Get(gone) != "" || a.Trailer.Get(gone) != "" {
				t.Errorf("%s: the client received %s: %v %v", w.name, gone, a.Header, a.Trailer)
			}
		}
		if a.body != "ok" || a.Trailer.Get("X-Sum") != "1" || a.Header.Get("Httpowerd-Request-Id") == "fake" {
			t.Errorf("%s: %s %v %v %q", w.name, a.Status, a.Header, a.Trailer, a.body)
		}
	}
}

// TestKeptAlive: an upload that was read to its end leaves the connection for the next request, answered or refused (G12).
func TestKeptAlive(t *testing.T) {
	for _, w := range ways(t, "", okAnswer) {
		c := w.open()
		for range 3 {
			c.send(w.text("POST {T}/ HTTP/1.1\r\nHost: {H}\r\nContent-Length: 4\r\n\r\nbody"))
			if a := c.answer(http.MethodPost); a.body != "ok" || a.Close {
				t.Fatalf("%s: %s close %v %s", w.name, a.Status, a.Close, a.body)
			}
			c.send(w.text("POST {T}/ HTTP/1.1\r\nHost: {H}\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"))
			if a := c.answer(http.MethodPost); a.body != "ok" || a.Close {
				t.Fatalf("%s: %s close %v %s", w.name, a.Status, a.Close, a.body)
			}
		}
	}
	b := start(t, "defaults: {access: deny}")
	c := b.dialProxy()
	for range 3 {
		c.send("POST http://api.example.com/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
		a := c.answer(http.MethodPost)
		refused(t, a, 403, "denied")
		if a.Close {
			t.Fatal("a refusal of a short upload ends the connection")
		}
	}
}

// TestUnguardedSmuggling: where the guard stops reading, because another protocol was asked for or a tunnel, nothing but that may follow (A22, A33).
func TestUnguardedSmuggling(t *testing.T) {
	const smuggled = "GET {T}/smuggled HTTP/1.1\nHost: {H}\n\n"
	for _, w := range ways(t, "", okAnswer) {
		for name, row := range map[string]struct {
			head   string
			status int
			closes bool // without another answer
		}{
			"a real handshake":     {"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200, true},
			"no Connection":        {"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nUpgrade: websocket\r\n\r\n", 200, false},
			"a method with a body": {"POST {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nbody", 200, false},
			"with a body":          {"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\nbody", 200, false},
			"two protocols":        {"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", 200, false},
			"two Upgrade fields":   {"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n", 200, false},
			"a Kelvin sign":        {"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\r\nUpgrade: websoc\u212aet\r\n\r\n", 200, false},
			"a no-break space":     {"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\u00a0\r\nUpgrade: websocket\r\n\r\n", 200, false},
			"a refused handshake":  {"GET {T}/a#b HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400, true},
			"more fields":          {"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nMax-Forwards: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200, true},
			"HTTP/1.0":             {"GET {T}/ HTTP/1.0\r\nHost: {H}\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n", 200, true},
		} {
			before := len(w.origin.requests())
			c := w.open()
			c.send(w.text(row.head + smuggled))
			if a := c.answer(http.MethodGet); a.StatusCode != row.status {
				t.Errorf("%s, %s: %s %s", w.name, name, a.Status, a.body)
			}
			if !row.closes {
				refused(t, c.answer(http.MethodGet), 400, "bad_request")
			}
			if rest := c.rest(); rest != "" {
				t.Errorf("%s, %s: then came %q", w.name, name, rest)
			}
			got := w.origin.requests()[before:]
			if len(got) > 1 || len(got) == 1 && (row.status != 200 || strings.Contains(got[0], "smuggled") || strings.Contains(got[0], "h2c")) {
				t.Errorf("%s, %s: the upstream received %q", w.name, name, got)
			}
		}
	}
	// Our own refusals of a handshake, and of a tunnel inside a tunnel.
	b := start(t, "hosts: {denied.example.com: {access: deny}}")
	c := b.dialProxy()
	c.send("GET http://denied.example.com/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET http://denied.example.com/ HTTP/1.1\nHost: x\n\n")
	refused(t, c.answer(http.MethodGet), 403, "denied")
	if rest := c.rest(); rest != "" {
		t.Errorf("then came %q", rest)
	}
	o := newRawOrigin(t, okAnswer)
	c = b.dialProxy()
	c.connect(o.addr)
	c.send("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
	c.answer(http.MethodGet)
	c.send("CONNECT " + o.addr + " HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\nGET /smuggled HTTP/1.1\nHost: " + o.addr + "\n\n")
	refused(t, c.answer(http.MethodGet), 501, "unsupported")
	if rest := c.rest(); rest != "" {
		t.Errorf("then came %q", rest)
	}
	if got := o.requests(); len(got) != 1 {
		t.Errorf("the upstream received %q", got)
	}
}

// TestWebSocketGarbage: early frames that look like nothing reach the upstream as they are, and an upstream that switches to another protocol than
// the one that was asked for is no upstream (G13, A33).
func TestWebSocketGarbage(t *testing.T) {
	for _, w := range ways(t, "retry: off", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nGET / HTTP/1.1\r\n\r\n<close>",
		"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 5\r\n\r\nhello<close>",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nContent-Length: 0\r\nHttpowerd-Error: x\r\n\r\n\x81\x05hello<close>") {
		const handshake = "GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x85\r\n\n\x00GET / HTTP"
		for range 2 {
			c := w.open()
			c.send(w.text(handshake))
			refused(t, c.answer(http.MethodGet), 502, "upstream_protocol")
			if rest := c.rest(); rest != "" {
				t.Errorf("%s: then came %q", w.name, rest)
			}
		}
		c := w.open()
		c.send(w.text(handshake))
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Httpowerd-Error") != "" || resp.Header["Content-Length"] != nil {
			t.Fatalf("%s: %v %v", w.name, resp, err)
		}
		if rest := c.rest(); rest != "\x81\x05hello" {
			t.Errorf("%s: then came %q", w.name, rest)
		}
	}
}

// TestEmptyLine: one before a request line counts for nothing (RFC 9112 section 2.2): it is no part of the request, nor of the body before. A second one is refused.
func TestEmptyLine(t *testing.T) {
	for _, w := range ways(t, "", okAnswer) {
		if w.name == "plaintext in a tunnel" {
			continue // there it is no request that begins so
		}
		c := w.open()
		for _, pieces := range [][]string{
			{"\r\nGET {T}/1 HTTP/1.1\r\nHost: {H}\r\n\r\n"},
			{"\r", "\n", "GET {T}/2 HTTP/1.1\r\nHost: {H}\r\n", "\r\n"},
			{"POST {T}/3 HTTP/1.1\r\nHost: {H}\r\nContent-Length: 4\r\n\r\nbody\r\n", "GET {T}/4 HTTP/1.1\r\nHost: {H}\r\n\r\n"},
			{"POST {T}/5 HTTP/1.1\r\nHost: {H}\r\nContent-Length: 4\r\n\r\nbody\r\nGET {T}/6 HTTP/1.1\r\nHost: {H}\r\n\r\n\r\nGET {T}/7 HTTP/1.1\r\nHost: {H}\r\n\r\n"},
		} {
			all := strings.Join(pieces, "")
			for _, piece := range pieces {
				c.send(w.text(piece))
				time.Sleep(5 * time.Millisecond) // so that it comes in pieces
			}
			for range strings.Count(all, "HTTP/1.1") {
				if a := c.answer(http.MethodGet); a.StatusCode != 200 || a.body != "ok" {
					t.Errorf("%s, %q: %s %q", w.name, pieces, a.Status, a.body)
				}
			}
		}
		c.send(w.text("\r\n\r\nGET {T}/8 HTTP/1.1\r\nHost: {H}\r\n\r\n"))
		refused(t, c.answer(http.MethodGet), 400, "bad_request")
		sent := w.origin.requests()
		for i, r := range sent {
			if !strings.HasPrefix(r, "GET ") && !strings.HasPrefix(r, "POST ") || strings.Contains(r, "body\r") {
				t.Errorf("%s: the upstream received as %d %q", w.name, i, r)
			}
		}
		if len(sent) != 7 {
			t.Errorf("%s: the upstream received %q", w.name, sent)
		}
	}
}

// TestHeaderFlood: however much a client sends as one head, no more than the limit is kept (A28, G9).
func TestHeaderFlood(t *testing.T) {
	for _, w := range ways(t, "", okAnswer) {
		for name, piece := range map[string]string{"field": strings.Repeat("a", 1<<20), "fields": strings.Repeat("X-Some-Field: value\r\n", 50_000)} {
			c := w.open()
			before := heap()
			c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\nX-A: "))
			for range 32 {
				if _, err := io.WriteString(c.Conn, piece); err != nil {
					break // refused and closed long before
				}
			}
			if grown := heap() - before; grown > 8<<20 {
				t.Errorf("%s, %s: the heap grew by %d MiB", w.name, name, grown>>20)
			}
			resp, err := http.ReadResponse(c.r, nil)
			if err == nil && (resp.StatusCode != 431 || resp.Header.Get("Httpowerd-Error") != "too_large") {
				t.Errorf("%s, %s: %s", w.name, name, resp.Status)
			}
			c.Close()
			w.record().want(t, map[string]any{"outcome": "too_large", "status": 431})
		}
		if got := w.origin.requests(); len(got) > 0 {
			t.Errorf("%s: the upstream received %q", w.name, got)
		}
	}
}

// TestTrailerFlood: a trailer section has an end (A28).
func TestTrailerFlood(t *testing.T) {
	for _, w := range ways(t, "", okAnswer) {
		c := w.open()
		c.send(w.text("POST {T}/ HTTP/1.1\r\nHost: {H}\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n4\r\nbody\r\n0\r\n"))
		for i := range 20_000 {
			if _, err := fmt.Fprintf(c.Conn, "X-%d: %s\r\n", i, strings.Repeat("a", 1000)); err != nil {
				break
			}
		}
		if resp, err := http.ReadResponse(c.r, nil); err == nil && resp.StatusCode != 400 {
			t.Errorf("%s: %s", w.name, resp.Status)
		}
		c.Close()
		w.record().want(t, map[string]any{"outcome": "bad_request"})
		if got := w.origin.requests(); len(got) > 0 {
			t.Errorf("%s: the upstream received a whole request: %.200q", w.name, got)
		}
	}
}
