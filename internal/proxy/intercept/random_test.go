package intercept

import (
	"crypto"
	"crypto/x509"
	"maps"
	"testing"
	"time"
)

// TestKeysAreRandom: whoever knows the CA's certificate and a name cannot work out the name's key or serial number: processes that share a CA never
// make the same (G1, G22, A56).
func TestKeysAreRandom(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]bool{}
	for range 3 { // as many processes
		a := ready(t, Config{Dir: dir, LeafTTL: time.Hour})
		ca, err := x509.MarshalPKIXPublicKey(a.Certificate().PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		mine := map[string]bool{} // a process has one key for all names
		for _, name := range []string{"api.example.com", "192.0.2.1"} {
			cert, err := a.Leaf(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			key, err := x509.MarshalPKIXPublicKey(cert.PrivateKey.(crypto.Signer).Public())
			if err != nil {
				t.Fatal(err)
			}
			serial := cert.Leaf.SerialNumber
			if serial.Sign() <= 0 || serial.BitLen() < 64 || serial.BitLen() > 160 {
				t.Errorf("%s: the serial number is %v", name, serial)
			}
			if seen[serial.String()] || seen[string(key)] || string(key) == string(ca) {
				t.Errorf("%s: the key or the serial number was used before", name)
			}
			seen[serial.String()], mine[string(key)] = true, true
		}
		maps.Copy(seen, mine)
	}
}
