package redact

// Where a secret may begin is decided by three bytes. Bytes that make no difference there share a code, so that one table of 32 KiB knows every three.

// codes are those of the bytes of a text.
var codes = func() (t [256]uint8) {
	for i := range t {
		t[i] = codeOther
	}
	for i := range byte(26) {
		t['a'+i], t['A'+i] = codeLower+i, codeUpper+i
	}
	for i := range byte(10) {
		t['0'+i] = codeDigit
	}
	for i, same := range []string{":=", "%", "-", "_", ".", "<&[", "(", " ", `"`, "'"} {
		for _, c := range []byte(same) {
			t[c] = codeMarks + uint8(i)
		}
	}
	return t
}()

const (
	codeLower uint8 = 0
	codeUpper uint8 = 26
	codeDigit uint8 = 52
	codeMarks uint8 = 53 // those of punctuation
	codeOther uint8 = 63
)

// codesWith are codes for a text in which something begins at each of these bytes, too.
func codesWith(bytes string) *[256]uint8 {
	t := codes
	for _, c := range []byte(bytes) {
		t[c] = t[':']
	}
	return &t
}

// begins has a bit for each three codes with which something may begin. The scan looks at nothing else.
var begins = func() (t [1 << 12]uint64) {
	set := func(a, b, c byte) { t[uint(codes[a])<<6|uint(codes[b])] |= 1 << codes[c] }
	pair := func(a, b byte) { t[uint(codes[a])<<6|uint(codes[b])] = ^uint64(0) }
	for b := range 256 {
		pair(':', byte(b))
	}
	for _, p := range []string{"00", "--", "-u", "<r", "&l", "</", `("`, "('", " '"} {
		pair(p[0], p[1])
	}
	for _, c := range []byte(encodedMarks) {
		pair('%', c)
	}
	for _, s := range shapes {
		if len(s.prefix) > 2 {
			set(s.prefix[0], s.prefix[1], s.prefix[2])
			continue
		}
		for c := range 256 {
			if charClass[c]&s.set != 0 {
				set(s.prefix[0], s.prefix[1], byte(c))
			}
		}
	}
	for _, w := range schemeWords {
		for n := range byte(8) { // all spellings in upper and lower case
			set(w.word[0]-n&1<<5, w.word[1]-n>>1&1<<5, w.word[2]-n>>2&1<<5)
		}
	}
	set('e', 'y', 'J')
	return t
}()

// encodedMarks follow the % of digits and letters, of what separates words and, encoded itself, groups of digits.
const encodedMarks = "234567CcEe"

// next is where something may begin in s, from i on; the end of s where nothing does.
func next(s string, i int, codes *[256]uint8) int {
	if i+1 >= len(s) {
		return len(s)
	}
	b := uint(codes[s[i+1]])
	ab := uint(codes[s[i]])<<6 | b
	for n, x := range []byte(s[i+2:]) {
		c := uint(codes[x])
		if begins[ab&(1<<12-1)]>>(c&63)&1 != 0 {
			return i + n
		}
		ab, b = b<<6|c, c
	}
	if begins[ab&(1<<12-1)]>>codeOther&1 != 0 {
		return len(s) - 2
	}
	return len(s)
}
