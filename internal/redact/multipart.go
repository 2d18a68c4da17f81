package redact

import (
	"mime"
	"strings"
	"unicode/utf8"
)

// multipart reads the parts of a multipart body, which may end anywhere. Part headers stay, scrubbed as text.
func (r *Redactor) multipart(s, boundary string, o options, c *Counts) (string, bool) {
	if boundary == "" || !strings.Contains(s, "--"+boundary) { // the type names another one than the body has
		_, after, _ := strings.Cut(s, "--")
		line, _, _ := strings.Cut(after, "\n")
		boundary = strings.TrimRight(line, "\r \t-")
	}
	delimiter := "--" + boundary
	if !isBoundary(boundary) || r.hides(delimiter, o) { // it is copied as it is
		return r.asText(strings.ToValidUTF8(s, "\uFFFD"), o, c)
	}
	out := make([]byte, 0, len(s))
	changed := false
	for first := true; ; first = false {
		part, rest, more := cutPart(s, delimiter)
		in := options{m: o.m, cut: o.cut && !more, nesting: o.nesting + 1}
		var hidden bool
		if first {
			out, hidden = r.appendText(out, strings.ToValidUTF8(part, "\uFFFD"), in, c)
		} else {
			out, hidden = r.appendPart(out, part, in, c)
		}
		changed = changed || hidden
		if !more {
			return string(out), changed
		}
		out = append(out, delimiter...)
		s = rest
	}
}

// cutPart cuts s before and behind the next delimiter: one at the beginning of a line, and with nothing behind it but spaces or dashes. Others are content.
func cutPart(s, delimiter string) (part, rest string, found bool) {
	for from := 0; ; {
		n := strings.Index(s[from:], delimiter)
		if n < 0 {
			return s, "", false
		}
		at, end := from+n, from+n+len(delimiter)
		if (at == 0 || s[at-1] == '\n') && (end == len(s) || strings.IndexByte("- \t\r\n", s[end]) >= 0) {
			return s[:at], s[end:], true
		}
		from = end
	}
}

// isBoundary: what a boundary may be.
func isBoundary(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte("'()+_,-./:=? ", s[i]) < 0 {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 70
}

// hides tells whether s holds a secret.
func (r *Redactor) hides(s string, o options) bool {
	sc := o.m.scanner(r, o)
	found := len(sc.scan(s)) > 0
	o.m.giveScanner(sc)
	return found
}

// appendPart appends what follows a delimiter: a header, an empty line and the content.
func (r *Redactor) appendPart(dst []byte, part string, o options, c *Counts) ([]byte, bool) {
	at, gap := strings.Index(part, "\r\n\r\n"), 4
	if lf := strings.Index(part, "\n\n"); at < 0 || lf >= 0 && lf < at {
		at, gap = lf, 2
	}
	if at < 0 {
		dst, hidden := r.appendText(dst, strings.ToValidUTF8(part, "\uFFFD"), o, c)
		return dst, hidden || !utf8.ValidString(part)
	}
	head, content := part[:at], part[at+gap:]
	dst, changed := r.appendText(dst, strings.ToValidUTF8(head, "\uFFFD"), options{m: o.m}, c)
	dst = append(dst, part[at:at+gap]...)
	end := len(strings.TrimRight(content, "\r\n"))
	name, kind := partHeader(head)
	class := r.classify(name)
	if end == 0 || isPlaceholder(content[:end]) {
		return append(dst, content...), changed
	}
	if class.hides() || class == number && isNumberLike(content[:end]) {
		return append(r.hide(dst, class.label(), content[:end], c), content[end:]...), true
	}
	data := []byte(content[:end])
	clean := r.body(kind, data, o, c)
	dst = append(append(dst, clean...), content[end:]...)
	return dst, changed || view(clean) != content[:end]
}

// unfold joins the lines of a field that goes on.
var unfold = strings.NewReplacer("\r\n ", " ", "\r\n\t", " ", "\n ", " ", "\n\t", " ")

// partHeader is the name of a form's part and its type.
func partHeader(head string) (name, kind string) {
	var names strings.Builder // of several fields: one that hides is heard
	kind = "text/plain"
	head = unfold.Replace(head)
	for line := range strings.SplitSeq(head, "\n") {
		field, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		field, value = strings.TrimSpace(field), strings.TrimSpace(value)
		switch {
		case foldWord(field, "content-type"):
			kind = value
		case foldWord(field, "content-disposition"):
			_, params, err := mime.ParseMediaType(value)
			names.WriteString(" " + params["name"])
			if err != nil || params["name"] == "" {
				names.WriteString(" " + looseName(value))
			}
		}
	}
	return names.String(), kind
}

// looseName finds name= in a broken Content-Disposition.
func looseName(value string) string {
	at := -1
	for from := 0; ; {
		n := strings.Index(value[from:], "name=")
		if n < 0 {
			break
		}
		if from += n; from == 0 || !isAlnum(value[from-1]) { // not that of a file
			at = from
		}
		from += len("name=")
	}
	if at < 0 {
		return ""
	}
	after := value[at+len("name="):]
	return strings.Trim(after[:len(after)-len(strings.TrimLeft(after, `"`))+nameLength(strings.TrimLeft(after, `"`))], `"; `)
}

func nameLength(s string) int {
	if at := strings.IndexAny(s, `";`); at >= 0 {
		return at
	}
	return len(s)
}
