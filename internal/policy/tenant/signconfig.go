package tenant

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// Signature is a signature over each request: by RFC 9421, or a plain MAC in Proxy-Authorization.
type Signature struct {
	Plain      bool // the method hmac
	KeyID      string
	Algorithm  string
	Secret     redact.Secret // of hmac-sha256
	PublicKey  string        // the PEM file of the others
	Components []string
	Window     time.Duration // how old it may be, and for how long its nonce is remembered
}

// Bounds of signatures' settings.
const (
	leastKey  = 16 // bytes of a shared secret
	maxWindow = time.Hour
)

func (m *Method) signature(body any, plain bool) error {
	kind, keys := "signature", []string{"keyid", "algorithm", "secret", "public_key", "components", "window"}
	if plain {
		kind, keys = "hmac", []string{"keyid", "secret", "window"}
	}
	object, ok := body.(map[string]any)
	if !ok {
		return fmt.Errorf("%s must be a mapping with %s", kind, strings.Join(keys, ", "))
	}
	s := &Signature{Plain: plain, Algorithm: hmacSHA256, Components: []string{"@method", "@authority", "@target-uri"}, Window: time.Minute}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if !slices.Contains(keys, key) {
			return fmt.Errorf("%s has no key %q: write %s", kind, key, strings.Join(keys, ", "))
		}
		if err := s.set(key, object[key]); err != nil {
			return fmt.Errorf("%s.%s %w", kind, key, err)
		}
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("%s%w", kind, err)
	}
	m.Signature = s
	return nil
}

func (s *Signature) set(key string, v any) error {
	if key == "components" {
		items, ok := v.([]any)
		if !ok {
			return errors.New("must be a list such as [\"@method\", \"@authority\", \"@target-uri\"]")
		}
		s.Components = nil
		for _, item := range items {
			c, _ := item.(string)
			if c == "" || c[0] == '@' && !slices.Contains(derived, c) || c != strings.ToLower(c) || strings.ContainsFunc(c, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' }) {
				return fmt.Errorf("may hold %s, and names of fields in lower case", strings.Join(derived, ", "))
			}
			s.Components = append(s.Components, c)
		}
		return nil
	}
	text, ok := v.(string)
	if !ok {
		return errors.New("must be a text: put it in quotes")
	}
	switch key {
	case "keyid":
		s.KeyID = text
	case "algorithm":
		s.Algorithm = text
	case "secret":
		s.Secret = redact.NewSecret(text)
	case "public_key":
		s.PublicKey = text
	case "window":
		d, err := setting.ParseDuration(text)
		if err != nil || d < time.Second || d > maxWindow {
			return fmt.Errorf("must be a duration from 1s to %s", setting.Duration(maxWindow))
		}
		s.Window = d
	}
	return nil
}

func (s *Signature) check() error {
	switch s.Algorithm {
	case hmacSHA256:
		if len(s.Secret.Reveal()) < leastKey {
			return fmt.Errorf(".secret is missing or shorter than %d characters: write one that nobody can guess, from a ${VARIABLE}", leastKey)
		}
		if s.PublicKey != "" {
			return errors.New(".public_key has no effect: the key of " + hmacSHA256 + " is a secret")
		}
	case ed25519Name, ecdsaP256, rsaPSSSHA512:
		if s.PublicKey == "" {
			return errors.New(".public_key is missing: write the PEM file of the public key")
		}
		if !s.Secret.IsZero() {
			return errors.New(".secret has no effect: the key of " + s.Algorithm + " is a public_key")
		}
	default:
		return fmt.Errorf(".algorithm must be one of %s", strings.Join([]string{hmacSHA256, ed25519Name, ecdsaP256, rsaPSSSHA512}, ", "))
	}
	if strings.ContainsFunc(s.KeyID, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' || r == ',' }) || len(s.KeyID) > 256 {
		return errors.New(".keyid must be of visible ASCII characters but quotes, commas and backslashes, at most 256")
	}
	for _, c := range derived[:2] {
		if !slices.Contains(s.Components, c) {
			return fmt.Errorf(".components must hold %s: a signature without it opens other requests too", c)
		}
	}
	return nil
}

// keyID is what a signature of the tenant says of its key.
func (s *Signature) keyID(tenant string) string {
	if s.KeyID != "" {
		return s.KeyID
	}
	return tenant
}

// KeyFile is the file that the method reads a public key from, and the key's algorithm; "": none.
func (m *Method) KeyFile() (path, algorithm string) {
	if m.Signature == nil {
		return "", ""
	}
	return m.Signature.PublicKey, m.Signature.Algorithm
}
