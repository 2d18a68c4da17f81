package daemon

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHostileAnswers: an answer that can be read in two ways, or not at all, has a code of its own; the connection that it came by is not used again, and
// the next request gets its own answer (A24, G7, G8).
func TestHostileAnswers(t *testing.T) {
	const ok, then = "HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n\r\nok"
	table := map[string]struct{ answer, code string }{
		"length and chunked":  {ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "upstream_protocol"},
		"chunked and length":  {ok + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", "upstream_protocol"},
		"two lengths":         {ok + "Content-Length: 3\r\n" + then, "upstream_protocol"},
		"length list":         {ok + "Content-Length: 2, 2\r\n\r\nok", "upstream_protocol"},
		"odd length":          {ok + "Content-Length: +2\r\n\r\nok", "upstream_protocol"},
		"coding":              {ok + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "upstream_protocol"},
		"old and chunked":     {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "upstream_protocol"},
		"space before colon":  {ok + "Content-Length : 3\r\n" + then, "upstream_protocol"},
		"folded coding":       {ok + "Transfer-Encoding:\r\n chunked\r\n" + then, "upstream_protocol"},
		"folded length":       {ok + "Content-Length: 2\r\n 3\r\n\r\nok", "upstream_protocol"},
		"fold after status":   {ok + " X: 1\r\n" + then, "upstream_protocol"},
		"HTTP/0.9":            {"<html>ok</html>\r\n\r\n<close>", "upstream_protocol"},
		"another protocol":    {"SSH-2.0-nonsense\r\n", "upstream_protocol"},
		"no status":           {"HTTP/1.1 007 OK\r\n" + then, "upstream_protocol"},
		"long status":         {"HTTP/1.1 2000 OK\r\n" + then, "upstream_protocol"},
		"NUL":                 {ok + "X: a\x00b\r\n" + then, "upstream_protocol"},
		"no colon":            {ok + "nonsense\r\n" + then, "upstream_protocol"},
		"huge status line":    {"HTTP/1.1 200 " + strings.Repeat("a", 1<<20) + "\r\n" + then, "upstream_protocol"},
		"huge field":          {ok + "X: " + strings.Repeat("a", 1<<20) + "\r\n" + then, "upstream_protocol"},
		"huge head":           {ok + strings.Repeat("X: "+strings.Repeat("a", 100)+"\r\n", 10_000) + then, "upstream_protocol"},
		"1xx flood":           {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000) + ok + then, "upstream_protocol"},
		"endless 100":         {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000), "upstream_protocol"},
		"unasked switch":      {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "upstream_protocol"},
		"unasked WebSocket":   {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "upstream_protocol"},
		"early close":         {"<close>", "upstream_reset"},
		"reset":               {"<reset>", "upstream_reset"},
		"half a status line":  {"HTTP/1.1 20<close>", "upstream_reset"},
		"half a field":        {ok + "Content-Le<close>", "upstream_reset"},
		"half a head":         {ok + "Content-Length: 2\r\n<close>", "upstream_reset"},
		"never answers":       {"<hang>", "upstream_timeout"},
		"never ends its head": {ok + "X: <hang>", "upstream_timeout"},
	}
	answers := map[string]string{}
	for name, row := range table {
		answers[plain(name)] = row.answer
	}
	patient := scriptedWays(t, "retry: off, breaker: off", byName(answers))
	for i, hasty := range scriptedWays(t, "retry: off, breaker: off, timeout: {attempt: 250ms}", byName(answers)) {
		for name, row := range table {
			w := patient[i]
			if row.code == "upstream_timeout" {
				w = hasty
			}
			t.Run(w.name+"/"+name, func(t *testing.T) { hostileAnswer(t, w, plain(name), row.code) })
		}
	}
}

