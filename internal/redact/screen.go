package redact

import (
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Screen looks for card data and secrets in what programs send each other. Other than a Redactor, which makes a text fit to be read, it leaves alone every
// byte that is no part of a find, whatever the charset; and it goes by what a value is, hardly by its name: a password belongs where an app sends it.
// It is immutable, and safe for concurrent use.
type Screen struct {
	cards, secrets bool
	known          bool                // of secrets, only the tokens of vendors whose hosts are known
	fields         map[string]struct{} // squashed names whose values are not judged
}

// NewScreen makes a Screen for card data (PAN, CVV, Track), secrets of a known shape (Hidden), or both. What stands under the names in fields is not judged.
func NewScreen(cards, secrets bool, fields []string) *Screen {
	return &Screen{cards: cards, secrets: secrets, fields: squashAll(fields)}
}

// Credentials is the Screen for where a program's own credentials stand: of secrets, it finds only the tokens of vendors whose hosts are known.
func (sn *Screen) Credentials() *Screen {
	other := *sn
	other.known = true
	return &other
}

// Syntax is the language of a text: what takes the place of a find must not break it.
type Syntax uint8

// The languages. In Binary content whatever takes the place of a find is as long as that.
const (
	Plain Syntax = iota
	JSON
	Binary
)

// What takes the place of a find, besides the masked card number. It means nothing in any syntax.
const (
	maskedSecret = "REDACTED"
	maskedCode   = "***"
)

// Mask says which kinds are replaced; the others are counted, and stay.
type Mask struct{ Cards, Secrets bool }

func (m Mask) has(k kind) bool {
	if k == kindSecret {
		return m.Secrets
	}
	return m.Cards
}

// Text is s with its finds replaced. host is where it goes to or comes from: tokens of its own vendor are none. It is s itself where nothing is replaced.
func (sn *Screen) Text(s string, syntax Syntax, host string, mask Mask, c *Counts) string {
	if len(s) < 3 {
		return s
	}
	m := borrow()
	defer m.release()
	g := sn.gaze(m, host)
	defer g.end()
	hits := g.scan(s)
	if len(hits) == 0 {
		return s
	}
	var out []byte
	done := 0
	for _, h := range hits {
		out = append(out, s[done:h.start]...)
		out = g.replace(out, s[h.start:h.end], h, syntax, mask, c)
		done = h.end
	}
	return string(append(out, s[done:]...))
}

// Value is Text for what stands under a name: of a header field, for one, which says more than the value.
func (sn *Screen) Value(name, s, host string, mask Mask, c *Counts) string {
	if n := len(s); sn.cards && (n == 3 || n == 4) && countDigits(s) == n && builtin().classify(name) == code {
		c.add(kindCVV, 1)
		if mask.Cards {
			return maskedCode
		}
		return s
	}
	return sn.Text(s, Plain, host, mask, c)
}

// Skips tells whether what stands under the name is not judged.
func (sn *Screen) Skips(name string) bool {
	if len(sn.fields) == 0 || name == "" {
		return false
	}
	var n squashed
	n.set(name)
	_, ok := sn.fields[string(n.bytes())]
	return ok
}

// gaze is a scanner that goes by a Screen.
type gaze struct {
	*scanner
	screen  *Screen
	host    string
	layer   int                 // of encoding that were taken off
	looked  [escapedXML + 1]int // what stands before was decoded already, of each layer; of noLayer: was searched in all of them
	pending int                 // a private key may begin here, and too little of it has come; -1: none
}

func (sn *Screen) gaze(m *memory, host string) gaze {
	return gaze{scanner: m.scanner(builtin(), options{}), screen: sn, host: host}
}

func (g *gaze) end() { g.m.giveScanner(g.scanner) }

// layer is a way in which a text can be spelt.
type layer uint8

const (
	noLayer     layer = iota
	escapedURL        // percent-encoded
	escapedJSON       // with \u00…
	escapedXML        // with &#…;
)

const masked = mask // which parameters of that name would hide

// screened are the codes of what a Screen reads: escapes may begin at a backslash.
var screened = codesWith(`\`)

// scan finds the hits in s, in order and without overlap. They are valid until the next call.
func (g *gaze) scan(s string) []hit {
	sc := g.scanner
	sc.s, sc.decoded, sc.noToken, sc.hits = s, 0, 0, sc.hits[:0]
	g.looked, g.pending = [escapedXML + 1]int{}, -1
	if len(s) < 3 {
		return nil
	}
	for i := next(s, 0, screened); i < len(s); i = next(s, i, screened) {
		before := len(sc.hits)
		i = max(g.at(i), i+1)
		if len(sc.hits) > before {
			i = g.goesOn(before, i)
			g.judge(before)
		}
	}
	return sc.hits
}

// goesOn looks whether what was found from the n-th hit on is a token that goes on behind an escape, as + and / are spelt in JSON: it is found as a whole then.
// It returns where to go on.
func (g *gaze) goesOn(n, i int) int {
	h := g.hits[n]
	if len(g.hits) > n+1 || h.label.kind() != kindSecret || h.layers[0] != noLayer || h.end >= len(g.s) {
		return i
	}
	how := escapeOf[g.s[h.end]]
	if how == noLayer || unit(g.s[h.end:], how) == 1 {
		return i
	}
	g.hits = g.hits[:n]
	end := g.escaped(h.end, how)
	switch more := g.hits[n:]; {
	case len(more) == 0 || more[0].start >= h.end:
		g.hits = slices.Insert(g.hits, n, h)
	case more[0].start > h.start:
		h.end = more[0].end
		more[0] = h
	}
	return max(i, end)
}

// escapeOf are the bytes with which escapes begin.
var escapeOf = [256]layer{'%': escapedURL, '\\': escapedJSON, '&': escapedXML}

// at looks at what may begin at i and returns where to go on.
func (g *gaze) at(i int) int {
	s := g.s
	switch c := s[i]; c {
	case ':', '=':
		if g.screen.cards {
			return g.code(i)
		}
	case '%':
		if i+2 < len(s) && isHex(s[i+2]) && strings.IndexByte(encodedMarks, s[i+1]) >= 0 {
			return g.escaped(i, escapedURL)
		}
	case '\\':
		if u, ok := fourHex(s, i+2); ok && s[i+1] == 'u' && (u>>8 == 0 || u>>8 == 0x20) { // ASCII, and what separates groups of digits
			return g.escaped(i, escapedJSON)
		}
	case '&':
		if s[i+1] == '#' || s[i+1] == 'l' {
			return g.escaped(i, escapedXML)
		}
	case '-':
		if g.screen.secrets {
			return g.key(i)
		}
	case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return g.digits(i)
	default:
		if g.screen.secrets {
			return g.token(i)
		}
	}
	return i + 1
}

// judge drops what was found from the n-th hit on, where it is of no kind that is looked for, or where it belongs.
func (g *gaze) judge(n int) {
	kept := g.hits[:n]
	for _, h := range g.hits[n:] {
		wanted := g.screen.cards
		if h.label.kind() == kindSecret {
			token := g.s[h.start:h.end]
			wanted = g.screen.secrets && !atHome(token, g.host) && (!g.screen.known || domainsOf(token) != nil)
		}
		if h.layers[0] != noLayer || wanted && !g.screen.Skips(g.fieldOf(h.start)) {
			kept = append(kept, h)
		}
	}
	g.hits = kept
}

// token looks at the letter at i: a vendor's token or a JSON web token. A word such as Bearer alone says nothing.
func (g *gaze) token(i int) int {
	s := g.s
	c := s[i]
	if c >= 0x80 || i+2 >= len(s) {
		return i + 1
	}
	for k := range shapesOf[c] {
		sh := &shapesOf[c][k]
		if s[i+1] == sh.prefix[1] && strings.HasPrefix(s[i:], sh.prefix) {
			if end := g.scanner.token(i, sh); end > i {
				return end
			}
		}
	}
	if c == 'e' && s[i+1] == 'y' && s[i+2] == 'J' {
		return g.webToken(i)
	}
	return i + 1
}

// longestPair is how far a code's name and value are looked at.
const longestPair = 512

// code looks at the : or = at i: a security code by its name. Others than those in running text have names such as card_verification_value.
func (g *gaze) code(i int) int {
	s := g.s
	part := s[i] == '=' && i >= 4 && foldPrefix(s[i-4:], "name") && quoteSoon(s, i+1)
	if !part && !shortNumber(s, i+1) {
		return i + 1
	}
	start, end := nameBefore(s, i)
	if start == end {
		return i + 1
	}
	v := valueAt(s[:min(len(s), i+longestPair)], i, new(run))
	name := s[start:end]
	if part && v.quoted { // the head of a form's part: its name is the value
		if name = s[v.start:v.end]; g.scanner.judge(name) != code {
			return i + 1
		}
		v.start = partContent(s, v.end)
		v.end = wordEnd(s, v.start, charDigit)
		if v.end < len(s) && s[v.end] != '\r' && s[v.end] != '\n' {
			return i + 1
		}
	}
	if n := v.end - v.start; n != 3 && n != 4 || countDigits(s[v.start:v.end]) != n || g.scanner.judge(name) != code {
		return i + 1
	}
	return g.add(v.start, v.end, labelCVV, hide)
}

// gaps are the bytes between a name and its value.
var gaps = [256]uint8{' ': gap, '\t': gap, '\\': gap, '=': gap, '>': gap, ':': gap, '+': gap, '"': gapQuote, '\'': gapQuote, '`': gapQuote}

const (
	gap uint8 = 1 << iota
	gapQuote
)

// gapEnd is where bytes of these kinds end, as far as they are looked at.
func gapEnd(s string, i int, kinds uint8) int {
	most := min(len(s), i+16)
	for i < most && gaps[s[i]]&kinds != 0 {
		i++
	}
	return i
}

// quoteSoon tells whether the next that comes is in quotes.
func quoteSoon(s string, i int) bool {
	i = gapEnd(s, i, gap)
	return i < len(s) && gaps[s[i]] == gapQuote
}

// shortNumber tells whether the next that comes is a number of three or four digits.
func shortNumber(s string, i int) bool {
	i = gapEnd(s, i, gap|gapQuote)
	n := wordEnd(s[:min(len(s), i+5)], i, charDigit) - i
	return n == 3 || n == 4
}

// partContent is where the content of a form's part begins, in whose head i is; len(s) where it does not come soon.
func partContent(s string, i int) int {
	const longest = 256
	for k := i; k+1 < len(s) && k-i < longest; k++ {
		switch {
		case strings.HasPrefix(s[k:], "\n\n"):
			return k + 2
		case strings.HasPrefix(s[k:], "\n\r\n"):
			return k + 3
		}
	}
	return len(s)
}

// leastKey is how many characters of a private key must be there: less is a text about keys.
const leastKey = 40

// key hides a private key in PEM. It ends at its last line, or where no key can go on.
func (g *gaze) key(i int) int {
	const begin = "-----BEGIN "
	s := g.s
	if !strings.HasPrefix(s[i:], begin) {
		if n := len(s) - i; n < len(begin) && strings.HasPrefix(begin, s[i:]) && g.pending < 0 {
			g.pending = i
		}
		return i + 1
	}
	label := s[i+len(begin) : min(len(s), i+len(begin)+64)]
	at := strings.Index(label, "-----")
	if at < 0 && len(label) < 64 && g.pending < 0 {
		g.pending = i
	}
	if at < 0 || !strings.Contains(label[:at], "PRIVATE KEY") {
		return i + len(begin)
	}
	start := i + len(begin) + at + len("-----")
	end := keyEnd(s, start)
	if end-start < leastKey {
		if end == len(s) && g.pending < 0 {
			g.pending = i
		}
		return i + len(begin) // what was taken for the label may be anything
	}
	g.hits = append(g.hits, hit{start: i, end: end, label: labelPrivateKey})
	return end
}

const keyFinish = "-----END "

// keyEnd is where the content of a private key ends, of which i is a part.
func keyEnd(s string, i int) int {
	for end := i; end < len(s); end++ {
		switch c := s[end]; {
		case charClass[c]&charAlnum != 0, isSpace(c), c == '+', c == '/', c == '=', c == '\\', c == ':', c == ',':
		case c == '-' && strings.HasPrefix(s[end:], keyFinish):
			end += len(keyFinish)
			if tail := strings.Index(s[end:min(len(s), end+64)], "-----"); tail >= 0 {
				end += tail + len("-----")
			}
			return end
		case c == '-':
		default:
			return end
		}
	}
	return len(s)
}

// escaped looks at an escape at i: what stands around it is decoded and searched.
func (g *gaze) escaped(i int, how layer) int {
	const longest, margin = 2048, 512
	s := g.s
	if i < max(g.looked[how], g.looked[noLayer]) || g.layer >= maxNesting {
		return i + 1
	}
	start, end := i, i
	for start > 0 && i-start < longest && !bounds(s[start-1], how) {
		start--
	}
	for end < len(s) && end-i < longest && !bounds(s[end], how) {
		end++
	}
	if n := len(g.hits); n > 0 {
		start = max(start, g.hits[n-1].end)
	}
	sure := end // what begins from there on may be cut in two
	if end-i == longest {
		sure -= margin
	}
	g.looked[how] = sure
	if start >= end {
		return i + 1
	}
	text := g.decode(s[start:end], how)
	found := false
	if string(text) != s[start:end] {
		g.looked[noLayer] = sure
		inner := g.screen.gaze(g.m, g.host)
		inner.layer = g.layer + 1
		hits := inner.scan(view(text))
		found = len(hits) > 0 && !g.screen.Skips(g.fieldOf(start)) && g.spelt(start, end, sure, hits, how)
		inner.end()
	}
	g.m.giveBuffer(text)
	if !found {
		return i + 1
	}
	return max(sure, g.hits[len(g.hits)-1].end)
}

// spelt adds what was found in the decoded text of s[start:end] and begins before sure, each where it stands in s: what is around it stays as it is spelt. It
// tells whether there was any.
func (g *gaze) spelt(start, end, sure int, found []hit, how layer) bool {
	at, decoded := start, 0
	reach := func(n int) int {
		for decoded < n && at < end {
			k := unit(g.s[at:end], how)
			if k == 1 {
				decoded++
			} else {
				text := g.decode(g.s[at:at+k], how)
				decoded += len(text)
				g.m.giveBuffer(text)
			}
			at += k
		}
		return at
	}
	before := len(g.hits)
	for _, h := range found {
		if h.start = reach(h.start); h.start >= sure {
			break
		}
		h.end = reach(h.end)
		copy(h.layers[1:], h.layers[:])
		h.layers[0] = how
		g.hits = append(g.hits, h)
	}
	return len(g.hits) > before
}

// unit is how many bytes the first character of s takes.
func unit(s string, how layer) int {
	switch {
	case how == escapedURL && s[0] == '%' && len(s) > 2 && isHex(s[1]) && isHex(s[2]):
		return 3
	case how == escapedXML:
		if _, n := entity(s); n > 0 {
			return n
		}
	case how == escapedJSON && s[0] == '\\' && len(s) > 1:
		u, ok := fourHex(s, 2)
		if s[1] != 'u' || !ok {
			return 2
		}
		if low, ok := fourHex(s, 8); ok && s[6] == '\\' && s[7] == 'u' && utf16.DecodeRune(u, low) != utf8.RuneError {
			return 12
		}
		return 6
	}
	return 1
}

// bounds tells whether c ends what is decoded in one go.
func bounds(c byte, how layer) bool {
	switch how {
	case escapedURL:
		return separates(c)
	case escapedJSON:
		return c == '"' || c == '\n'
	}
	return c == '<' || c == '>' || c == '"' || c == '\n'
}

// decode takes one layer off.
func (g *gaze) decode(s string, how layer) []byte {
	dst := g.m.buffer()
	switch how {
	case escapedURL:
		return unescape(dst, s, true)
	case escapedJSON:
		return appendUnquoted(dst, s)
	}
	for i := 0; i < len(s); i++ {
		if u, n := entity(s[i:]); n > 0 {
			dst = utf8.AppendRune(dst, u)
			i += n - 1
			continue
		}
		dst = append(dst, s[i])
	}
	return dst
}

// entity reads a character that XML and HTML write by its number.
func entity(s string) (u rune, n int) {
	if len(s) < 4 || s[0] != '&' || s[1] != '#' {
		return 0, 0
	}
	i, base := 2, rune(10)
	if s[i]|0x20 == 'x' {
		i, base = 3, 16
	}
	for start := i; i < len(s) && i-start < 8; i++ {
		switch c := s[i]; {
		case c == ';' && i > start:
			return u, i + 1
		case isDigit(c), base == 16 && isHex(c):
			u = min(u*base+rune(unhex(c)), utf8.MaxRune)
		default:
			return 0, 0
		}
	}
	return 0, 0
}

// replace appends what takes the place of a hit, and counts it.
func (g *gaze) replace(dst []byte, s string, h hit, syntax Syntax, mask Mask, c *Counts) []byte {
	c.add(h.label.kind(), 1)
	switch {
	case !mask.has(h.label.kind()):
		return append(dst, s...)
	case h.how == masked && (syntax != Binary || countDigits(s) == len(s)):
		return g.appendMasked(dst, s, h.layers[:])
	case syntax == Binary:
		return appendStars(dst, len(s))
	case h.label.kind() == kindCVV:
		return append(dst, maskedCode...)
	}
	return append(dst, maskedSecret...)
}

// appendMasked appends a card number that is spelt in these layers.
func (g *gaze) appendMasked(dst []byte, s string, layers []layer) []byte {
	if len(layers) == 0 || layers[0] == noLayer {
		return appendMasked(dst, s)
	}
	text := g.decode(s, layers[0])
	dst = g.appendMasked(dst, view(text), layers[1:])
	g.m.giveBuffer(text)
	return dst
}

func appendStars(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, '*')
	}
	return dst
}

