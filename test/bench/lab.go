package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// originName is in the origin's certificate, and each proxy is told where it is: some know certificates of names only.
const originName = "example.com"

// lab is what all proxies share: the origin, and the CA that they intercept with.
type lab struct {
	dir           string
	plain, secure *httptest.Server
	ca            *x509.Certificate
	roots         *x509.CertPool // the CA and the origin
}

// Files of the lab.
func (l *lab) originPEM() string { return filepath.Join(l.dir, "origin.pem") }
func (l *lab) caPEM() string     { return filepath.Join(l.dir, "ca.pem") }
func (l *lab) caKey() string     { return filepath.Join(l.dir, "ca.key") }

func newLab(dir string, size int) (*lab, error) {
	body := make([]byte, size)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(body)
	})
	l := &lab{dir: dir, plain: httptest.NewServer(handler), secure: httptest.NewUnstartedServer(handler), roots: x509.NewCertPool()}
	l.secure.EnableHTTP2 = true
	l.secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	l.secure.StartTLS()
	l.roots.AddCert(l.secure.Certificate())
	if err := writePEM(l.originPEM(), "CERTIFICATE", l.secure.Certificate().Raw); err != nil {
		return l, err
	}
	return l, l.makeCA()
}

func (l *lab) close() {
	l.plain.Close()
	l.secure.Close()
}

func (l *lab) makeCA() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if l.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	l.roots.AddCert(l.ca)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(l.caPEM(), "CERTIFICATE", der); err != nil {
		return err
	}
	return writePEM(l.caKey(), "PRIVATE KEY", secret)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644) // #nosec: it lives as long as the benchmark
}

// client sends requests by one way through one proxy.
type client struct {
	http    *http.Client
	url     string
	workers int
	h2      bool
}

func (l *lab) client(p *peer, s scenario, workers int) (*client, error) {
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: p.process(s).address}), MaxIdleConnsPerHost: workers,
		DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: l.roots}, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!s.h2)
	transport.Protocols.SetHTTP2(s.h2)
	c := &client{http: &http.Client{Transport: transport}, url: l.plain.URL, workers: workers, h2: s.h2}
	if s.secure {
		_, port, _ := net.SplitHostPort(l.secure.Listener.Addr().String())
		c.url = "https://" + net.JoinHostPort(originName, port)
	}
	resp, err := c.http.Get(c.url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if s.secure && s.intercept != (resp.TLS.VerifiedChains[0][len(resp.TLS.VerifiedChains[0])-1].Equal(l.ca)) {
		return nil, fmt.Errorf("the proxy does not do what it was told: the certificate's issuer is %s", resp.TLS.PeerCertificates[0].Issuer)
	}
	return c, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// load sends requests as fast as they are answered, and counts them.
func (c *client) load(ctx context.Context, d time.Duration) (int64, error) {
	until := time.Now().Add(d)
	ctx, cancel := context.WithDeadlineCause(ctx, until.Add(10*time.Second), errors.New("a request was not answered"))
	defer cancel()
	var n atomic.Int64
	failed := make(chan error, c.workers)
	var wg sync.WaitGroup
	for range c.workers {
		wg.Go(func() {
			for time.Now().Before(until) {
				if err := c.get(ctx); err != nil {
					failed <- err
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	close(failed)
	err := <-failed
	if err == nil && n.Load() == 0 {
		err = errors.New("no request was answered")
	}
	return n.Load(), err
}

func (c *client) get(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || c.h2 != (resp.ProtoMajor == 2) {
		return fmt.Errorf("the answer was %s %s", resp.Proto, resp.Status)
	}
	return nil
}

// freeAddress is a loopback address that nobody listens on just now. It is not 127.0.0.1, from where connections are made: one of thousands could take
// the port before the proxy does.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
