package redact

import "strings"

// json is s, JSON documents one after the other, without secrets; it is s itself where there are none. Valid JSON stays valid, with the same objects,
// lists and keys in the same places. What is not valid, be it cut off or no JSON at all, is scrubbed all the same.
func (r *Redactor) json(s string, o options, c *Counts) (string, bool) {
	w := jsonReader{r: r, s: s, o: o, counts: c, sc: o.m.scanner(r, o), plain: r.extra() || o.cut}
	w.sc.levels = w.sc.levels[:0]
	if len(r.paths) > 0 {
		w.paths = &pathReader{paths: r.paths}
	}
	w.run()
	o.m.giveScanner(w.sc)
	if w.buf != nil {
		o.m.giveBuffer(w.buf)
	}
	if w.done > 0 {
		w.out = append(w.out, s[w.done:]...)
		s = view(w.out) // which nobody writes to any more
	}
	if !w.bad {
		return s, w.done > 0
	}
	text, hidden := r.appendText(nil, s, o, c)
	if !hidden {
		return s, w.done > 0
	}
	return string(text), true
}

// looksLikeJSON tells whether s is an object or a list.
func looksLikeJSON(s string) bool {
	return len(s) > 1 && (s[0] == '{' && s[len(s)-1] == '}' || s[0] == '[' && s[len(s)-1] == ']')
}

// jsonReader walks through JSON without building it. It needs no memory but one bit for each level of nesting.
type jsonReader struct {
	r      *Redactor
	s      string
	o      options
	counts *Counts
	sc     *scanner
	out    []byte
	done   int // s up to here is in out
	buf    []byte
	bad    bool // not JSON somewhere
	ended  bool // a value ended, and no comma came yet

	depth   int
	object  bool  // the level that is open is an object's
	class   class // of the key before the value
	hidden  class // of the object or list around, whose every value is hidden
	level   int   // where that began
	unnamed bool  // the value's name may stand behind it
	names   bool  // the key says that its value is a name: {"name": "password", "value": …}
	named   class // the class of that name
	within  int   // the level of the object that holds it
	patch   bool  // the name is the path of a JSON patch: {"op": "replace", "path": "/password", "value": …}

	at, keys int // which one of sc.order is next, and how many there are

	paths *pathReader // nil: none are configured
	plain bool        // keys have to be searched: for more than the built-in lists, or for what was cut off
}

func (w *jsonReader) run() {
	for i := 0; i < len(w.s); {
		switch c := w.s[i]; c {
		case ' ', '\t', '\n', '\r':
			i++
		case ',':
			w.class, w.names, w.ended = harmless, false, false
			i = w.guess(i + 1)
		case '{', '[':
			w.element()
			w.bad = w.bad || w.ended && w.depth > 0
			w.open(c == '{')
			w.ended = false
			i = w.guess(i + 1)
		case '}', ']':
			w.close(c == '}')
			w.ended = true
			i++
		case '"':
			w.bad = w.bad || w.ended && w.depth > 0
			i = w.text(i)
		case '\'':
			w.bad = true
			i = w.text(i)
		default:
			if c == '/' {
				if n := commentAt(w.s[i:]); n > 0 {
					w.bad = true
					i += n
					continue
				}
			}
			w.bad = w.bad || w.ended // [4111 1111 1111 1111]
			i = w.bare(i)
		}
	}
	if w.depth > 0 && !w.o.cut {
		w.bad = true
	}
}

// commentAt is the length of the comment that s begins with, as JSON5 has them.
func commentAt(s string) int {
	var end int
	switch {
	case strings.HasPrefix(s, "//"):
		end = strings.IndexAny(s, "\r\n")
	case strings.HasPrefix(s, "/*"):
		if end = strings.Index(s[2:], "*/"); end >= 0 {
			end += 4
		}
	default:
		return 0
	}
	if end < 0 {
		return len(s)
	}
	return end
}

