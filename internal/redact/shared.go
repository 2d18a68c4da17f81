package redact

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// KeyFile is the name of the file, in the state directory, that holds the key of fingerprints.
const KeyFile = "redact.key"

// Shared is what all Redactors of a process have in common. Its zero value adds nothing.
type Shared struct {
	Key      *Key
	Literals *Literals
}

// On is r with what is shared.
func (s Shared) On(r *Redactor) *Redactor {
	other := *r
	other.key, other.literals = s.Key, s.Literals
	return &other
}

// Learn hides a secret from now on wherever it occurs, if it is one that does not stand in a text by chance: eight bytes or more, and no plain word.
func (s Shared) Learn(secrets ...Secret) {
	if s.Literals == nil {
		return
	}
	s.Literals.AddAll(slices.DeleteFunc(slices.Clone(secrets), func(secret Secret) bool { return !distinct(secret.Reveal()) })...)
}

// distinct tells whether a value is too long or too odd to be a word.
func distinct(s string) bool {
	if len(s) < 8 {
		return false
	}
	lower := 0
	for i := range len(s) {
		if charClass[s[i]]&charLower != 0 {
			lower++
		}
	}
	return len(s) >= 16 || lower < len(s)
}

// LoadKey reads the key of fingerprints from a file, or makes it there (mode 0600) where there is none.
func LoadKey(path string) (*Key, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, err
	}
	return parseKey(path, text)
}

func parseKey(path string, text []byte) (*Key, error) {
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) != KeySize {
		return nil, fmt.Errorf("%s does not hold a key of %d bytes in hexadecimal: delete it to have a new one made; fingerprints in older records match no more then", path, KeySize)
	}
	return NewKey(secret), nil
}

// makeKey writes a new key beside its place and links it there, so that two processes that start at once end up with the same.
func makeKey(path string) (*Key, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(hex.EncodeToString(randomBytes(KeySize)) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseKey(path, text)
}
