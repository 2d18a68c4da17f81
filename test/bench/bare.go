package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"
)

// bareCommand makes this program the bare proxy: ADDRESS, the lab's FOLDER, and whether it intercepts.
const bareCommand = "bare"

func bareProxy(l *lab, _, address string, intercept bool) (*exec.Cmd, error) {
	self, err := os.Executable()
	return exec.Command(self, bareCommand, address, l.dir, strconv.FormatBool(intercept)), err
}

// bare is the least that net/http makes a forward proxy of: no checks, no policy, no records.
type bare struct {
	forward http.Handler
	inner   *handover // intercepted connections; nil: CONNECT is relayed
	tls     *tls.Config
}

func serveBare(address, dir, intercept string) error {
	l := &lab{dir: dir}
	origin, err := os.ReadFile(l.originPEM())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(origin)
	b := &bare{forward: &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: dial},
		Rewrite:    func(*httputil.ProxyRequest) {},
		BufferPool: &bufferPool{sync.Pool{New: func() any { return make([]byte, 32<<10) }}},
	}}
	if intercept == "true" {
		certificate, err := leaf(l)
		if err != nil {
			return err
		}
		b.tls = &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"}}
		b.inner = &handover{conns: make(chan net.Conn)}
		go b.serveInner()
	}
	server := &http.Server{Addr: address, Handler: b, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	return server.ListenAndServe()
}

func (b *bare) serveInner() {
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), TLSConfig: b.tls, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme, r.URL.Host = "https", r.Host
		b.forward.ServeHTTP(w, r)
	})}
	_ = server.ServeTLS(b.inner, "", "")
}

func (b *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		b.forward.ServeHTTP(w, r)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if b.inner != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		b.inner.conns <- &ahead{c, rw.Reader}
		return
	}
	defer c.Close()
	upstream, err := dial(r.Context(), "tcp", r.Host)
	if err != nil {
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(c, upstream)
		_ = c.Close()
	}()
	_, _ = io.Copy(upstream, c)
	_ = upstream.Close()
}

// dial knows one name.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	if host, port, err := net.SplitHostPort(address); err == nil && host == originName {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	return d.DialContext(ctx, network, address)
}

// leaf is a certificate of the lab's CA for the origin's name, and like the daemon's of an elliptic curve.
func leaf(l *lab) (tls.Certificate, error) {
	ca, err := tls.LoadX509KeyPair(l.caPEM(), l.caKey())
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{originName}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, key.Public(), ca.PrivateKey)
	return tls.Certificate{Certificate: [][]byte{der, ca.Certificate[0]}, PrivateKey: key}, err
}

// handover is a listener whose connections come from CONNECT.
type handover struct{ conns chan net.Conn }

func (h *handover) Accept() (net.Conn, error) { return <-h.conns, nil }
func (h *handover) Close() error              { return nil }
func (h *handover) Addr() net.Addr            { return &net.TCPAddr{} }

// ahead is a hijacked connection of which some may have been read.
type ahead struct {
	net.Conn
	r *bufio.Reader
}

func (a *ahead) Read(p []byte) (int, error) {
	if a.r.Buffered() > 0 {
		return a.r.Read(p)
	}
	return a.Conn.Read(p)
}

type bufferPool struct{ sync.Pool }

func (p *bufferPool) Get() []byte  { return p.Pool.Get().([]byte) }
func (p *bufferPool) Put(b []byte) { p.Pool.Put(b) } //nolint:staticcheck // ReverseProxy's interface has it so