// hostileAnswer asks thrice: the answer in the middle is the hostile one.
func hostileAnswer(t *testing.T, w *way, name, code string) {
	status := 502
	if code == "upstream_timeout" {
		status = 504
	}
	c := w.open()
	before := len(w.origin.requests())
	for _, path := range []string{"before", name, "after"} {
		c.send(w.text("POST {T}/" + path + " HTTP/1.1\r\nHost: {H}\r\nContent-Length: 1\r\n\r\nx"))
		a := c.answer(http.MethodPost)
		for a.StatusCode == http.StatusEarlyHints {
			a = c.answer(http.MethodPost)
		}
		if path != name {
			if a.body != "ok" || a.Header.Get("X") != "" {
				t.Errorf("the request %s got %s %v %q", path, a.Status, a.Header, a.body)
			}
			continue
		}
		refused(t, a, status, code)
		if strings.Contains(a.body, "127.0.0.1") || strings.Contains(a.body, "tcp") || strings.Contains(a.body, "malformed HTTP") {
			t.Errorf("the answer tells an address or an error's text: %s", a.body)
		}
	}
	w.seen += 3
	records := w.box.records(w.seen)[w.seen-3:]
	records[0].want(t, map[string]any{"outcome": "ok"})
	records[1].want(t, map[string]any{"outcome": code, "status": status, "status_by": "proxy"})
	records[2].want(t, map[string]any{"outcome": "ok"})
	if conns := w.origin.connections()[before:]; len(conns) != 3 || conns[2] == conns[1] {
		t.Errorf("the requests came by the connections %v", conns)
	}
	c.Close()
}

// TestLenientAnswers: what has one meaning passes, however old-fashioned.
func TestLenientAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"bare LF":          "HTTP/1.1 200 OK\nContent-Length: 2\nX-A: b c\n\nok",
		"fold":             "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
		"one length twice": "HTTP/1.1 200 OK\r\nX-A: b c\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		"no reason":        "HTTP/1.1 200\r\nX-A: b c\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0":         "HTTP/1.0 200 OK\r\nX-A: b c\r\n\r\nok<close>",
		"until the end":    "HTTP/1.1 200 OK\r\nX-A: b c\r\n\r\nok<close>",
		"chunks":           "HTTP/1.1 200 OK\r\nX-A: b c\r\nTransfer-Encoding: Chunked\r\n\r\n1;x=\"y\"\r\no\r\n001 \r\nk\r\n0\r\nX-T: 1\r\n\r\n",
		"some 1xx":         "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b c\r\nContent-Length: 2\r\n\r\nok",
	} {
		for _, w := range ways(t, "retry: off", answer) {
			c := w.open()
			for range 2 {
				c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
				a := c.answer(http.MethodGet)
				for a.StatusCode == http.StatusProcessing {
					a = c.answer(http.MethodGet)
				}
				if a.StatusCode != 200 || a.body != "ok" || a.Header.Get("X-A") != "b c" {
					t.Errorf("%s, %s: %s %v %q", w.name, name, a.Status, a.Header, a.body)
				}
			}
		}
	}
}

// TestEmptyDate: a Date that says nothing is replaced like one that is missing (RFC 9110 section 6.6.1); another stays.
func TestEmptyDate(t *testing.T) {
	const given = "Sun, 06 Nov 1994 08:49:37 GMT"
	for _, w := range ways(t, "", "HTTP/1.1 200 OK\r\nDate:\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nDate: "+given+"\r\nContent-Length: 2\r\n\r\nok") {
		c := w.open()
		for _, kept := range []bool{false, true} {
			c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			dates := c.answer(http.MethodGet).Header["Date"]
			if len(dates) != 1 || (dates[0] == given) != kept {
				t.Errorf("%s: %q", w.name, dates)
			} else if _, err := http.ParseTime(dates[0]); err != nil {
				t.Errorf("%s: %v", w.name, err)
			}
		}
	}
}

