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
	"time"
)

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

// unzipped is what a reader that is not strict makes of a body.
func unzipped(s string) string {
	r, err := gzip.NewReader(strings.NewReader(s))
	if err != nil {
		return s
	}
	data, _ := io.ReadAll(r)
	return string(data)
}

// TestSanitizeBrokenCodings: a body that is not coded as it says hides nothing, neither from whoever ignores what it says nor from whoever reads what can be
// read of it.
func TestSanitizeBrokenCodings(t *testing.T) {
	whole := zipped("some text " + cardNumber)
	for name, body := range map[string]string{
		"garbage behind": whole + "x", "wrong checksum": whole[:len(whole)-6] + "xxxxxx", "cut off": whole[:len(whole)-2], "not coded": `{"card":"` + cardNumber + `"}`,
		"two members": zipped("card 41111111") + zipped("11111111 "),
	} {
		for _, action := range []string{"mask", "block"} {
			for _, coding := range []string{"gzip", "aes128gcm"} {
				if coding != "gzip" && name != "not coded" {
					continue
				}
				o := newRawOrigin(t, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: "+coding+"\r\n"+fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body))+body)
				b := start(t, "defaults: {sanitize: {request: {cards: "+action+"}, response: {cards: "+action+"}}}")
				for _, text := range []string{
					"POST {T}/ HTTP/1.1\r\nHost: {H}\r\nContent-Encoding: " + coding + "\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body,
					"GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n",
				} {
					c := b.dialProxy()
					c.send(strings.NewReplacer("{T}", o.url(""), "{H}", o.addr).Replace(text))
					method, _, _ := strings.Cut(text, " ")
					a := c.answer(method)
					c.Close()
					if strings.Contains(unzipped(a.body), cardNumber) || action == "block" && a.StatusCode/100 == 2 {
						t.Errorf("%s, %s, %s: the client got %s %q", name, coding, action, a.Status, a.body)
					}
				}
				for _, r := range o.requests() {
					_, sent, _ := strings.Cut(r, "\r\n\r\n")
					if strings.Contains(unzipped(sent), cardNumber) || action == "block" && strings.HasPrefix(r, "POST") {
						t.Errorf("%s, %s, %s: the upstream got %q", name, coding, action, r)
					}
				}
				for _, r := range b.records(2) {
					if found := fmt.Sprint(r["sanitized"]); !strings.Contains(found, "kind:pan") || action == "mask" && name == "not coded" && !strings.Contains(found, "action:passed count:1 kind:unreadable") {
						t.Errorf("%s, %s, %s: %v", name, coding, action, r)
					}
				}
			}
		}
	}
}

// TestSanitizeAsksNobodyInVain: an upload that is refused, breaks off or is malformed while it is held back never reaches the upstream, and one that waits for
// leave gets it from the proxy.
func TestSanitizeAsksNobodyInVain(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "defaults: {sanitize: {}}")
	head := "POST " + o.url("/") + " HTTP/1.1\r\nHost: " + o.addr + "\r\n"
	c := b.dialProxy()
	c.send(head + "Expect: 100-continue\r\nContent-Length: 16\r\n\r\n")
	leave := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(c, leave); err != nil || !strings.HasPrefix(string(leave), "HTTP/1.1 100 ") {
		t.Fatalf("%q %v", leave, err)
	}
	c.send(cardNumber)
	refused(t, c.answer(http.MethodPost), http.StatusForbidden, "blocked_content")
	b.records(1) // they are looked at in this order
	c = b.dialProxy()
	c.send(head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
	refused(t, c.answer(http.MethodPost), http.StatusBadRequest, "bad_request")
	b.records(2)
	c = b.dialProxy()
	c.send(head + "Content-Length: 1600\r\n\r\nabc")
	time.Sleep(20 * time.Millisecond)
	c.Close()
	for i, r := range b.records(3) {
		if i < 2 || r["outcome"] != "client_gone" { // the end of what it sends may be seen before the end of its connection
			r.want(t, map[string]any{"outcome": []string{"blocked_content", "bad_request", "bad_request"}[i]})
		}
		r.want(t, map[string]any{"attempts": nil})
	}
	if n := o.opened(); n != 0 {
		t.Errorf("the upstream was connected to %d times", n)
	}
}

// TestSanitizeCutIsNoFailure: an upload that is cut off is nothing that the upstream did wrong: neither where it has answered before, nor where it has not. The
// record says what it was, nothing is sent again, and no connection is used again with half a request on it.
func TestSanitizeCutIsNoFailure(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			_ = http.NewResponseController(w).EnableFullDuplex()
			_, _ = io.WriteString(w, "early")
			w.(http.Flusher).Flush()
		}
		if _, err := io.Copy(io.Discard, r.Body); err == nil && r.ContentLength != 1 {
			t.Errorf("%s %s: the upstream takes a part for the whole", r.Proto, r.URL.Path)
		}
	})
	filler := strings.Repeat("0123456 ", 40_000)
	for _, two := range []bool{true, false} {
		o := httptest.NewUnstartedServer(handler)
		if two {
			onlyHTTP2(o)
		}
		o.StartTLS()
		t.Cleanup(o.Close)
		b := start(t, "defaults: {tls: intercept, retry: {methods: all}, breaker: {consecutive: 1}, sanitize: {max_body: 64KiB}, upstream: {ca: "+originCA(t, o)+"}}")
		for _, client := range []*http.Client{b.client(o), h2(b.client(o))} {
			refused(t, do(t, client, request(t, http.MethodPost, o.URL, filler+cardNumber+" end")), http.StatusForbidden, "blocked_content")
			r, w := io.Pipe()
			answered := make(chan struct{})
			go func() {
				_, _ = io.WriteString(w, filler)
				<-answered
				_, _ = io.WriteString(w, filler+cardNumber+" "+filler)
				_ = w.Close()
			}()
			asked, _ := http.NewRequest(http.MethodPost, o.URL+"/early", r)
			resp, err := client.Do(asked)
			if err != nil {
				t.Fatal(err)
			}
			close(answered)
			data, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if !strings.HasPrefix("early", string(data)) || err == nil {
				t.Errorf("http2 %t: %q %v", two, data, err)
			}
			if a := do(t, client, request(t, http.MethodPost, o.URL, "x")); a.StatusCode != http.StatusOK {
				t.Errorf("http2 %t: %s %s", two, a.Status, a.body)
			}
		}
		cut := 0
		for _, r := range b.records(6) {
			if r["sanitized"] == nil {
				continue
			}
			cut++
			r.want(t, map[string]any{"outcome": "blocked_content", "breaker": "closed"})
			if tries, _ := r["attempts"].([]any); len(tries) != 1 {
				t.Errorf("http2 %t: %v", two, r)
			}
		}
		if cut != 4 {
			t.Errorf("http2 %t: %d records tell of a find", two, cut)
		}
	}
}

