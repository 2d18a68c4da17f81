package daemon

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// identities is an upstream that answers who its client's certificate says that it is, and whether the session is an earlier one's. It closes after each answer.
func identities(t *testing.T, dir string, ca *x509.Certificate) *httptest.Server {
	t.Helper()
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			who = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		w.Header().Set("Connection", "close")
		_, _ = fmt.Fprint(w, who, " ", r.TLS.DidResume)
	}))
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca)
	o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients}
	o.StartTLS()
	t.Cleanup(o.Close)
	return o
}

// TestNotIntercepted: a host that is to be tunnelled shows its own certificate where everything else is intercepted, and sees the client's own, which an
// intercepted one does not (A58).
func TestNotIntercepted(t *testing.T) {
	dir := t.TempDir()
	ca, key := certificate(t, dir, "ca", nil, nil)
	server, _ := certificate(t, dir, "server", ca, key)
	certificate(t, dir, "the-app", ca, key)
	app, err := tls.LoadX509KeyPair(filepath.Join(dir, "the-app.pem"), filepath.Join(dir, "the-app.key"))
	if err != nil {
		t.Fatal(err)
	}
	o := identities(t, dir, ca)
	addr := o.Listener.Addr().String()
	port := addr[strings.LastIndexByte(addr, ':'):]
	b := start(t, fmt.Sprintf(`
defaults: {tls: intercept, upstream: {ca: %s, resolve: {pinned.example.com: %q, localhost: %q, sub.pinned.example.com: %q}}}
hosts:
  pinned.example.com: {tls: tunnel}
  "*.pinned.example.com": {tls: tunnel}
`, filepath.Join(dir, "ca.pem"), addr, addr, addr))
	for host, row := range map[string]struct {
		own  bool
		says string
	}{"pinned.example.com": {true, "the-app"}, "PINNED.example.com": {true, "the-app"}, "sub.pinned.example.com": {true, "the-app"}, "localhost": {false, "nobody"}} {
		c := b.dialProxy()
		if a := c.connect(host + port); a.StatusCode != 200 {
			t.Fatalf("%s: %s", host, a.Status)
		}
		inside := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: host, Certificates: []tls.Certificate{app}, NextProtos: []string{"http/1.1"}})
		if err := inside.Handshake(); err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if shown := inside.ConnectionState().PeerCertificates[0]; bytes.Equal(shown.Raw, server.Raw) != row.own {
			t.Errorf("%s: the client sees the certificate of %s, by %s", host, shown.Subject, shown.Issuer)
		}
		raw := &rawClient{Conn: inside, t: t, r: bufio.NewReader(inside)}
		raw.send("GET / HTTP/1.1\r\nHost: " + host + port + "\r\nConnection: close\r\n\r\n")
		if a := raw.answer(http.MethodGet); !strings.HasPrefix(a.body, row.says+" ") || (a.Header.Get("Via") == "") != row.own {
			t.Errorf("%s: the upstream sees %q, the client %v", host, a.body, a.Header)
		}
		inside.Close()
	}
	modes := map[string]int{}
	for _, r := range b.records(4) {
		modes[r.text("kind")+" "+r.text("mode")]++
	}
	if modes["tunnel tunnel"] != 3 || modes["request intercept"] != 1 {
		t.Errorf("the records are of %v", modes)
	}
}

// TestClientCertificatesApart: an upstream's client certificate is for the host, route and tenant that it is configured for; no connection and no TLS session of one
// serves another, although it is the same upstream under the same name (A58, A60).
func TestClientCertificatesApart(t *testing.T) {
	dir := t.TempDir()
	ca, key := certificate(t, dir, "ca", nil, nil)
	for _, name := range []string{"server", "one", "two", "three"} {
		certificate(t, dir, name, ca, key)
	}
	o := identities(t, dir, ca)
	cert := func(name string) string {
		return fmt.Sprintf("client_cert: %s, client_key: %s", filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
	}
	b := start(t, fmt.Sprintf(`
defaults: {upstream: {ca: %s, resolve: {localhost: %q, server: %[2]q}}}
tenants:
  plain: {auth: [{bearer: {token: "a token of plain"}}]}
  special: {auth: [{bearer: {token: "a token of special"}}], hosts: {localhost: {upstream: {%s}}}}
hosts:
  localhost:
    routes:
      - {match: {path: /one}, upstream: {%s}}
      - {match: {path: /two}, upstream: {%s}}
`, filepath.Join(dir, "ca.pem"), o.Listener.Addr().String(), cert("three"), cert("one"), cert("two")))
	_, port, _ := strings.Cut(o.Listener.Addr().String(), ":")
	resumed := map[string]bool{}
	for range 3 {
		for _, row := range []struct{ tenant, host, path, says string }{
			{"plain", "localhost", "/one", "one"}, {"plain", "localhost", "/", "nobody"}, {"plain", "localhost", "/two", "two"},
			{"special", "localhost", "/", "three"}, {"plain", "server", "/one", "nobody"}, {"special", "server", "/", "nobody"},
		} {
			c := b.dialProxy()
			c.send("GET https://" + row.host + ":" + port + row.path + " HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer a token of " + row.tenant + "\r\n\r\n")
			a := c.answer(http.MethodGet)
			who, again, _ := strings.Cut(a.body, " ")
			if who != row.says {
				t.Errorf("%s at %s%s: the upstream sees %q (%s)", row.tenant, row.host, row.path, a.body, a.Status)
			}
			name := row.tenant + row.host + row.path
			if _, seen := resumed[name]; again == "true" && !seen && row.host == "localhost" { // without certificates tenants share connections
				t.Errorf("%s: the first connection resumes a session", name)
			}
			resumed[name] = again == "true"
			c.Close()
		}
	}
	for name, again := range resumed {
		if !again {
			t.Errorf("%s: nothing is ever resumed, so nothing is shown", name)
		}
	}
}
