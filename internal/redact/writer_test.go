package redact

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// through writes text in pieces whose sizes next tells.
func through(t testing.TB, text string, next func() int) string {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, Default(), nil)
	for rest := text; rest != ""; {
		n := min(max(next(), 1), len(rest))
		if k, err := w.Write([]byte(rest[:n])); k != n || err != nil {
			t.Fatal(k, err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func mixedText(m maker, n int) (text string, secrets []string) {
	var b strings.Builder
	kinds := slices.Sorted(maps.Keys(tokens))
	for b.Len() < n {
		switch m.IntN(6) {
		case 0:
			s := tokens[kinds[m.IntN(len(kinds))]](m)
			secrets = append(secrets, strings.Split(s, "\n")[0])
			if strings.Contains(s, "\n") {
				secrets[len(secrets)-1] = strings.Split(s, "\n")[1]
			}
			b.WriteString(s)
		case 1:
			s := m.card(brands[m.IntN(len(brands))])
			secrets = append(secrets, s)
			b.WriteString(s)
		case 2:
			s := m.from(lowerSet, 20)
			secrets = append(secrets, s)
			b.WriteString("password=" + s)
		case 3:
			b.WriteString(m.from(alnumSet+"äöü", m.IntN(300)))
		default:
			b.WriteString("an ordinary line with words")
		}
		b.WriteString(m.pick(" ", "\n", ", ", "\t"))
	}
	return b.String(), secrets
}

// TestChunks: the same output for every way to cut the input, and the same as for the whole.
func TestChunks(t *testing.T) {
	m := newMaker(7)
	for range 15 {
		text, secrets := mixedText(m, 1+m.IntN(120_000))
		whole := through(t, text, func() int { return len(text) })
		for name, next := range map[string]func() int{
			"bytes": func() int { return 1 }, "random": func() int { return m.IntN(5000) }, "windows": func() int { return windowSize },
			"almost windows": func() int { return windowSize - lookAhead - 1 },
		} {
			if got := through(t, text, next); got != whole {
				t.Fatalf("%s: another output", name)
			}
		}
		if want := Default().Text(text); whole != want {
			at := 0
			for at < min(len(want), len(whole)) && want[at] == whole[at] {
				at++
			}
			t.Errorf("differs from Text at %d: %q, want %q", at, whole[max(0, at-50):min(len(whole), at+50)], want[max(0, at-50):min(len(want), at+50)])
		}
		for _, s := range secrets {
			if strings.Contains(whole, s) {
				t.Errorf("%s shows", s)
			}
		}
	}
}

// TestLongSecrets: secrets larger than the window are hidden to their end.
func TestLongSecrets(t *testing.T) {
	m := newMaker(8)
	pad := strings.Repeat("x ", 3000)
	for _, size := range []int{100, 5000, 20_000, 100_000} {
		inside := m.from(alnumSet, size)
		for name, text := range map[string]string{
			"web token":   pad + "ey" + "J" + inside[:60] + "." + inside + "." + inside + " end",
			"token":       pad + "sk_" + "live_" + inside + " end",
			"private key": pad + "-----BEGIN PRIVATE KEY-----\n" + inside + "\n-----END PRIVATE KEY----- end",
		} {
			out := through(t, text, func() int { return 777 })
			if !strings.HasSuffix(plain(out), Placeholder+" end") || strings.Contains(out, inside[:40]) || strings.Contains(out, inside[size-40:]) {
				t.Errorf("%s of %d: %d bytes are left", name, size, len(out)-len(pad))
			}
		}
		open := pad + "-----BEGIN PRIVATE KEY-----\n" + inside
		if out := through(t, open, func() int { return 777 }); plain(out) != pad+Placeholder {
			t.Errorf("a key without end: %d bytes are left", len(out)-len(pad))
		}
	}
}

// TestFlush: lines go on as soon as they are whole, and what is secret in them does not, a key of many lines included.
func TestFlush(t *testing.T) {
	m := newMaker(9)
	inside := m.from(alnumSet, 64)
	lines := []string{"begin password=" + inside[:20], "-----BEGIN PRIVATE KEY-----", inside, inside, "-----END PRIVATE KEY-----", "card 4111 1111 1111 1111", "middle",
		"Authorization: Bearer " + inside, `{"token":"` + inside + `"}`, "-----BEGIN RSA PRIVATE KEY-----", inside}
	text := strings.Join(lines, "\n")
	for size := 1; size < 100; size++ {
		var out bytes.Buffer
		w := NewWriter(&out, Default(), nil)
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if _, err := w.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			if rest = rest[n:]; strings.Contains(text[:len(text)-len(rest)], "middle\n") && !strings.Contains(out.String(), "middle\n") {
				t.Fatalf("pieces of %d: a line waits for the next: %s", size, out.String())
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := out.String()
		for i := range len(inside) - 12 {
			if strings.Contains(got, inside[i:i+12]) {
				t.Fatalf("pieces of %d: a secret shows: %s", size, got)
			}
		}
		for _, want := range []string{"begin password=<", "card 411111******1111\n", "middle\n", "Authorization: Bearer <"} {
			if !strings.Contains(got, want) {
				t.Errorf("pieces of %d: %q is missing in: %s", size, want, got)
			}
		}
	}
}

func TestWriterFails(t *testing.T) {
	broken := errors.New("broken")
	w := NewWriter(failing{broken}, Default(), nil)
	_, err := w.Write(make([]byte, 3*windowSize))
	if !errors.Is(err, broken) || !errors.Is(w.Close(), broken) {
		t.Errorf("%v", err)
	}
	w = NewWriter(iotest.TruncateWriter(&bytes.Buffer{}, 1), Default(), nil)
	for range 2 {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("Write after Close")
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
