package redact

import (
	"html"
	"strings"
)

// xml reads XML and HTML: the text of elements and the values of attributes with sensitive names are hidden, and so is the value next to a name, as
// in <param name="password" value="…"/>. It never fails: what is no markup is text.
func (r *Redactor) xml(s string, o options, c *Counts) (string, bool) {
	w := xmlReader{r: r, s: s, o: o, counts: c, out: make([]byte, 0, len(s))}
	for w.at < len(s) {
		if s[w.at] == '<' {
			w.markup()
		} else {
			w.text()
		}
	}
	return string(w.out), w.changed
}

type xmlReader struct {
	r       *Redactor
	s       string
	at      int
	o       options
	counts  *Counts
	out     []byte
	changed bool

	names bool  // the text of the element around is a name: <name>password</name><value>…
	next  class // what the element behind it holds

	hidden  class  // of the sensitive element around, harmless outside
	depth   int    // of elements within it, itself included
	element string // its name as it is written, prefix included: what ends others leaves it open
}

// text reads up to the next tag.
func (w *xmlReader) text() {
	end := strings.IndexByte(w.s[w.at:], '<')
	if end < 0 {
		end = len(w.s) - w.at
	}
	if w.names {
		w.named(html.UnescapeString(w.s[w.at : w.at+end]))
	}
	w.put(w.s[w.at:w.at+end], w.hidden, true)
	w.at += end
}

// named remembers what the name that an element holds says of the next one.
func (w *xmlReader) named(name string) {
	if name = strings.TrimSpace(name); name == "" {
		return
	}
	if c := w.r.classifyOnce(name); c >= number {
		w.next = c
	}
	w.names = false
}

// put appends a text, or the placeholder.
func (w *xmlReader) put(text string, c class, entities bool) {
	trimmed := strings.TrimSpace(text)
	in := w.o
	in.cut = w.o.cut && w.at+len(text) == len(w.s)
	switch {
	case trimmed == "" || isPlaceholder(trimmed):
		w.out = append(w.out, text...)
	case c.hides(), c == number && isNumberLike(trimmed):
		lead := strings.Index(text, trimmed)
		w.out = append(w.out, text[:lead]...)
		value := trimmed
		if entities {
			value = html.UnescapeString(trimmed)
		}
		w.out = append(w.out, html.EscapeString(string(w.r.hide(nil, c.label(), value, w.counts)))...)
		w.out = append(w.out, text[lead+len(trimmed):]...)
		w.changed = true
	default:
		w.scan(text, entities, in)
	}
}

func (w *xmlReader) scan(text string, entities bool, in options) {
	var hidden bool
	if entities && strings.IndexByte(text, '&') >= 0 {
		if decoded := html.UnescapeString(text); decoded != text {
			if clean, hidden := w.inner(decoded, in); hidden {
				w.out = append(w.out, html.EscapeString(clean)...)
				w.changed = true
				return
			}
		}
	}
	if looksLikeJSON(text) {
		clean, hidden := w.inner(text, in)
		w.out = append(w.out, clean...)
		w.changed = w.changed || hidden
		return
	}
	w.out, hidden = w.r.appendText(w.out, text, in, w.counts)
	w.changed = w.changed || hidden
}

// inner reads what stands in an element or attribute: JSON or text.
func (w *xmlReader) inner(s string, in options) (string, bool) {
	if in.nesting++; in.nesting <= maxNesting {
		switch {
		case looksLikeJSON(s):
			return w.r.json(s, in, w.counts)
		case len(s) > 2 && s[0] == '<' && s[len(s)-1] == '>':
			return w.r.xml(s, in, w.counts)
		}
	}
	return w.r.asText(s, in, w.counts)
}

// markup reads a tag, a comment or a section.
func (w *xmlReader) markup() {
	rest := w.s[w.at:]
	switch {
	case placeholderAt(rest) > 0:
		n := placeholderAt(rest)
		w.out = append(w.out, rest[:n]...)
		w.at += n
	case strings.HasPrefix(rest, cdata):
		w.section(cdata, "]]>", w.hidden)
	case strings.HasPrefix(rest, "<!--"):
		w.section("<!--", "-->", harmless)
	case strings.HasPrefix(rest, "<?"):
		w.section("<?", "?>", harmless)
	case strings.HasPrefix(rest, "</"):
		end := strings.IndexByte(rest, '>') + 1
		if end == 0 {
			end = len(rest)
		}
		w.scan(rest[:end], false, options{m: w.o.m})
		w.at += end
		if w.hidden != harmless {
			if w.depth--; w.depth <= 0 && strings.HasPrefix(rest[2:end], w.element) {
				w.hidden = harmless
			}
		}
	case len(rest) > 1 && (charClass[rest[1]]&charAlpha != 0 || rest[1] == '_' || rest[1] >= 0x80):
		w.tag(rest)
	default:
		w.out = append(w.out, '<')
		w.at++
	}
}