// singleEnd is the ' that ends the string that begins at i, or the end of its line.
func singleEnd(s string, i int) (end int, escaped bool) {
	for end = i + 1; end < len(s) && s[end] != '\'' && s[end] != '\n'; end++ {
		if s[end] == '\\' {
			escaped = true
			end++
		}
	}
	return min(end, len(s)), escaped
}

// element looks whether a path ends with the value that begins here. Those of objects were seen with their keys.
func (w *jsonReader) element() {
	switch {
	case w.paths == nil || w.object:
	case w.depth == 0:
		w.paths.begin()
	case w.paths.element() && w.class < secret:
		w.class = secret
	}
}

func (w *jsonReader) open(object bool) {
	if w.paths != nil {
		if w.paths.full() {
			w.class = max(w.class, secret)
		} else {
			w.paths.open()
		}
	}
	if w.depth>>6 >= len(w.sc.levels) {
		w.sc.levels = append(w.sc.levels, 0)
	}
	bit := uint64(1) << (w.depth & 63)
	w.sc.levels[w.depth>>6] &^= bit
	if object {
		w.sc.levels[w.depth>>6] |= bit
	}
	w.depth++
	if w.hidden == harmless && w.class.hides() {
		w.hidden, w.level = w.class, w.depth
	}
	w.object, w.class, w.names = object, harmless, false
}

func (w *jsonReader) close(object bool) {
	if w.depth == 0 || w.object != object {
		w.bad = true
		return
	}
	if w.level == w.depth {
		w.hidden, w.level = harmless, 0
	}
	if w.within == w.depth {
		w.named, w.within = harmless, 0
	}
	w.depth--
	w.object = w.depth > 0 && w.sc.levels[(w.depth-1)>>6]>>((w.depth-1)&63)&1 == 1
	w.class, w.names = harmless, false
	if w.paths != nil && w.depth < maxPathDepth {
		w.paths.close()
	}
}

// text reads a string, a key or a value, and returns where to go on.
func (w *jsonReader) text(i int) int {
	plain := w.class|w.hidden == harmless && !w.names && !w.unnamed && !w.plain && w.paths == nil // most are such
	var end int
	var escaped bool
	at := i + 1 // nothing begins in the string before
	switch {
	case w.s[i] == '\'':
		end, escaped = singleEnd(w.s, i)
	case plain:
		end, escaped, at = plainEnd(w.s, i)
	default:
		end, escaped = stringEnd(w.s, i)
	}
	following := min(end+1, len(w.s))
	after := following
	for after < len(w.s) && isSpace(w.s[after]) {
		after++
	}
	if after < len(w.s) && w.s[after] == ':' {
		if !w.object {
			w.bad = true
		}
		if !w.key(w.s[i+1:end], escaped) {
			w.content(i+1, end, escaped, harmless)
		}
		w.ended = false
		return after + 1
	}
	w.ended = true
	if end == len(w.s) && !w.o.cut {
		w.bad = true
	}
	switch {
	case !plain || escaped:
		w.stringValue(i, end, escaped)
	case at < end:
		w.plainValue(i+1, end, at)
	}
	return following
}

// plainEnd is stringEnd with the first place where something may begin in the string, or its end.
func plainEnd(s string, i int) (end int, escaped bool, at int) {
	at = next(s, i+1, quoted)
	switch {
	case at == len(s): // the last byte was not looked at
		end, escaped = stringEnd(s, i)
		return end, escaped, end
	case s[at] == '"':
		return at, false, at
	}
	end, escaped = stringEnd(s, at-1)
	return end, escaped, at
}

// quoted are the codes of a string of JSON: it ends at a quote, and no backslash is overlooked.
var quoted = codesWith(`"\\`)

// plainValue reads a string that has to be hidden for what stands in it alone. Nothing begins before at.
func (w *jsonReader) plainValue(start, end, at int) {
	raw := w.s[start:end]
	if len(raw) < 12 && wordEnd(raw, 0, charAlnum|charDash|charDot) == len(raw) { // as holdsNothing says
		return
	}
	w.sc.cut = false
	if hits := w.sc.builtin(raw, at-start); len(hits) > 0 {
		w.replace(start, end, hits)
	}
}

