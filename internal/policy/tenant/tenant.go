package tenant

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/match"
)

// Set is the tenants of one configuration, ready to be asked. It does not change but for what it remembers of tokens.
type Set struct {
	salt    [32]byte // so that nobody can prepare texts whose hashes begin alike
	users   map[string]login
	tokens  map[[sha256.Size]byte]string
	names   map[string]string // of client certificates, in lower case
	sources []source          // the longest prefixes first
	issuers []issuer          // of JWTs
	proven  proven
	signers map[string]*signKey // by keyid
	macs    map[string]*signKey // the same of plain signatures
	nobody  *signKey            // no signature is right with it
	tenants map[string]*limits
	schemes []string // what a 407 offers
}

type login struct {
	tenant   string
	password [sha256.Size]byte
}

type source struct {
	prefix netip.Prefix
	tenant string
}

// limits are what the set knows of one tenant besides how to know it.
type limits struct {
	Limits
	only *match.Index[struct{}] // nil: every host
}

// New compiles the section. A nil Set, for one without tenants, asks nobody who he is.
func New(c Config, room *Room) (*Set, error) {
	if len(c) == 0 {
		return nil, nil
	}
	s := &Set{users: map[string]login{}, tokens: map[[sha256.Size]byte]string{}, names: map[string]string{}, tenants: map[string]*limits{},
		signers: map[string]*signKey{}, macs: map[string]*signKey{}}
	_, _ = rand.Read(s.salt[:]) // never fails
	s.nobody = &signKey{algorithm: hmacSHA256, verify: macOf([]byte(rand.Text())), window: maxWindow, nonces: &nonces{}}
	for name, t := range c {
		l := &limits{Limits: t.Limits}
		for i := range t.Auth {
			s.add(name, &t.Auth[i])
			if j := t.Auth[i].JWT; j != nil {
				if err := s.addIssuer(name, j, room); err != nil {
					return nil, err
				}
			}
			if g := t.Auth[i].Signature; g != nil {
				if err := s.addSigner(name, g, room); err != nil {
					return nil, err
				}
			}
		}
		if len(t.Only) > 0 {
			l.only = match.NewIndex[struct{}]()
			for _, text := range t.Only {
				p, err := match.ParsePattern(text)
				if err == nil {
					err = l.only.Add(p, struct{}{})
				}
				if err != nil {
					return nil, fmt.Errorf("tenants[%q].only: %w", name, err)
				}
			}
		}
		s.tenants[name] = l
	}
	slices.SortFunc(s.sources, func(a, b source) int { return b.prefix.Bits() - a.prefix.Bits() })
	s.schemes = []string{`Basic realm="httpowerd", charset="UTF-8"`}
	if len(s.tokens)+len(s.issuers) > 0 {
		s.schemes = append(s.schemes, `Bearer realm="httpowerd"`)
	}
	if len(s.macs) > 0 {
		s.schemes = append(s.schemes, schemeHMAC+` realm="httpowerd"`)
	}
	return s, nil
}

func (s *Set) add(name string, m *Method) {
	switch {
	case m.Basic != nil:
		s.users[m.user(name)] = login{name, s.hash(m.Basic.Password.Reveal())}
	case !m.Bearer.IsZero():
		s.tokens[s.hash(m.Bearer.Reveal())] = name
	case m.MTLS != "":
		s.names[strings.ToLower(m.MTLS)] = name
	}
	for _, p := range m.Source {
		s.sources = append(s.sources, source{p, name})
	}
}

func (s *Set) hash(text string) [sha256.Size]byte {
	return sha256.Sum256(append(s.salt[:len(s.salt):len(s.salt)], text...))
}

// Challenges are the values of Proxy-Authenticate.
func (s *Set) Challenges() []string { return s.schemes }

// Has tells whether there is a tenant of that name.
func (s *Set) Has(name string) bool { return s != nil && s.tenants[name] != nil }

// LimitsOf are a tenant's.
func (s *Set) LimitsOf(name string) Limits { return s.tenants[name].Limits }

