package intercept

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLazy: a proxy that intercepts nothing has no CA that could be stolen.
func TestLazy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "ca")
	a, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if a.Certificate() != nil || a.PEM() != nil || a.Fingerprint() != "" || len(a.Warnings()) != 0 {
		t.Errorf("there is a CA: %v", a)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	if _, err := a.Leaf(t.Context(), "api.example.com"); err != nil {
		t.Fatal(err)
	}
	if a.Certificate() == nil {
		t.Error("no CA after a leaf")
	}
}

func TestMadeCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	a := ready(t, Config{Dir: dir})
	c := a.Certificate()
	if !c.IsCA || !c.MaxPathLenZero || len(c.SubjectKeyId) == 0 || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		t.Errorf("unfit as a CA: %+v", c)
	}
	if c.SerialNumber.BitLen() < 64 || c.NotBefore.After(time.Now().Add(-backdate/2)) {
		t.Errorf("serial %v, not before %v", c.SerialNumber, c.NotBefore)
	}
	for name, mode := range map[string]fs.FileMode{"": 0o700, keyFile: 0o600, certFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%q: %v %v, want %v", name, info.Mode(), err, mode)
		}
	}
	if bytes.Contains(a.PEM(), []byte("PRIVATE")) {
		t.Error("what programs must trust has the key in it")
	}
	again := ready(t, Config{Dir: dir})
	if again.Fingerprint() != a.Fingerprint() || len(again.Warnings()) != 0 {
		t.Errorf("another CA after a restart, or warnings %q", again.Warnings())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRace: processes that make the CA at once end with the same one.
func TestRace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	prints := make([]string, 16)
	var wg sync.WaitGroup
	for i := range prints {
		wg.Go(func() {
			a, err := Create(dir)
			if err != nil {
				t.Error(err)
				return
			}
			prints[i] = a.Fingerprint()
		})
	}
	wg.Wait()
	for _, p := range prints {
		if p == "" || p != prints[0] {
			t.Fatalf("several CAs: %q", prints)
		}
	}
	if got := ready(t, Config{Dir: dir}).Fingerprint(); got != prints[0] {
		t.Errorf("the files hold %s, the processes %s", got, prints[0])
	}
}

// TestPermissionWarnings: a CA that others can read or replace is warned of (A51, A56).
func TestPermissionWarnings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	ready(t, Config{Dir: dir})
	if err := os.Chmod(filepath.Join(dir, keyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	w := strings.Join(ready(t, Config{Dir: dir}).Warnings(), "\n")
	for _, want := range []string{"mode 0644", "chmod 600", "mode 0777"} {
		if !strings.Contains(w, want) {
			t.Errorf("the warnings %q lack %q", w, want)
		}
	}
}

// TestRenew: what is there may be unusable, which is what a new CA is wanted for.
func TestRenew(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"nothing there":   os.RemoveAll,
		"the key is gone": func(dir string) error { return os.Remove(filepath.Join(dir, keyFile)) },
		"the key is torn": func(dir string) error { return os.Truncate(filepath.Join(dir, keyFile), 100) },
		"another's key": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, keyFile), makeCA(t, nil, nil, nil).keyPEM(t), 0o600)
		},
		"both are expired": func(dir string) error {
			ca := makeCA(t, nil, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
			return errors.Join(os.WriteFile(filepath.Join(dir, keyFile), ca.keyPEM(t), 0o600), os.WriteFile(filepath.Join(dir, certFile), ca.certPEM(), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Dir: filepath.Join(t.TempDir(), "ca")}
			old := ready(t, cfg).Fingerprint()
			if err := spoil(cfg.Dir); err != nil {
				t.Fatal(err)
			}
			if err := Renew(cfg); err != nil {
				t.Fatal(err)
			}
			if now := ready(t, cfg).Fingerprint(); now == old {
				t.Error("it is the old one")
			}
		})
	}
	root := makeCA(t, nil, nil, nil)
	if err := Renew(pair(t, root.certPEM(), root.keyPEM(t))); err == nil {
		t.Error("somebody's own CA was rotated")
	}
}

