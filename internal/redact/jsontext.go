package redact

import (
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"

	"httpowerd/internal/swar"
)

// stringEnd is the quote that ends the string that begins at i, or the end of s.
func stringEnd(s string, i int) (end int, escaped bool) {
	for end = i + 1; end < len(s); {
		if end+8 <= len(s) {
			x := swar.Word(s[end:])
			found := swar.Is(x, '"') | swar.Is(x, '\\')
			if end += bits.TrailingZeros64(found) / 8; found == 0 {
				continue
			}
		}
		switch s[end] {
		case '"':
			return end, escaped
		case '\\':
			escaped = true
			end++
		}
		end++
	}
	return len(s), escaped
}

// appendUnquoted appends the text of what stands between the quotes of a JSON string.
func appendUnquoted(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			dst = append(dst, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'u':
			u, ok := fourHex(s, i+1)
			if !ok {
				dst = append(dst, '\\', 'u')
				continue
			}
			i += 4
			if low, ok := fourHex(s, i+3); utf16.IsSurrogate(u) && ok && s[i+1] == '\\' && s[i+2] == 'u' {
				if pair := utf16.DecodeRune(u, low); pair != utf8.RuneError {
					u = pair
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, u)
		default:
			dst = append(dst, s[i])
		}
	}
	return dst
}

func fourHex(s string, i int) (rune, bool) {
	if i+4 > len(s) {
		return 0, false
	}
	var u rune
	for _, c := range []byte(s[i : i+4]) {
		if !isHex(c) {
			return 0, false
		}
		u = u<<4 | rune(unhex(c))
	}
	return u, true
}

// appendQuoted appends s as it stands between the quotes of a JSON string.
func appendQuoted(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
