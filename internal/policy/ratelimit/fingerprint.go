package ratelimit

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"net/http"
	"strings"
	"sync/atomic"
)

// credentialFields are where clients put what upstreams tell accounts apart by.
var credentialFields = [...]string{"Authorization", "X-Api-Key", "Api-Key", "Apikey", "X-Auth-Token", "X-Access-Token", "Private-Token",
	"X-Goog-Api-Key", "X-Shopify-Access-Token"}

// credential tells one client's credentials from another's without showing them; "" where there are none.
func (r *Room) credential(h http.Header) string {
	if len(h) > few {
		return r.credentials(h)
	}
	var only string
	var found []string
	for name, values := range h {
		switch {
		case !isCredential(name):
		case only != "":
			return r.credentials(h)
		default:
			only, found = name, values
		}
	}
	if len(found) == 0 {
		return ""
	}
	var space [fingerprintSpace]byte
	parts := space[:secretSize]
	for _, v := range found {
		parts = appendPart(parts, only, lasting(v))
	}
	return r.fingerprint(parts)
}

// few is up to how many fields it costs less to look at each of them than to ask for those that there may be.
const few = 8

func isCredential(name string) bool {
	switch name {
	case "Authorization", "X-Api-Key", "Api-Key", "Apikey", "X-Auth-Token", "X-Access-Token", "Private-Token", "X-Goog-Api-Key", "X-Shopify-Access-Token":
		return true
	}
	return false
}

// credentials is credential for any header: the fields count in their own order.
func (r *Room) credentials(h http.Header) string {
	var space [fingerprintSpace]byte
	parts := space[:secretSize]
	for _, name := range credentialFields {
		for _, v := range h[name] {
			parts = appendPart(parts, name, lasting(v))
		}
	}
	if len(parts) == secretSize {
		return ""
	}
	return r.fingerprint(parts)
}

// lasting is the part of a credential that is the same in every request: a signature of AWS (Signature Version 4) begins with the account's key,
// the day and the place, and ends with what is made anew each time.
func lasting(credential string) string {
	if !strings.HasPrefix(credential, "AWS4-") {
		return credential
	}
	key, _, _ := strings.Cut(credential, ",")
	return key
}

// A fingerprint is made of the room's secret and then the parts; most fit into fingerprintSpace.
const (
	secretSize       = 32
	fingerprintSpace = 512
)

// appendPart adds a named value so that no two lists of parts look the same.
func appendPart(dst []byte, name, value string) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(name))), name...)
	return append(binary.AppendUvarint(dst, uint64(len(value))), value...)
}

// fingerprint is a keyed hash, cut short: it tells values apart for those who have the secret, and gives none away. It overwrites the space that
// parts begin with.
func (r *Room) fingerprint(parts []byte) string {
	secret, p := r.secret.Load(), &r.prints
	hash := [2]uint64{maphash.Bytes(p.seeds[0], parts[secretSize:]), maphash.Bytes(p.seeds[1], parts[secretSize:])}
	slot := &p.slots[hash[0]%uint64(len(p.slots))]
	if known := slot.Load(); known != nil && known.hash == hash && known.secret == secret {
		return known.text
	}
	copy(parts, secret[:])
	sum := sha256.Sum256(parts)
	made := &fingerprint{secret, hash, string(sum[:16])}
	slot.Store(made)
	return made.text
}

// fingerprints are those that were made lately, by a hash that costs a fraction of theirs and that nobody outside can aim at: what they were made of
// is not kept. Where two have one slot, the later takes it.
type fingerprints struct {
	seeds [2]maphash.Seed
	slots [4096]atomic.Pointer[fingerprint]
}

// fingerprint is one of them. Its secret is compared as a pointer: another one is another allocation.
type fingerprint struct {
	secret *[secretSize]byte
	hash   [2]uint64
	text   string
}

// secretOf is a secret of the right size.
func secretOf(text []byte) *[secretSize]byte {
	sum := sha256.Sum256(append([]byte("httpowerd rate_limit fingerprints\n"), text...))
	return &sum
}