func TestRotate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	a := ready(t, Config{Dir: dir})
	daemon := ready(t, Config{Dir: dir}) // another process
	old, oldPool := a.Certificate(), pool(t, a)
	if _, err := a.Leaf(t.Context(), "api.example.com"); err != nil {
		t.Fatal(err)
	}
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	leaf, err := a.Leaf(t.Context(), "api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: oldPool}); err == nil {
		t.Error("the leaf after a rotation is the old CA's")
	}
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: pool(t, a)}); err != nil {
		t.Error(err)
	}
	kept, _ := filepath.Glob(filepath.Join(dir, "ca-*.old.pem"))
	if len(kept) != 1 {
		t.Fatalf("kept aside: %v", kept)
	}
	data, _ := os.ReadFile(kept[0])
	if block, _ := pem.Decode(data); block == nil || !bytes.Equal(block.Bytes, old.Raw) || bytes.Contains(data, []byte("PRIVATE")) {
		t.Errorf("%s is not the old certificate alone", kept[0])
	}
	if daemon.Fingerprint() == a.Fingerprint() {
		t.Error("the other process has the new CA before its reload")
	}
	if changed, err := daemon.Reload(); !changed || err != nil || daemon.Fingerprint() != a.Fingerprint() {
		t.Errorf("reload: %v %v", changed, err)
	}
	if changed, err := daemon.Reload(); changed || err != nil {
		t.Errorf("a reload without a change: %v %v", changed, err)
	}
}

// TestReloadKeeps: files that went bad do not take the CA from a running process.
func TestReloadKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	a := ready(t, Config{Dir: dir})
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Reload(); err == nil {
		t.Error("a broken file was taken")
	}
	if _, err := a.Leaf(t.Context(), "api.example.com"); err != nil {
		t.Error(err)
	}
}

// TestLostFiles: a lost public copy comes back, a lost key is never replaced silently.
func TestLostFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	want := ready(t, Config{Dir: dir}).Fingerprint()
	if err := os.Remove(filepath.Join(dir, certFile)); err != nil {
		t.Fatal(err)
	}
	if got := ready(t, Config{Dir: dir}).Fingerprint(); got != want {
		t.Errorf("another CA: %s", got)
	}
	if _, err := os.Stat(filepath.Join(dir, certFile)); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("a lost key: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil {
		t.Error("an empty key file was taken")
	}
}

func TestOwn(t *testing.T) {
	root := makeCA(t, rsaKey(t, 2048), nil, nil)
	sub := makeCA(t, nil, root, func(c *x509.Certificate) { c.Subject.CommonName = "Example Issuing CA"; c.MaxPathLenZero = true })
	chain := append(sub.certPEM(), root.certPEM()...)
	for name, cfg := range map[string]Config{
		"root":      pair(t, root.certPEM(), root.keyPEM(t)),
		"chain":     pair(t, chain, sub.keyPEM(t)),
		"both in 1": pair(t, append(sub.keyPEM(t), chain...), append(sub.keyPEM(t), chain...)),
	} {
		a := ready(t, cfg)
		if len(a.Warnings()) != 0 {
			t.Errorf("%s: %q", name, a.Warnings())
		}
		leaf, err := a.Leaf(t.Context(), "api.example.com")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// A client that trusts the root alone gets what lies between from the handshake.
		between := x509.NewCertPool()
		for _, der := range leaf.Certificate[1:] {
			c, _ := x509.ParseCertificate(der)
			between.AddCert(c)
		}
		roots := x509.NewCertPool()
		roots.AddCert(root.cert)
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: "api.example.com"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := a.Rotate(); err == nil {
			t.Errorf("%s: somebody's own CA was rotated", name)
		}
	}
}

