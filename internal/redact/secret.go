package redact

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Secret is a value that cannot be printed: fmt, JSON, YAML, XML, gob and slog all write [redacted] in its place. Its zero value is no secret.
//
// The value sits behind a pointer because fmt calls no methods on unexported fields: a struct that holds a Secret shows an address, not the text.
type Secret struct{ text *string }

// NewSecret wraps s. An empty s makes the zero Secret.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{&s}
}

// IsZero tells whether there is no secret.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal compares in a time that depends on lengths alone.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

// Reveal is the secret itself. It is the only way out: searching for its callers finds every place where secrets are used.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String is the placeholder.
func (Secret) String() string { return Placeholder }

// GoString is the placeholder.
func (Secret) GoString() string { return Placeholder }

// Format writes the placeholder, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Placeholder) }

// MarshalText is the placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// MarshalJSON is the placeholder.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Placeholder + `"`), nil }

// MarshalYAML is the placeholder.
func (Secret) MarshalYAML() (any, error) { return Placeholder, nil }

// MarshalBinary is the placeholder.
func (Secret) MarshalBinary() ([]byte, error) { return []byte(Placeholder), nil }

// GobEncode is the placeholder.
func (Secret) GobEncode() ([]byte, error) { return []byte(Placeholder), nil }

// LogValue is the placeholder.
func (Secret) LogValue() slog.Value { return slog.StringValue(Placeholder) }