const cdata = "<![CDATA["

// section copies what begins with open and ends with finish, its inside redacted.
func (w *xmlReader) section(open, finish string, c class) {
	w.out = append(w.out, open...)
	w.at += len(open)
	end := strings.Index(w.s[w.at:], finish)
	if end < 0 {
		end = len(w.s) - w.at
	}
	if w.names && open == cdata {
		w.named(w.s[w.at : w.at+end])
	}
	w.put(w.s[w.at:w.at+end], c, false)
	w.at += end
	if strings.HasPrefix(w.s[w.at:], finish) {
		w.out = append(w.out, finish...)
		w.at += len(finish)
	}
}

// void are elements of HTML that have no end.
var void = []string{"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}

// tag reads an opening tag with its attributes.
func (w *xmlReader) tag(rest string) {
	n := 1
	for n < len(rest) && !isSpace(rest[n]) && rest[n] != '>' && rest[n] != '/' {
		n++
	}
	name := rest[1:n]
	w.out = append(w.out, rest[:n]...)
	w.at += n
	written := name
	if colon := strings.LastIndexByte(name, ':'); colon >= 0 {
		name = name[colon+1:]
	}
	list, closed := w.attributes(n, rest)
	element := max(w.r.classify(name), w.next)
	w.names, w.next = foldWord(name, "name") || foldWord(name, "key"), harmless
	for _, a := range list {
		if foldWord(a.name, "name") || foldWord(a.name, "key") || foldWord(a.name, "id") {
			if c := w.r.classifyOnce(html.UnescapeString(a.value)); c > element {
				element = c
			}
		}
	}
	w.attributeValues(list, element)
	for _, v := range void {
		closed = closed || foldWord(name, v) && element == harmless || foldWord(name, "input") || foldWord(name, "meta") || foldWord(name, "param") && len(list) > 1
	}
	switch {
	case closed:
	case w.hidden == number && element.hides(): // <creditCard><cardCode>
		w.hidden, w.depth, w.element = element, 1, written
	case w.hidden != harmless:
		w.depth++
	case element > weak:
		w.hidden, w.depth, w.element = element, 1, written
	}
}

// attribute is one of a tag. Its value stands in s from start to end.
type attribute struct {
	name, value string
	start, end  int
}

// attributes finds the attributes of the tag whose name ends at n in rest, and whether it closes itself.
func (w *xmlReader) attributes(n int, rest string) (list []attribute, closed bool) {
	base := w.at - n
	for n < len(rest) && rest[n] != '>' {
		if isSpace(rest[n]) || rest[n] == '/' {
			closed = rest[n] == '/' && n+1 < len(rest) && rest[n+1] == '>'
			n++
			continue
		}
		start := n
		for n < len(rest) && rest[n] != '=' && rest[n] != '>' && rest[n] != '/' && !isSpace(rest[n]) {
			n++
		}
		a := attribute{name: rest[start:n]}
		for n < len(rest) && isSpace(rest[n]) {
			n++
		}
		if n >= len(rest) || rest[n] != '=' {
			continue
		}
		n++
		for n < len(rest) && isSpace(rest[n]) {
			n++
		}
		a.start = n
		n = valueEnd(rest, n)
		a.end = n
		if a.start < n && (rest[a.start] == '"' || rest[a.start] == '\'') {
			a.start++
			if n > a.start && rest[n-1] == rest[a.start-1] {
				a.end--
			}
		}
		a.value = rest[a.start:a.end]
		a.start, a.end = a.start+base, a.end+base
		list = append(list, a)
	}
	return list, closed
}

// valueEnd is where an attribute's value ends that begins at n, quotes included.
func valueEnd(s string, n int) int {
	if n < len(s) && (s[n] == '"' || s[n] == '\'') {
		if end := strings.IndexByte(s[n+1:], s[n]); end >= 0 {
			return n + 1 + end + 1
		}
		return len(s)
	}
	for n < len(s) && s[n] != '>' && !isSpace(s[n]) {
		n++
	}
	return n
}

// attributeValues appends the attributes and the end of the tag.
func (w *xmlReader) attributeValues(list []attribute, element class) {
	for _, a := range list {
		w.scan(w.s[w.at:a.start], false, options{m: w.o.m})
		w.at = a.start
		c := w.r.classify(a.name[strings.LastIndexByte(a.name, ':')+1:])
		if element > weak && (foldWord(a.name, "value") || foldWord(a.name, "content")) {
			c = element
		}
		if w.hidden != harmless && c == harmless && (foldWord(a.name, "value") || foldWord(a.name, "content")) {
			c = w.hidden
		}
		w.put(a.value, c, true)
		w.at = a.end
	}
	end := strings.IndexByte(w.s[w.at:], '>') + 1
	if end == 0 {
		end = len(w.s) - w.at
	}
	w.scan(w.s[w.at:w.at+end], false, options{m: w.o.m})
	w.at += end
}
