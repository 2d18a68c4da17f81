package daemon

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// renew makes a certificate in the place of NAME.pem and NAME.key, as an ACME client or a mounted secret does.
func renew(t *testing.T, dir, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	next := t.TempDir()
	cert, _ := certificate(t, next, name, parent, parentKey)
	for _, ending := range []string{".key", ".pem"} {
		if err := os.Rename(filepath.Join(next, name+ending), filepath.Join(dir, name+ending)); err != nil {
			t.Fatal(err)
		}
	}
	return cert
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// TestRenewedCertificates: the listeners' certificate and one's own CA are used as soon as their files hold others; connections that are open go on.
func TestRenewedCertificates(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, caKey)
	certificate(t, dir, "own", nil, nil)
	b := start(t, "proxy: {tls: {cert: "+path("server.pem")+", key: "+path("server.key")+"}}\nca: {cert: "+path("own.pem")+", key: "+path("own.key")+"}\ndefaults: {tls: intercept}\n")
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp", b.ProxyAddrs()[0], &tls.Config{RootCAs: roots, ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	before := &rawClient{Conn: dial(), t: t}
	before.r = bufio.NewReader(before.Conn)
	ask := func() answer {
		before.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n\r\n")
		return before.answer(http.MethodGet)
	}
	if a := ask(); a.body != "ok" {
		t.Fatal(a.Status, a.body)
	}
	server := renew(t, dir, "server", ca, caKey)
	eventually(t, "the listener shows its old certificate", func() bool { return dial().ConnectionState().PeerCertificates[0].Equal(server) })
	own := renew(t, dir, "own", nil, nil)
	eventually(t, "the old CA is in use", func() bool {
		block, _ := pem.Decode([]byte(b.admin(http.MethodGet, "/ca.pem", "").body))
		return string(block.Bytes) == string(own.Raw)
	})
	if a := ask(); a.body != "ok" {
		t.Error("a connection that was open:", a.Status, a.body)
	}
	if err := os.WriteFile(path("server.pem"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := b.admin(http.MethodPost, "/api/v1/reload", ""); a.StatusCode != 422 {
		t.Error("a file that is no certificate:", a.Status, a.body)
	}
	if !dial().ConnectionState().PeerCertificates[0].Equal(server) {
		t.Error("the certificate in use is gone")
	}
	b.records(2)[1].want(t, map[string]any{"outcome": "ok"})
}

// TestTenantsArrive: where there are tenants from a reload on, clients without a certificate may show otherwise who they are.
func TestTenantsArrive(t *testing.T) {
	b := startSecured(t, "# mtls: asks for certificates\n")
	if c, err := tls.Dial("tcp", b.ProxyAddrs()[0], &tls.Config{RootCAs: b.roots, ServerName: "localhost"}); err == nil {
		if _, err = c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("a client without a certificate: %v", err)
		}
		c.Close()
	}
	text, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	b.write(strings.TrimPrefix(string(text), "version: 1\n") + twoTenants)
	if a := b.admin(http.MethodPost, "/api/v1/reload", ""); a.StatusCode != 200 {
		t.Fatal(a.Status, a.body)
	}
	o := newRawOrigin(t, okAnswer)
	c := &rawClient{Conn: b.dialTLS("http/1.1"), t: t}
	c.r = bufio.NewReader(c.Conn)
	for _, header := range []string{"", proxyAuth("billing", "right password")} {
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n" + header + "\r\n")
		if a := c.answer(http.MethodGet); (a.StatusCode == 200) != (header != "") || a.StatusCode != 200 && a.StatusCode != 407 {
			t.Errorf("%q: %s %s", header, a.Status, a.body)
		}
	}
	b.records(2)[1].want(t, map[string]any{"outcome": "ok", "tenant": "billing"})
}
