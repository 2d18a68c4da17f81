package audit

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"httpowerd/internal/swar"
)

// TestPlainWord: eight bytes at once are judged as each of them is.
func TestPlainWord(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	check := func(b [8]byte) {
		all := true
		for _, c := range b {
			all = all && plain[c]
		}
		if got := plainWord(swar.Word(b[:])); got != all {
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

// TestAppendString: a text is escaped as encoding/json would read it, wherever in it a character stands.
func TestAppendString(t *testing.T) {
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				b := []byte(strings.Repeat("x", n))
				b[at] = byte(c)
				line := appendString([]byte("> "), b, 100)
				var got string
				if err := json.Unmarshal(line[2:], &got); err != nil {
					t.Fatalf("%q: %s: %v", b, line, err)
				}
				if want := strings.ToValidUTF8(string(b), "\uFFFD"); got != want {
					t.Fatalf("%q: %q", b, got)
				}
				if again := appendString([]byte("> "), string(b), 100); string(again) != string(line) {
					t.Fatalf("%s; as a string %s", line, again)
				}
			}
		}
	}
}

// TestShortNumbers: they are written from a table, as strconv writes them.
func TestShortNumbers(t *testing.T) {
	for v := int64(-1100); v < 1100; v++ {
		if got := string(appendNumber(nil, v)); got != strconv.FormatInt(v, 10) {
			t.Errorf("%d: %s", v, got)
		}
		for _, us := range []int64{v, 1000 * v, 1000*v + 100*(v%10), 7_000_000 + v} {
			want := strconv.FormatFloat(float64(us)/1000, 'f', -1, 64)
			if got := string(appendMillis(nil, time.Duration(us)*time.Microsecond)); got != want {
				t.Errorf("%d us: %s; want %s", us, got, want)
			}
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
