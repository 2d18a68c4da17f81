package intercept

import (
	"crypto/tls"
	"fmt"
	"net/netip"
)

// A ServerNameError ends the handshake of a client whose ClientHello names another host than its CONNECT did: the policy was chosen for the
// one, the request would go to the other. The client gets the alert unrecognized_name (RFC 6066 section 3).
type ServerNameError struct {
	Want string // the host of CONNECT
	Got  string // the client's server name
}

func (e *ServerNameError) Error() string {
	return fmt.Sprintf("the TLS client asks for %q inside a connection to %q", e.Got, e.Want)
}

// A CertificateError ends the handshake of a client that no certificate can be made for. It is nothing that the client did.
type CertificateError struct{ error }

// Unwrap is what kept it from being made.
func (e *CertificateError) Unwrap() error { return e.error }

// unrecognizedName is the whole plaintext record of the fatal alert of that name (RFC 8446 sections 5.1 and 6).
var unrecognizedName = [...]byte{21, 3, 1, 0, 2, 2, 112}

// ServerConfig is the TLS side of an intercepted connection to name; http2 says whether h2 is offered. Use it as it is, with tls.Server: it
// belongs to all connections of that name, and a Clone would part from the session-ticket keys.
//
// Every name has a Config and so random ticket keys of its own, which crypto/tls makes on first use, replaces daily and honours for a week.
// A ticket given out for one host therefore cannot be opened for another one: resumption works among connections to the same host
// and never across hosts. A name that falls out of the cache, or a new CA, costs its clients one full handshake.
//
// A name that is none, or a missing CA, fails in the handshake.
func (a *Authority) ServerConfig(name string, http2 bool) *tls.Config {
	s, err := a.signer()
	if err != nil {
		return failing(err)
	}
	e, err := s.leaves.entry(name)
	if err != nil {
		return failing(err)
	}
	slot := &e.configs[0]
	if http2 {
		slot = &e.configs[1]
	}
	if c := slot.Load(); c != nil {
		return c
	}
	slot.CompareAndSwap(nil, s.leaves.config(e, http2))
	return slot.Load()
}

func (c *leafCache) config(e *leafEntry, http2 bool) *tls.Config {
	protos := []string{"http/1.1"}
	if http2 {
		protos = []string{"h2", "http/1.1"}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protos,
		// Not in GetCertificate: a resumed handshake never asks for a certificate.
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return nil, checkServerName(hello, e.name)
		},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			leaf, err := c.current(e)
			if err != nil {
				return nil, &CertificateError{err}
			}
			return leaf, nil
		},
	}
}

// checkServerName lets a client pass that names no host, as those do that dial an address, and one that names a host where CONNECT named an
// address: nothing says that the two are not the same.
func checkServerName(hello *tls.ClientHelloInfo, name string) error {
	if hello.ServerName == "" || hello.ServerName == name {
		return nil
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	if got, err := canonicalName(hello.ServerName); err == nil && got == name {
		return nil
	}
	// crypto/tls would say internal_error, which sends people looking in the wrong place; what it adds after this alert nobody reads.
	_, _ = hello.Conn.Write(unrecognizedName[:])
	return &ServerNameError{Want: name, Got: hello.ServerName}
}

func failing(err error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, &CertificateError{err} },
	}
}
