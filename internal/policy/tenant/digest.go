package tenant

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash"
	"strings"
)

// Digest is what a body must come to, because a signature covers it. Whoever reads the body checks it.
type Digest struct {
	New func() hash.Hash
	sum []byte
}

// Right tells whether h, which has seen the whole body, comes to it.
func (d *Digest) Right(h hash.Hash) bool { return subtle.ConstantTimeCompare(h.Sum(nil), d.sum) == 1 }

// digests are the algorithms that prove anything (RFC 9530 section 5), the stronger first.
var digests = []struct {
	name string
	size int
	new  func() hash.Hash
}{{"sha-512", sha512.Size, sha512.New}, {"sha-256", sha256.Size, sha256.New}}

var errDigest = errors.New("the body's digest is neither a sha-256 nor a sha-512")

// contentDigest reads the lines of Content-Digest. A name that is written twice says nothing that could be relied on.
func contentDigest(lines []string) (*Digest, error) {
	said := map[string]string{}
	for _, line := range lines {
		for _, m := range members(line) {
			name, value, ok := strings.Cut(strings.Trim(m, " \t"), "=")
			if _, twice := said[name]; !ok || twice {
				return nil, errDigest
			}
			said[name] = value
		}
	}
	for _, d := range digests {
		if value, ok := said[d.name]; ok {
			sum, ok := bytesItem(value)
			if !ok || len(sum) != d.size {
				return nil, errDigest
			}
			return &Digest{New: d.new, sum: sum}, nil
		}
	}
	return nil, errDigest
}

// bytesItem reads a byte sequence of a structured field: base64 between colons.
func bytesItem(text string) ([]byte, bool) {
	if len(text) < 2 || text[0] != ':' || text[len(text)-1] != ':' {
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text[1 : len(text)-1])
	return b, err == nil
}
