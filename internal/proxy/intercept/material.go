package intercept

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	backdate = time.Hour // clocks of containers and virtual machines run late
	nearEnd  = 30 * 24 * time.Hour
)

// publishedKey is the SHA-256 of the public key (SubjectPublicKeyInfo) of the CA that comes with github.com/elazarl/goproxy. Its private key
// is in every copy of that module, so whoever trusts it trusts everybody. The key and not the certificate is compared: it can be wrapped anew.
const publishedKey = "c012de113a81789eb5c392c0580156bbc281f9f93e07f08cafa3329672e6993b"

// material is a CA as the files hold it.
type material struct {
	chain    []*x509.Certificate // the signing CA first
	key      crypto.Signer
	warnings []string
}

func (m *material) certPEM() []byte {
	var out []byte
	for _, c := range m.chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// keyPEM is the key with the certificates after it: one file, so that one rename commits both.
func (m *material) keyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(m.key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), m.certPEM()...), nil
}

// newMaterial makes a fresh P-256 CA that may sign leaves and nothing below them.
func newMaterial() (*material, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "httpowerd interception CA " + hex.EncodeToString(sum[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &material{chain: []*x509.Certificate{cert}, key: key}, nil
}

// newSerial is 128 random bits, positive and never zero (RFC 5280 section 4.1.2.2).
func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	n := new(big.Int).SetBytes(b[:])
	if n.Sign() == 0 {
		return nil, errors.New("the random source returned zeros")
	}
	return n, nil
}

// check refuses what would break handshakes or the safety of those who trust the CA, and notes what is merely unwise.
func (m *material) check(now time.Time) error {
	ca := m.chain[0]
	spki := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	switch {
	case hex.EncodeToString(spki[:]) == publishedKey:
		return errors.New("this is the CA that comes with the goproxy module: its private key is public, so anybody could read the traffic of whoever trusts it")
	case !ca.BasicConstraintsValid || !ca.IsCA:
		return errors.New("the certificate is not a CA (basic constraints CA:TRUE is missing)")
	case ca.KeyUsage != 0 && ca.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("the certificate's key usage does not allow it to sign certificates (keyCertSign)")
	case !mayServe(ca):
		return errors.New("the certificate's extended key usage leaves out serverAuth, so no client would accept what it signs")
	case now.After(ca.NotAfter):
		return fmt.Errorf("the CA expired on %s: make a new one (httpowerd ca rotate)", ca.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(ca.NotBefore):
		return fmt.Errorf("the CA is not valid before %s: look at this machine's clock", ca.NotBefore.UTC().Format(time.RFC3339))
	}
	public, ok := m.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(ca.PublicKey) {
		return errors.New("the key does not belong to the certificate")
	}
	if left := ca.NotAfter.Sub(now); left < nearEnd {
		m.warnings = append(m.warnings, fmt.Sprintf("the interception CA expires on %s", ca.NotAfter.UTC().Format(time.DateOnly)))
	}
	m.checkKey()
	return nil
}

func (m *material) checkKey() {
	switch key := m.key.Public().(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			m.warnings = append(m.warnings, fmt.Sprintf("the interception CA's RSA key has %d bits: many clients refuse fewer than 2048", key.N.BitLen()))
		}
	case ed25519.PublicKey:
		m.warnings = append(m.warnings, "the interception CA's key is Ed25519: browsers and older TLS libraries cannot verify what it signs")
	}
}

func mayServe(ca *x509.Certificate) bool {
	if len(ca.ExtKeyUsage) == 0 && len(ca.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(ca.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(ca.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// constrained says whether the CA may sign for some names only, so that a leaf has to be checked before it is shown.
func constrained(ca *x509.Certificate) bool {
	return len(ca.PermittedDNSDomains) > 0 || len(ca.ExcludedDNSDomains) > 0 || len(ca.PermittedIPRanges) > 0 || len(ca.ExcludedIPRanges) > 0
}

// parseCerts takes the certificates out of a PEM file in their order and skips everything else.
func parseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// parseKey takes the first private key out of a PEM file: PKCS #8, PKCS #1 (RSA) or SEC 1 (EC), not encrypted.
func parseKey(data []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, errors.New("the private key is encrypted: write it without a passphrase, readable by the proxy's user alone")
		case block.Type == "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case block.Type == "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the private key cannot be read: %w", err)
		}
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, errors.New("the private key cannot sign")
	}
	return nil, errors.New("there is no private key in PEM form")
}
