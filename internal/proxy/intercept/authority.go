// Package intercept holds the certificate authority that lets the proxy answer for the hosts whose TLS it terminates: the CA itself, the
// leaf certificates it signs, and the TLS settings of the inner server.
package intercept

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrNoCA is what everything that needs a CA fails with where neither a directory nor a certificate is configured.
var ErrNoCA = errors.New("no interception CA: neither ca.dir nor ca.cert and ca.key are set")

// Authority is the interception CA. It is safe for concurrent use. Its zero value is not usable; Open makes one.
type Authority struct {
	cfg     Config
	mu      sync.Mutex // serialises creation, reload and rotation
	current atomic.Pointer[signer]
}

// signer is one CA with everything that hangs on it, so that a rotation replaces all of it in one store.
type signer struct {
	chain    []*x509.Certificate // the signing CA first
	pem      []byte
	warnings []string
	leaves   *leafCache
}

// Open loads the CA that cfg names. An own CA must be there and fit for its purpose; the CA of a directory may still be absent, and is made by
// Ready, Leaf or a handshake, so that a proxy that intercepts nothing has no CA that could be stolen.
func Open(cfg Config) (*Authority, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg}
	_, err := a.Reload()
	if errors.Is(err, fs.ErrNotExist) && !cfg.own() || errors.Is(err, ErrNoCA) {
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Create makes the CA of dir if there is none, and returns it either way. Processes that race for it end with the same one.
func Create(dir string) (*Authority, error) {
	a, err := Open(Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	return a, a.Ready()
}

// Ready makes sure that there is a CA. Called when a policy that intercepts is loaded, it turns an unwritable directory into a load error
// instead of a failed handshake.
func (a *Authority) Ready() error {
	_, err := a.signer()
	return err
}

// Reload reads the files again and says whether they hold another CA than before; then every cached leaf is forgotten. On an error the
// authority stays as it is. The error is fs.ErrNotExist where the CA of the directory was not made yet.
func (a *Authority) Reload() (changed bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, err := a.load()
	if err != nil {
		return false, err
	}
	old := a.current.Load()
	if old != nil && slices.EqualFunc(old.chain, m.chain, (*x509.Certificate).Equal) {
		return false, nil
	}
	return old != nil, a.install(m)
}

// Rotate puts a new CA in the place of the directory's. Programs must trust the new certificate from that moment on; the old certificate
// (without its key) stays in the directory as ca-FINGERPRINT.old.pem. An own CA is never touched: that is an error.
func (a *Authority) Rotate() error {
	if a.cfg.own() {
		return errors.New("this CA is your own (ca.cert): rotate it where it was made")
	}
	if a.cfg.Dir == "" {
		return ErrNoCA
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	m, err := replaceFiles(a.cfg.Dir)
	if err != nil {
		return err
	}
	return a.install(m)
}

// Renew is Rotate for a directory whose CA may be unusable: damaged, expired, without its key, or not there.
func Renew(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	return (&Authority{cfg: cfg}).Rotate()
}

// Certificate is the signing CA's certificate, nil while there is none. It never makes one.
func (a *Authority) Certificate() *x509.Certificate {
	if s := a.current.Load(); s != nil {
		return s.chain[0]
	}
	return nil
}

// PEM is what programs must trust: the certificate of the CA and, for an own one, those that came with it; never a key. It is nil while there
// is no CA, and never makes one.
func (a *Authority) PEM() []byte {
	if s := a.current.Load(); s != nil {
		return slices.Clone(s.pem)
	}
	return nil
}

// Fingerprint is the SHA-256 of the certificate in lower-case hex, "" while there is none.
func (a *Authority) Fingerprint() string {
	c := a.Certificate()
	if c == nil {
		return ""
	}
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// Warnings are what is not wrong enough to refuse the CA: files that others can read, an end that is near.
func (a *Authority) Warnings() []string {
	if s := a.current.Load(); s != nil {
		return slices.Clone(s.warnings)
	}
	return nil
}

// String names the CA by its fingerprint, so that no print of a structure that holds an Authority shows its key.
func (a *Authority) String() string {
	if fp := a.Fingerprint(); fp != "" {
		return fmt.Sprintf("interception CA %.16s", fp)
	}
	return "interception CA (not made yet)"
}

// GoString is String, for %#v.
func (a *Authority) GoString() string { return a.String() }

// signer returns the CA, made now if need be.
// Shed forgets the leaves, to give their memory back; they are made anew when they are asked for, and clients' TLS sessions with them.
func (a *Authority) Shed() {
	if s := a.current.Load(); s != nil {
		s.leaves.clear()
	}
}

func (a *Authority) signer() (*signer, error) {
	if s := a.current.Load(); s != nil {
		return s, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.current.Load(); s != nil {
		return s, nil
	}
	m, err := a.load()
	if errors.Is(err, fs.ErrNotExist) && !a.cfg.own() {
		m, err = createFiles(a.cfg.Dir)
	}
	if err != nil {
		return nil, err
	}
	if err := a.install(m); err != nil {
		return nil, err
	}
	return a.current.Load(), nil
}

func (a *Authority) load() (*material, error) {
	switch {
	case a.cfg.own():
		return loadPair(a.cfg.Cert, a.cfg.Key)
	case a.cfg.Dir == "":
		return nil, ErrNoCA
	default:
		return loadDir(a.cfg.Dir)
	}
}

// install makes m the CA; the caller holds mu.
func (a *Authority) install(m *material) error {
	leaves, err := newLeafCache(m, a.cfg.ttl())
	if err != nil {
		return err
	}
	a.current.Store(&signer{chain: m.chain, pem: m.certPEM(), warnings: m.warnings, leaves: leaves})
	return nil
}
