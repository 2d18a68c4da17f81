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
	layers     [maxNesting]layer // of encoding that it is below, the outermost first
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
	r        *Redactor
	m        *memory
	s        string
	levels   []uint64          // of JSON
	order    [maxOrder]*judged // keys of JSON as they came
	cut      bool              // the text was cut off at its end: what begins like a secret there counts as one
	nesting  int
	raw      bool // percent-encoding is left alone
	formed   bool // the text is a form's value: what is encoded in it may be a form's, too
	decoded  int  // what stands before was decoded already
	noToken  int  // what stands before is part of no web token
	host     int  // where the host of the last URL begins; 0: none
	last     run  // the last value without quotes that was read
	argument run  // the last argument of a command without quotes that was read
	hits     []hit
}

// run is a part of a text.
type run struct{ start, end int }

// scan finds the hits in s, in order and without overlap. They are valid until the next call.
func (sc *scanner) scan(s string) []hit {
	sc.builtin(s, 0)
	if sc.r.extra() {
		sc.configured()
	}
	return sc.hits
}

// builtin is scan by the built-in lists alone. Nothing begins before i.
func (sc *scanner) builtin(s string, i int) []hit {
	sc.s, sc.decoded, sc.noToken, sc.host, sc.last, sc.argument, sc.hits = s, 0, 0, 0, run{}, run{}, sc.hits[:0]
	if len(s) < 3 {
		return nil
	}
	for i = next(s, i, &codes); i < len(s); i = next(s, i, &codes) {
		i = max(sc.at(i), i+1)
	}
	return sc.hits
}

// at looks at what may begin at i and returns where to go on.
func (sc *scanner) at(i int) int {
	switch sc.s[i] {
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
		if sc.s[i+1] == '/' {
			return sc.closing(i)
		}
		return i + 1
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
			return sc.word(i)
		}
		return i + 1
	}
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
	sc.hits = append(sc.hits, hit{start: start, end: end, label: l, how: h})
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
				more = append(more, hit{start: m[0], end: m[1], label: labelPattern})
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

// holdsNothing tells of short words and UUIDs, of which texts are full, that nothing can be in them: no token and no card number is shorter than 12 bytes.
func (r *Redactor) holdsNothing(s string, o options) bool {
	switch {
	case o.cut || r.extra():
		return false
	case len(s) < 12:
		return wordEnd(s, 0, charAlnum|charDash|charDot) == len(s)
	}
	return isUUID(s)
}

// isUUID tells whether s is a UUID in its usual form (RFC 9562 section 4).
func isUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	all := charHex
	for _, part := range [...]string{s[:8], s[9:13], s[14:18], s[19:23], s[24:]} {
		for i := range len(part) {
			all &= charClass[part[i]]
		}
	}
	return all != 0
}

// percent looks at a percent-encoded character. Where it is one that separates words, what it stands in may hide a secret from the detectors: the
// whole of it is decoded and searched.
func (sc *scanner) percent(i int) int {
	s := sc.s
	if sc.raw || i < sc.decoded || i+2 >= len(s) || !isHex(s[i+2]) || strings.IndexByte(encodedMarks, s[i+1]) < 0 {
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
