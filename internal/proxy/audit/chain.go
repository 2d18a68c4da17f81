package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"
)

// A chained record ends with
//
//	,"seq":N,"prev":"HASH","hash":"HASH"}
//
// where hash is the SHA-256 of all bytes of the line before `,"hash":` and prev is the hash of the record before, 64 zeros in the first one. Because
// prev is among the hashed bytes, no record can be changed, removed or moved without breaking every hash after it.
const (
	seqKey  = `,"seq":`
	prevKey = `,"prev":"`
	hashKey = `,"hash":"`

	hexSize  = 2 * sha256.Size
	sealSize = len(hashKey) + hexSize + len(`"}`)                              // what follows the hashed bytes
	linkSize = len(seqKey) + 20 + len(prevKey) + hexSize + len(`"`) + sealSize // the longest end of a chained record
)

// link is the place in the chain after a record.
type link struct {
	seq  uint64
	hash [hexSize]byte
}

// genesis is the link before the first record.
func genesis() (l link) {
	for i := range l.hash {
		l.hash[i] = '0'
	}
	return l
}

// digest is a SHA-256 that many records use in turn, with the memory for its result.
type digest struct {
	hash.Hash
	sum [sha256.Size]byte
}

// sealBy appends the end of a chained record to line, which holds the record without its closing brace from start on, and returns the link after it.
func (l link) sealBy(d *digest, line []byte, start int) ([]byte, link) {
	next := link{seq: l.seq + 1}
	line = strconv.AppendUint(append(line, seqKey...), next.seq, 10)
	line = append(append(append(line, prevKey...), l.hash[:]...), '"')
	d.Reset()
	d.Write(line[start:])
	hex.Encode(next.hash[:], d.Sum(d.sum[:0]))
	line = append(append(line, hashKey...), next.hash[:]...)
	return append(line, '"', '}'), next
}

// ending is what the end of a chained record says.
type ending struct {
	seq        uint64
	prev, hash [hexSize]byte
}

// parseEnding reads the end of a line; tail holds its last linkSize bytes, or all of it.
func parseEnding(tail []byte) (e ending, ok bool) {
	at := len(tail) - sealSize
	if at < 0 || !bytes.HasPrefix(tail[at:], []byte(hashKey)) || !bytes.HasSuffix(tail, []byte(`"}`)) {
		return e, false
	}
	copy(e.hash[:], tail[at+len(hashKey):])
	at -= len(prevKey) + hexSize + len(`"`)
	if at < 0 || !bytes.HasPrefix(tail[at:], []byte(prevKey)) {
		return e, false
	}
	copy(e.prev[:], tail[at+len(prevKey):])
	key := bytes.LastIndex(tail[:at], []byte(seqKey))
	if key < 0 {
		return e, false
	}
	digits := tail[key+len(seqKey) : at]
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || digits[0] == '0' || digits[0] == '+' {
		return e, false
	}
	e.seq = seq
	return e, isHash(e.prev) && isHash(e.hash)
}

func isHash(h [hexSize]byte) bool {
	for _, c := range h {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// after is the link behind a line whose hash is right.
func after(line []byte) (link, bool) {
	e, ok := parseEnding(line[max(0, len(line)-linkSize):])
	if !ok {
		return link{}, false
	}
	sum := sha256.Sum256(line[:len(line)-sealSize])
	var want [hexSize]byte
	hex.Encode(want[:], sum[:])
	return link{e.seq, e.hash}, want == e.hash
}
