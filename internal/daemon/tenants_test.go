package daemon

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const twoTenants = `
tenants:
  billing:
    auth: [{basic: {password: "right password"}}]
    only: ["127.0.0.1", "*.example.com"]
    limits: {tunnels: 1}
    hosts: {127.0.0.1: {retry: off}}
  ops: {auth: [{bearer: {token: "a token of ops"}}]}
`

func proxyAuth(user, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
}

// TestTenants: whoever shows nothing, or the wrong thing, gets 407 in every way; who is known is asked at each request, and what shows him goes no further (A41, A43).
func TestTenants(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, twoTenants)
	right, ops := proxyAuth("billing", "right password"), "Proxy-Authorization: bearer a token of ops\r\n"
	c := b.dialProxy()
	for i, row := range []struct {
		auth   string
		status int
		tenant any
	}{
		{"", 407, nil}, {proxyAuth("billing", "wrong"), 407, nil}, {right, 200, "billing"}, {"", 407, nil}, {right + right, 407, nil}, {ops, 200, "ops"},
	} {
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n" + row.auth + "\r\n")
		a := c.answer(http.MethodGet)
		if a.StatusCode != row.status {
			t.Fatalf("%d: %s %s", i, a.Status, a.body)
		}
		if row.status == 407 {
			refused(t, a, 407, "auth_required")
			if lines := a.Header["Proxy-Authenticate"]; len(lines) != 2 || !strings.HasPrefix(lines[0], "Basic realm=") || !strings.HasPrefix(lines[1], "Bearer realm=") {
				t.Errorf("Proxy-Authenticate is %q", lines)
			}
		}
	}
	for i, r := range b.records(6) {
		if want := []any{nil, nil, "billing", nil, nil, "ops"}[i]; r["tenant"] != want {
			t.Errorf("record %d is of tenant %v, want %v", i, r["tenant"], want)
		}
	}
	for _, got := range o.requests() {
		if strings.Contains(got, "Proxy-Authorization") {
			t.Errorf("the upstream received %q", got)
		}
	}
	if n := len(o.requests()); n != 2 {
		t.Errorf("%d requests arrived", n)
	}
	for name, row := range map[string]struct {
		auth   string
		status int
		code   string
	}{"anonymous": {"", 407, "auth_required"}, "wrong": {ops + ops, 407, "auth_required"}} {
		c := b.dialProxy()
		c.send("CONNECT " + o.addr + " HTTP/1.1\r\nHost: x\r\n" + row.auth + "\r\n")
		if a := c.answer(http.MethodConnect); a.StatusCode != row.status || a.Header.Get("Httpowerd-Error") != row.code {
			t.Errorf("CONNECT, %s: %s", name, a.Status)
		}
	}
	if text := b.log.String(); strings.Contains(text, "right password") || strings.Contains(text, "a token of ops") {
		t.Error("a secret is in the log")
	}
}

// TestTenantOfATunnel: requests inside belong to whom the CONNECT did, without another word, and the tenant's ceiling of tunnels holds until the tunnel ends.
func TestTenantOfATunnel(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, twoTenants)
	right := proxyAuth("billing", "right password")
	connect := func() (*rawClient, answer) {
		c := b.dialProxy()
		c.send("CONNECT " + o.addr + " HTTP/1.1\r\nHost: x\r\n" + right + "\r\n")
		return c, c.answer(http.MethodConnect)
	}
	first, a := connect()
	if a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	if _, a := connect(); a.StatusCode != 503 || a.Header.Get("Httpowerd-Error") != "overloaded" {
		t.Errorf("a second tunnel: %s", a.Status)
	}
	first.send("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
	if a := first.answer(http.MethodGet); a.body != "ok" {
		t.Errorf("%s %s", a.Status, a.body)
	}
	found := false
	for _, r := range b.records(2) {
		if r["kind"] == "request" {
			found = true
			r.want(t, map[string]any{"tenant": "billing", "policy": "127.0.0.1@billing", "outcome": "ok"})
		}
	}
	if !found {
		t.Error("the request in the tunnel has no record")
	}
	_ = first.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, a := connect(); a.StatusCode == 200 {
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("the place of the tunnel that ended is not free")
		}
	}
}

