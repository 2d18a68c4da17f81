package daemon

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// way is one of the ways on which a request reaches an upstream.
type way struct {
	name   string
	box    *box
	origin *rawOrigin
	open   func() *rawClient // a connection on which a client writes requests
	prefix string            // of targets: "" for origin-form
	mode   string            // as records call it
	ca     string            // makes the upstream's certificate trusted
	seen   int               // records so far
}

// ways are all of them, each with a daemon and an upstream of its own that answers as newRawOrigin does. config goes into defaults.
func ways(t *testing.T, config string, answers ...string) []*way {
	t.Helper()
	return scriptedWays(t, config, inTurn(answers...))
}

func scriptedWays(t *testing.T, config string, answers script) []*way {
	t.Helper()
	cert, ca := selfSigned(t)
	secure := func() *rawOrigin {
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
		if err != nil {
			t.Fatal(err)
		}
		return serveRaw(t, l, answers)
	}
	if config != "" {
		config += ", "
	}
	config = "defaults: {" + config + "upstream: {ca: " + ca + "}"
	bare := func() *rawOrigin {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return serveRaw(t, l, answers)
	}
	plain, tunnelled, absolute, intercepted, upgraded := bare(), bare(), secure(), secure(), secure()
	all := []*way{
		{name: "plain", box: start(t, config+"}"), origin: plain, prefix: "http://" + plain.addr, mode: "plain"},
		{name: "plaintext in a tunnel", box: start(t, config+"}"), origin: tunnelled, mode: "plain"},
		{name: "absolute https", box: start(t, config+"}"), origin: absolute, prefix: "https://" + absolute.addr, mode: "plain"},
		{name: "intercepted", box: start(t, config+", tls: intercept}"), origin: intercepted, mode: "intercept"},
		{name: "upgrade", box: start(t, config+", upgrade: https}"), origin: upgraded, prefix: "http://" + upgraded.addr, mode: "upgrade"},
	}
	for _, w := range all {
		w.open, w.ca = w.box.dialProxy, ca
		switch w.name {
		case "plaintext in a tunnel":
			w.open = func() *rawClient {
				c := w.box.dialProxy()
				c.connect(w.origin.addr)
				return c
			}
		case "intercepted":
			w.open = func() *rawClient { return w.box.intercepted(w.origin.addr, "http/1.1") }
		}
	}
	return all
}

// intercepted opens a tunnel to an intercepted host and speaks TLS in it.
func (b *box) intercepted(authority, protocol string) *rawClient {
	b.t.Helper()
	c := b.dialProxy()
	if a := c.connect(authority); a.StatusCode != http.StatusOK {
		b.t.Fatalf("CONNECT %s: %s", authority, a.Status)
	}
	inside := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	if err := inside.Handshake(); err != nil {
		b.t.Fatal(err)
	}
	return &rawClient{Conn: inside, t: b.t, r: bufio.NewReader(inside)}
}

// text fills {T} with the target's beginning and {H} with the upstream's authority.
func (w *way) text(s string) string {
	return strings.NewReplacer("{T}", w.prefix, "{H}", w.origin.addr).Replace(s)
}

// record waits for the next record.
func (w *way) record() record {
	w.box.t.Helper()
	w.seen++
	return w.box.records(w.seen)[w.seen-1]
}

// byName answers with what a table says for the last part of the path, and else plainly.
func byName(answers map[string]string) script {
	return func(_ int, request string) string {
		target, _, _ := strings.Cut(request, " HTTP/1.1\r\n")
		if text, ok := answers[target[strings.LastIndexByte(target, '/')+1:]]; ok {
			return text
		}
		return okAnswer
	}
}

// plain makes a name fit for a path.
func plain(name string) string { return strings.NewReplacer(" ", "-", "/", "-").Replace(name) }

// selfSigned makes a certificate for upstreams on loopback, and the file that makes it trusted.
func selfSigned(t *testing.T, change ...func(*x509.Certificate)) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"a.example.com"}, BasicConstraintsValid: true, IsCA: true}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "upstream.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}
