package redact

import (
	"strings"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

// AppendText appends free text without its secrets. The result is valid UTF-8.
func (r *Redactor) AppendText(dst []byte, s string, c *Counts) []byte {
	p := r.Begin(c)
	defer p.Done()
	return p.AppendText(dst, s)
}

// toValid is s with what is not UTF-8 replaced.
func toValid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Text is s without its secrets; s itself where there are none.
func (r *Redactor) Text(s string) string {
	m := borrow()
	text, _ := r.text(m, s, nil)
	m.release()
	return text
}

func (r *Redactor) text(m *memory, s string, c *Counts) (string, bool) {
	return r.validText(m, toValid(s), c)
}

// validText is text for what is UTF-8.
func (r *Redactor) validText(m *memory, s string, c *Counts) (string, bool) {
	if r.holdsNothing(s, options{}) {
		return s, false
	}
	sc := m.scanner(r, options{})
	hits := sc.scan(s)
	found := len(hits) > 0
	if found {
		out := sc.write(m.buffer(), s, hits, c)
		s = string(out)
		m.giveBuffer(out)
	}
	m.giveScanner(sc)
	return s, found
}

// view is b as a string without a copy. It must not outlive the call in whose hands b is.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// SafeText makes a text from outside fit for one line of a log or answer: control characters, characters that reorder or hide text and invalid UTF-8
// go, line breaks and tabs become spaces, and what passes limit bytes is cut off. It hides no secrets.
func SafeText(s string, limit int) string {
	if limit <= 0 {
		return ""
	}
	plain := len(s) <= limit
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	b := make([]byte, 0, min(len(s), limit))
	for i := 0; i < len(s); {
		u, size := utf8.DecodeRuneInString(s[i:])
		invalid := u == utf8.RuneError && size == 1
		i += size
		switch {
		case invalid:
			continue
		case u == '\n' || u == '\r' || u == '\t' || u == '\u2028' || u == '\u2029':
			u, size = ' ', 1
		case unicode.IsControl(u) || unicode.Is(unicode.Cf, u) || unicode.Is(unicode.Co, u):
			continue
		}
		if len(b)+size > limit {
			break
		}
		b = utf8.AppendRune(b, u)
	}
	return string(b)
}
