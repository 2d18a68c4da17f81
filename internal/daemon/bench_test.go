package daemon

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"httpowerd/internal/policy"
)

// The benchmarks hold client, proxy and upstream in one process: they are for profiles and for comparing one change with another. The Bare ones have
// a net/http server with an httputil.ReverseProxy in the daemon's place. `make bench-peers` measures proxies alone, in processes of their own.

func BenchmarkPlain(b *testing.B)    { benchPlain(b, http.MethodGet, 1<<10) }
func BenchmarkPlain64K(b *testing.B) { benchPlain(b, http.MethodGet, 64<<10) }
func BenchmarkPost(b *testing.B)     { benchPlain(b, http.MethodPost, 1<<10) }

func BenchmarkBarePlain(b *testing.B)    { benchBare(b, http.MethodGet, 1<<10) }
func BenchmarkBarePlain64K(b *testing.B) { benchBare(b, http.MethodGet, 64<<10) }
func BenchmarkBarePost(b *testing.B)     { benchBare(b, http.MethodPost, 1<<10) }

func BenchmarkTunnel(b *testing.B)         { benchConnect(b, "tunnel", 1<<10) }
func BenchmarkIntercepted(b *testing.B)    { benchConnect(b, "intercept", 1<<10) }
func BenchmarkIntercepted64K(b *testing.B) { benchConnect(b, "intercept", 64<<10) }

func BenchmarkInterceptedH2(b *testing.B) {
	o := newBenchOrigin(b, true, 1<<10)
	_, address, roots := o.behind(b, "intercept")
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: address}), TLSClientConfig: &tls.Config{RootCAs: roots},
		Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP2(true)
	b.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			resp, err := client.Get(o.URL)
			if err != nil {
				b.Error(err)
				return
			}
			if resp.ProtoMajor != 2 {
				b.Error(resp.Proto)
			}
			o.check(b, resp)
		}
	})
}

// benchPlain sends http:// requests through a daemon.
func benchPlain(b *testing.B, method string, size int) {
	o := newBenchOrigin(b, false, size)
	o.drive(b, method, o.URL, dialer(benchDaemon(b, "{}").ProxyAddrs()[0]))
}

// benchBare sends them through a ReverseProxy.
func benchBare(b *testing.B, method string, size int) {
	o := newBenchOrigin(b, false, size)
	transport := &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	bare := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(*httputil.ProxyRequest) {}})
	b.Cleanup(bare.Close)
	o.drive(b, method, o.URL, dialer(bare.Listener.Addr().String()))
}

// benchConnect sends HTTP/1.1 over TLS after CONNECT to a daemon.
func benchConnect(b *testing.B, mode string, size int) {
	o := newBenchOrigin(b, true, size)
	host, address, roots := o.behind(b, mode)
	name, _, _ := net.SplitHostPort(host)
	o.drive(b, http.MethodGet, "", func() (net.Conn, error) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("CONNECT: %s", resp.Status)
		}
		return tls.Client(c, &tls.Config{RootCAs: roots, ServerName: name}), err
	})
}

func dialer(address string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.Dial("tcp", address) }
}

// benchOrigin answers everything with a body of one size.
type benchOrigin struct {
	*httptest.Server
	size int
}

func newBenchOrigin(b *testing.B, secure bool, size int) *benchOrigin {
	b.Helper()
	body, length := []byte(strings.Repeat("x", size)), []string{strconv.Itoa(size)}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header()["Content-Type"] = []string{"application/octet-stream"}
		w.Header()["Content-Length"] = length
		_, _ = w.Write(body)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // connections that nobody needed any more end in their handshakes
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	b.Cleanup(s.Close)
	return &benchOrigin{s, size}
}

// behind starts a daemon in front of an https origin, and says what to CONNECT to, where the daemon is and whom to trust.
func (o *benchOrigin) behind(b *testing.B, mode string) (host, address string, roots *x509.CertPool) {
	b.Helper()
	trusted := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})
	file := filepath.Join(b.TempDir(), "origin.pem")
	writeFile(b, file, string(trusted))
	d := benchDaemon(b, "{tls: "+mode+", upstream: {ca: "+file+"}}")
	if mode == "intercept" {
		var err error
		if trusted, err = d.CA(); err != nil {
			b.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)
	return o.Listener.Addr().String(), d.ProxyAddrs()[0], roots
}

// drive sends one request over and over, on each of the connections that open makes. Where base is empty the request's target is a path.
func (o *benchOrigin) drive(b *testing.B, method, base string, open func() (net.Conn, error)) {
	request := fmt.Sprintf("%s %s/v1/items?page=2 HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n", method, base, o.Listener.Addr())
	if method == http.MethodPost {
		request += fmt.Sprintf("Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s", o.size, strings.Repeat("y", o.size))
	} else {
		request += "\r\n"
	}
	raw := []byte(request)
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(p *testing.PB) {
		c, err := open()
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		for p.Next() {
			if _, err := c.Write(raw); err != nil {
				b.Error(err)
				return
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				b.Error(err)
				return
			}
			o.check(b, resp)
		}
	})
}

func (o *benchOrigin) check(b *testing.B, resp *http.Response) {
	n, err := io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || n != int64(o.size) {
		b.Errorf("%s, %d bytes, %v", resp.Status, n, err)
	}
}

// benchDaemon starts a daemon on the default policy, with records to a file.
func benchDaemon(b *testing.B, defaults string) *Daemon {
	b.Helper()
	dir := b.TempDir()
	audit, state, admin := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "state"), "127.0.0.1:0"
	path := filepath.Join(dir, "httpowerd.yaml")
	writeFile(b, path, "version: 1\nlog: {level: error}\ndefaults: "+defaults+"\n")
	d, err := Start(Options{Version: "bench", Log: io.Discard, Source: policy.Source{Path: path, Overrides: policy.Overrides{
		Listen: []string{"127.0.0.1:0"}, Admin: &admin, AuditOutput: &audit, StateDir: &state, Wire: wireOf()}}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Shutdown(b.Context()) })
	return d
}

func writeFile(b *testing.B, path, text string) {
	b.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}
