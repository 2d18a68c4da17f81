package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"sync/atomic"

	"httpowerd/internal/policy"
)

// listenerTLS is what an HTTPS proxy shows its clients and asks of them. Handshakes follow it from the next one on.
type listenerTLS struct{ current atomic.Pointer[tls.Config] }

// newListenerTLS is nil for a plain proxy.
func newListenerTLS(s policy.Settings) (*listenerTLS, error) {
	if s.Proxy.TLS.Cert == "" {
		return nil, nil
	}
	config, err := proxyTLS(s)
	if err != nil {
		return nil, err
	}
	l := &listenerTLS{}
	l.current.Store(config)
	return l, nil
}

// config is for one listener; nil for a plain one.
func (l *listenerTLS) config() *tls.Config {
	if l == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return l.current.Load(), nil }}
}

// recertify reads the listeners' files again: certificates are renewed under their names. Other files than those of the start take a restart.
func (d *Daemon) recertify(snapshot *policy.Snapshot) {
	s := snapshot.Settings
	if d.proxyTLS == nil || s.Proxy.TLS != d.settings.Proxy.TLS {
		return
	}
	config, err := proxyTLS(s)
	if err != nil {
		d.log.Error("the proxy's listeners go on with the certificates that they have", "error", err)
		return
	}
	d.proxyTLS.current.Store(config)
}

// proxyTLS is the configuration of an HTTPS proxy.
func proxyTLS(s policy.Settings) (*tls.Config, error) {
	t := s.Proxy.TLS
	cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, errors.Join(errors.New("proxy.tls: the certificate and key cannot be used"), err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if t.HTTP2 {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	if t.ClientCA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(t.ClientCA)
	if err != nil {
		return nil, errors.Join(errors.New("proxy.tls.client_ca cannot be read"), err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("proxy.tls.client_ca holds no certificate")
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	if len(s.Tenants) > 0 { // a client without one may show otherwise who it is
		config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return config, nil
}