func TestOwnRefused(t *testing.T) {
	good, other := makeCA(t, nil, nil, nil), makeCA(t, nil, nil, nil)
	with := func(change func(*x509.Certificate)) Config {
		ca := makeCA(t, nil, nil, change)
		return pair(t, ca.certPEM(), ca.keyPEM(t))
	}
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})
	for want, cfg := range map[string]Config{
		"does not belong":            pair(t, good.certPEM(), other.keyPEM(t)),
		"not a CA":                   with(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }),
		"keyCertSign":                with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }),
		"leaves out serverAuth":      with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		"expired":                    with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }),
		"not valid before":           with(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }),
		"no certificate":             pair(t, good.keyPEM(t), good.keyPEM(t)),
		"no private key":             pair(t, good.certPEM(), good.certPEM()),
		"is encrypted":               pair(t, good.certPEM(), encrypted),
		"cannot be read":             pair(t, good.certPEM(), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{1}})),
		"is not a PEM file":          {Cert: t.TempDir(), Key: t.TempDir()},
		"no such file":               {Cert: "missing.pem", Key: "missing.key"},
		"belong together":            {Cert: "only.pem"},
		"write a duration from 10m0": {Dir: t.TempDir(), LeafTTL: time.Second},
	} {
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestOwnWarnings(t *testing.T) {
	for want, ca := range map[string]*pki{
		"expires on":     makeCA(t, nil, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(24 * time.Hour) }),
		"RSA key has 10": makeCA(t, rsaKey(t, 1024), nil, nil),
	} {
		a := ready(t, pair(t, ca.certPEM(), ca.keyPEM(t)))
		if w := strings.Join(a.Warnings(), "\n"); !strings.Contains(w, want) {
			t.Errorf("the warnings %q lack %q", w, want)
		}
	}
}

// TestPublishedCA: the CA inside the goproxy module, whose key everybody has, is refused, in whatever certificate its key is wrapped (G2).
func TestPublishedCA(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/elazarl/goproxy").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(string(out))
	cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "key.pem")
	data, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := parseKey(data)
	if err != nil {
		t.Fatal(err)
	}
	wrapped := makeCA(t, signer, nil, nil)
	for _, cfg := range []Config{{Cert: cert, Key: key}, pair(t, wrapped.certPEM(), wrapped.keyPEM(t))} {
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "private key is public") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// TestConstrained: a CA that may sign for some names only fails in the proxy, with a reason, and not at the client.
func TestConstrained(t *testing.T) {
	ca := makeCA(t, nil, nil, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.com"}
		c.PermittedIPRanges = []*net.IPNet{{IP: net.IPv4(192, 0, 2, 0).To4(), Mask: net.CIDRMask(24, 32)}}
	})
	a := ready(t, pair(t, ca.certPEM(), ca.keyPEM(t)))
	for name, ok := range map[string]bool{"api.example.com": true, "example.org": false, "192.0.2.7": true, "198.51.100.7": false} {
		if _, err := a.Leaf(t.Context(), name); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLoadWhileMade: a CA that another process makes just now is not there yet, or there; never one whose key is gone.
func TestLoadWhileMade(t *testing.T) {
	for range 40 {
		dir := t.TempDir()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for {
					_, err := loadDir(dir)
					if err == nil {
						return
					}
					if !errors.Is(err, fs.ErrNotExist) {
						t.Error(err)
						return
					}
				}
			})
		}
		if _, err := createFiles(dir); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
}

func TestNoCA(t *testing.T) {
	a, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, leafErr := a.Leaf(context.Background(), "api.example.com")
	for _, err := range []error{a.Ready(), a.Rotate(), leafErr} {
		if !errors.Is(err, ErrNoCA) {
			t.Errorf("%v", err)
		}
	}
}

// TestUnprintable: whoever logs the authority logs no key.
func TestUnprintable(t *testing.T) {
	a := ready(t, Config{Dir: t.TempDir()})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, a); !strings.HasPrefix(s, "interception CA ") || len(s) > 40 {
			t.Errorf("%s: %s", verb, s)
		}
	}
}
