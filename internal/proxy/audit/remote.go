package audit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"httpowerd/internal/setting"
)

// TLSFiles are what connections to targets need beyond the system's roots. The files are read at each connection, so that they may be renewed.
type TLSFiles struct {
	CA        string // PEM; "": the system's roots
	Cert, Key string // of a client certificate
}

// config is for a connection to that host:port.
func (f TLSFiles) config(address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("audit.tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("audit.tls.ca holds no certificate")
		}
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("audit.tls.cert: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// tlsDialer connects with the files as they are then.
func tlsDialer(files TLSFiles) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := files.config(address)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
	}
}

// remote is a sink on the network or behind a socket. Its Sync notices a lost connection, and tries again what may have been lost with it.
type remote interface {
	sink
	// unsendable tells how many records were too long for the target since it was last asked. None is ever cut.
	unsendable() int
	// pending tells whether something was sent that may yet be lost, so that Sync should be called again.
	pending() bool
}

// openTarget makes the sink of a URL. It connects when there is something to send: a target that is down is no reason not to start.
func openTarget(s string, files TLSFiles) (remote, error) {
	t, err := setting.ParseTarget(s)
	if err != nil {
		return nil, fmt.Errorf("%s %w", s, err)
	}
	switch t.Scheme {
	case setting.OTLPHTTP, setting.OTLPHTTPS:
		return newOTLP(t, files), nil
	}
	return newSyslog(t, files), nil
}