// replace writes a string with its hits replaced.
func (w *jsonReader) replace(start, end int, hits []hit) {
	w.out = append(w.out, w.s[w.done:start]...)
	w.out = w.sc.write(w.out, w.s[start:end], hits, w.counts)
	w.done = end
}

// key remembers what a key says of its value. It tells whether the key holds nothing itself, as far as is known.
func (w *jsonReader) key(name string, escaped bool) (clean bool) {
	if escaped {
		w.needBuffer()
		w.buf = appendUnquoted(w.buf[:0], name)
		name = view(w.buf)
	}
	if len(name) > longestJudged {
		w.says(name, w.r.classifyOnce(name), noRole)
		return false
	}
	j := w.known(name)
	w.says(name, j.class, j.role)
	return j.clean && !escaped && !w.plain
}

// says remembers that a key is of this class and role.
func (w *jsonReader) says(name string, c class, role role) {
	w.class = c
	if w.paths != nil && w.paths.enter(name, -1) && c < secret {
		w.class = secret
	}
	w.names, w.unnamed = false, false
	switch role {
	case noRole:
		return
	case nameRole, pathRole:
		w.names = true
		if len(name) == len("name") { // or path
			w.patch = role == pathRole
		}
		return
	case textRole:
		if w.patch {
			return
		}
	}
	if w.within == w.depth && w.within > 0 { // the value of {"name": "password", "value": …}
		w.class = w.named
	} else {
		w.unnamed = true
	}
}

// maxOrder is how many keys are remembered in their order.
const maxOrder = 128

// known is what a name says.
func (w *jsonReader) known(name string) *judged {
	order := &w.sc.order
	if w.at < w.keys && order[w.at].name == name {
		w.at++
		return order[w.at-1]
	}
	j := w.r.names.judged(w.r, name)
	switch {
	case w.keys > 0 && order[0] == j:
		w.at = 1
	case w.at < len(order):
		order[w.at] = j
		w.at++
		w.keys = max(w.keys, w.at)
	default:
		w.at, w.keys = 0, 0
	}
	return j
}

// guess reads the key at i and returns where its value begins, if it is the one that comes next: the objects of a list have the same keys in the same
// order. Otherwise it returns where to read on.
func (w *jsonReader) guess(i int) int {
	for i < len(w.s) && (w.s[i] == ' ' || w.s[i] == '\n') { // of JSON that is indented
		i++
	}
	next := w.at
	if next == w.keys {
		next = 0
	}
	if !w.object || w.keys == 0 || w.plain {
		return i
	}
	j := w.sc.order[next]
	end := i + 1 + len(j.name)
	if end+1 >= len(w.s) || w.s[i] != '"' || w.s[end] != '"' || w.s[end+1] != ':' || w.s[i+1:end] != j.name || !j.clean {
		return i
	}
	w.at = next + 1
	w.says(j.name, j.class, j.role)
	return end + 2
}

// stringValue reads the string that begins at i as a value.
func (w *jsonReader) stringValue(i, end int, escaped bool) {
	w.element()
	c := w.class
	if w.hidden != harmless {
		c = w.hidden
	}
	w.class = harmless
	if w.names {
		w.names = false
		if escaped {
			w.needBuffer()
			w.buf = appendUnquoted(w.buf[:0], w.s[i+1:end])
			if named := w.r.classifyText(view(w.buf)); named >= number {
				w.named, w.within = named, w.depth
			}
		} else if named := w.r.classifyText(w.s[i+1 : end]); named >= number && strings.IndexByte(w.s[i+1:end], opening[0]) < 0 {
			w.named, w.within = named, w.depth
		}
	}
	if w.unnamed && c == harmless {
		c = w.nameBehind(end)
	}
	w.unnamed = false
	w.content(i+1, end, escaped, c)
}