// fieldOf is the name of the field whose value a find at i is; "" where it cannot be told.
func (g *gaze) fieldOf(i int) string {
	if len(g.screen.fields) == 0 {
		return ""
	}
	s := g.s
	for j := i; j > 0 && i-j < lookBehind; j-- {
		switch s[j-1] {
		case '"', '\'':
			k := j - 1
			for k > 0 && (s[k-1] == '\\' || s[k-1] == ' ') {
				k--
			}
			if k > 0 && (s[k-1] == ':' || s[k-1] == '=') {
				start, end := nameBefore(s, k-1)
				return s[start:end]
			}
			return ""
		case ':', '=':
			start, end := nameBefore(s, j-1)
			return s[start:end]
		case '>':
			open := strings.LastIndexByte(s[max(0, j-128):j], '<')
			if open < 0 {
				return ""
			}
			tag := s[max(0, j-128)+open+1 : j-1]
			return tag[:wordEnd(tag, 0, charAlnum|charDash|charDot)]
		case '\n':
			head := s[max(0, j-lookBehind):j]
			if !strings.HasSuffix(head, "\n\n") && !strings.HasSuffix(head, "\r\n\r\n") {
				return ""
			}
			if at := strings.LastIndex(head, "form-data"); at >= 0 {
				name, _ := partHeader("Content-Disposition: " + strings.TrimSpace(head[at:]))
				return name
			}
			return ""
		case '&', ';', '{', '}', '[', ']', ',':
			return ""
		}
	}
	return ""
}
