package intercept

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// The files of a CA directory. keyFile holds the key and the certificate and is what counts; certFile is the public copy for people and tools.
const (
	keyFile  = "ca.key"
	certFile = "ca.pem"
)

const maxFile = 1 << 20 // bytes; a PEM file beyond it is something else

// loadPair loads a CA that somebody else made.
func loadPair(cert, key string) (*material, error) {
	certData, err := readFile(cert)
	if err != nil {
		return nil, fmt.Errorf("ca.cert: %w", err)
	}
	keyData, err := readFile(key)
	if err != nil {
		return nil, fmt.Errorf("ca.key: %w", err)
	}
	m, err := parseMaterial(certData, keyData)
	if err != nil {
		return nil, fmt.Errorf("the CA of %s: %w", cert, err)
	}
	m.warnAccess(key)
	return m, nil
}

// loadDir loads the CA of dir; fs.ErrNotExist means that none was ever made there.
func loadDir(dir string) (*material, error) {
	keyPath, certPath := filepath.Join(dir, keyFile), filepath.Join(dir, certFile)
	keyData, err := readFile(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat(certPath); statErr != nil {
			return nil, err
		}
		if keyData, err = readFile(keyPath); errors.Is(err, fs.ErrNotExist) { // again: whoever makes a CA just now writes the key first
			// Making a new CA silently would leave everybody who trusts the old certificate with failing handshakes. %v: not "absent".
			return nil, fmt.Errorf("%s is there but its key %s is gone: restore it, or make a new CA (httpowerd ca rotate)", certPath, keyPath)
		}
	}
	if err != nil {
		return nil, err
	}
	certData, err := readFile(certPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	source := keyData
	if !bytes.Contains(keyData, []byte("BEGIN CERTIFICATE")) {
		source = certData // a pair that was put there by hand
	}
	m, err := parseMaterial(source, keyData)
	if err != nil {
		return nil, fmt.Errorf("the CA of %s: %w", dir, err)
	}
	m.warnAccess(keyPath)
	if public := m.certPEM(); !bytes.Equal(public, certData) && len(source) == len(keyData) {
		// A crash between the two renames, or a removed copy: the key file is right.
		if err := writeFile(certPath, public, 0o644); err != nil {
			m.warnings = append(m.warnings, fmt.Sprintf("%s could not be renewed from %s", certPath, keyPath))
		}
	}
	return m, nil
}

func parseMaterial(certData, keyData []byte) (*material, error) {
	chain, err := parseCerts(certData)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate in PEM form")
	}
	key, err := parseKey(keyData)
	if err != nil {
		return nil, err
	}
	m := &material{chain: chain, key: key}
	return m, m.check(time.Now())
}

// warnAccess notes a key that others on this machine can read, or a directory where they could swap it.
func (m *material) warnAccess(key string) {
	if runtime.GOOS == "windows" {
		return // its mode bits say nothing about access
	}
	if info, err := os.Stat(key); err == nil && info.Mode().Perm()&0o077 != 0 {
		m.warnings = append(m.warnings, fmt.Sprintf("%s can be read or written by others (mode %04o): chmod 600", key, info.Mode().Perm()))
	}
	if info, err := os.Stat(filepath.Dir(key)); err == nil && info.Mode().Perm()&0o022 != 0 && info.Mode()&os.ModeSticky == 0 {
		m.warnings = append(m.warnings, fmt.Sprintf("%s can be written by others (mode %04o), who could put a CA of their own there", filepath.Dir(key), info.Mode().Perm()))
	}
}

// createFiles makes the CA of dir, or loads the one that another process made meanwhile.
func createFiles(dir string) (*material, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	m, err := newMaterial()
	if err != nil {
		return nil, err
	}
	data, err := m.keyPEM()
	if err != nil {
		return nil, err
	}
	switch err := writeNew(filepath.Join(dir, keyFile), data); {
	case errors.Is(err, fs.ErrExist):
		return loadSoon(dir)
	case err != nil:
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, certFile), m.certPEM(), 0o644); err != nil {
		return nil, err
	}
	return m, nil
}

// loadSoon loads what another process is about to finish: only where the file system has no hard links can it be seen half written.
func loadSoon(dir string) (m *material, err error) {
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		if m, err = loadDir(dir); err == nil {
			return m, nil
		}
		time.Sleep(wait)
	}
	return nil, err
}

// replaceFiles makes a new CA in the place of dir's, which may be missing or broken, and keeps the old certificate beside it.
func replaceFiles(dir string) (*material, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	m, err := newMaterial()
	if err != nil {
		return nil, err
	}
	data, err := m.keyPEM()
	if err != nil {
		return nil, err
	}
	if old, err := readFile(filepath.Join(dir, certFile)); err == nil {
		if err := keepOld(dir, old); err != nil {
			return nil, err
		}
	}
	if err := writeFile(filepath.Join(dir, keyFile), data, 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, certFile), m.certPEM(), 0o644); err != nil {
		return nil, err
	}
	return m, nil
}

func keepOld(dir string, certPEM []byte) error {
	certs, err := parseCerts(certPEM)
	if err != nil || len(certs) == 0 {
		return nil // nothing worth keeping
	}
	sum := sha256.Sum256(certs[0].Raw)
	name := fmt.Sprintf("ca-%x.old.pem", sum[:4])
	return writeFile(filepath.Join(dir, name), (&material{chain: certs}).certPEM(), 0o644)
}

// writeNew puts a complete file of mode 0600 where there is none: fs.ErrExist if somebody else was first.
func writeNew(path string, data []byte) error {
	temp, err := writeTemp(path, data, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp) }()
	err = os.Link(temp, path) // unlike a rename, fails where the name is taken
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = writeExclusive(path, data) // no hard links here
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeExclusive(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path)
	}
	return err
}

// writeFile replaces path by a complete file or leaves it as it was.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	temp, err := writeTemp(path, data, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeTemp(path string, data []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// syncDir makes a rename outlive a power cut where the file system can do that; it is not an error where it cannot.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	_ = d.Sync()
	return d.Close()
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is not a PEM file", path)
	}
	return os.ReadFile(path)
}
