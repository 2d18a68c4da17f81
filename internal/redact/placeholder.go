package redact

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"
)

// Placeholder is what a Secret prints. What is hidden in a text is replaced by <redacted:LABEL>, or by <redacted:LABEL:FINGERPRINT> where the Redactor
// has a Key.
const Placeholder = "[redacted]"

const (
	opening         = "<redacted:"
	closing         = '>'
	openingXML      = "&lt;redacted:"
	closingXML      = "&gt;"
	longestLabel    = 32
	fingerprintSize = 4 // hexadecimal digits
)

// KeySize is the size of a Key, in bytes.
const KeySize = 32

// Key makes fingerprints: the same value has the same one wherever it was hidden with this key, and says nothing to whoever does not have the key.
// It cannot be printed. It is safe for concurrent use.
type Key struct{ macs *sync.Pool }

// NewKey wraps secret bytes, which are KeySize ones or more.
func NewKey(secret []byte) *Key {
	return &Key{&sync.Pool{New: func() any { return &mac{hash: hmac.New(sha256.New, secret)} }}}
}

// RandomKey is a Key that nobody else has.
func RandomKey() *Key { return NewKey(randomBytes(KeySize)) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// String is the placeholder.
func (*Key) String() string { return Placeholder }

// GoString is the placeholder.
func (*Key) GoString() string { return Placeholder }

// Fingerprint is that of a value: 16 bits of its HMAC-SHA-256, too few to try a guess on, enough to find two records that hold the same value.
func (k *Key) Fingerprint(value string) string { return string(k.appendFingerprint(nil, value)) }

func (k *Key) appendFingerprint(dst []byte, value string) []byte {
	m := k.macs.Get().(*mac)
	m.hash.Reset()
	m.value = append(m.value[:0], value...)
	_, _ = m.hash.Write(m.value)
	m.sum = m.hash.Sum(m.sum[:0])
	dst = hex.AppendEncode(dst, m.sum[:fingerprintSize/2])
	clear(m.value)
	if cap(m.value) <= keepBuffer {
		k.macs.Put(m)
	}
	return dst
}

// mac is memory for one fingerprint.
type mac struct {
	hash interface {
		Reset()
		Write(p []byte) (int, error)
		Sum(b []byte) []byte
	}
	value, sum []byte
}

// hide appends the placeholder for a value, and counts it. What stands under a sensitive name and is a vendor's token is called that.
func (r *Redactor) hide(dst []byte, l label, value string, c *Counts) []byte {
	if l == labelSecret || l == labelAuthorization {
		if shape := tokenLabel(value); shape != labelSecret {
			l = shape
		}
	}
	c.found(l, value)
	dst = append(append(dst, opening...), labelNames[l]...)
	if r.key != nil && l.hasFingerprint() && value != "" {
		dst = r.key.appendFingerprint(append(dst, ':'), value)
	}
	return append(dst, closing)
}

// hasFingerprint: of card data nothing is kept. The digits that a mask leaves, or those of a security code, are too few to keep a hash beside them
// (PCI DSS 4.0.1, 3.3.1 and 3.5.1).
func (l label) hasFingerprint() bool {
	switch l.kind() {
	case kindPAN, kindCVV, kindTrack:
		return false
	}
	return true
}

// isPlaceholder tells whether s is a placeholder and nothing else.
func isPlaceholder(s string) bool {
	return len(s) > len(opening) && (s[0] == '<' || s[0] == '&') && placeholderAt(s) == len(s) || s == Placeholder
}

// placeholderAt is the length of the placeholder that s begins with, 0 where there is none. Only labels that exist count: a secret can not pose as one.
func placeholderAt(s string) int {
	rest, ok := strings.CutPrefix(s, opening)
	end := ">"
	if !ok {
		if strings.HasPrefix(s, Placeholder) {
			return len(Placeholder)
		}
		if rest, ok = strings.CutPrefix(s, openingXML); !ok {
			return 0
		}
		end = closingXML
	}
	inside, _, ok := strings.Cut(rest[:min(len(rest), longestLabel+fingerprintSize+len(end)+1)], end)
	if !ok {
		return 0
	}
	name, mark, keyed := strings.Cut(inside, ":")
	if _, known := knownLabels[name]; !known || keyed && (len(mark) != fingerprintSize || !isHexText(mark)) {
		return 0
	}
	return len(s) - len(rest) + len(inside) + len(end)
}

func isHexText(s string) bool {
	for i := range len(s) {
		if !isHex(s[i]) {
			return false
		}
	}
	return true
}

// inPlaceholder tells whether s[start:end] is part of a placeholder.
func inPlaceholder(s string, start, end int) bool {
	from := max(0, start-len(openingXML)-longestLabel-fingerprintSize)
	at := max(strings.LastIndex(s[from:min(len(s), start+1)], "<"), strings.LastIndex(s[from:min(len(s), start+1)], "["), strings.LastIndex(s[from:min(len(s), start+1)], "&"))
	if at < 0 {
		return false
	}
	at += from
	return at+placeholderAt(s[at:]) >= end
}