// nameBehind is the class of the name right behind the value that ends at end: {"value": …, "name": "password"}.
func (w *jsonReader) nameBehind(end int) class {
	rest, ok := strings.CutPrefix(strings.TrimLeft(w.s[min(end+1, len(w.s)):], " \t\r\n"), ",")
	if rest = strings.TrimLeft(rest, " \t\r\n"); !ok || rest == "" || rest[0] != '"' {
		return harmless
	}
	stop, _ := stringEnd(rest[:min(len(rest), 16)], 0)
	switch rest[1:stop] {
	case "name", "key", "field", "param", "header":
	default:
		return harmless
	}
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest[min(stop+1, len(rest)):], " \t\r\n"), ":")
	if rest = strings.TrimLeft(rest, " \t\r\n"); !ok || rest == "" || rest[0] != '"' {
		return harmless
	}
	rest = rest[:min(len(rest), longestJudged+2)]
	if stop, _ = stringEnd(rest, 0); stop == len(rest) {
		return harmless
	}
	if c := w.r.classifyText(rest[1:stop]); c >= number && placeholderAt(rest[1:stop]) == 0 {
		return c
	}
	return harmless
}

// content reads what stands between quotes, from start to end.
func (w *jsonReader) content(start, end int, escaped bool, c class) {
	raw := w.s[start:end]
	switch {
	case len(raw) == 0 || isPlaceholder(raw):
		return
	case c == authorization:
		if n := schemeLength(raw); n > 0 && n < len(raw) {
			start += n
			if isPlaceholder(w.s[start:end]) {
				return
			}
		}
		w.put(start, end, c.label())
		return
	case c.hides():
		w.put(start, end, c.label())
		return
	case c == number && isNumberLike(raw):
		w.put(start, end, labelPAN)
		return
	case len(raw) < 3:
		return
	}
	w.sc.cut = w.o.cut && end == len(w.s)
	if escaped {
		w.unescaped(start, end)
		return
	}
	if w.r.holdsNothing(raw, options{cut: w.sc.cut}) {
		return
	}
	if hits := w.sc.scan(raw); len(hits) > 0 {
		w.replace(start, end, hits)
	}
}

// isNumberLike tells whether what stands under the name of a card number has to be hidden as a whole: it has many digits, is no number that the
// detectors find and mask, and is not masked already.
func isNumberLike(s string) bool {
	n := countDigits(s)
	return n >= 9 && !(n == 10 && strings.Contains(s, "**")) && !isMaskable(s)
}

// isMaskable tells whether s is a card number, with or without separators.
func isMaskable(s string) bool {
	var buf [24]byte
	n := 0
	for i := 0; i < len(s); {
		if isDigit(s[i]) && n < len(buf) {
			buf[n] = s[i]
			n++
			i++
			continue
		}
		k := separatorAt(s, i)
		if k == 0 {
			return false
		}
		i += k
	}
	if !isCard(string(buf[:n])) {
		return false
	}
	m := borrow()
	defer m.release()
	sc := m.scanner(builtin(), options{})
	defer m.giveScanner(sc)
	hits := sc.scan(s)
	return len(hits) == 1 && hits[0].start == 0 && hits[0].end == len(s)
}

// put replaces s[start:end] by the placeholder.
func (w *jsonReader) put(start, end int, l label) {
	w.out = append(w.out, w.s[w.done:start]...)
	value := w.s[start:end]
	if strings.IndexByte(value, '\\') >= 0 { // the fingerprint is that of the text
		w.needBuffer()
		w.buf = appendUnquoted(w.buf[:0], value)
		value = view(w.buf)
	}
	w.out = w.r.hide(w.out, l, value, w.counts)
	w.done = end
}

