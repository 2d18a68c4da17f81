package audit

import (
	"math"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"httpowerd/internal/swar"
)

// plain are the bytes that stand in a JSON string as they are.
var plain = func() (t [256]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// plainWord tells whether eight bytes are all plain.
func plainWord(w uint64) bool {
	// w + 1 has the top bit where DEL is; only bytes beyond it, which are not plain either, carry into the next one.
	return (w|(w+swar.Ones))&swar.Tops|swar.Below(w, ' ')|swar.Is(w, '"')|swar.Is(w, '\\') == 0
}

// allPlain tells whether all of s stands in a JSON string as it is.
func allPlain[T ~string | ~[]byte](s T) bool {
	switch n := len(s); {
	case n >= 8:
		for i := 0; i+8 < n; i += 8 {
			if !plainWord(swar.Word(s[i:])) {
				return false
			}
		}
		return plainWord(swar.Word(s[n-8:]))
	case n >= 4: // the two halves of a word share bytes
		return plainWord(swar.Half(s) | swar.Half(s[n-4:])<<32)
	}
	for i := range len(s) {
		if !plain[s[i]] {
			return false
		}
	}
	return true
}

// longestEscape is how many bytes one byte of a text can become.
const longestEscape = len(`\u0000`)

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string (RFC 8259 section 7) of at most limit bytes of s; what was cut shows as an ellipsis. Whatever could move
// a terminal's cursor, end a line or turn the reading direction is escaped, and bytes that are not UTF-8 become U+FFFD.
func appendString[T ~string | ~[]byte](b []byte, s T, limit int) []byte {
	if len(s) <= limit && allPlain(s) {
		start := len(b) + 1
		b = slices.Grow(b, len(s)+2)[:start+len(s)+1]
		b[start-1], b[len(b)-1] = '"', '"'
		copy(b[start:], s)
		return b
	}
	b = append(b, '"')
	cut := len(s) > limit
	if cut {
		for back := 0; back < utf8.UTFMax && limit > 0 && !utf8.RuneStart(s[limit]); back++ {
			limit--
		}
		s = s[:limit]
	}
	start := 0
	for i := 0; i < len(s); {
		for i+8 <= len(s) && plainWord(swar.Word(s[i:])) {
			i += 8
		}
		for i < len(s) && plain[s[i]] {
			i++
		}
		if i == len(s) {
			break
		}
		b = append(b, s[start:i]...)
		var n int
		b, n = appendEscaped(b, string(s[i:min(i+utf8.UTFMax, len(s))]))
		i += n
		start = i
	}
	b = append(b, s[start:]...)
	if cut {
		b = append(b, "…"...)
	}
	return append(b, '"')
}

// appendEscaped appends the first character of s, escaped where it has to be, and tells how many bytes it took.
func appendEscaped(b []byte, s string) ([]byte, int) {
	r, n := utf8.DecodeRuneInString(s)
	switch {
	case r == utf8.RuneError && n == 1:
		return append(b, `\ufffd`...), 1
	case r == '"' || r == '\\':
		return append(b, '\\', byte(r)), 1
	case r == '\n':
		return append(b, '\\', 'n'), 1
	case r == '\r':
		return append(b, '\\', 'r'), 1
	case r == '\t':
		return append(b, '\\', 't'), 1
	case r > 0xffff && !unicode.IsPrint(r):
		r -= 0x10000
		return appendUnit(appendUnit(b, 0xd800+r>>10), 0xdc00+r&0x3ff), n
	case !unicode.IsPrint(r):
		return appendUnit(b, r), n
	}
	return append(b, s[:n]...), n
}

func appendUnit(b []byte, u rune) []byte {
	return append(b, '\\', 'u', hexDigits[u>>12&15], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}

// appendInt appends a key (see appendField) and a number.
func appendInt(b []byte, key string, v int64) []byte {
	return appendNumber(append(b, key...), v)
}

// appendNumber appends v. Most of a record's numbers are short.
func appendNumber(b []byte, v int64) []byte {
	switch {
	case uint64(v) < 10:
		return append(b, byte('0'+v))
	case uint64(v) < 100:
		return append(b, digits[v][1:]...)
	case uint64(v) < 1000:
		return append(b, digits[v][:]...)
	}
	return strconv.AppendInt(b, v, 10)
}

// digits are the numbers of three digits.
var digits = func() (t [1000][3]byte) {
	for v := range t {
		t[v] = [3]byte{byte('0' + v/100), byte('0' + v/10%10), byte('0' + v%10)}
	}
	return t
}()

// appendMillis appends a duration in milliseconds, to the microsecond, without trailing zeros.
func appendMillis(b []byte, d time.Duration) []byte {
	if d == 0 {
		return append(b, '0')
	}
	us := int64(d.Round(time.Microsecond) / time.Microsecond)
	if us < 0 {
		b, us = append(b, '-'), -us
	}
	b = appendNumber(b, us/1000)
	frac := us % 1000
	if frac == 0 {
		return b
	}
	f := &digits[frac]
	switch {
	case f[2] != '0':
		return append(b, '.', f[0], f[1], f[2])
	case f[1] != '0':
		return append(b, '.', f[0], f[1])
	}
	return append(b, '.', f[0])
}

// clock writes times, and remembers the second that it wrote last: many records share it.
type clock struct {
	second int64
	text   [len(`"2006-01-02T15:04:05.`)]byte
}

// append appends what appendTime does.
func (c *clock) append(b []byte, t time.Time) []byte {
	if second := t.Unix(); second != c.second || c.text[0] == 0 {
		whole := appendTime(nil, t)
		if len(whole) != timeSize+2 {
			return append(b, whole...)
		}
		c.second = second
		copy(c.text[:], whole)
	}
	ns := t.Nanosecond()
	b = append(append(b, c.text[:]...), digits[ns/1e6][:]...)
	b = append(append(b, digits[ns/1e3%1e3][:]...), digits[ns%1e3][:]...)
	return append(b, 'Z', '"')
}

// appendTime appends RFC 3339 in UTC with all nine digits, so that records sort as text.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = append(b, '"')
	b = appendDigits(b, year, 4)
	b = appendDigits(append(b, '-'), int(month), 2)
	b = appendDigits(append(b, '-'), day, 2)
	b = appendDigits(append(b, 'T'), hour, 2)
	b = appendDigits(append(b, ':'), minute, 2)
	b = appendDigits(append(b, ':'), second, 2)
	b = appendDigits(append(b, '.'), t.Nanosecond(), 9)
	return append(b, 'Z', '"')
}

func appendDigits(b []byte, v, width int) []byte {
	var d [9]byte
	for i := width - 1; i >= 0; i-- {
		d[i] = byte('0' + v%10)
		v /= 10
	}
	return append(b, d[:width]...)
}

// appendFloat appends a number that JSON can carry; others become null.
func appendFloat(b []byte, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}
