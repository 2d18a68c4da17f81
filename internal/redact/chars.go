package redact

// What a byte can be part of.
const (
	charDigit uint8 = 1 << iota
	charUpper
	charLower
	charHex
	charDash  // - and _
	charDot   // .
	charExtra // + / = ~
	charName  // what the name before a = or : is made of, besides letters and digits
)

const (
	charAlpha = charUpper | charLower
	charAlnum = charDigit | charUpper | charLower
)

// charClass is the classes of each byte.
var charClass = func() (t [256]uint8) {
	for c := byte('0'); c <= '9'; c++ {
		t[c] |= charDigit | charHex
	}
	for c := byte('a'); c <= 'z'; c++ {
		t[c] |= charLower
		t[c-0x20] |= charUpper
		if c <= 'f' {
			t[c] |= charHex
			t[c-0x20] |= charHex
		}
	}
	t['-'] |= charDash
	t['_'] |= charDash
	t['.'] |= charDot
	for _, c := range []byte("+/=~") {
		t[c] |= charExtra
	}
	for _, c := range []byte("_-.[]$") {
		t[c] |= charName
	}
	return t
}()

func isDigit(c byte) bool { return c-'0' <= 9 }

func isAlnum(c byte) bool { return charClass[c]&charAlnum != 0 }

func isHex(c byte) bool { return charClass[c]&charHex != 0 }

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// unhex is the value of a hexadecimal digit.
func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}

// wordEnd is where the run of bytes of these classes that begins at i ends.
func wordEnd(s string, i int, set uint8) int {
	for i < len(s) && charClass[s[i]]&set != 0 {
		i++
	}
	return i
}

// boundaryBefore tells whether no word reaches up to i. What looks like a letter or digit there may be the end of an escape: %22, \u0022, \n.
func boundaryBefore(s string, i int) bool {
	if i == 0 || !isAlnum(s[i-1]) {
		return true
	}
	if i >= 2 && s[i-2] == '\\' { // \n
		return true
	}
	if i >= 3 && isHex(s[i-1]) && isHex(s[i-2]) && s[i-3] == '%' {
		return true
	}
	if i >= 4 && s[i-3] == 'x' && s[i-4] == '\\' && isHex(s[i-1]) && isHex(s[i-2]) {
		return true
	}
	return i >= 6 && s[i-5] == 'u' && s[i-6] == '\\' && isHex(s[i-1]) && isHex(s[i-2]) && isHex(s[i-3]) && isHex(s[i-4])
}

// foldPrefix tells whether s begins with lower, which is in lower case, whatever the case of s.
func foldPrefix(s, lower string) bool {
	if len(s) < len(lower) {
		return false
	}
	for i := range len(lower) {
		c := s[i]
		if charClass[c]&charUpper != 0 {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
