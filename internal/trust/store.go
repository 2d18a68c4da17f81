package trust

import (
	"bytes"
	"crypto/sha1" // what the format prescribes: a checksum against accidents, not a signature
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"
	"unicode/utf16"
)

// The constants of Java's own key store format (JKS), version 2.
const (
	storeMagic   = 0xFEEDFEED
	storeVersion = 2
	storeTrusted = 2 // an entry that is a certificate
	storeSalt    = "Mighty Aphrodite"
)

// JavaStore is the certificates of a PEM as a Java trust store (JKS), which every Java since 1.2 opens, those with PKCS12 as their default type
// too. The password only guards against accidental damage. Certificates that cannot be parsed are left out, because one of them would make Java
// refuse the whole store; none at all is an error, as is an empty password.
func JavaStore(bundle []byte, password string) ([]byte, error) {
	if password == "" {
		return nil, errors.New("a Java trust store needs a password")
	}
	var entries bytes.Buffer
	count := uint32(0)
	seen := map[string]bool{}
	for _, der := range certificates(bundle) {
		sum := sha256.Sum256(der)
		alias := "ca-" + hex.EncodeToString(sum[:12])
		if _, err := x509.ParseCertificate(der); err != nil || seen[alias] {
			continue
		}
		seen[alias] = true
		count++
		writeEntry(&entries, alias, der)
	}
	if count == 0 {
		return nil, errors.New("there is no certificate to put into the Java trust store")
	}
	out := binary.BigEndian.AppendUint32(nil, storeMagic)
	out = binary.BigEndian.AppendUint32(out, storeVersion)
	out = binary.BigEndian.AppendUint32(out, count)
	out = append(out, entries.Bytes()...)
	return append(out, storeDigest(out, password)...), nil
}

func writeEntry(b *bytes.Buffer, alias string, der []byte) {
	b.Write(binary.BigEndian.AppendUint32(nil, storeTrusted))
	writeText(b, alias)
	b.Write(binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli())))
	writeText(b, "X.509")
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(der))))
	b.Write(der)
}

// writeText is DataOutput.writeUTF of a short ASCII text.
func writeText(b *bytes.Buffer, s string) {
	b.Write(binary.BigEndian.AppendUint16(nil, uint16(len(s))))
	b.WriteString(s)
}

func storeDigest(data []byte, password string) []byte {
	h := sha1.New()
	for _, unit := range utf16.Encode([]rune(password)) {
		h.Write([]byte{byte(unit >> 8), byte(unit)})
	}
	h.Write([]byte(storeSalt))
	h.Write(data)
	return h.Sum(nil)
}
