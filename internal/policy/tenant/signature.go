package tenant

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/exchange"
)

// tag tells the signatures for this proxy from those for others on the way (RFC 9421 section 2.3).
const tag = "httpowerd"

// schemeHMAC is the scheme of the plain signature in Proxy-Authorization.
const schemeHMAC = "HMAC-SHA256"

// ahead is how far a client's clock may be ahead.
const ahead = 30 * time.Second

// signKey is one key that may sign for a tenant.
type signKey struct {
	tenant     string
	algorithm  string
	verify     verify
	components []string // that must be covered
	window     time.Duration
	nonces     *nonces
}

type verify func(text, signature []byte) bool

// The algorithms of signatures, by their names in RFC 9421 section 3.3.
const (
	hmacSHA256   = "hmac-sha256"
	ed25519Name  = "ed25519"
	ecdsaP256    = "ecdsa-p256-sha256"
	rsaPSSSHA512 = "rsa-pss-sha512"
)

// leastRSA is the length in bits below which an RSA key is none.
const leastRSA = 2048

func macOf(secret []byte) verify {
	return func(text, signature []byte) bool {
		m := hmac.New(sha256.New, secret)
		m.Write(text)
		return hmac.Equal(m.Sum(nil), signature)
	}
}

// verifierOf is the check of an algorithm with a public key.
func verifierOf(algorithm string, key crypto.PublicKey) (verify, error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		if algorithm == ed25519Name {
			return func(text, signature []byte) bool { return ed25519.Verify(k, text, signature) }, nil
		}
	case *ecdsa.PublicKey:
		if algorithm == ecdsaP256 && k.Curve == elliptic.P256() {
			return func(text, signature []byte) bool {
				sum := sha256.Sum256(text)
				return len(signature) == 64 && ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
			}, nil
		}
	case *rsa.PublicKey:
		if algorithm == rsaPSSSHA512 && k.N.BitLen() >= leastRSA {
			return func(text, signature []byte) bool {
				sum := sha512.Sum512(text)
				return rsa.VerifyPSS(k, crypto.SHA512, sum[:], signature, &rsa.PSSOptions{SaltLength: sha512.Size}) == nil
			}, nil
		}
	}
	return nil, fmt.Errorf("is no public key for %s", algorithm)
}

// publicKey reads the text of a PEM file with a public key, or a certificate that holds one.
func publicKey(text []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("holds nothing in PEM")
	case block.Type == "PUBLIC KEY":
		if key, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			return key, nil
		}
	case block.Type == "CERTIFICATE":
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			return c.PublicKey, nil
		}
	default:
		return nil, fmt.Errorf("holds a %s: write the file of the PUBLIC KEY", strings.ToLower(block.Type))
	}
	return nil, errors.New("holds a public key that cannot be read")
}

// CheckKey tells what is wrong with the text of a public key's file.
func CheckKey(algorithm string, text []byte) error {
	key, err := publicKey(text)
	if err == nil {
		_, err = verifierOf(algorithm, key)
	}
	return err
}

// addSigner makes the key of a tenant ready. What it has used up is the room's, and outlives the configuration.
func (s *Set) addSigner(name string, m *Signature, room *Room) error {
	k := &signKey{tenant: name, algorithm: m.Algorithm, components: m.Components, window: m.Window, nonces: room.noncesOf(name)}
	if m.Algorithm == hmacSHA256 {
		k.verify = macOf([]byte(m.Secret.Reveal()))
	} else {
		text, err := os.ReadFile(m.PublicKey)
		if err != nil {
			return fmt.Errorf("tenants[%q]: signature.public_key: %w", name, err)
		}
		key, err := publicKey(text)
		if err == nil {
			k.verify, err = verifierOf(m.Algorithm, key)
		}
		if err != nil {
			return fmt.Errorf("tenants[%q]: signature.public_key %s %w", name, m.PublicKey, err)
		}
	}
	if m.Plain {
		s.macs[m.keyID(name)] = k
	} else {
		s.signers[m.keyID(name)] = k
	}
	return nil
}

