package egress

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"httpowerd/internal/policy/upstream"
)

// sessions is how many TLS sessions a policy's transports keep for resumption.
const sessions = 512

// fingerprints are of the files' contents: a renewed certificate under the same name makes new connections.
type fingerprints struct{ ca, cert, key [sha256.Size]byte }

var versions = map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// tlsConfig reads the files that the block names.
func tlsConfig(up upstream.Config) (*tls.Config, fingerprints, error) {
	var seen fingerprints
	version, ok := versions[up.MinVersion]
	if !ok {
		return nil, seen, fmt.Errorf("upstream.min_version %q is not known", up.MinVersion)
	}
	config := &tls.Config{
		MinVersion:         version,
		InsecureSkipVerify: up.InsecureSkipVerify,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
	}
	if up.CA != "" {
		pem, err := os.ReadFile(up.CA)
		if err != nil {
			return nil, seen, fmt.Errorf("upstream.ca cannot be read: %w", err)
		}
		seen.ca = sha256.Sum256(pem)
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool() // no system store: then the file's authorities are all there are
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, seen, errors.New("upstream.ca holds no certificate")
		}
	}
	if up.ClientCert == "" {
		return config, seen, nil
	}
	cert, err := os.ReadFile(up.ClientCert)
	if err != nil {
		return nil, seen, fmt.Errorf("upstream.client_cert cannot be read: %w", err)
	}
	key, err := os.ReadFile(up.ClientKey)
	if err != nil {
		return nil, seen, fmt.Errorf("upstream.client_key cannot be read: %w", err)
	}
	seen.cert, seen.key = sha256.Sum256(cert), sha256.Sum256(key)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, seen, fmt.Errorf("upstream.client_cert and client_key do not fit together: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, seen, nil
}
