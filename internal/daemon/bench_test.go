package daemon

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"httpowerd/internal/policy"
)

// The benchmarks hold client, proxy and upstream in one process: they are for profiles and for comparing one change with another. `make bench` also
// measures the daemon's own CPU, in a process of its own and beside others.

func benchOrigin(b *testing.B, secure bool) *httptest.Server {
	b.Helper()
	body := []byte(strings.Repeat("x", 1024))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = []string{"application/octet-stream"}
		w.Header()["Content-Length"] = []string{"1024"}
		_, _ = w.Write(body)
	}))
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	b.Cleanup(s.Close)
	return s
}

func benchDaemon(b *testing.B, defaults string) *Daemon {
	b.Helper()
	dir := b.TempDir()
	audit, state, admin := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "state"), "127.0.0.1:0"
	path := filepath.Join(dir, "httpowerd.yaml")
	writeFile(b, path, "version: 1\nlog: {level: error}\ndefaults: "+defaults+"\n")
	d, err := Start(Options{Version: "bench", Log: io.Discard, Source: policy.Source{Path: path, Overrides: policy.Overrides{
		Listen: []string{"127.0.0.1:0"}, Admin: &admin, AuditOutput: &audit, StateDir: &state}}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Shutdown(b.Context()) })
	return d
}

// exchangeOn sends requests on one kept connection.
func exchangeOn(b *testing.B, c net.Conn, request string, more func() bool) {
	r := bufio.NewReader(c)
	raw := []byte(request)
	for more() {
		if _, err := c.Write(raw); err != nil {
			b.Error(err)
			return
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			b.Error(err)
			return
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || n != 1024 {
			b.Errorf("%s, %d bytes, %v", resp.Status, n, err)
			return
		}
	}
}

func BenchmarkPlain(b *testing.B) {
	origin := benchOrigin(b, false)
	d := benchDaemon(b, "{}")
	request := fmt.Sprintf("GET %s/v1/items?page=2 HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", origin.URL, origin.Listener.Addr())
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(p *testing.PB) {
		c, err := net.Dial("tcp", d.ProxyAddrs()[0])
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		exchangeOn(b, c, request, p.Next)
	})
}

func BenchmarkIntercepted(b *testing.B) {
	origin := benchOrigin(b, true)
	ca := filepath.Join(b.TempDir(), "origin.pem")
	writeFile(b, ca, pemOf(origin.Certificate()))
	d := benchDaemon(b, "{tls: intercept, upstream: {ca: "+ca+"}}")
	roots := x509.NewCertPool()
	ours, err := d.CA()
	if err != nil {
		b.Fatal(err)
	}
	roots.AppendCertsFromPEM(ours)
	host := origin.Listener.Addr().String()
	request := fmt.Sprintf("GET /v1/items?page=2 HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", host)
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(p *testing.PB) {
		c, err := net.Dial("tcp", d.ProxyAddrs()[0])
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Error(resp, err)
			return
		}
		name, _, _ := net.SplitHostPort(host)
		exchangeOn(b, tls.Client(c, &tls.Config{RootCAs: roots, ServerName: name}), request, p.Next)
	})
}

func writeFile(b *testing.B, path, text string) {
	b.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}
