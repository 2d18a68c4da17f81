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
	var only string
	var found []string
	if len(h) > few {
		for _, name := range credentialFields {
			values := h[name]
			switch {
			case len(values) == 0:
			case only != "":
				return r.credentials(h)
			default:
				only, found = name, values
			}
		}
	} else {
		for name, values := range h {
			switch {
			case !isCredential(name):
			case only != "":
				return r.credentials(h)
			default:
				only, found = name, values
			}
		}
	}
	switch len(found) {
	case 0:
		return ""
	case 1:
		return r.lone(only, lasting(found[0]))
	}
	return r.credentials(h)
}

// lone is the fingerprint of a single part: most have one, and need not put it together first.
func (r *Room) lone(name, value string) string {
	secret, p := r.secret.Load(), &r.prints
	hash := [2]uint64{maphash.String(p.seeds[0], value), maphash.String(p.seeds[1], value)}
	slot := p.slot(hash)
	if known := slot.Load(); known != nil && known.hash == hash && known.name == name && known.secret == secret {
		return known.text
	}
	var space [fingerprintSpace]byte
	name = strings.Clone(name) // it may be a piece of the whole head
	made := &fingerprint{secret, hash, name, summed(secret, appendPart(space[:secretSize], name, value))}
	slot.Store(made)
	return made.text
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

// credentials is credential for several values: the fields count in their own order.
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
	slot := p.slot(hash)
	if known := slot.Load(); known != nil && known.hash == hash && known.name == "" && known.secret == secret {
		return known.text
	}
	made := &fingerprint{secret, hash, "", summed(secret, parts)}
	slot.Store(made)
	return made.text
}

// summed is the fingerprint itself.
func summed(secret *[secretSize]byte, parts []byte) string {
	copy(parts, secret[:])
	sum := sha256.Sum256(parts)
	return string(sum[:16])
}

// fingerprints are those that were made lately, by a hash that costs a fraction of theirs and that nobody outside can aim at: what they were made of
// is not kept. Where two have one slot, the later takes it.
type fingerprints struct {
	seeds [2]maphash.Seed
	slots [4096]atomic.Pointer[fingerprint]
}

func (p *fingerprints) slot(hash [2]uint64) *atomic.Pointer[fingerprint] {
	return &p.slots[hash[0]%uint64(len(p.slots))]
}

// fingerprint is one of them. Its secret is compared as a pointer: another one is another allocation.
type fingerprint struct {
	secret *[secretSize]byte
	hash   [2]uint64
	name   string // of the part that hash is about; "": of all parts
	text   string
}

// secretOf is a secret of the right size.
func secretOf(text []byte) *[secretSize]byte {
	sum := sha256.Sum256(append([]byte("httpowerd rate_limit fingerprints\n"), text...))
	return &sum
}
