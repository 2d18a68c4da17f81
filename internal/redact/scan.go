package redact

import (
	"cmp"
	"slices"
	"strings"
)

// hit is a part of a text that must not be shown.
type hit struct {
	start, end int
	label      label
	how        how
}

// how a hit is replaced.
type how uint8

const (
	hide    how = iota // by the placeholder
	mask               // a card number: the first six and last four digits stay
	encoded            // percent-encoded: decoded, redacted, encoded
	spaced             // encoded, with + for spaces
)

// maxNesting is how many layers of encoding are taken off. What hides below more is hidden as a whole.
const maxNesting = 4

// scanner looks for secrets in one text.
type scanner struct {
	r       *Redactor
	m       *memory
	s       string
	levels  []uint64          // of JSON
	order   [maxOrder]*judged // keys of JSON as they came
	cut     bool              // the text was cut off at its end: what begins like a secret there counts as one
	nesting int
	raw     bool // percent-encoding is left alone
	formed  bool // the text is a form's value: what is encoded in it may be a form's, too
	decoded int  // what stands before was decoded already
	noToken int  // what stands before is part of no web token
	last    run  // the last value without quotes that was read
	hits    []hit
}

// run is a part of a text.
type run struct{ start, end int }

// scan finds the hits in s, in order and without overlap. They are valid until the next call.
func (sc *scanner) scan(s string) []hit {
	sc.builtin(s)
	if sc.r.extra() {
		sc.configured()
	}
	return sc.hits
}

// builtin is scan by the built-in lists alone.
func (sc *scanner) builtin(s string) []hit {
	sc.s, sc.decoded, sc.noToken, sc.last, sc.hits = s, 0, 0, run{}, sc.hits[:0]
	sc.run()
	return sc.hits
}

// pairs has a bit for each pair of bytes with which something may begin. The scan looks at nothing else.
var pairs = func() (t [1 << 16 / 64]uint64) {
	set := func(a, b byte) { t[(uint(a)<<8|uint(b))>>6] |= 1 << (b & 63) }
	for i := range 10 {
		for j := range 10 {
			set('0'+byte(i), '0'+byte(j))
		}
	}
	for b := range 256 {
		set(':', byte(b))
		set('=', byte(b))
	}
	for _, b := range []byte("2357CcEe") { // what separates words or, encoded itself, groups of digits
		set('%', b)
	}
	set('-', '-')
	set('<', 'r')
	set('&', 'l')
	set('[', 'r')
	set('-', 'u')
	set('<', '/')
	set('(', '"')
	set('(', '\'')
	for _, w := range schemeWords {
		a, b := w.word[0], w.word[1]
		set(a, b)
		set(a-0x20, b)
		set(a, b-0x20)
		set(a-0x20, b-0x20)
	}
	for _, s := range shapes {
		set(s.prefix[0], s.prefix[1])
	}
	set(' ', '\'')
	set('e', 'y')
	return t
}()

func (sc *scanner) run() {
	s := sc.s
	if len(s) < 3 {
		return
	}
	previous := uint(s[0])
	for i := 1; i < len(s); i++ {
		c := uint(s[i])
		p := previous<<8 | c
		previous = c
		if pairs[p>>6&(1<<10-1)]>>(p&63)&1 == 0 {
			continue
		}
		if p >= 'A'<<8 && i+1 < len(s) { // letters: most pairs go on as in no token
			if h := tripleHash(s[i-1], byte(c), s[i+1]); triples[h>>6&(1<<6-1)]>>(h&63)&1 == 0 {
				continue
			}
		}
		if next := sc.at(i - 1); next > i {
			if i = next; i < len(s) {
				previous = uint(s[i])
			}
		}
	}
}

// at looks at what may begin at i and returns where to go on.
func (sc *scanner) at(i int) int {
	switch c := sc.s[i]; c {
	case ':', '=':
		return sc.pair(i)
	case '%':
		return sc.percent(i)
	case '-':
		return sc.dash(i)
	case '<':
		if n := placeholderAt(sc.s[i:]); n > 0 {
			return i + n
		}
		return sc.closing(i)
	case '&', '[': // what was hidden before
		return max(i+1, i+placeholderAt(sc.s[i:]))
	case '(':
		return sc.call(i)
	case ' ':
		return sc.statement(i)
	case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return sc.digits(i)
	default:
		if i+2 < len(sc.s) {
			if h := tripleHash(c, sc.s[i+1], sc.s[i+2]); triples[h>>6]>>(h&63)&1 == 1 {
				return sc.word(i)
			}
		}
		return i + 1
	}
}