// TestTenantsHosts: only, and policies of one tenant that are not another's.
func TestTenantsHosts(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
	b := start(t, "defaults: {retry: {backoff: {base: 1ms, throttled: 1ms}}, breaker: off}\n"+twoTenants)
	send := func(auth, url string) answer {
		c := b.dialProxy()
		c.send("GET " + url + " HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n")
		return c.answer(http.MethodGet)
	}
	billing, ops := proxyAuth("billing", "right password"), "Proxy-Authorization: Bearer a token of ops\r\n"
	refused(t, send(billing, "http://localhost:1/"), 403, "denied")
	if a := send(billing, o.url("/")); a.StatusCode != 503 || len(o.requests()) != 1 {
		t.Errorf("%s after %d attempts; this tenant has retry off", a.Status, len(o.requests()))
	}
	if a := send(ops, o.url("/")); a.StatusCode != 503 || len(o.requests()) != 1+4 {
		t.Errorf("%s after %d attempts", a.Status, len(o.requests())-1)
	}
}

// TestTenantsAreApart: what one tenant does to a breaker is not felt by another (A36).
func TestTenantsAreApart(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
	b := start(t, "defaults: {retry: off, breaker: {consecutive: 2}}\n"+twoTenants)
	send := func(auth string) answer {
		c := b.dialProxy()
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n")
		return c.answer(http.MethodGet)
	}
	billing, ops := proxyAuth("billing", "right password"), "Proxy-Authorization: Bearer a token of ops\r\n"
	for range 2 {
		send(billing)
	}
	refused(t, send(billing), 503, "breaker_open")
	if a := send(ops); a.Header.Get("Httpowerd-Error") != "" {
		t.Errorf("another tenant is refused: %s", a.body)
	}
}

// TestGuessing (A44).
func TestGuessing(t *testing.T) {
	b := start(t, twoTenants)
	c := b.dialProxy()
	ask := func(password string) answer {
		c.send("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n" + proxyAuth("billing", password) + "\r\n")
		return c.answer(http.MethodGet)
	}
	for range 20 {
		refused(t, ask("old password"), 407, "auth_required")
	}
	refused(t, ask("old password"), 429, "rate_limited")
	for i := range 19 { // the old one was the first
		if a := ask("right password"); a.StatusCode == 429 || a.StatusCode == 407 {
			t.Fatalf("after %d wrong ones the right one is answered %d", 1+i, a.StatusCode)
		}
		refused(t, ask(fmt.Sprint("guess ", i)), 407, "auth_required")
	}
	a := ask("right password")
	refused(t, a, 429, "rate_limited")
	if a.Header.Get("Retry-After") == "" {
		t.Error("Retry-After is missing")
	}
}

// TestTenantsReload: a tenant that is taken away is refused at its next request on the same connection.
func TestTenantsReload(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, twoTenants)
	c := b.dialProxy()
	ask := func() answer {
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n" + proxyAuth("billing", "right password") + "\r\n")
		return c.answer(http.MethodGet)
	}
	if a := ask(); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	b.write(`tenants: {ops: {auth: [{bearer: {token: "a token of ops"}}]}}`)
	if err := b.Reload(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	refused(t, ask(), 407, "auth_required")
}

// TestTenantsAllTakenAway: a listener that let clients in without a certificate, since they might show otherwise who they are, goes on asking them.
func TestTenantsAllTakenAway(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	const tenants = "tenants: {ops: {auth: [{mtls: {name: ops.svc}}, {bearer: {token: \"a token of ops\"}}]}}"
	b := startSecured(t, tenants)
	c := &rawClient{Conn: b.dialTLS("http/1.1"), t: t}
	c.r = bufio.NewReader(c.Conn)
	ask := func(header string) answer {
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n" + header + "\r\n")
		return c.answer(http.MethodGet)
	}
	const token = "Proxy-Authorization: Bearer a token of ops\r\n"
	if a := ask(token); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	text, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	b.write(strings.NewReplacer("version: 1\n", "", tenants, "").Replace(string(text)))
	a := b.admin(http.MethodPost, "/api/v1/reload", "")
	if faults, _ := b.json(a)["faults"].([]any); a.StatusCode != 422 || len(faults) != 1 || !strings.Contains(a.body, "restart it") {
		t.Errorf("%s %s", a.Status, a.body)
	}
	refused(t, ask(""), 407, "auth_required")
	if a := ask(token); a.StatusCode != 200 {
		t.Error(a.Status)
	}
	for i, outcome := range []string{"ok", "auth_required", "ok"} {
		b.records(3)[i].want(t, map[string]any{"outcome": outcome})
	}
	if got := len(o.requests()); got != 2 {
		t.Errorf("the upstream got %d requests", got)
	}
}

