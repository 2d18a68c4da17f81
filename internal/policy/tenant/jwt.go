package tenant

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// JWT is a token that an issuer signed (RFC 7519), by the rules of RFC 8725: the algorithm must be one of public keys, and issuer, audience and expiry must be there.
type JWT struct {
	JWKS     string // a file, or an https URL
	Issuer   string
	Audience string
	Claim    string // whose value names the tenant
	Value    string // "": the tenant's name
}

// algorithms are those of public keys: a symmetric one would let whoever can verify sign too.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

func (m *Method) jwt(body any) error {
	fields, err := texts(body, "jwt", "jwks", "issuer", "audience", "claim", "value")
	if err != nil {
		return err
	}
	j := &JWT{JWKS: fields["jwks"], Issuer: fields["issuer"], Audience: fields["audience"], Claim: fields["claim"], Value: fields["value"]}
	if j.Claim == "" {
		j.Claim = "sub"
	}
	m.JWT = j
	for _, key := range []string{"jwks", "issuer", "audience"} {
		if fields[key] == "" {
			return fmt.Errorf("jwt.%s is missing: without it a token for somebody else would do", key)
		}
	}
	if !strings.Contains(j.JWKS, "://") {
		return nil
	}
	u, err := url.Parse(j.JWKS)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("jwt.jwks is neither a file nor an https URL")
	case u.Scheme == "http":
		if addr, err := netip.ParseAddr(u.Hostname()); err != nil || !addr.IsLoopback() {
			return errors.New("jwt.jwks is not encrypted: whoever is on the way could sign tokens; write https://")
		}
	}
	return nil
}

// JWKSFile is the file that the method reads its keys from; "": none.
func (m *Method) JWKSFile() string {
	if m.JWT == nil || strings.Contains(m.JWT.JWKS, "://") {
		return ""
	}
	return m.JWT.JWKS
}

// issuer is a JWT method of one tenant, ready to be asked.
type issuer struct {
	JWT
	tenant string
	keys   keys
}

// keys are the public keys of an issuer.
type keys interface {
	// find returns the keys of that id, or all that may be meant where it is "". had: there are keys at all.
	find(id string) (found []jose.JSONWebKey, had bool)
}

// fixedKeys are those of a file.
type fixedKeys []jose.JSONWebKey

func (k fixedKeys) find(id string) ([]jose.JSONWebKey, bool) { return named(k, id), true }

// maxTried bounds the keys that are tried on a token that names none.
const maxTried = 8

func named(all []jose.JSONWebKey, id string) (out []jose.JSONWebKey) {
	for _, k := range all {
		if id == "" && len(out) < maxTried || id != "" && k.KeyID == id {
			out = append(out, k)
		}
	}
	return out
}

// CheckJWKS tells what is wrong with the text of a key set.
func CheckJWKS(data []byte) error {
	_, err := publicKeys(data)
	return err
}

// publicKeys reads a key set (RFC 7517), and leaves out what cannot verify a signature.
func publicKeys(data []byte) ([]jose.JSONWebKey, error) {
	keys, err := parseSet(data)
	if err != nil {
		return nil, errors.New("is no JSON Web Key Set")
	}
	var out []jose.JSONWebKey
	for _, k := range keys {
		if k.Use != "" && k.Use != "sig" || !k.Valid() {
			continue
		}
		if p := k.Public(); p.Valid() { // a symmetric key has no public part
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("holds no public key for signatures")
	}
	return out, nil
}

func (s *Set) addIssuer(name string, j *JWT, room *Room) error {
	i := issuer{JWT: *j, tenant: name}
	if i.Value == "" {
		i.Value = name
	}
	if strings.Contains(j.JWKS, "://") {
		i.keys = room.remote(j.JWKS)
	} else {
		data, err := os.ReadFile(j.JWKS)
		if err != nil {
			return fmt.Errorf("tenants[%q]: jwt.jwks: %w", name, err)
		}
		all, err := publicKeys(data)
		if err != nil {
			return fmt.Errorf("tenants[%q]: jwt.jwks %s %w", name, j.JWKS, err)
		}
		i.keys = fixedKeys(all)
	}
	s.issuers = append(s.issuers, i)
	return nil
}

const (
	maxToken  = 16 << 10
	leeway    = time.Minute // for clocks that differ
	maxProven = 4096
	provenFor = 5 * time.Minute // however long a token lasts: its key may be withdrawn
)

// proven are tokens that were verified: it costs what a hundred requests cost.
type proven struct {
	mu sync.Mutex
	m  map[[sha256.Size]byte]proof
}

type proof struct {
	tenant string
	until  time.Time
}

func (p *proven) get(k [sha256.Size]byte, now time.Time) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.m[k]
	return f.tenant, ok && now.Before(f.until)
}

func (p *proven) put(k [sha256.Size]byte, f proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil || len(p.m) >= maxProven {
		p.m = map[[sha256.Size]byte]proof{}
	}
	p.m[k] = f
}

var (
	errToken  = errors.New("the token is nobody's")
	errNoKeys = errors.New("the keys that tokens are checked with cannot be had at the moment")
)

// token tells whose a JWT is. errNoKeys: it may be somebody's.
func (s *Set) token(text string, k [sha256.Size]byte, now time.Time) (string, error) {
	if len(s.issuers) == 0 || len(text) > maxToken || strings.Count(text, ".") != 2 {
		return "", errToken
	}
	if name, ok := s.proven.get(k, now); ok {
		return name, nil
	}
	t, err := jwt.ParseSigned(text, algorithms)
	if err != nil || len(t.Headers) != 1 {
		return "", errToken
	}
	why := errToken
	for i := range s.issuers {
		until, err := s.issuers[i].vouches(t, now)
		if err == nil {
			s.proven.put(k, proof{s.issuers[i].tenant, until})
			return s.issuers[i].tenant, nil
		}
		if err == errNoKeys {
			why = err
		}
	}
	return "", why
}

// vouches tells whether the issuer signed the token for this tenant, and until when that is to be believed.
func (i *issuer) vouches(t *jwt.JSONWebToken, now time.Time) (until time.Time, err error) {
	var unproven jwt.Claims
	if t.UnsafeClaimsWithoutVerification(&unproven) != nil || unproven.Issuer != i.Issuer {
		return until, errToken // before its keys are fetched for nothing
	}
	found, had := i.keys.find(t.Headers[0].KeyID)
	if !had {
		return until, errNoKeys
	}
	for _, key := range found {
		if key.Algorithm != "" && key.Algorithm != t.Headers[0].Algorithm {
			continue
		}
		var claims jwt.Claims
		all := map[string]any{}
		if t.Claims(key.Key, &claims, &all) != nil {
			continue
		}
		expected := jwt.Expected{Issuer: i.Issuer, AnyAudience: jwt.Audience{i.Audience}, Time: now}
		if claims.Expiry == nil || claims.ValidateWithLeeway(expected, leeway) != nil || !i.claims(all[i.Claim]) {
			return until, errToken
		}
		until = now.Add(provenFor)
		if end := claims.Expiry.Time().Add(leeway); end.Before(until) {
			until = end
		}
		return until, nil
	}
	return until, errToken
}

// claims tells whether a claim's value names the tenant: as a text, or in a list.
func (i *issuer) claims(v any) bool {
	switch v := v.(type) {
	case string:
		return v == i.Value
	case []any:
		return slices.Contains(v, any(i.Value))
	}
	return false
}
