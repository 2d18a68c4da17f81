package audit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestPlainWord: eight bytes at once are judged as each of them is.
func TestPlainWord(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	word := func(b [8]byte) (w uint64) {
		for i, c := range b {
			w |= uint64(c) << (8 * i)
		}
		return w
	}
	check := func(b [8]byte) {
		all := true
		for _, c := range b {
			all = all && plain[c]
		}
		if got := plainWord(word(b)); got != all {
			t.Errorf("%q: %v; want %v", b[:], got, all)
		}
	}
	for range 1000 {
		var b [8]byte
		for i := range b {
			b[i] = byte(' ' + random.IntN(95))
		}
		for at := range b {
			had := b[at]
			for c := range 256 {
				b[at] = byte(c)
				check(b)
			}
			b[at] = had
		}
	}
}

// TestClock: a remembered second changes nothing of what is written.
func TestClock(t *testing.T) {
	var c clock
	at := time.Date(2026, 12, 31, 23, 59, 58, 999_999_998, time.FixedZone("", 3600))
	for range 5 {
		for _, d := range []time.Duration{0, 1, 1, time.Second, -time.Second, time.Hour, 40 * 365 * 24 * time.Hour} {
			at = at.Add(d)
			if got, want := string(c.append([]byte("x"), at)), string(appendTime([]byte("x"), at)); got != want {
				t.Errorf("%s; want %s", got, want)
			}
		}
	}
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Date(12026, 1, 2, 3, 4, 5, 6, time.UTC)} {
		if got, want := string(c.append(nil, at)), string(appendTime(nil, at)); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}
