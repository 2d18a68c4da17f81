package dedup

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"net/http"
	"slices"
	"strings"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// maxKey is how long a key may be.
const maxKey = 255

// parseKey reads the field's value: where it is a structured one (RFC 8941 section 3.3.3), what the quotes hold; else, and where it is no such text
// after all, the value as it is.
func parseKey(values []string, quoted bool) (string, error) {
	if len(values) > 1 {
		return "", exchange.Refuse(exchange.BadRequest, "the request has more than one idempotency key")
	}
	value := strings.Trim(values[0], " \t")
	key := value
	if quoted {
		if s, ok := unquote(value); ok {
			key = s
		}
	}
	switch {
	case key == "":
		return "", exchange.Refuse(exchange.BadRequest, "the idempotency key is empty")
	case len(key) > maxKey:
		return "", exchange.Refuse(exchange.BadRequest, "the idempotency key is longer than %d characters", maxKey)
	}
	return key, nil
}

func unquote(s string) (string, bool) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
			c = s[i]
		} else if c < ' ' || c > '~' || c == '"' {
			return "", false
		}
		out = append(out, c)
	}
	return string(out), true
}

// claim is the request's hold on its key, still without fingerprint. The key is the client's alone: of this tenant, with these credentials, at this authority.
func (s *stage) claim(r *http.Request, x *exchange.Exchange, key string) Claim {
	var owner [16]byte
	_, _ = rand.Read(owner[:]) // never fails
	return Claim{Key: s.scopeOf(r, x, key), Owner: hex.EncodeToString(owner[:])}
}

func (s *stage) scopeOf(r *http.Request, x *exchange.Exchange, key string) string {
	mark := byte('W')
	if s.observe {
		mark = 'O'
	}
	b := append(append(make([]byte, 0, keySpace), s.room.secret[:]...), mark)
	b = appendPart(b, s.policy)
	b = appendPart(b, x.Tenant)
	b = appendPart(b, x.Target.Host)
	b = binary.BigEndian.AppendUint16(b, x.Target.Port)
	b = appendPart(b, s.key.Header)
	b = appendPart(b, key)
	names := make([]string, 0, 8)
	for name := range r.Header {
		if name != s.key.Header && !volatile(name) && identifies(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		b = appendValues(appendPart(b, name), r.Header[name])
	}
	sum := sha256.Sum256(b)
	clear(b) // it held credentials
	return hex.EncodeToString(sum[:])
}

// printOf begins the fingerprint, which is of all that a repeat must have in common with the first request; the body follows. Credentials and tenant are in
// the key's scope.
func (s *stage) printOf(r *http.Request, x *exchange.Exchange) hash.Hash {
	b := append(append(make([]byte, 0, keySpace), s.room.secret[:]...), 'F')
	b = s.appendPlace(b, r, x)
	b = appendValues(b, r.Header["Content-Type"])
	b = appendValues(b, r.Header["Content-Encoding"])
	h := sha256.New()
	_, _ = h.Write(b) // a hash does not fail
	return h
}

// keySpace is what the parts of most keys fit in.
const keySpace = 2 << 10

// appendPlace appends what is asked, of whom, for whom. Each part goes with its length, so that no two lists of parts are the same bytes.
func (s *stage) appendPlace(b []byte, r *http.Request, x *exchange.Exchange) []byte {
	b = appendPart(b, s.policy)
	b = appendPart(b, x.Tenant)
	b = appendPart(b, method(r))
	b = appendPart(b, x.Target.Host)
	b = binary.BigEndian.AppendUint16(b, x.Target.Port)
	u := r.URL
	b = appendPart(b, u.Scheme)
	b = appendPart(b, u.Host)
	b = appendPart(b, r.Host)
	b = appendPart(b, u.Opaque)
	b = appendPart(b, u.Path)
	b = appendPart(b, u.RawPath)
	b = appendPart(b, u.RawQuery)
	if u.ForceQuery {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendPart(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendValues(b []byte, values []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(values)))
	for _, v := range values {
		b = appendPart(b, v)
	}
	return b
}

// identities are words in the names of fields that say who asks, or for whom.
var identities = []string{"account", "actor", "apikey", "auth", "authorization", "cookie", "credential", "credentials", "customer", "email", "identity",
	"impersonate", "jwt", "key", "login", "merchant", "org", "organization", "passwd", "password", "principal", "project", "secret", "session",
	"subject", "tenant", "token", "user", "username", "workspace"}

// identifies tells whether a field may say who asks. One too many makes two clients of what is one, and a repeat runs again; one too few could show
// a client what was another one's answer.
func identifies(name string) bool {
	if name == "User-Agent" || strings.HasSuffix(name, "-User-Agent") {
		return false
	}
	for rest := strings.ToLower(name); rest != ""; {
		var word string
		word, rest, _ = strings.Cut(rest, "-")
		if slices.Contains(identities, word) {
			return true
		}
	}
	return redact.Default().SensitiveName(name)
}