// noncesOf are those of a tenant. A tenant that was taken away and comes back has used up what it had.
func (r *Room) noncesOf(name string) *nonces {
	if r == nil {
		return newNonces()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nonces == nil {
		r.nonces = map[string]*nonces{}
	}
	n := r.nonces[name]
	if n == nil {
		n = newNonces()
		n.take(r.left[name])
		delete(r.left, name)
		r.nonces[name] = n
	}
	return n
}

// Signs tells whether tenants show who they are by signatures, so that it must be looked for one.
func (s *Set) Signs() bool { return len(s.signers) > 0 }

// Signed is a signature for this proxy.
type Signed struct {
	innerList
	raw       string // the inner list with its parameters, as it was sent
	signature []byte
	broken    bool
}

// TakeSignature finds the signature for this proxy, and removes it from the header: nobody behind has a use for it. Those for others stay byte for byte. It
// is nil where there is none.
func TakeSignature(h http.Header) *Signed {
	var s *Signed
	label := ""
	for _, line := range h["Signature-Input"] {
		for _, m := range members(line) {
			l, value, ok := labelOf(m)
			if !ok || !strings.Contains(value, `;tag="`+tag+`"`) {
				continue
			}
			if s != nil {
				s.broken = true // which of them is meant?
				continue
			}
			label, s = l, &Signed{raw: value}
		}
	}
	if s == nil {
		return nil
	}
	values := 0
	for _, line := range h["Signature"] {
		for _, m := range members(line) {
			if l, value, ok := labelOf(m); ok && l == label {
				values++
				s.signature, ok = bytesItem(value)
				s.broken = s.broken || !ok
			}
		}
	}
	without(h, "Signature-Input", label)
	without(h, "Signature", label)
	var ok bool
	s.innerList, ok = parseInnerList(s.raw)
	s.broken = s.broken || !ok || values != 1 || s.params["tag"] != tag
	return s
}

// Request is what signatures are over.
type Request struct {
	Header http.Header
	Method string
	Scheme string // "" of CONNECT
	Target exchange.Authority
	Path   string // with the query, as it was sent; "" of CONNECT
}

// derived are the components besides fields that a signature may cover (RFC 9421 section 2.2). CONNECT has only the first two.
var derived = []string{"@method", "@authority", "@scheme", "@target-uri", "@path", "@query"}

// component is the value of a component.
func (r *Request) component(name string) (string, bool) {
	switch connect := r.Method == http.MethodConnect; {
	case name == "@method":
		return r.Method, true
	case name == "@authority" && connect:
		return r.Target.String(), true
	case name == "@authority":
		return r.Target.ForScheme(r.Scheme), true
	case name == "" || name[0] == '@' && (connect || !slices.Contains(derived, name)):
		return "", false
	case name[0] != '@':
		return r.field(name)
	}
	path, query, _ := strings.Cut(r.path(), "?")
	switch name {
	case "@scheme":
		return r.Scheme, true
	case "@path":
		return path, true
	case "@query":
		return "?" + query, true
	}
	return r.Scheme + "://" + r.Target.ForScheme(r.Scheme) + r.path(), true
}

// path is never empty but for CONNECT.
func (r *Request) path() string {
	if r.Method != http.MethodConnect && (r.Path == "" || r.Path[0] == '?') {
		return "/" + r.Path
	}
	return r.Path
}

// field is the value of a field, its lines joined (RFC 9421 section 2.1).
func (r *Request) field(name string) (string, bool) {
	lines := r.Header[http.CanonicalHeaderKey(name)]
	if len(lines) == 0 || name != strings.ToLower(name) || name == "signature" || name == "signature-input" || r.drops(name) {
		return "", false
	}
	trimmed := make([]string, len(lines))
	for i, line := range lines {
		trimmed[i] = strings.Trim(line, " \t")
	}
	return strings.Join(trimmed, ", "), true
}

// drops tells whether Connection names the field, which therefore goes no further: anybody on the way could have what was signed taken away by that.
func (r *Request) drops(name string) bool {
	for _, line := range r.Header["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(option), name) {
				return true
			}
		}
	}
	return false
}

// base is the text that was signed (RFC 9421 section 2.5).
func (s *Signed) base(r *Request) ([]byte, error) {
	var b bytes.Buffer
	for _, c := range s.components {
		value, ok := r.component(c)
		if !ok {
			return nil, errors.New("the signature covers what this request does not have, or what is not known here")
		}
		b.WriteString(`"` + c + `": ` + value + "\n")
	}
	b.WriteString(`"@signature-params": ` + s.raw)
	return b.Bytes(), nil
}

