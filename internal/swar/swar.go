// Package swar looks at eight bytes of a text at once, within one register. What it finds in a word is told by the top bit of each byte.
package swar

const (
	// Ones is a 1 in each byte, Tops the top bit of each.
	Ones = 0x0101010101010101
	Tops = 0x8080808080808080
)

// Word is the first eight bytes of s, the first one lowest.
func Word[T ~string | ~[]byte](s T) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// Half is the first four bytes of s.
func Half[T ~string | ~[]byte](s T) uint64 {
	_ = s[3]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}

// Below marks the bytes of w that are below n, which is at most 0x7f. The lowest mark is right, and so is none; one above it may be a byte that is n.
func Below(w uint64, n byte) uint64 { return (w - uint64(n)*Ones) &^ w & Tops }

// Is marks the bytes of w that are c, with marks as those of Below: one above the lowest may be a byte that differs from c in its last bit alone.
func Is(w uint64, c byte) uint64 { return Below(w^uint64(c)*Ones, 1) }
