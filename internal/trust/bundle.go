package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
)

// ErrNoRoots is what Bundle fails with on a machine without root certificates: a bundle of our CA alone would break every host that is not
// intercepted, for every runtime whose variable replaces its roots.
var ErrNoRoots = errors.New("no root certificates on this machine: install its ca-certificates package, or name a PEM file in SSL_CERT_FILE")

// rootFiles are where systems keep all their roots in one PEM; the first that has any is taken.
var rootFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Alpine, Arch, Gentoo
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL, Amazon Linux
	"/etc/pki/tls/certs/ca-bundle.crt",                  // older Fedora and RHEL
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/var/lib/ca-certificates/ca-bundle.pem",            // SUSE
	"/etc/ssl/cert.pem",                                 // macOS, Alpine, FreeBSD, OpenBSD
	"/usr/local/share/certs/ca-root-nss.crt",            // FreeBSD
	"/opt/homebrew/etc/ca-certificates/cert.pem",        // Homebrew
	"/etc/ssl/certs/ca-bundle.crt",                      // NixOS
}

// rootDirs are where they keep one file for each, where there is no such PEM.
var rootDirs = []string{"/etc/ssl/certs", "/etc/pki/tls/certs", "/system/etc/security/cacerts"}

// ownPart is the line of a bundle after which our CA comes: SSL_CERT_FILE often names an earlier bundle, whose CA may have been rotated away.
const ownPart = "# httpowerd interception CA\n"

// Bundle is the system's root certificates and those of ca in one PEM, each once. Where SSL_CERT_FILE names a file with certificates, those are
// the roots, as they are for the programs that read it; the CA of an earlier bundle is not taken over. Nothing but certificates gets in: a key in
// either source stays out.
func Bundle(ca []byte) ([]byte, error) {
	files := rootFiles
	if own := os.Getenv("SSL_CERT_FILE"); own != "" {
		files = append([]string{own}, rootFiles...)
	}
	return bundle(ca, files, rootDirs)
}

func bundle(ca []byte, files, dirs []string) ([]byte, error) {
	own := certificates(ca)
	if len(own) == 0 {
		return nil, errors.New("there is no certificate in the CA's PEM")
	}
	roots := systemRoots(files, dirs)
	if len(roots) == 0 {
		return nil, ErrNoRoots
	}
	var out bytes.Buffer
	seen := map[[sha256.Size]byte]bool{}
	add := func(certs [][]byte) {
		for _, der := range certs {
			if sum := sha256.Sum256(der); !seen[sum] {
				seen[sum] = true
				out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
			}
		}
	}
	add(roots)
	out.WriteString(ownPart)
	add(own)
	return out.Bytes(), nil
}

func systemRoots(files, dirs []string) [][]byte {
	for _, path := range files {
		if data, err := os.ReadFile(path); err == nil {
			data, _, _ = bytes.Cut(data, []byte(ownPart))
			if roots := certificates(data); len(roots) > 0 {
				return roots
			}
		}
	}
	for _, dir := range dirs {
		var roots [][]byte
		entries, _ := os.ReadDir(dir) // an unreadable directory has none for us
		for _, e := range entries {
			if data, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
				roots = append(roots, certificates(data)...)
			}
		}
		if len(roots) > 0 {
			return roots
		}
	}
	return nil
}

// certificates are the DER forms of a PEM's certificates.
func certificates(data []byte) [][]byte {
	var out [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			out = append(out, block.Bytes)
		}
	}
	return out
}

// WriteFile puts a file that everybody may read (mode 0644) at path, whole or not at all: programs that start meanwhile read the old one. Its
// directory must be there.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
