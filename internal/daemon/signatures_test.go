package daemon

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const signingTenants = `
tenants:
  billing: {auth: [{signature: {secret: "a key of billing that is long"}}]}
  ops: {auth: [{hmac: {secret: "a key of ops that is long enough"}}]}
`

func macOf(key, text string) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// signature is the fields of one by RFC 9421, beside another that is not for the proxy.
func signature(nonce string, covered ...[2]string) string {
	return signatureOf(time.Now(), nonce, covered...)
}

func signatureOf(made time.Time, nonce string, covered ...[2]string) string {
	var names []string
	base := ""
	for _, c := range covered {
		names = append(names, `"`+c[0]+`"`)
		base += `"` + c[0] + `": ` + c[1] + "\n"
	}
	params := fmt.Sprintf(`(%s);created=%d;nonce="%s";keyid="billing";tag="httpowerd"`, strings.Join(names, " "), made.Unix(), nonce)
	return `Signature-Input: app=("date");tag="other", proxy=` + params + "\r\n" +
		"Signature: app=:AAAA:, proxy=:" + macOf("a key of billing that is long", base+`"@signature-params": `+params) + ":\r\n"
}

// TestSignedRequests: each request is signed once, in every way to the proxy; what is for the proxy goes no further, what is for others does.
func TestSignedRequests(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, signingTenants)
	get := func(nonce, path string) string {
		return signature(nonce, [2]string{"@method", "GET"}, [2]string{"@authority", o.addr}, [2]string{"@target-uri", o.url(path)})
	}
	first := get("nonce-0001", "/a?b=c")
	c := b.dialProxy()
	for i, row := range []struct {
		path, signature string
		status          int
	}{{"/a?b=c", first, 200}, {"/a?b=c", first, 407}, {"/a?b=d", get("nonce-0002", "/a?b=c"), 407}, {"/a", "", 407}, {"/a", get("nonce-0003", "/a"), 200}} {
		c.send("GET " + o.url(row.path) + " HTTP/1.1\r\nHost: x\r\n" + row.signature + "\r\n")
		if a := c.answer(http.MethodGet); a.StatusCode != row.status {
			t.Errorf("%d: %s %s", i, a.Status, a.body)
		} else if row.status == 407 {
			refused(t, a, 407, "auth_required")
		}
	}
	got := o.requests()
	if len(got) != 2 {
		t.Fatalf("the upstream received %q", got)
	}
	for _, r := range got {
		if strings.Contains(r, "httpowerd\"") || strings.Contains(r, "proxy=") || !strings.Contains(r, "\r\nSignature-Input: app=(\"date\");tag=\"other\"\r\n") ||
			!strings.Contains(r, "\r\nSignature: app=:AAAA:\r\n") {
			t.Errorf("the upstream received %q", r)
		}
	}
	for i, r := range b.records(5) {
		want := map[string]any{"tenant": "billing", "outcome": "ok"}
		if i > 0 && i < 4 {
			want = map[string]any{"tenant": nil, "outcome": "auth_required"}
		}
		r.want(t, want)
	}
	tunnel := b.dialProxy()
	tunnel.send("CONNECT " + o.addr + " HTTP/1.1\r\nHost: x\r\n" + signature("nonce-0004", [2]string{"@method", "CONNECT"}, [2]string{"@authority", o.addr}) + "\r\n")
	if a := tunnel.answer(http.MethodConnect); a.StatusCode != 200 {
		t.Errorf("CONNECT: %s", a.Status)
	}
}

// plainSignature is a field Proxy-Authorization with a plain signature of ops.
func plainSignature(nonce, method, authority, path, body string) string {
	stamp, digest := fmt.Sprint(time.Now().Unix()), ""
	if body != "" {
		sum := sha256.Sum256([]byte(body))
		digest = base64.StdEncoding.EncodeToString(sum[:])
	}
	text := strings.Join([]string{"HMAC-SHA256", method, authority, path, stamp, nonce, digest}, "\n")
	return fmt.Sprintf("Proxy-Authorization: HMAC-SHA256 keyid=\"ops\", timestamp=\"%s\", nonce=\"%s\", digest=\"%s\", signature=\"%s\"\r\n",
		stamp, nonce, digest, macOf("a key of ops that is long enough", text))
}

