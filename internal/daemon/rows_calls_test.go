package daemon

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestKeySetsAreRuled: the URL of a key set is no way round destinations, by itself or by a redirect; nobody is let in by keys that could not be had (A11).
func TestKeySetsAreRuled(t *testing.T) {
	keys := newRawOrigin(t, answerWith(`{"keys":[]}`))
	redirects := newRawOrigin(t, "HTTP/1.1 302 Found\r\nLocation: "+keys.url("/keys")+"\r\nContent-Length: 0\r\n\r\n")
	o := newRawOrigin(t, okAnswer)
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	token := part(`{"alg":"RS256","kid":"1"}`) + "." + part(fmt.Sprintf(`{"iss":"https://id.example.com","aud":"proxy","sub":"billing","exp":%d}`,
		time.Now().Add(time.Hour).Unix())) + "." + part("signature")
	port := func(o *rawOrigin) string { return o.addr[strings.LastIndexByte(o.addr, ':')+1:] }
	for name, row := range map[string]struct{ rules, url string }{
		"port":     {"ports: [" + port(o) + "]", keys.url("/keys")},
		"network":  {"deny: [127.0.0.0/8]", keys.url("/keys")},
		"name":     {"deny: [\"127.0.0.0/8\", \"::1\"]", "https://localhost:" + port(keys) + "/keys"},
		"metadata": {"ports: auto", "https://169.254.169.254/keys"},
		"redirect": {"ports: [" + port(o) + ", " + port(redirects) + "]", redirects.url("/keys")},
	} {
		b := start(t, fmt.Sprintf("destinations: {%s}\ntenants: {billing: {auth: [{jwt: {jwks: %q, issuer: \"https://id.example.com\", audience: proxy}}]}}\n", row.rules, row.url))
		c := b.dialProxy()
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer " + token + "\r\n\r\n")
		refused(t, c.answer(http.MethodGet), 407, "auth_required")
		b.records(1)[0].want(t, map[string]any{"outcome": "auth_required", "tenant": nil})
		b.stop()
		if log := b.log.String(); !strings.Contains(log, "a key set could not be fetched") || name != "redirect" && !strings.Contains(log, "destination_denied") {
			t.Errorf("%s: %s", name, log)
		}
	}
	if got := append(keys.requests(), o.requests()...); len(got) > 0 {
		t.Errorf("received %q", got)
	}
	if n := len(redirects.requests()); n != 1 {
		t.Errorf("the redirect was asked for %d times", n)
	}
}

// switching are fields that other software takes orders from.
const switching = "Proxy: http://%[1]s\r\nHttp-Proxy: http://%[1]s\r\nHttp_Proxy: http://%[1]s\r\nX-Proxy: %[1]s\r\nX-Forwarded-Host: %[1]s\r\nX-Forwarded-Server: %[1]s\r\n" +
	"X-Original-Url: http://%[1]s/\r\nX-Rewrite-Url: http://%[1]s/\r\nX-Original-Host: %[1]s\r\nX-Http-Method-Override: DELETE\r\nX-Envoy-Original-Dst-Host: %[1]s\r\n" +
	"Httpowerd-Test: on\r\nHttpowerd-Mode: observe\r\nHttpowerd-Mock: 200\r\nHttpowerd-Policy: none\r\nHttpowerd-Retry: off\r\nHttpowerd-Tenant: ops\r\n" +
	"X-Httpowerd-Test: on\r\nX-Test-Mode: replay\r\nX-Debug: 1\r\nPrefer: example=1\r\nX-Fixture: ../../etc/passwd\r\n"

// TestNoSwitchInAField: no field of a request sends it elsewhere, switches a mode or opens what is closed. Proxy, which CGI programs may take for a setting of
// their own, is nothing to this proxy but a field of the client's (A66, A72).
func TestNoSwitchInAField(t *testing.T) {
	evil := newRawOrigin(t, okAnswer)
	fields := fmt.Sprintf(switching, evil.addr)
	for _, w := range ways(t, "", okAnswer) {
		for _, more := range []string{"", fields} {
			c := w.open()
			c.send(w.text("POST {T}/a HTTP/1.1\r\nHost: {H}\r\n" + more + "Content-Length: 4\r\n\r\nbody"))
			if a := c.answer(http.MethodPost); a.body != "ok" || a.Header.Get("Httpowerd-Error") != "" {
				t.Errorf("%s: %s %s", w.name, a.Status, a.body)
			}
			w.record().want(t, map[string]any{"outcome": "ok", "status_by": "upstream", "mode": w.mode, "method": "POST", "observed": nil, "tenant": nil})
		}
		sent := w.origin.requests()
		if len(sent) != 2 || !strings.HasPrefix(sent[1], "POST /a HTTP/1.1\r\nHost: "+w.origin.addr+"\r\n") || !strings.Contains(sent[1], "\r\nProxy: http://"+evil.addr+"\r\n") {
			t.Errorf("%s: the upstream received %q", w.name, sent)
		}
	}
	o := newRawOrigin(t, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
	b := start(t, fmt.Sprintf("defaults: {retry: {attempts: 2, backoff: {base: 1ms, throttled: 1ms}}, breaker: {consecutive: 4}}\n"+
		"hosts: {denied.example.com: {access: deny}, 127.0.0.1: {rate_limit: {requests: 100, per: 1h}}, limited.example.com: {rate_limit: {requests: 1, per: 1h, wait: 0s}, "+
		"upstream: {resolve: {limited.example.com: %q}}}}\n", o.addr))
	send := func(url string) answer {
		c := b.dialProxy()
		defer c.Close()
		c.send("GET " + url + " HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n")
		return c.answer(http.MethodGet)
	}
	refused(t, send("http://denied.example.com/"), 403, "denied")
	refused(t, send("http://169.254.169.254/"), 403, "destination_denied")
	refused(t, send("http://"+b.AdminAddr()+"/metrics"), 502, "loop")
	if a := send(o.url("/")); a.StatusCode != 503 || len(o.requests()) != 2 {
		t.Errorf("%s after %d attempts", a.Status, len(o.requests()))
	}
	send(o.url("/"))
	refused(t, send(o.url("/")), 503, "breaker_open")
	if got := evil.requests(); len(got) > 0 {
		t.Errorf("the one that the fields name received %q", got)
	}
}
