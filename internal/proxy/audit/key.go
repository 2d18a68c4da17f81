package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// publicSuffix names the public key's file beside the private one's.
const publicSuffix = ".pub"

const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
)

// signingKey reads the key that signs checkpoints (PKCS#8, PEM), or makes it where there is none. Its public half is put beside it.
func signingKey(path string) (ed25519.PrivateKey, error) {
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(path); err != nil {
			return nil, err
		}
		key, err = readKey(path) // another process may have been faster
	}
	if err != nil {
		return nil, err
	}
	public, err := publicPEM(key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	if old, err := os.ReadFile(path + publicSuffix); err == nil && bytes.Equal(old, public) {
		return key, nil
	}
	return key, install(path+publicSuffix, public, 0o644, os.Rename)
}

func readKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (%s), who could sign as this daemon: chmod 600", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != privateBlock {
		return nil, fmt.Errorf("%s holds no private key in PEM (PKCS#8)", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s holds no Ed25519 key: make one with `openssl genpkey -algorithm ed25519`, or remove the file and one is made", path)
	}
	return key, nil
}

// makeKey makes a key, for the daemon's user alone. A file that is there already stays.
func makeKey(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	err = install(path, pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), 0o600, os.Link)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// install puts a whole file at path: by os.Rename in the place of another, by os.Link only where there is none.
func install(path string, data []byte, mode fs.FileMode, by func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := by(f.Name(), path); err != nil {
		return err
	}
	syncDir(filepath.Dir(path))
	return nil
}

func publicPEM(key ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

// PublicKey returns the public half, in PEM, of the key that signs checkpoints, and its fingerprint. With a file that is not there yet the key is made.
func PublicKey(path string) (text []byte, mark string, err error) {
	key, err := signingKey(path)
	if err != nil {
		return nil, "", err
	}
	public := key.Public().(ed25519.PublicKey)
	text, err = publicPEM(public)
	return text, fingerprint(public), err
}

// ReadPublicKey reads a public key in PEM.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != publicBlock {
		return nil, fmt.Errorf("%s holds no public key in PEM", path)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := parsed.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s holds no Ed25519 key", path)
	}
	return key, nil
}

// fingerprint is the SHA-256 of a public key: what people compare.
func fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return "SHA256:" + hex.EncodeToString(sum[:])
}