// May tells whether the tenant's only lets it use a host.
func (s *Set) May(name string, a exchange.Authority) bool {
	l := s.tenants[name]
	if l == nil || l.only == nil {
		return l != nil
	}
	_, _, ok := l.only.Find(a)
	return ok
}

// Evidence is what a client shows of itself.
type Evidence struct {
	Authorization []string          // the lines of Proxy-Authorization
	Certificate   *x509.Certificate // verified; nil: none
	Address       netip.Addr
	Signature     *Signed // see TakeSignature; nil: none
	Request       Request // what signatures are over
	Now           time.Time

	Digest *Digest // set by Identify: what the body must come to; nil: whatever it is
	Why    error   // set by Identify where it is Wrong, Busy or Unproven, and more can be said
}

// Verdict is what came of evidence.
type Verdict uint8

// Known: the client is a tenant. Anonymous: it showed nothing. Wrong: what it showed is nobody's. Busy: it is right, and more than can be remembered. Unproven:
// nobody can tell at the moment.
const (
	Known Verdict = iota
	Anonymous
	Wrong
	Busy
	Unproven
)

// UnprovenFor is when it is worth asking again.
const UnprovenFor = retryAfter

// Identify tells who the client is. Credentials count before a signature, that before a certificate, and that before an address; wrong ones are never passed
// over for the next.
func (s *Set) Identify(e *Evidence) (string, Verdict) {
	if len(e.Authorization) > 0 {
		return s.authorized(e)
	}
	if e.Signature != nil {
		return e.verdict(s.signed(e))
	}
	if e.Certificate != nil && len(s.names) > 0 {
		if name, ok := s.certified(e.Certificate); ok {
			return name, Known
		}
	}
	addr := e.Address.Unmap().WithZone("")
	for i := range s.sources {
		if s.sources[i].prefix.Contains(addr) {
			return s.sources[i].tenant, Known
		}
	}
	return "", Anonymous
}

// verdict of a signature.
func (e *Evidence) verdict(name string, err error) (string, Verdict) {
	switch {
	case err == nil:
		return name, Known
	case errors.Is(err, errFull):
		e.Why, e.Digest = err, nil
		return "", Busy
	}
	e.Why, e.Digest = err, nil
	return "", Wrong
}

func (s *Set) authorized(e *Evidence) (string, Verdict) {
	lines := e.Authorization
	if len(lines) != 1 {
		return "", Wrong
	}
	scheme, value, _ := strings.Cut(strings.TrimLeft(lines[0], " "), " ")
	value = strings.Trim(value, " ")
	switch {
	case strings.EqualFold(scheme, "basic"):
		return s.basic(value)
	case strings.EqualFold(scheme, schemeHMAC) && len(s.macs) > 0:
		return e.verdict(s.maced(e, value))
	case strings.EqualFold(scheme, "bearer"):
		if value == "" {
			break
		}
		k := s.hash(value)
		if name, ok := s.tokens[k]; ok {
			return name, Known
		}
		switch name, err := s.token(value, k, time.Now()); err {
		case nil:
			return name, Known
		case errNoKeys:
			e.Why = err
			return "", Unproven
		}
	}
	return "", Wrong
}

// basic compares hashes, so that an unknown user costs what a wrong password does, and neither says how near it was.
func (s *Set) basic(value string) (string, Verdict) {
	decoded, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return "", Wrong
	}
	user, password, ok := strings.Cut(string(decoded), ":")
	if !ok {
		return "", Wrong
	}
	l, known := s.users[user]
	got := s.hash(password)
	if subtle.ConstantTimeCompare(got[:], l.password[:]) == 1 && known {
		return l.tenant, Known
	}
	return "", Wrong
}

// certified looks for a tenant's name in a certificate: among its alternative names, or, where it has none, its common name.
func (s *Set) certified(c *x509.Certificate) (string, bool) {
	names := slices.Concat(c.DNSNames, c.EmailAddresses)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	if len(names) == 0 && len(c.IPAddresses) == 0 {
		names = []string{c.Subject.CommonName}
	}
	for _, n := range names {
		if name, ok := s.names[strings.ToLower(n)]; ok {
			return name, true
		}
	}
	return "", false
}
