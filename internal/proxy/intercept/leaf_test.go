package intercept

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestLeaf: a certificate for one name, for a short time (G22, A57).
func TestLeaf(t *testing.T) {
	a := ready(t, Config{Dir: t.TempDir(), LeafTTL: time.Hour})
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".example.com" // past what a common name can hold
	for name, verify := range map[string]string{
		"api.example.com": "api.example.com", "API.Example.COM.": "api.example.com", long: long, "under_score.example.com": "under_score.example.com",
		"192.0.2.1": "192.0.2.1", "2001:db8::1": "[2001:db8::1]", "2001:DB8:0::1": "[2001:db8::1]", "::ffff:192.0.2.1": "192.0.2.1",
	} {
		cert, err := a.Leaf(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		l := cert.Leaf
		if _, err := l.Verify(x509.VerifyOptions{Roots: pool(t, a), DNSName: verify, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(l.DNSNames)+len(l.IPAddresses) != 1 || l.Subject.CommonName != "" || l.IsCA {
			t.Errorf("%s: names %v %v %q", name, l.DNSNames, l.IPAddresses, l.Subject)
		}
		if len(l.SubjectKeyId) == 0 || string(l.AuthorityKeyId) != string(a.Certificate().SubjectKeyId) {
			t.Errorf("%s: key identifiers %x %x", name, l.SubjectKeyId, l.AuthorityKeyId)
		}
		if life := time.Until(l.NotAfter); life > time.Hour || life < 59*time.Minute || time.Since(l.NotBefore) < 59*time.Minute {
			t.Errorf("%s: from %v to %v", name, l.NotBefore, l.NotAfter)
		}
	}
}

// TestLeafClock: what is remembered was made while the clock was wrong, or before the machine slept.
func TestLeafClock(t *testing.T) {
	a := ready(t, Config{Dir: t.TempDir(), LeafTTL: 24 * time.Hour})
	c := a.current.Load().leaves
	e, err := c.entry("api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		ago  time.Duration // when it was made
		good bool
	}{
		"a moment ago":                  {time.Minute, true},
		"by a clock that was fast":      {-2 * time.Hour, false},
		"by one that was a little fast": {-backdate / 2, true},
		"long ago":                      {20 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			old, err := c.mint(e.name, time.Now().Add(-row.ago))
			if err != nil {
				t.Fatal(err)
			}
			e.leaf.Store(old)
			got, err := c.current(e)
			if err != nil || (got == &old.cert) != row.good {
				t.Fatalf("the same one: %v, %v", got == &old.cert, err)
			}
			if _, err := got.Leaf.Verify(x509.VerifyOptions{Roots: pool(t, a), DNSName: e.name}); err != nil {
				t.Error(err)
			}
			// A reading of the monotonic clock would be compared in the place of the time.
			if l := e.leaf.Load(); l.from != l.from.Round(0) || l.renew != l.renew.Round(0) {
				t.Errorf("good from %v to %v", l.from, l.renew)
			}
		})
	}
}

func TestLeafRefused(t *testing.T) {
	a := ready(t, Config{Dir: t.TempDir()})
	for _, name := range []string{"", ".", "a..example.com", "*.example.com", "a b", "a/b", "127.1", "0x7f.1", "fe80::1%eth0", ":", "api.example.com:443",
		strings.Repeat("a", 64) + ".example.com", strings.Repeat("a.", 127) + "example", "a\x00.example.com", "bücher.example.com"} {
		if _, err := a.Leaf(t.Context(), name); err == nil {
			t.Errorf("%q got a certificate", name)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Leaf(ended, "api.example.com"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestSingleFlight: however many ask at once, a name is minted once (G21).
func TestSingleFlight(t *testing.T) {
	a := ready(t, Config{Dir: t.TempDir()})
	const names, askers = 4, 64
	serials := make([]*big.Int, names*askers)
	var wg sync.WaitGroup
	for i := range serials {
		wg.Go(func() {
			cert, err := a.Leaf(t.Context(), fmt.Sprintf("host%d.example.com", i%names))
			if err != nil {
				t.Error(err)
				return
			}
			serials[i] = cert.Leaf.SerialNumber
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, s := range serials {
		seen[s.String()] = true
		if s.BitLen() > 128 || s.BitLen() < 64 {
			t.Errorf("serial of %d bits", s.BitLen())
		}
	}
	if len(seen) != names {
		t.Errorf("%d certificates for %d names", len(seen), names)
	}
}

// TestBound: a client that asks for endless names gets them, and the memory stays bounded; names in use stay (G21, A56).
func TestBound(t *testing.T) {
	a := ready(t, Config{Dir: t.TempDir()})
	s := a.current.Load()
	busy, err := a.Leaf(t.Context(), "busy.example.com")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxLeaves {
		if _, err := s.leaves.entry(fmt.Sprintf("host%d.example.com", i)); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			a.ServerConfig("busy.example.com", true)
		}
	}
	if n := len(s.leaves.byName); n != maxLeaves || s.leaves.order.Len() != n {
		t.Errorf("%d names are remembered", n)
	}
	if again, _ := a.Leaf(t.Context(), "busy.example.com"); again != busy {
		t.Error("the name in use was forgotten")
	}
}

// TestRenewal: a leaf is replaced while it still has a third of its life.
func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a := ready(t, Config{Dir: dir, LeafTTL: time.Hour})
		first, err := a.Leaf(t.Context(), "api.example.com")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(39 * time.Minute)
		if same, _ := a.Leaf(t.Context(), "api.example.com"); same != first {
			t.Error("minted again before its time")
		}
		time.Sleep(2 * time.Minute)
		if next, _ := a.Leaf(t.Context(), "api.example.com"); next == first || time.Until(next.Leaf.NotAfter) < 59*time.Minute {
			t.Error("not minted again before its end")
		}
		time.Sleep(caLife)
		if _, err := a.Leaf(t.Context(), "api.example.com"); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("signed by an expired CA: %v", err)
		}
	})
}

// TestLastDays: no leaf outlives the CA.
func TestLastDays(t *testing.T) {
	ca := makeCA(t, nil, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
	cert, err := ready(t, pair(t, ca.certPEM(), ca.keyPEM(t))).Leaf(t.Context(), "api.example.com")
	if err != nil || cert.Leaf.NotAfter.After(ca.cert.NotAfter) {
		t.Errorf("%v %v", cert, err)
	}
}

// TestServerConfig: a ClientHello that names another host gets no certificate (G31, A57).
func TestServerConfig(t *testing.T) {
	a := ready(t, Config{Dir: t.TempDir()})
	if a.ServerConfig("api.example.com", true) != a.ServerConfig("API.example.com", true) || a.ServerConfig("api.example.com", true) == a.ServerConfig("api.example.com", false) {
		t.Error("not one Config for each name and protocol")
	}
	for _, row := range []struct {
		target, sni string
		http2       bool
		offer       []string
		version     uint16
		proto       string
		ok          bool
	}{
		{"api.example.com", "api.example.com", true, []string{"h2", "http/1.1"}, tls.VersionTLS13, "h2", true},
		{"api.example.com", "api.example.com", false, []string{"h2", "http/1.1"}, tls.VersionTLS13, "http/1.1", true},
		{"api.example.com", "api.example.com", true, []string{"http/1.1"}, tls.VersionTLS12, "http/1.1", true},
		{"api.example.com", "api.example.com", true, nil, tls.VersionTLS12, "", true},
		{"api.example.com", "API.example.com", true, nil, tls.VersionTLS13, "", true},
		{"api.example.com", "", true, nil, tls.VersionTLS13, "", true},
		{"api.example.com", "other.example.com", true, nil, tls.VersionTLS13, "", false},
		{"192.0.2.1", "api.example.com", true, nil, tls.VersionTLS13, "", true},
		{"api.example.com", "api.example.com", true, nil, tls.VersionTLS11, "", false},
		{"not a name", "", true, nil, tls.VersionTLS13, "", false},
	} {
		client := &tls.Config{ServerName: row.sni, NextProtos: row.offer, MinVersion: tls.VersionTLS10, MaxVersion: row.version, InsecureSkipVerify: true}
		state, err, serverErr := shake(a.ServerConfig(row.target, row.http2), client)
		if (err == nil) != row.ok || err == nil && (state.NegotiatedProtocol != row.proto || state.Version != row.version) {
			t.Errorf("%+v: %v, %v, protocol %q", row, err, serverErr, state.NegotiatedProtocol)
		}
	}
}

// TestServerNameAlert: client and proxy learn what was wrong.
func TestServerNameAlert(t *testing.T) {
	a := ready(t, Config{Dir: t.TempDir()})
	_, clientErr, serverErr := shake(a.ServerConfig("api.example.com", true), &tls.Config{ServerName: "other.example.com", InsecureSkipVerify: true})
	if clientErr == nil || !strings.Contains(clientErr.Error(), "unrecognized name") {
		t.Errorf("the client sees %v", clientErr)
	}
	if name, ok := errors.AsType[*ServerNameError](serverErr); !ok || name.Got != "other.example.com" || name.Want != "api.example.com" {
		t.Errorf("the proxy sees %v", serverErr)
	}
}

// TestResumption: a session is resumed for the same name and never for another one, nor after a rotation (A60).
func TestResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		a := ready(t, Config{Dir: t.TempDir()})
		// The cache has one key for all names, as an attacker's client might.
		client := &tls.Config{RootCAs: pool(t, a), MaxVersion: version, ClientSessionCache: oneSession{tls.NewLRUClientSessionCache(1)}}
		visit := func(name string) bool {
			t.Helper()
			c := client.Clone()
			c.ServerName = name
			state, err, serverErr := shake(a.ServerConfig(name, true), c)
			if err != nil {
				t.Fatal(err, serverErr)
			}
			return state.DidResume
		}
		if visit("a.example.com") {
			t.Error("resumed a first visit")
		}
		if !visit("a.example.com") {
			t.Errorf("%s: not resumed for the same name", tls.VersionName(version))
		}
		client.InsecureSkipVerify = true // or the client itself would not offer a's session to b
		visit("a.example.com")
		if visit("b.example.com") {
			t.Errorf("%s: a session of one name was resumed for another one", tls.VersionName(version))
		}
		visit("b.example.com")
		if err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
		if visit("b.example.com") {
			t.Errorf("%s: a session of the old CA was resumed", tls.VersionName(version))
		}
	}
}

type oneSession struct{ tls.ClientSessionCache }

func (o oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.ClientSessionCache.Get("") }
func (o oneSession) Put(_ string, s *tls.ClientSessionState)    { o.ClientSessionCache.Put("", s) }

// FuzzLeafName: whatever is asked for, a certificate covers the name it is for and is found again under its canonical spelling.
func FuzzLeafName(f *testing.F) {
	for _, seed := range []string{"api.example.com", "API.example.com.", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%1", "127.1", "*.example.com", "", "a\x00b"} {
		f.Add(seed)
	}
	a := ready(f, Config{Dir: f.TempDir()})
	roots := pool(f, a)
	f.Fuzz(func(t *testing.T, name string) {
		cert, err := a.Leaf(context.Background(), name)
		if err != nil {
			return
		}
		canonical, err := canonicalName(name)
		if err != nil {
			t.Fatalf("%q has a certificate and no canonical form", name)
		}
		verify := canonical
		if net.ParseIP(canonical) != nil {
			verify = "[" + canonical + "]"
		}
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: verify}); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if again, err := a.Leaf(context.Background(), canonical); err != nil || again != cert {
			t.Fatalf("%q and %q are two names: %v", name, canonical, err)
		}
	})
}

func BenchmarkMint(b *testing.B) {
	a := ready(b, Config{Dir: b.TempDir()})
	s := a.current.Load()
	for b.Loop() {
		if _, err := s.leaves.mint("api.example.com", time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkServerConfig(b *testing.B) {
	a := ready(b, Config{Dir: b.TempDir()})
	b.ReportAllocs()
	for b.Loop() {
		a.ServerConfig("api.example.com", true)
	}
}

// BenchmarkHandshake counts both ends.
func BenchmarkHandshake(b *testing.B) {
	for _, row := range []struct {
		name   string
		resume bool
		curves []tls.CurveID
	}{{"new", false, nil}, {"new/x25519", false, []tls.CurveID{tls.X25519}}, {"resumed", true, nil}} {
		b.Run(row.name, func(b *testing.B) {
			a := ready(b, Config{Dir: b.TempDir()})
			client := &tls.Config{RootCAs: pool(b, a), ServerName: "api.example.com", CurvePreferences: row.curves}
			if row.resume {
				client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err, _ := shake(a.ServerConfig("api.example.com", true), client); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