// TestSanitizeInformational: what stands in a 1xx answer is looked at too.
func TestSanitizeInformational(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 103 Early Hints\r\nLink: </"+cardNumber+">\r\n\r\n"+okAnswer)
	for action, want := range map[string]string{"mask": "HTTP/1.1 103 Early Hints\r\nLink: </" + cardMasked + ">\r\n\r\nHTTP/1.1 200 OK\r\n", "block": "HTTP/1.1 200 OK\r\n"} {
		b := start(t, "defaults: {sanitize: {response: {cards: "+action+"}}}")
		c := b.dialProxy()
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: " + o.addr + "\r\nConnection: close\r\n\r\n")
		if got := c.rest(); !strings.HasPrefix(got, want) || strings.Contains(got, cardNumber) {
			t.Errorf("%s: %q", action, got)
		}
		b.records(1)[0].want(t, map[string]any{"outcome": "ok", "sanitized": []any{
			map[string]any{"where": "response.headers", "kind": "pan", "action": map[string]string{"mask": "masked", "block": "blocked"}[action], "count": 1}}})
	}
}

// TestSanitizeKeyedWrites: what is found in the answer to a write that goes on without its client stands in the record of the client that asked.
func TestSanitizeKeyedWrites(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"+inChunks(`{"card":"`+cardNumber+`"}`, 13))
	b := start(t, "defaults: {dedup: {methods: [GET, POST]}, retry: {idempotency_key: {}}, sanitize: {request: {cards: mask}}}")
	for range 2 {
		r := request(t, http.MethodPost, o.url("/"), "x")
		r.Header.Set("Idempotency-Key", "0b5f7c1e-5c0e-4f8e-9d50-0b1d0d5c7a11")
		if a := do(t, b.client(), r); a.body != `{"card":"`+cardMasked+`"}` {
			t.Errorf("%s %q", a.Status, a.body)
		}
	}
	if n := len(o.requests()); n != 1 {
		t.Errorf("the upstream got %d requests", n)
	}
	records := b.records(2)
	records[0].want(t, map[string]any{"dedup": "leader", "sanitized": []any{map[string]any{"where": "response.body", "kind": "pan", "action": "masked", "count": 1}}})
	records[1].want(t, map[string]any{"dedup": "replayed", "sanitized": nil})
}
