package redact

import (
	"maps"
	"net/http"
	"strings"
	"unicode/utf8"
)

// Header is h without secrets. Names stay, and so do the scheme of credentials, the names of cookies and the attributes of those that are set. h is
// not changed; where it has nothing to hide, h itself is returned, and unchanged values are shared: the result is for reading.
func (r *Redactor) Header(h http.Header, c *Counts) http.Header {
	m := borrow()
	defer m.release()
	clean := h
	copied := false
	for name, values := range h {
		class := r.classifyHeader(name)
		var list []string
		for i, v := range values {
			text, changed := r.field(m, name, class, v, c)
			if !changed {
				continue
			}
			if list == nil {
				list = append(make([]string, 0, len(values)), values...)
			}
			list[i] = text
		}
		if list == nil {
			continue
		}
		if !copied {
			clean, copied = maps.Clone(h), true
		}
		clean[name] = list
	}
	return clean
}

// field is the value of a header field without secrets.
func (r *Redactor) field(m *memory, name string, c class, v string, counts *Counts) (string, bool) {
	valid := utf8.ValidString(v)
	if !valid {
		v = strings.ToValidUTF8(v, "\uFFFD")
	}
	if v == "" || isPlaceholder(v) {
		return v, !valid
	}
	if c <= weak && !holdsURL(name) && name != "Link" && name != "Refresh" {
		return r.plainField(m, v, valid, counts)
	}
	out := m.buffer()
	var changed bool
	defer func() { m.giveBuffer(out) }()
	switch {
	case c == cookie && isSetCookie(name):
		out, changed = r.appendSetCookie(m, out, v, counts)
	case c == cookie:
		out, changed = r.appendCookies(m, out, v, counts)
	case c == number && !isNumberLike(v):
		out, changed = r.appendText(out, v, options{m: m}, counts)
	case c > weak:
		n := schemeLength(v)
		if n > 0 && c.kind() == kindSecret {
			out = append(out, v[:n]...)
		} else {
			n = 0
		}
		if isPlaceholder(v[n:]) {
			return v, !valid
		}
		out, changed = r.hide(out, c.label(), v[n:], counts), true
	case holdsURL(name):
		out, changed = r.appendURL(out, v, options{m: m}, counts)
	default: // Link, Refresh
		out, changed = r.appendLinks(m, out, v, counts)
	}
	if !changed && valid {
		return v, false
	}
	return string(out), true
}

// plainField is a value about which the name says nothing.
func (r *Redactor) plainField(m *memory, v string, valid bool, c *Counts) (string, bool) {
	if looksLikeJSON(v) {
		text, hidden := r.json(v, options{m: m}, c)
		return text, hidden || !valid
	}
	text, hidden := r.validText(m, v, c)
	return text, hidden || !valid
}

func isSetCookie(name string) bool { return len(name) >= 10 && foldPrefix(name, "set-cookie") }

// holdsURL tells whether the value of a header field is a URL or the target of a request.
func holdsURL(name string) bool {
	switch name {
	case "Location", "Content-Location", "Referer", "Origin", "Destination", "Sourcemap", "X-Original-Url", "X-Original-Uri", "X-Forwarded-Uri",
		"X-Rewrite-Url", "X-Forwarded-Url", "X-Forwarded-Path", "X-Request-Uri", "Amp-Redirect-To", "Hx-Current-Url", "Hx-Redirect", "X-Envoy-Original-Path":
		return true
	}
	return false
}

// appendLinks appends a value in which URLs stand within angle brackets, or behind url=.
func (r *Redactor) appendLinks(m *memory, dst []byte, v string, c *Counts) ([]byte, bool) {
	var changed, hidden bool
	brackets := true // there may be one
	for v != "" {
		start := 0
		if brackets {
			start = strings.IndexByte(v, '<') + 1
			brackets = start > 0
		}
		if !brackets {
			if at := strings.Index(v, "url="); at >= 0 {
				start = at + len("url=")
			}
		}
		if start == 0 {
			break
		}
		dst, hidden = r.appendText(dst, v[:start], options{m: m}, c)
		changed = changed || hidden
		v = v[start:]
		end := linkEnd(v)
		dst, hidden = r.appendURL(dst, v[:end], options{m: m}, c)
		changed = changed || hidden
		v = v[end:]
	}
	dst, hidden = r.appendText(dst, v, options{m: m}, c)
	return dst, changed || hidden
}

// linkEnd is where the URL ends that v begins with: at the bracket, but for those of what was hidden before.
func linkEnd(v string) int {
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '>':
			return i
		case opening[0]:
			i += max(0, placeholderAt(v[i:])-1)
		}
	}
	return len(v)
}

// appendCookies appends the names of cookies.
func (r *Redactor) appendCookies(m *memory, dst []byte, v string, c *Counts) ([]byte, bool) {
	changed := false
	for first := true; ; first = false {
		pair, rest, more := strings.Cut(v, ";")
		if !first {
			dst = append(dst, "; "...)
		}
		var hidden bool
		dst, hidden = r.appendCookie(m, dst, strings.TrimSpace(pair), c)
		changed = changed || hidden
		if !more {
			return dst, changed
		}
		v = rest
	}
}

func (r *Redactor) appendCookie(m *memory, dst []byte, pair string, c *Counts) ([]byte, bool) {
	name, value, found := strings.Cut(pair, "=")
	changed := false
	if found {
		dst, changed = r.appendText(dst, name, options{m: m}, c)
		dst = append(dst, '=')
	} else {
		value = pair
	}
	if value == "" || isPlaceholder(value) {
		return append(dst, value...), changed
	}
	return r.hide(dst, labelCookie, value, c), true
}

// attributes are what a server says of a cookie; none of them is secret.
var attributes = []string{"path", "domain", "expires", "max-age", "secure", "httponly", "samesite", "partitioned", "priority", "version", "comment"}

// appendSetCookie appends a cookie that is set, with its attributes.
func (r *Redactor) appendSetCookie(m *memory, dst []byte, v string, c *Counts) ([]byte, bool) {
	pair, rest, more := strings.Cut(v, ";")
	dst, changed := r.appendCookie(m, dst, strings.TrimSpace(pair), c)
	for more {
		pair, rest, more = strings.Cut(rest, ";")
		pair = strings.TrimSpace(pair)
		dst = append(dst, "; "...)
		name, _, _ := strings.Cut(pair, "=")
		known := false
		for _, a := range attributes {
			known = known || foldWord(strings.TrimSpace(name), a)
		}
		var hidden bool
		if known {
			dst, hidden = r.appendText(dst, pair, options{m: m}, c)
		} else {
			dst, hidden = r.appendCookie(m, dst, pair, c)
		}
		changed = changed || hidden
	}
	return dst, changed
}
