package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newCert is a self-signed certificate in PEM form.
func newCert(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// names are the subjects of a PEM's certificates.
func names(t *testing.T, data []byte) []string {
	t.Helper()
	var out []string
	for _, der := range certificates(data) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c.Subject.CommonName)
	}
	return out
}

func put(t *testing.T, path string, parts ...[]byte) string {
	t.Helper()
	if err := os.WriteFile(path, slices.Concat(parts...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBundle(t *testing.T) {
	dir, certs := t.TempDir(), t.TempDir()
	a, b, ca := newCert(t, "root a"), newCert(t, "root b"), newCert(t, "ours")
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("obviously no key")})
	file := put(t, filepath.Join(dir, "roots.pem"), []byte("# a comment\n"), a, b, a, key)
	empty := put(t, filepath.Join(dir, "empty.pem"))
	put(t, filepath.Join(certs, "b.0"), b)
	put(t, filepath.Join(certs, "README"), []byte("no certificate"))
	old, err := bundle(newCert(t, "rotated away"), []string{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := put(t, filepath.Join(dir, "bundle.pem"), old)
	for _, row := range []struct {
		files, dirs []string
		want        string
	}{
		{[]string{"missing", file}, nil, "root a,root b,ours"},
		{[]string{empty, file}, []string{certs}, "root a,root b,ours"},
		{[]string{empty}, []string{"missing", dir + "/none", certs}, "root b,ours"},
		{[]string{before}, nil, "root a,root b,ours"},
	} {
		got, err := bundle(slices.Concat(ca, key), row.files, row.dirs)
		if err != nil || strings.Join(names(t, got), ",") != row.want {
			t.Errorf("%v: %v %v", row, names(t, got), err)
		}
		if bytes.Contains(got, []byte("PRIVATE")) {
			t.Errorf("%v: a key got in", row)
		}
	}
	if _, err := bundle(ca, []string{empty}, []string{"missing"}); !errors.Is(err, ErrNoRoots) {
		t.Errorf("a bundle without roots: %v", err)
	}
	if _, err := bundle(key, []string{file}, nil); err == nil {
		t.Error("a bundle without a CA")
	}
	t.Setenv("SSL_CERT_FILE", file)
	if got, err := Bundle(ca); err != nil || strings.Join(names(t, got), ",") != "root a,root b,ours" {
		t.Errorf("SSL_CERT_FILE was not taken: %v", err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bundle.pem")
	for _, text := range []string{"first", "second"} {
		if err := WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("%q", got)
		}
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := WriteFile(filepath.Join(dir, "missing", "x"), nil); err == nil {
		t.Error("wrote into a directory that is not there")
	}
	put(t, filepath.Join(dir, "taken"), nil)
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "folder"), nil); err == nil {
		t.Error("wrote over a directory")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*.tmp")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// readStore reads a trust store as Java's own reader does: length by length, alias by alias, and the checksum over all of it.
func readStore(t *testing.T, data []byte, password string) map[string][]byte {
	t.Helper()
	body, sum := data[:len(data)-20], data[len(data)-20:]
	if !bytes.Equal(storeDigest(body, password), sum) {
		t.Fatal("the store's checksum is wrong")
	}
	r := bytes.NewReader(body)
	number := func(size int) uint64 {
		b := make([]byte, 8)
		if n, err := r.Read(b[8-size:]); n != size || err != nil {
			t.Fatal("the store ends early")
		}
		return binary.BigEndian.Uint64(b)
	}
	text := func(size uint64) string {
		b := make([]byte, size)
		if n, _ := r.Read(b); n != int(size) {
			t.Fatal("the store ends early")
		}
		return string(b)
	}
	if magic, version := number(4), number(4); magic != 0xFEEDFEED || version != 2 {
		t.Fatalf("magic %x, version %d", magic, version)
	}
	out := map[string][]byte{}
	for range number(4) {
		if tag := number(4); tag != 2 {
			t.Fatalf("tag %d", tag)
		}
		alias := text(number(2))
		if when := time.UnixMilli(int64(number(8))); time.Since(when) > time.Hour {
			t.Errorf("made at %v", when)
		}
		if kind := text(number(2)); kind != "X.509" {
			t.Errorf("kind %q", kind)
		}
		out[alias] = []byte(text(number(4)))
	}
	if r.Len() != 0 {
		t.Errorf("%d bytes too many", r.Len())
	}
	return out
}

func TestJavaStore(t *testing.T) {
	a, b := newCert(t, "root a"), newCert(t, "ours")
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30, 0}})
	for _, password := range []string{DefaultStorePassword, "pässwörd 𝄞"} {
		data, err := JavaStore(slices.Concat(a, broken, b, a), password)
		if err != nil {
			t.Fatal(err)
		}
		entries := readStore(t, data, password)
		var got []string
		for alias, der := range entries {
			if alias != strings.ToLower(alias) {
				t.Errorf("Java looks for aliases in lower case: %q", alias)
			}
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, c.Subject.CommonName)
		}
		slices.Sort(got)
		if strings.Join(got, ",") != "ours,root a" {
			t.Errorf("the store has %v", got)
		}
	}
	if _, err := JavaStore(a, ""); err == nil {
		t.Error("a store without a password")
	}
	if _, err := JavaStore(broken, "changeit"); err == nil {
		t.Error("a store without certificates")
	}
}

// TestStoreDigest holds the checksum of an empty store (magic, version 2, no entry) with the password "changeit", as the format defines it.
func TestStoreDigest(t *testing.T) {
	empty := []byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 0}
	const want = "e2686e45fb43dfa4d992dd41ceb6b21c6330d792"
	if got := hex.EncodeToString(storeDigest(empty, "changeit")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