// triples has a bit for the hash of each three bytes with which a token or the word of a scheme begins.
var triples = func() (t [1 << 12 / 64]uint64) {
	set := func(a, b, c byte) {
		h := tripleHash(a, b, c)
		t[h>>6] |= 1 << (h & 63)
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

func tripleHash(a, b, c byte) uint32 {
	return (uint32(a) | uint32(b)<<8 | uint32(c)<<16) * 0x9e3779b1 >> 20
}

// add adds a hit and returns its end. What is hidden never ends within a word: the rest of it may be the greater part of another secret.
func (sc *scanner) add(start, end int, l label, h how) int {
	if h == hide && l != labelCVV && inWord(sc.s, end) {
		end = wordEnd(sc.s, end, base64Any|charDot)
	}
	if h == hide && l.kind() == kindSecret && end > start && inEscape(sc.s, end) {
		end = escapedEnd(sc.s, end)
	}
	for n := len(sc.hits); n > 0 && sc.hits[n-1].end > start; n-- { // a wider hit takes the place of those inside
		start, end = min(start, sc.hits[n-1].start), max(end, sc.hits[n-1].end)
		h = hide
		sc.hits = sc.hits[:n-1]
	}
	sc.hits = append(sc.hits, hit{start, end, l, h})
	return end
}

// inWord tells whether i is within a run of letters, digits, - and _.
func inWord(s string, i int) bool {
	return i > 0 && i < len(s) && charClass[s[i]]&tokenChars != 0 && charClass[s[i-1]]&tokenChars != 0
}

// inEscape tells whether + / or = stands percent-encoded at i, behind a part of a word.
func inEscape(s string, i int) bool {
	if i+3 >= len(s) || s[i] != '%' || !isAlnum(s[i-1]) {
		return false
	}
	switch unhex(s[i+1])<<4 | unhex(s[i+2]) {
	case '+', '/', '=':
		return isHex(s[i+2])
	}
	return false
}

// escapedEnd is where base64 ends that goes on at i and is percent-encoded.
func escapedEnd(s string, i int) int {
	for i < len(s) {
		switch {
		case charClass[s[i]]&tokenChars != 0:
			i++
		case inEscape(s, i):
			i += 3
		default:
			return i
		}
	}
	return i
}

// configured adds what literals and configured patterns find.
func (sc *scanner) configured() {
	var more []hit
	if sc.r.literals != nil {
		more = sc.r.literals.set.Load().find(sc.s, more)
	}
	more = sc.r.seen.find(sc.s, more)
	if sc.r.personal.any() {
		more = sc.r.personal.find(sc.s, more)
	}
	for _, re := range sc.r.patterns {
		for _, m := range re.FindAllStringIndex(sc.s, -1) {
			if m[1] > m[0] && !inPlaceholder(sc.s, m[0], m[1]) {
				more = append(more, hit{m[0], m[1], labelPattern, hide})
			}
		}
	}
	if len(more) == 0 {
		return
	}
	all := append(append(make([]hit, 0, len(more)+len(sc.hits)), sc.hits...), more...)
	slices.SortStableFunc(all, func(a, b hit) int { return cmp.Compare(a.start, b.start) })
	merged := append(sc.hits[:0], all[0])
	for _, h := range all[1:] {
		last := &merged[len(merged)-1]
		if h.start >= last.end {
			merged = append(merged, h)
			continue
		}
		if last.label == labelEncoded {
			last.label = h.label
		}
		last.end, last.how = max(last.end, h.end), hide
	}
	sc.hits = merged
}

// write appends the text with its hits replaced.
func (sc *scanner) write(dst []byte, s string, hits []hit, c *Counts) []byte {
	done := 0
	for _, h := range hits {
		dst = append(dst, s[done:h.start]...)
		dst = sc.replace(dst, s[h.start:h.end], h, c)
		done = h.end
	}
	return append(dst, s[done:]...)
}

func (sc *scanner) replace(dst []byte, s string, h hit, c *Counts) []byte {
	switch h.how {
	case mask:
		if sc.r.wholeCards {
			return sc.r.hide(dst, h.label, s, c)
		}
		c.found(h.label, s)
		return appendMasked(dst, s)
	case encoded, spaced:
		in := options{m: sc.m, nesting: sc.nesting, cut: sc.cut, plus: h.how == spaced, formed: sc.formed}
		dst, _ = sc.r.appendEncoded(dst, s, in, c)
		return dst
	}
	return sc.r.hide(dst, h.label, s, c)
}

// options say how a text is read.
type options struct {
	m       *memory
	cut     bool // it was cut off at its end
	nesting int  // how many layers of encoding are above it
	plus    bool // + stands for a space
	raw     bool // percent-encoding is left alone: it was looked into already
	formed  bool // s is the value of a form
}

// appendText appends s without its secrets and tells whether there were any.
func (r *Redactor) appendText(dst []byte, s string, o options, c *Counts) ([]byte, bool) {
	if r.holdsNothing(s, o) {
		return append(dst, s...), false
	}
	sc := o.m.scanner(r, o)
	hits := sc.scan(s)
	dst = sc.write(dst, s, hits, c)
	found := len(hits) > 0
	o.m.giveScanner(sc)
	return dst, found
}

// holdsNothing tells of short words, of which texts are full, that nothing can be in them: no token and no card number is shorter than 12 bytes.
func (r *Redactor) holdsNothing(s string, o options) bool {
	if len(s) >= 12 || o.cut || r.extra() {
		return false
	}
	return wordEnd(s, 0, charAlnum|charDash|charDot) == len(s)
}

// percent looks at a percent-encoded character. Where it is one that separates words, what it stands in may hide a secret from the detectors: the
// whole of it is decoded and searched.
func (sc *scanner) percent(i int) int {
	s := sc.s
	if sc.raw || i < sc.decoded || i+2 >= len(s) || !isHex(s[i+2]) {
		return i + 1
	}
	start, end := i, i
	for start > 0 && !separates(s[start-1]) {
		start--
	}
	for end < len(s) && !separates(s[end]) {
		end++
	}
	if n := len(sc.hits); n > 0 {
		start = max(start, sc.hits[n-1].end)
	}
	sc.decoded = end
	in := options{m: sc.m, nesting: sc.nesting, cut: sc.cut && end == len(s), formed: sc.formed}
	found := sc.r.secretsEncoded(s[start:end], in)
	if in.plus = true; sc.formed && strings.IndexByte(s[start:end], '+') >= 0 && sc.r.secretsEncoded(s[start:end], in) > found {
		return sc.add(start, end, labelEncoded, spaced)
	}
	if found > 0 {
		return sc.add(start, end, labelEncoded, encoded)
	}
	return i + 1
}

// separates tells whether c ends a word in which percent-encoding is used.
func separates(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '\r', '/', '"', '\'', '`', '<', '>', '&', '=', '?', '#', ';', '\\', ',', '(', ')', '{', '}', '|':
		return true
	}
	return false
}
