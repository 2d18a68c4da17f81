package daemon

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const (
	cardNumber  = "4111111111111111"
	cardMasked  = "411111******1111"
	foreignKey  = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
	maskBoth    = "sanitize: {request: {cards: mask, secrets: mask}, response: {cards: mask, secrets: mask}}"
	blockAll    = "sanitize: {response: {cards: block, secrets: block}}"
	cardInChunk = "Transfer-Encoding: chunked\r\n\r\n11\r\n{\"card\":\"41111111\r\nb\r\n11111111\"} \r\n0\r\n\r\n"
)

// inChunks splits a body into chunks of that size.
func inChunks(body string, size int) string {
	var b strings.Builder
	for body != "" {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\n\r\n"
}

// TestSanitizeBlocksRequests: on no way does a byte of a blocked request reach the upstream; the client and the record are told what and where, never the number.
func TestSanitizeBlocksRequests(t *testing.T) {
	for _, w := range ways(t, "sanitize: {}", okAnswer) {
		for text, where := range map[string]string{
			"POST {T}/ HTTP/1.1\r\nHost: {H}\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"card\":\"" + cardNumber + "\"}":        "body",
			"POST {T}/ HTTP/1.1\r\nHost: {H}\r\nContent-Type: application/json\r\n" + cardInChunk:                                                     "body",
			"GET {T}/?card=" + cardNumber + " HTTP/1.1\r\nHost: {H}\r\n\r\n":                                                                          "url",
			"GET {T}/cards/" + cardNumber + "/| HTTP/1.1\r\nHost: {H}\r\n\r\n":                                                                        "url",
			"GET {T}/ HTTP/1.1\r\nHost: {H}\r\nX-Note: " + cardNumber + "\r\n\r\n":                                                                    "headers",
			"POST {T}/ HTTP/1.1\r\nHost: {H}\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: " + cardNumber + "\r\n\r\n": "trailers",
		} {
			c := w.open()
			c.send(w.text(text))
			method, _, _ := strings.Cut(text, " ")
			a := c.answer(method)
			refused(t, a, http.StatusForbidden, "blocked_content")
			if strings.Contains(a.body, "41111111") || !strings.Contains(a.body, "a card number in its ") {
				t.Errorf("%s: %s", w.name, a.body)
			}
			c.Close()
			if got := w.origin.requests(); len(got) != 0 {
				t.Errorf("%s: the upstream got %q", w.name, got)
			}
			r := w.record()
			r.want(t, map[string]any{"outcome": "blocked_content", "status_by": "proxy",
				"sanitized": []any{map[string]any{"where": "request." + where, "kind": "pan", "action": "blocked", "count": 1}}})
		}
	}
}

// TestSanitizeMasks: the upstream and the client get what is masked, framed as it should be, and everything else byte for byte.
func TestSanitizeMasks(t *testing.T) {
	body := `{"card":"` + cardNumber + `","n":` + cardNumber + `,"key":"` + foreignKey + `","x":"é"}`
	want := `{"card":"` + cardMasked + `","n":"` + cardMasked + `","key":"REDACTED","x":"é"}`
	reply := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nEtag: \"1\"\r\nTransfer-Encoding: chunked\r\n\r\n" + inChunks(body, 13)
	for _, w := range ways(t, maskBoth, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", reply) {
		c := w.open()
		c.send(w.text("PUT {T}/c/" + cardNumber + "?a=%7b HTTP/1.1\r\nHost: {H}\r\nX-Note: " + cardNumber + "\r\nContent-Type: application/json\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body))
		a := c.answer(http.MethodPut)
		c.Close()
		if a.StatusCode != http.StatusOK || a.body != want || a.Header.Get("Etag") != `W/"1"` {
			t.Errorf("%s: %s %v %s", w.name, a.Status, a.Header, a.body)
		}
		got := w.origin.requests()
		if len(got) != 2 {
			t.Fatalf("%s: %d requests", w.name, len(got))
		}
		for _, r := range got { // the second attempt too
			if !strings.HasPrefix(r, "PUT /c/"+cardMasked+"?a=%7b HTTP/1.1\r\n") || !strings.HasSuffix(r, "\r\n\r\n"+want) || !strings.Contains(r, fmt.Sprintf("Content-Length: %d\r\n", len(want))) ||
				!strings.Contains(r, "X-Note: "+cardMasked+"\r\n") || strings.Contains(r, cardNumber) {
				t.Errorf("%s: the upstream got %q", w.name, r)
			}
		}
		w.record().want(t, map[string]any{"outcome": "ok", "sanitized": []any{
			map[string]any{"where": "request.url", "kind": "pan", "action": "masked", "count": 1}, map[string]any{"where": "request.headers", "kind": "pan", "action": "masked", "count": 1},
			map[string]any{"where": "request.body", "kind": "secret", "action": "masked", "count": 1}, map[string]any{"where": "request.body", "kind": "pan", "action": "masked", "count": 2},
			map[string]any{"where": "response.body", "kind": "secret", "action": "masked", "count": 1}, map[string]any{"where": "response.body", "kind": "pan", "action": "masked", "count": 2}}})
	}
}

// TestSanitizeLeavesTheSpelling: where a number is masked among escapes, everything around it stays as it was spelt.
func TestSanitizeLeavesTheSpelling(t *testing.T) {
	const (
		body     = `{"a":"C++ \/ &amp; \ud800 \u00e9 \u0034111111111111111 a+b%2f%3A` + cardNumber + `", "b":"5555\u202f5555\u202f5555\u202f4444"}`
		wantBody = `{"a":"C++ \/ &amp; \ud800 \u00e9 ` + cardMasked + ` a+b%2f%3A` + cardMasked + `", "b":"555555******4444"}`
	)
	reply := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for _, w := range ways(t, maskBoth, reply) {
		c := w.open()
		c.send(w.text("POST {T}/a+b@c%3A" + cardNumber + "/x+y?q=a+b@c%3A" + cardNumber + "%20x+y HTTP/1.1\r\nHost: {H}\r\nContent-Type: application/json\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body))
		a := c.answer(http.MethodPost)
		c.Close()
		if a.StatusCode != http.StatusOK || a.body != wantBody {
			t.Errorf("%s: %s %s", w.name, a.Status, a.body)
		}
		got := w.origin.requests()
		if len(got) != 1 || !strings.HasPrefix(got[0], "POST /a+b@c%3A"+cardMasked+"/x+y?q=a+b@c%3A"+cardMasked+"%20x+y HTTP/1.1\r\n") || !strings.HasSuffix(got[0], "\r\n\r\n"+wantBody) {
			t.Errorf("%s: the upstream got %q", w.name, got)
		}
		w.record().want(t, map[string]any{"outcome": "ok", "sanitized": []any{
			map[string]any{"where": "request.url", "kind": "pan", "action": "masked", "count": 2}, map[string]any{"where": "request.body", "kind": "pan", "action": "masked", "count": 3},
			map[string]any{"where": "response.body", "kind": "pan", "action": "masked", "count": 3}}})
	}
}

// TestSanitizeEscapeOfAnotherSyntax: what would be an escape in XML hides none of a form or of JSON behind it.
func TestSanitizeEscapeOfAnotherSyntax(t *testing.T) {
	for _, w := range ways(t, "sanitize: {}", okAnswer) {
		for _, body := range []string{"x=1&limit=10&card=4111%201111%201111%201111", `{"a":"R&lt;D \u0034111111111111111"}`} {
			c := w.open()
			c.send(w.text("POST {T}/ HTTP/1.1\r\nHost: {H}\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body))
			refused(t, c.answer(http.MethodPost), http.StatusForbidden, "blocked_content")
			c.Close()
			if got := w.origin.requests(); len(got) != 0 {
				t.Errorf("%s: the upstream got %q", w.name, got)
			}
			w.record().want(t, map[string]any{"outcome": "blocked_content", "status_by": "proxy",
				"sanitized": []any{map[string]any{"where": "request.body", "kind": "pan", "action": "blocked", "count": 1}}})
		}
	}
}

// TestSanitizeLeavesTheRestAlone: what holds nothing passes byte for byte.
func TestSanitizeLeavesTheRestAlone(t *testing.T) {
	body := "\x00\xff{\"a\": 1,\r\n \"b\":\t\"\\u00e9\"}"
	reply := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nEtag: \"1\"\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body
	for _, w := range ways(t, maskBoth, reply) {
		c := w.open()
		c.send(w.text("POST {T}/a%7eb?c=%7b HTTP/1.1\r\nHost: {H}\r\nAuthorization: Bearer opaque-0123456789\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body))
		a := c.answer(http.MethodPost)
		c.Close()
		got := w.origin.requests()
		if a.body != body || a.Header.Get("Etag") != `"1"` || a.ContentLength != int64(len(body)) || len(got) != 1 || !strings.HasPrefix(got[0], "POST /a%7eb?c=%7b HTTP/1.1\r\n") ||
			!strings.HasSuffix(got[0], body) || !strings.Contains(got[0], "Authorization: Bearer opaque-0123456789\r\n") {
			t.Errorf("%s: %v %q, the upstream got %q", w.name, a.Header, a.body, got)
		}
		if r := w.record(); r["sanitized"] != nil {
			t.Errorf("%s: %v", w.name, r)
		}
	}
}

// TestSanitizeBlocksResponses: nothing of a blocked answer reaches the client.
func TestSanitizeBlocksResponses(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = io.WriteString(w, "card "+cardNumber)
	_ = w.Close()
	replies := []string{
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n" + inChunks("card "+cardNumber+" x", 9),
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: " + fmt.Sprint(packed.Len()) + "\r\n\r\n" + packed.String(),
		"HTTP/1.1 200 OK\r\nX-Card: " + cardNumber + "\r\nContent-Length: 2\r\n\r\nok",
	}
	for _, w := range ways(t, blockAll, replies...) {
		for range replies {
			c := w.open()
			c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\nRange: bytes=0-5\r\nAccept-Encoding: br, compress, gzip\r\n\r\n"))
			a := c.answer(http.MethodGet)
			refused(t, a, http.StatusBadGateway, "blocked_content")
			if strings.Contains(a.body, "41111111") || a.Header.Get("X-Card") != "" {
				t.Errorf("%s: %v %s", w.name, a.Header, a.body)
			}
			c.Close()
			w.record().want(t, map[string]any{"outcome": "blocked_content", "status_by": "proxy"})
		}
		if got := w.origin.requests(); len(got) != len(replies) || strings.Contains(got[0], "Range:") || !strings.Contains(got[0], "Accept-Encoding: br, gzip\r\n") {
			t.Errorf("%s: the upstream was asked %q", w.name, got)
		}
	}
}

// TestSanitizeCutsStreams: an event stream flows, and ends broken before what is to be blocked.
func TestSanitizeCutsStreams(t *testing.T) {
	read := make(chan struct{}, 2) // the client has the first event
	o := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: one\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-read:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "data: card "+cardNumber+"\n\ndata: two\n\n")
	}))
	t.Cleanup(o.Close)
	b := start(t, "defaults: {tls: intercept, "+blockAll+", upstream: {ca: "+originCA(t, o)+"}}")
	for _, client := range []*http.Client{b.client(o), h2(b.client(o))} {
		resp, err := client.Get(o.URL)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, len("data: one\n\n"))
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "data: one\n\n" {
			t.Errorf("%q %v", first, err)
		}
		read <- struct{}{}
		rest, err := io.ReadAll(resp.Body)
		if err == nil || len(rest) > 0 {
			t.Errorf("the client got %q %v, and takes it for the whole", rest, err)
		}
		resp.Body.Close()
	}
	for _, r := range b.records(2) {
		r.want(t, map[string]any{"outcome": "blocked_content", "status": 200, "status_by": "upstream",
			"sanitized": []any{map[string]any{"where": "response.body", "kind": "pan", "action": "blocked", "count": 1}}})
	}
}

// TestSanitizeCutsUploads: what is larger than is held back is cut off before the find, so that no upstream takes it for the whole; masked it arrives whole.
func TestSanitizeCutsUploads(t *testing.T) {
	type upload struct {
		body string
		err  error
	}
	got := make(chan upload, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		got <- upload{string(data), err}
		w.WriteHeader(http.StatusNoContent)
	})
	body := strings.Repeat("0123456 ", 40_000) + cardNumber + " end"
	for _, two := range []bool{true, false} {
		o := httptest.NewUnstartedServer(handler)
		if two {
			onlyHTTP2(o)
		}
		o.StartTLS()
		t.Cleanup(o.Close)
		for _, action := range []string{"block", "mask"} {
			b := start(t, fmt.Sprintf("defaults: {tls: intercept, sanitize: {request: {cards: %s, secrets: off}, max_body: 64KiB}, upstream: {ca: %s}}", action, originCA(t, o)))
			for _, client := range []*http.Client{b.client(o), h2(b.client(o))} {
				a := do(t, client, request(t, http.MethodPost, o.URL, body))
				u := <-got
				if action == "mask" {
					if a.StatusCode != http.StatusNoContent || u.err != nil || u.body != strings.Replace(body, cardNumber, cardMasked, 1) {
						t.Errorf("http2 %t: %s, the upstream got %d bytes, %v", two, a.Status, len(u.body), u.err)
					}
					continue
				}
				refused(t, a, http.StatusForbidden, "blocked_content")
				if u.err == nil || strings.Contains(u.body, "41111111") {
					t.Errorf("http2 %t: the upstream got %d bytes of %d, and takes them for the whole", two, len(u.body), len(body))
				}
			}
		}
	}
}

// TestSanitizeObserves: nothing changes, and the record tells what would have.
func TestSanitizeObserves(t *testing.T) {
	reply := "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + cardNumber
	o := newRawOrigin(t, reply)
	b := start(t, "defaults: {sanitize: {mode: observe}}")
	a := do(t, b.client(), request(t, http.MethodPost, o.url("/?n="+cardNumber), cardNumber))
	if got := o.requests(); a.body != cardNumber || len(got) != 1 || !strings.HasPrefix(got[0], "POST /?n="+cardNumber+" ") || !strings.HasSuffix(got[0], cardNumber) {
		t.Errorf("%q, the upstream got %q", a.body, got)
	}
	b.records(1)[0].want(t, map[string]any{"outcome": "ok", "observed": []any{"sanitize request", "sanitize response"}, "sanitized": []any{
		map[string]any{"where": "request.url", "kind": "pan", "action": "observed", "count": 1}, map[string]any{"where": "request.body", "kind": "pan", "action": "observed", "count": 1},
		map[string]any{"where": "response.body", "kind": "pan", "action": "observed", "count": 1}}})
	metrics := get(t, http.DefaultClient, "http://"+b.AdminAddr()+"/metrics").body
	if !strings.Contains(metrics, `httpowerd_sanitized_total{action="observed",direction="response",host="127.0.0.1",kind="pan"} 1`) {
		t.Errorf("the metrics have no such count: %s", metrics[strings.Index(metrics, "httpowerd_sanitized"):][:400])
	}
}

// TestSanitizeCannotActOnTunnels: what passes unseen is said to.
func TestSanitizeCannotActOnTunnels(t *testing.T) {
	o := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, cardNumber) }))
	t.Cleanup(o.Close)
	b := start(t, "hosts: {127.0.0.1: {sanitize: {}}}")
	client := b.client(o)
	if a := get(t, client, o.URL); a.body != cardNumber {
		t.Errorf("%q", a.body)
	}
	client.CloseIdleConnections()
	b.records(1)[0].want(t, map[string]any{"kind": "tunnel", "unapplied": []any{"sanitize"}})
	if !strings.Contains(b.log.String(), "cannot act on the tunnels") {
		t.Errorf("the log does not warn: %s", b.log)
	}
}