// TestSignedBodies: a body that is not what was signed never arrives as a whole, however it is framed.
func TestSignedBodies(t *testing.T) {
	for name, row := range map[string]struct {
		signed, sent string
		chunked      bool
		status       int
	}{
		"right":           {"the whole body", "the whole body", false, 200},
		"right, chunked":  {"the whole body", "the whole body", true, 200},
		"wrong":           {"the whole body", "the wrong body", false, 400},
		"wrong, chunked":  {"the whole body", "the wrong body", true, 400},
		"longer":          {"the whole body", "the whole body, and more", true, 400},
		"large and right": {strings.Repeat("0123456789", 20_000), strings.Repeat("0123456789", 20_000), false, 200},
		"large and wrong": {strings.Repeat("0123456789", 20_000), strings.Repeat("0123456789", 19_999) + "012345678x", false, 400},
		"none":            {"the whole body", "", false, 400},
	} {
		t.Run(name, func(t *testing.T) {
			o := newRawOrigin(t, okAnswer)
			b := start(t, "defaults: {retry: {buffer: 64KiB}}\n"+signingTenants)
			framing, body := fmt.Sprintf("Content-Length: %d\r\n", len(row.sent)), row.sent
			if row.chunked {
				framing, body = "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(row.sent), row.sent)
			}
			c := b.dialProxy()
			c.send("POST " + o.url("/pay") + " HTTP/1.1\r\nHost: x\r\n" + framing + plainSignature("nonce-0001", "POST", o.addr, "/pay", row.signed) + "\r\n" + body)
			a := c.answer(http.MethodPost)
			if a.StatusCode != row.status {
				t.Fatalf("%s %s", a.Status, a.body)
			}
			if row.status == 400 {
				refused(t, a, 400, "bad_request")
			}
			whole := 0
			for _, got := range o.requests() {
				if strings.HasSuffix(got, row.sent) || strings.HasSuffix(got, "\r\n0\r\n\r\n") {
					whole++
				}
			}
			if want := map[int]int{200: 1, 400: 0}[row.status]; whole != want {
				t.Errorf("the upstream has %d whole requests, want %d: %.300q", whole, want, o.requests())
			}
			b.records(1)[0].want(t, map[string]any{"tenant": "ops"})
		})
	}
}

// TestSignaturesAreGuessedAt: wrong ones count as wrong passwords do (A44).
func TestSignaturesAreGuessedAt(t *testing.T) {
	b := start(t, signingTenants)
	c := b.dialProxy()
	for i := range 21 {
		c.send("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n" + signature(fmt.Sprint("nonce-", i), [2]string{"@method", "GET"}) + "\r\n")
		if a := c.answer(http.MethodGet); i < 20 {
			refused(t, a, 407, "auth_required")
		} else {
			refused(t, a, 429, "rate_limited")
		}
	}
}