// Why a signature is not right, for clients: none of it says anything about the key.
var (
	errBroken    = errors.New("the signature's fields are malformed")
	errSignature = errors.New("the signature is wrong")
	errUntimed   = errors.New("the signature does not say when it was made")
	errEarly     = errors.New("the signature was made in the future: compare the clocks")
	errLate      = errors.New("the signature is too old: sign each request anew, and compare the clocks")
	errBefore    = errors.New("the signature is older than this proxy, which cannot know whether it was used: sign the request anew")
	errNonce     = errors.New("the signature's nonce must have from 8 to 256 characters")
	errRepeated  = errors.New("the signature was used before: sign each request anew")
	errFull      = errors.New("this tenant has sent more signatures than can be remembered")
)

// signed tells whose a signature is.
func (s *Set) signed(e *Evidence) (string, error) {
	sig, r := e.Signature, &e.Request
	if sig.broken {
		return "", errBroken
	}
	k := s.signers[sig.params["keyid"]]
	if k == nil {
		k = s.nobody // costs what a wrong signature costs
	}
	base, err := sig.base(r)
	if err != nil {
		return "", err
	}
	if alg, ok := sig.params["alg"]; ok && alg != k.algorithm || !k.verify(base, sig.signature) {
		return "", errSignature // before anything is said that holds for this key alone, such as its window
	}
	for _, c := range k.components {
		if absent := r.Method == http.MethodConnect && c != "@method" && c != "@authority"; !absent && !slices.Contains(sig.components, c) {
			return "", fmt.Errorf("the signature does not cover %s", c)
		}
	}
	made, err := k.timely(sig.params["created"], sig.params["expires"], e.Now)
	if err != nil {
		return "", err
	}
	if slices.Contains(sig.components, "content-digest") {
		if e.Digest, err = contentDigest(r.Header["Content-Digest"]); err != nil {
			return "", err
		}
	}
	return k.tenant, k.spend(sig.params["keyid"], sig.params["nonce"], e.Now, made)
}

// maced tells whose a plain signature is: a MAC over a few lines.
func (s *Set) maced(e *Evidence, text string) (string, error) {
	p, ok := authParams(text)
	if !ok {
		return "", errBroken
	}
	k := s.macs[p["keyid"]]
	if k == nil {
		k = s.nobody
	}
	signature, err := base64.StdEncoding.DecodeString(p["signature"])
	if err != nil || !k.verify(e.Request.lines(p), signature) {
		return "", errSignature
	}
	made, err := k.timely(p["timestamp"], "", e.Now)
	if err != nil {
		return "", err
	}
	if text := p["digest"]; text != "" {
		sum, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(sum) != sha256.Size {
			return "", errDigest
		}
		e.Digest = &Digest{New: sha256.New, sum: sum}
	}
	return k.tenant, k.spend(p["keyid"], p["nonce"], e.Now, made)
}

// lines are what is signed plainly: seven, without a line feed at the end. CONNECT has no path, and the authority always has its port.
func (r *Request) lines(p map[string]string) []byte {
	return []byte(strings.Join([]string{schemeHMAC, r.Method, r.Target.String(), r.path(), p["timestamp"], p["nonce"], p["digest"]}, "\n"))
}

// timely checks when a signature was made.
func (k *signKey) timely(created, expires string, now time.Time) (made time.Time, err error) {
	n, ok := seconds(created)
	made = time.Unix(n, 0)
	switch {
	case !ok:
		return made, errUntimed
	case made.After(now.Add(ahead)):
		return made, errEarly
	case now.Sub(made) > k.window:
		return made, errLate
	case expires == "":
		return made, nil
	}
	if n, ok = seconds(expires); !ok || now.After(time.Unix(n, 0)) {
		return made, errLate
	}
	return made, nil
}

// spend uses the signature's nonce up.
func (k *signKey) spend(id, nonce string, now, made time.Time) error {
	if len(nonce) < 8 || len(nonce) > 256 {
		return errNonce
	}
	return k.nonces.spend(id, nonce, now, made, k.window)
}
