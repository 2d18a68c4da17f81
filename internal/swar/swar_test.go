package swar

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"
)

func TestWords(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		b := make([]byte, 8+rnd.IntN(3))
		for i := range b {
			b[i] = byte(rnd.IntN(256)) >> rnd.IntN(8)
		}
		w := Word(b)
		if w != binary.LittleEndian.Uint64(b) || w != Word(string(b)) || Half(b) != w&0xffffffff || Half(string(b)) != Half(b) {
			t.Fatalf("%x: word %x, half %x", b, w, Half(b))
		}
		n, c := byte(1+rnd.IntN(0x7f)), b[rnd.IntN(8)]
		if rnd.IntN(2) > 0 {
			c++
		}
		for what, found := range map[string]struct {
			marks uint64
			holds func(byte) bool
		}{
			"below": {Below(w, n), func(x byte) bool { return x < n }},
			"is":    {Is(w, c), func(x byte) bool { return x == c }},
		} {
			first := 8
			for i := 7; i >= 0; i-- {
				if found.holds(b[i]) {
					first = i
				}
				if found.holds(b[i]) && found.marks>>(8*i+7)&1 == 0 {
					t.Fatalf("%s, n %x, c %x: byte %d of %x has no mark in %x", what, n, c, i, b[:8], found.marks)
				}
			}
			if got := bits.TrailingZeros64(found.marks) / 8; got != first {
				t.Fatalf("%s, n %x, c %x: the first in %x is %d, marked %d", what, n, c, b[:8], first, got)
			}
		}
	}
}