// TestTenantsByCertificate: an HTTPS proxy knows its clients by certificates, and lets others show otherwise who they are.
func TestTenantsByCertificate(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	dir := t.TempDir()
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, caKey)
	certificate(t, dir, "billing.svc", ca, caKey)
	path := func(name string) string { return filepath.Join(dir, name) }
	b := start(t, `
proxy: {tls: {cert: `+path("server.pem")+`, key: `+path("server.key")+`, client_ca: `+path("ca.pem")+`}}
tenants:
  billing: {auth: [{mtls: {name: billing.svc}}]}
  ops: {auth: [{bearer: {token: "a token of ops"}}]}
`)
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	pair, err := tls.LoadX509KeyPair(path("billing.svc.pem"), path("billing.svc.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		certs  []tls.Certificate
		header http.Header
		status int
	}{
		"certificate": {[]tls.Certificate{pair}, nil, 200},
		"token":       {nil, http.Header{"Proxy-Authorization": {"Bearer a token of ops"}}, 200},
		"nothing":     {nil, nil, 407},
	} {
		c, err := tls.Dial("tcp", b.ProxyAddrs()[0], &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: row.certs})
		if err != nil {
			t.Fatal(name, err)
		}
		r, _ := http.NewRequest(http.MethodGet, o.url("/"), nil)
		for key, values := range row.header {
			r.Header[key] = values
		}
		if err := r.WriteProxy(c); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), r)
		if err != nil {
			t.Fatal(name, err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != row.status {
			t.Errorf("%s: %s", name, resp.Status)
		}
		_ = c.Close()
	}
}

// certificate makes NAME.pem and NAME.key, signed by the parent, or by itself.
func certificate(t *testing.T, dir, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: parent == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for ending, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name+ending), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

// TestTenantsByJWT: the keys come from a URL, by way of the daemon's own calls.
func TestTenantsByJWT(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	n, e := base64.RawURLEncoding.EncodeToString(key.N.Bytes()), base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())
	keys := newRawOrigin(t, answerWith(`{"keys":[{"kty":"AKP","kid":"2","alg":"ML-DSA-44","pub":"AAAA"},{"kty":"RSA","kid":"1","alg":"RS256","use":"sig","n":"`+n+`","e":"`+e+`"}]}`))
	o := newRawOrigin(t, okAnswer)
	b := start(t, `tenants: {billing: {auth: [{jwt: {jwks: "`+keys.url("/keys")+`", issuer: "https://id.example.com", audience: proxy}}]}}`)
	token := func(sub string) string {
		part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
		signed := part(`{"alg":"RS256","kid":"1"}`) + "." + part(fmt.Sprintf(`{"iss":"https://id.example.com","aud":"proxy","sub":%q,"exp":%d}`, sub, time.Now().Add(time.Hour).Unix()))
		sum := sha256.Sum256([]byte(signed))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return signed + "." + part(string(signature))
	}
	c := b.dialProxy()
	for sub, status := range map[string]int{"billing": 200, "somebody": 407} {
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer " + token(sub) + "\r\n\r\n")
		if a := c.answer(http.MethodGet); a.StatusCode != status {
			t.Errorf("%s: %s %s", sub, a.Status, a.body)
		}
	}
	if n := len(keys.requests()); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

// TestTenantsByJWTWithoutKeys: while an issuer is away its tokens are refused as what cannot be told, which is no guessing: others from that address go on, and so
// do the same tokens when the keys are there.
func TestTenantsByJWTWithoutKeys(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, `tenants:
  billing: {auth: [{jwt: {jwks: "http://127.0.0.1:1/keys", issuer: "https://id.example.com", audience: proxy}}]}
  ops: {auth: [{basic: {password: "right password"}}]}
`)
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	c := b.dialProxy()
	ask := func(authorization string) answer {
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n" + authorization + "\r\n")
		return c.answer(http.MethodGet)
	}
	const tokens = 25 // more than may be wrong
	for i := range tokens {
		token := part(`{"alg":"RS256","kid":"1"}`) + "." + part(fmt.Sprintf(`{"iss":"https://id.example.com","sub":"billing","jti":"%d"}`, i)) + "." + part("signature")
		a := ask("Proxy-Authorization: Bearer " + token + "\r\n")
		refused(t, a, 407, "auth_required")
		if a.Header.Get("Retry-After") == "" || a.Header.Get("X-Should-Retry") != "" {
			t.Fatalf("token %d: %v", i, a.Header)
		}
	}
	if a := ask(proxyAuth("ops", "right password")); a.StatusCode != 200 {
		t.Errorf("another tenant: %s %s", a.Status, a.body)
	}
	if got := o.requests(); len(got) != 1 {
		t.Errorf("the upstream received %q", got)
	}
	for i, r := range b.records(tokens + 1) {
		want := map[string]any{"outcome": "auth_required", "tenant": nil}
		if i == tokens {
			want = map[string]any{"outcome": "ok", "tenant": "ops"}
		}
		r.want(t, want)
	}
}

func answerWith(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}