// unescaped reads a string that holds escapes: they are taken off, and put on again only where something was hidden.
func (w *jsonReader) unescaped(start, end int) {
	w.needBuffer()
	w.buf = appendUnquoted(w.buf[:0], w.s[start:end])
	text := view(w.buf)
	in := options{m: w.o.m, cut: w.sc.cut, nesting: w.o.nesting + 1}
	var clean string
	var hidden bool
	if trimmed := strings.TrimLeft(text, " \t\r\n"); in.nesting <= maxNesting && trimmed != "" && (trimmed[0] == '{' || trimmed[0] == '[') {
		clean, hidden = w.r.json(text, in, w.counts)
	} else {
		out, found := w.r.appendText(w.o.m.buffer(), text, in, w.counts)
		if hidden = found; hidden {
			clean = string(out)
		}
		w.o.m.giveBuffer(out)
	}
	if !hidden {
		return
	}
	w.out = append(w.out, w.s[w.done:start]...)
	w.out = appendQuoted(w.out, clean)
	w.done = end
}

func (w *jsonReader) needBuffer() {
	if w.buf == nil {
		w.buf = w.o.m.buffer()
	}
}

// bare reads a number, a word, or what is no JSON at all.
func (w *jsonReader) bare(i int) int {
	s := w.s
	end, digits, marks := i, 0, uint8(0)
	for end < len(s) && bareMarks[s[end]] != bareEnd {
		mark := bareMarks[s[end]]
		digits += int(mark & bareDigit)
		marks |= mark
		end++
	}
	if end == i { // a : out of place
		w.bad = true
		return i + 1
	}
	token := s[i:end]
	if end < len(s) && s[end] == ':' {
		w.bad = true
		w.key(token, false)
		w.ended = false
		return end + 1
	}
	w.element()
	w.ended = true
	c := w.class
	if w.hidden != harmless {
		c = w.hidden
	}
	w.class, w.names = harmless, false
	isNumber := token[0] == '-' || isDigit(token[0])
	isNumeric := isNumber && marks&bareOther == 0
	switch {
	case token == "true" || token == "false" || token == "null":
	case c.hides():
		if !isNumeric { // what is no JSON may have spaces in it
			for end < len(s) && strings.IndexByte(",{}[]\"\r\n", s[end]) < 0 {
				end++
			}
		}
		w.putBare(i, end, c.label())
	case isNumber && digits < 12 && !(w.o.cut && end == len(s)):
		w.bad = w.bad || digits == 0 || !isNumeric
	default:
		w.bad = w.bad || !isNumeric
		w.bareNumber(i, end, c)
	}
	return end
}

// bareNumber hides a number that is, or holds, a card number. A text takes its place, so that JSON stays JSON.
func (w *jsonReader) bareNumber(i, end int, c class) {
	token := w.s[i:end]
	w.sc.cut = w.o.cut && end == len(w.s)
	hits := w.sc.scan(token)
	if len(hits) == 0 {
		if c == number && isNumberLike(token) {
			w.putBare(i, end, labelPAN)
		}
		return
	}
	w.out = append(append(w.out, w.s[w.done:i]...), '"')
	w.out = append(w.sc.write(w.out, token, hits, w.counts), '"')
	w.done = end
}

func (w *jsonReader) putBare(start, end int, l label) {
	w.out = append(append(w.out, w.s[w.done:start]...), '"')
	w.out = append(w.r.hide(w.out, l, w.s[start:end], w.counts), '"')
	w.done = end
}

// bareMarks tell of each byte what it is in a number or word, or that it ends there.
var bareMarks = func() (t [256]uint8) {
	for i := range t {
		t[i] = bareOther
	}
	for c := byte('0'); c <= '9'; c++ {
		t[c] = bareDigit
	}
	for _, c := range []byte("+-.eE") {
		t[c] = barePunctuation
	}
	for _, c := range []byte(",:{}[]\" \t\r\n") {
		t[c] = bareEnd
	}
	return t
}()

const (
	bareDigit uint8 = 1 << iota
	barePunctuation
	bareOther
	bareEnd
)