// TestExtraBytes: bytes behind an answer are nobody's: not the next request's answer, not the log's (A24, A25, G17; RFC 9112 section 6.3).
func TestExtraBytes(t *testing.T) {
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for name, row := range map[string]struct{ method, answer, body string }{
		"after a length":  {"GET", okAnswer + poison, "ok"},
		"after chunks":    {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + poison, "ok"},
		"after HEAD":      {"HEAD", okAnswer + poison, ""},
		"after 204":       {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 62\r\n\r\n" + poison, ""},
		"after 304":       {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 62\r\n\r\n" + poison, ""},
		"after no length": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + poison, ""},
		"a lie":           {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more than was said", "ok"},
	} {
		answers := make([]string, 41)
		for i := range answers {
			answers[i] = okAnswer
			if i%2 == 0 {
				answers[i] = row.answer
			}
		}
		for _, w := range ways(t, "breaker: off", answers...) {
			c := w.open()
			for i := range 40 {
				method, want := row.method, row.body
				if i%2 == 1 {
					method, want = "GET", "ok"
				}
				c.send(w.text(method + " {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
				if a := c.answer(method); a.body != want {
					t.Fatalf("%s, %s: request %d got %s %q", w.name, name, i, a.Status, a.body)
				}
			}
			if got := w.origin.requests(); len(got) != 40 {
				t.Errorf("%s, %s: the upstream received %d requests", w.name, name, len(got))
			}
			if strings.Contains(w.box.log.String(), "poison") {
				t.Errorf("%s, %s: the log has what nobody asked for", w.name, name)
			}
		}
	}
}

// TestBodilessAnswerBytes: HEAD, 204 and 304 are framed exactly, from HTTP/1.1 and HTTP/2 upstreams, and nothing of them is left for the next
// answer (A25, G17).
func TestBodilessAnswerBytes(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(304)
		case "/chunked":
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "body")
		default:
			_, _ = io.WriteString(w, "body")
		}
	})
	for _, http2 := range []bool{false, true} {
		o := httptest.NewUnstartedServer(handler)
		if http2 {
			onlyHTTP2(o)
		}
		o.StartTLS()
		defer o.Close()
		addr := o.Listener.Addr().String()
		config := "defaults: {upstream: {ca: " + originCA(t, o) + "}"
		for name, way := range map[string]struct {
			c      *rawClient
			prefix string
		}{
			"absolute https": {start(t, config+"}").dialProxy(), "https://" + addr},
			"upgrade":        {start(t, config+", upgrade: https}").dialProxy(), "http://" + addr},
			"intercepted":    {start(t, config+", tls: intercept}").intercepted(addr, "http/1.1"), ""},
		} {
			for _, row := range []struct{ method, path, length, body string }{
				{"HEAD", "/", "4", ""}, {"HEAD", "/chunked", "", ""}, {"GET", "/204", "", ""}, {"HEAD", "/204", "", ""}, {"GET", "/304", "", ""},
				{"GET", "/", "4", "body"}, {"GET", "/chunked", "", "body"},
			} {
				way.c.send(row.method + " " + way.prefix + row.path + " HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")
				head := ""
				for !strings.HasSuffix(head, "\r\n\r\n") {
					line, err := way.c.r.ReadString('\n')
					if err != nil {
						t.Fatalf("%s: %v after %q", name, err, head)
					}
					head += line
				}
				length := ""
				if _, rest, ok := strings.Cut(head, "Content-Length: "); ok {
					length, _, _ = strings.Cut(rest, "\r\n")
				}
				chunked := strings.Contains(head, "Transfer-Encoding: chunked")
				if length != row.length && !(row.path == "/chunked" && row.body != "" && length == "4") || chunked && row.body == "" {
					t.Errorf("%s, h2 %v, %s %s: %q", name, http2, row.method, row.path, head)
				}
				want := row.body
				if chunked {
					want = "4\r\nbody\r\n0\r\n\r\n"
				}
				got := make([]byte, len(want))
				if _, err := io.ReadFull(way.c.r, got); err != nil || string(got) != want {
					t.Errorf("%s, h2 %v, %s %s: %q %v", name, http2, row.method, row.path, got, err)
				}
				if n := way.c.r.Buffered(); n > 0 {
					left, _ := way.c.r.Peek(n)
					t.Errorf("%s, h2 %v, %s %s: then came %q", name, http2, row.method, row.path, left)
				}
			}
		}
	}
}

// TestShortAnswers: a part never looks like the whole, whichever way it takes (A24, A32).
func TestShortAnswers(t *testing.T) {
	table := map[string]string{
		"length":        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort<close>",
		"reset":         "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort<reset>",
		"chunked":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n<close>",
		"bad-chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nnonsense\r\n",
		"long-chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nshort\r\n0\r\n\r\n",
		"bare-LF":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nshort\r\n0\r\n\r\n",
		"negative-size": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nshort\r\n0\r\n\r\n",
		"huge-size":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nshort\r\n0\r\n\r\n",
	}
	for _, w := range scriptedWays(t, "retry: off, breaker: off", byName(table)) {
		for name := range table {
			t.Run(w.name+"/"+name, func(t *testing.T) { shortAnswer(t, w, name) })
		}
	}
}