// TestSignedFieldsArrive: nobody on the way has a field that was signed taken away by naming it in Connection, which no signature covers.
func TestSignedFieldsArrive(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, `tenants: {billing: {auth: [{signature: {secret: "a key of billing that is long", components: ["@method", "@authority", "@target-uri", "idempotency-key"]}}]}}`)
	c := b.dialProxy()
	for i, connection := range []string{"", "Connection: idempotency-Key\r\n", "Connection: x\r\nConnection: y , Idempotency-Key\r\n", "Connection: keep-alive, key\r\n"} {
		c.send("POST " + o.url("/pay") + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nIdempotency-Key: k-1\r\n" + connection +
			signature(fmt.Sprintf("nonce-%04d", i), [2]string{"@method", "POST"}, [2]string{"@authority", o.addr}, [2]string{"@target-uri", o.url("/pay")}, [2]string{"idempotency-key", "k-1"}) + "\r\n")
		a := c.answer(http.MethodPost)
		if i == 1 || i == 2 {
			refused(t, a, 407, "auth_required")
		} else if a.StatusCode != 200 {
			t.Errorf("%q: %s %s", connection, a.Status, a.body)
		}
	}
	got := o.requests()
	if len(got) != 2 {
		t.Errorf("the upstream received %q", got)
	}
	for _, r := range got {
		if !strings.Contains(strings.ToLower(r), "\r\nidempotency-key: k-1\r\n") {
			t.Errorf("the upstream received %q", r)
		}
	}
	for i, r := range b.records(4) {
		r.want(t, map[string]any{"outcome": []string{"ok", "auth_required", "auth_required", "ok"}[i]})
	}
}

// TestSignaturesInsideTunnels: no upstream is given a signature that it could use at the proxy, where nobody has seen it.
func TestSignaturesInsideTunnels(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, signingTenants)
	c := b.dialProxy()
	c.send("CONNECT " + o.addr + " HTTP/1.1\r\nHost: x\r\n" + signature("nonce-0001", [2]string{"@method", "CONNECT"}, [2]string{"@authority", o.addr}) + "\r\n")
	if a := c.answer(http.MethodConnect); a.StatusCode != 200 {
		t.Fatalf("CONNECT: %s %s", a.Status, a.body)
	}
	unused := signature("nonce-0002", [2]string{"@method", "GET"}, [2]string{"@authority", o.addr}, [2]string{"@target-uri", o.url("/a")})
	c.send("GET /a HTTP/1.1\r\nHost: " + o.addr + "\r\n" + unused + "\r\n")
	if a := c.answer(http.MethodGet); a.StatusCode != 200 {
		t.Errorf("%s %s", a.Status, a.body)
	}
	got := o.requests()
	if len(got) != 1 || strings.Contains(got[0], "proxy=") || !strings.Contains(got[0], "\r\nSignature: app=:AAAA:\r\n") {
		t.Errorf("the upstream received %q", got)
	}
	for _, r := range b.records(1) {
		r.want(t, map[string]any{"tenant": "billing", "outcome": "ok", "mode": "plain"})
	}
}

// TestSignaturesOverARestart: what was used before a restart is used up behind it too, though its client's clock is ahead, and others sign as ever.
func TestSignaturesOverARestart(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, signingTenants)
	send := func(c *rawClient, signature string) answer {
		c.send("POST " + o.url("/pay") + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + signature + "\r\n")
		return c.answer(http.MethodPost)
	}
	of := func(made time.Time, nonce string) string {
		return signatureOf(made, nonce, [2]string{"@method", "POST"}, [2]string{"@authority", o.addr}, [2]string{"@target-uri", o.url("/pay")})
	}
	used := []string{of(time.Now().Add(20*time.Second), "nonce-ahead"), of(time.Now(), "nonce-right")}
	c := b.dialProxy()
	for _, s := range used {
		if a := send(c, s); a.StatusCode != 200 {
			t.Fatalf("%s %s", a.Status, a.body)
		}
	}
	b.records(2)
	b = b.restart()
	c = b.dialProxy() // one connection has its records in order
	for _, s := range used {
		refused(t, send(c, s), 407, "auth_required")
	}
	if a := send(c, of(time.Now(), "nonce-fresh")); a.StatusCode != 200 {
		t.Errorf("after the restart: %s %s", a.Status, a.body)
	}
	if got := o.requests(); len(got) != 3 {
		t.Errorf("the upstream received %d requests", len(got))
	}
	for i, r := range b.records(5)[2:] {
		r.want(t, map[string]any{"outcome": []string{"auth_required", "auth_required", "ok"}[i]})
	}
}
