package daemon

import (
	"net/http"
	"strings"
	"testing"
)

// TestAliases: names that some software takes for others (_ and . for -). Those of framing fields are refused; all others are just names: they arrive as they
// were sent, do here what no alias may do, namely nothing, and what they hold is as secret as under the real name (A39).
func TestAliases(t *testing.T) {
	const head = "POST {T}/ HTTP/1.1\r\nHost: {H}\r\n"
	aliases := []string{"X_Api_Key", "X.Api.Key", "X_Forwarded_For", "Proxy_Authorization", "Proxy.Connection", "Keep_Alive", "Http2_Settings", "X_Auth_Token",
		"Idempotency_Key"}
	for _, w := range ways(t, "audit: {headers: true}, dedup: {}", okAnswer) {
		refusals := map[string]string{}
		for _, name := range []string{"Transfer_Encoding", "TRANSFER.ENCODING", "transfer.Encoding", "Transfer-Encoding "} {
			refusals[name] = name + ": chunked\r\n\r\n0\r\n\r\n"
		}
		for _, name := range []string{"Content_Length", "content.length", "Content-Length "} {
			refusals[name] = name + ": 4\r\n\r\nbody"
		}
		for _, name := range []string{"Authorization ", "Authorization\t", " Authorization", "Proxy-Authorization ", "X-Api-Key ", "Host "} {
			refusals[name] = name + ": Basic eDp5\r\n\r\n"
		}
		for name, rest := range refusals {
			c := w.open()
			c.send(w.text(head + rest + "GET {T}/smuggled HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			refused(t, c.answer(http.MethodPost), 400, "bad_request")
			if rest := c.rest(); rest != "" {
				t.Errorf("%s, %q: then came %q", w.name, name, rest)
			}
			w.record().want(t, map[string]any{"outcome": "bad_request", "status": 400})
		}
		if got := w.origin.requests(); len(got) > 0 {
			t.Fatalf("%s: the upstream received %q", w.name, got)
		}
		c, text := w.open(), head
		for _, name := range aliases {
			text += name + ": s3cr3t-value-of-an-alias\r\n"
		}
		c.send(w.text(text + "\r\n"))
		if a := c.answer(http.MethodPost); a.body != "ok" {
			t.Fatalf("%s: %s %s", w.name, a.Status, a.body)
		}
		sent := strings.ToLower(w.origin.requests()[0])
		for _, name := range aliases {
			if !strings.Contains(sent, "\r\n"+strings.ToLower(name)+": s3cr3t-value-of-an-alias\r\n") {
				t.Errorf("%s: %s did not arrive: %q", w.name, name, sent)
			}
		}
		r := w.record()
		r.want(t, map[string]any{"outcome": "ok"})
		fields, _ := r["request_headers"].(map[string]any)
		for _, name := range []string{"X_api_key", "X.api.key", "Proxy_authorization", "X_auth_token"} {
			if values, _ := fields[name].([]any); len(values) != 1 || strings.Contains(values[0].(string), "s3cr3t") {
				t.Errorf("%s: the record shows %s: %v", w.name, name, fields)
			}
		}
	}
	w := ways(t, "", okAnswer)[3]
	for name, want := range map[string]string{"authorization ": "reset 1", "x-api-key\t": "reset 1", "transfer.encoding": `"code":"bad_request"`, "content_length": `"code":"bad_request"`} {
		h := w.box.dialH2(w.origin.addr)
		h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", w.origin.addr, ":path", "/", name, "1")
		if got := h.body(1); !strings.Contains(got, want) || len(w.origin.requests()) > 0 {
			t.Errorf("h2, %q: %q, the upstream received %q", name, got, w.origin.requests())
		}
		h.Close()
	}
}

// TestAliasesOfCredentials: nobody is known by a name that is only like Proxy-Authorization, in front of a body or behind it (A38, A39).
func TestAliasesOfCredentials(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, twoTenants)
	right := strings.TrimPrefix(strings.TrimSuffix(proxyAuth("billing", "right password"), "\r\n"), "Proxy-Authorization: ")
	for _, text := range []string{"Proxy_Authorization: " + right + "\r\n\r\n", "Proxy.Authorization: " + right + "\r\n\r\n", "Authorization: " + right + "\r\n\r\n",
		"Trailer: Proxy-Authorization\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nProxy-Authorization: " + right + "\r\n\r\n"} {
		c := b.dialProxy()
		c.send("POST " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n" + text)
		refused(t, c.answer(http.MethodPost), 407, "auth_required")
	}
	if got := o.requests(); len(got) > 0 {
		t.Errorf("the upstream received %q", got)
	}
}