func shortAnswer(t *testing.T, w *way, name string) {
	before := len(w.origin.requests())
	c := w.open()
	c.send(w.text("GET {T}/" + name + " HTTP/1.1\r\nHost: {H}\r\n\r\n"))
	resp, err := http.ReadResponse(c.r, nil)
	if err == nil && resp.StatusCode == 200 {
		if _, err = io.ReadAll(resp.Body); err == nil {
			t.Error("a part looks like the whole")
		}
	}
	c.Close()
	if outcome := w.record().text("outcome"); !strings.HasPrefix(outcome, "upstream_") {
		t.Errorf("the outcome is %s", outcome)
	}
	c = w.open()
	c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
	if a := c.answer(http.MethodGet); a.body != "ok" {
		t.Errorf("the next request got %s %q", a.Status, a.body)
	}
	w.record()
	c.Close()
	if conns := w.origin.connections()[before:]; len(conns) != 2 || conns[0] == conns[1] {
		t.Errorf("the requests came by the connections %v", conns)
	}
}

// TestEndlessAnswer: an answer without an end costs no memory (A32).
func TestEndlessAnswer(t *testing.T) {
	left := make(chan struct{})
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		piece := make([]byte, 1<<20)
		for {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}))
	defer o.Close()
	b := start(t, "")
	resp, err := b.client().Get(o.URL)
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<20)
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	resp.Body.Close()
	<-left
	b.records(1)[0].want(t, map[string]any{"outcome": "client_gone"})
}

// TestRedirectsAreTheClients: a redirect to where nobody may go is handed on, not followed (A10).
func TestRedirectsAreTheClients(t *testing.T) {
	for _, w := range ways(t, "", "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n") {
		c := w.open()
		c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
		if a := c.answer(http.MethodGet); a.StatusCode != 302 || a.Header.Get("Location") != "http://169.254.169.254/latest/" {
			t.Errorf("%s: %s %v", w.name, a.Status, a.Header)
		}
		if got := w.origin.requests(); len(got) != 1 {
			t.Errorf("%s: the upstream received %q", w.name, got)
		}
		refused(t, get(t, w.box.client(), "http://169.254.169.254/latest/"), 403, "destination_denied")
	}
}

// TestNothingIsDecoded: what says that it is compressed is handed on as it is, without a look inside (A31, G14).
func TestNothingIsDecoded(t *testing.T) {
	body := "\x1f\x8b not really gzip"
	for _, w := range ways(t, "", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nEtag: \"x\"\r\nContent-Length: %d\r\n\r\n%s", len(body), body)) {
		c := w.open()
		c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
		if a := c.answer(http.MethodGet); a.body != body || a.Header.Get("Content-Encoding") != "gzip" || a.Header.Get("Etag") != `"x"` {
			t.Errorf("%s: %v %q", w.name, a.Header, a.body)
		}
		if got := w.origin.requests()[0]; strings.Contains(got, "Accept-Encoding") {
			t.Errorf("%s: the upstream received %q", w.name, got)
		}
	}
}

// TestNoAmplification: what is not safe to repeat is sent once, and the wait that an upstream asks for is bounded (A35).
func TestNoAmplification(t *testing.T) {
	const busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
	for name, row := range map[string]struct {
		method, fields, answer string
		arrive                 int
	}{
		"POST":        {"POST", "", busy + "\r\n", 1},
		"PATCH":       {"PATCH", "", busy + "\r\n", 1},
		"GET":         {"GET", "", busy + "\r\n", 4},
		"told to":     {"POST", "", busy + "X-Should-Retry: true\r\n\r\n", 1},
		"a century":   {"GET", "", busy + "Retry-After: 1000000000\r\n\r\n", 1},
		"negative":    {"GET", "", busy + "Retry-After: -5\r\n\r\n", 4},
		"in the past": {"GET", "", busy + "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n", 4},
		"no number":   {"GET", "", busy + "Retry-After: 9999999999999999999999\r\n\r\n", 0},
	} {
		for _, w := range ways(t, "breaker: off, retry: {backoff: {base: 1ms, throttled: 1ms, max: 2ms}}", row.answer) {
			c := w.open()
			c.send(w.text(row.method + " {T}/ HTTP/1.1\r\nHost: {H}\r\nContent-Length: 1\r\n" + row.fields + "\r\nx"))
			if a := c.answer(row.method); a.StatusCode != 503 {
				t.Errorf("%s, %s: %s", w.name, name, a.Status)
			}
			if n := len(w.origin.requests()); n != row.arrive && (row.arrive > 0 || n > 4) {
				t.Errorf("%s, %s: it arrived %d times", w.name, name, n)
			}
		}
	}
}
