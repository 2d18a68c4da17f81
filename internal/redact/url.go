package redact

import (
	"bytes"
	"strings"
)

// AppendURL appends a URL, or the target of a request, without its secrets: the user, the values of sensitive parameters (their names stay), tokens
// and card numbers in the path, and all of this again in URLs that are the value of a parameter. The result is for reading, not for fetching.
func (r *Redactor) AppendURL(dst []byte, url string, c *Counts) []byte {
	p := r.Begin(c)
	defer p.Done()
	return p.AppendURL(dst, url)
}

func (r *Redactor) appendURL(dst []byte, url string, o options, c *Counts) ([]byte, bool) {
	changed := false
	if from, to := userOf(url); to > from {
		dst = append(dst, url[:from]...)
		if user := url[from:to]; isPlaceholder(user) {
			dst = append(dst, user...)
		} else {
			dst, changed = r.hide(dst, labelUserinfo, user, c), true
		}
		url = url[to:]
	}
	path := pathEnd(url)
	if path == len(url) {
		dst, hidden := r.appendText(dst, url, o, c)
		return dst, changed || hidden
	}
	before := o
	before.cut = false
	dst, hidden := r.appendText(dst, url[:path], before, c)
	changed = changed || hidden
	query, fragment := url[path:], ""
	if at := strings.IndexByte(query, '#'); at >= 0 {
		query, fragment = query[:at], query[at:]
	}
	if query != "" {
		dst, hidden = r.appendQuery(append(dst, '?'), query[1:], o, c)
		changed = changed || hidden
	}
	if fragment == "" {
		return dst, changed
	}
	dst = append(dst, '#')
	fragment = fragment[1:]
	if at := strings.IndexByte(fragment, '?'); at >= 0 { // a path of its own, as in #/callback?token=…
		dst, hidden = r.appendText(dst, fragment[:at], before, c)
		changed = changed || hidden
		dst, fragment = append(dst, '?'), fragment[at+1:]
	}
	dst, hidden = r.appendQuery(dst, fragment, o, c)
	return dst, changed || hidden
}

// pathEnd is where the query or fragment of a URL begins, or its end.
func pathEnd(url string) int {
	end := len(url)
	for _, c := range []byte("?#") {
		if at := strings.IndexByte(url[:end], c); at >= 0 {
			end = at
		}
	}
	return end
}

// userOf is where the user stands in a URL. It is generous: two slashes or backslashes, no scheme at all as in the target of CONNECT, a password
// with a slash in it.
func userOf(url string) (from, to int) {
	if strings.IndexByte(url, '@') < 0 {
		return 0, 0
	}
	start := 0
	scheme := wordEnd(url, 0, charAlnum|charDash|charDot|charExtra)
	if n := wordEnd(url[:scheme], 0, charAlnum|charDash|charDot); n < scheme { // the run held a slash: a path
		scheme = n
	}
	if scheme > 0 && scheme < len(url) && url[scheme] == ':' {
		start = scheme + 1
	}
	slashes := 0
	for start+slashes < len(url) && (url[start+slashes] == '/' || url[start+slashes] == '\\') {
		slashes++
	}
	switch {
	case slashes == 0 && start > 0:
		if foldWord(url[:scheme], "mailto") || foldWord(url[:scheme], "data") || foldWord(url[:scheme], "urn") {
			return 0, 0
		}
		start = 0 // user:password@host
	case slashes == 1 && start == 0:
		return 0, 0 // a path
	default:
		start += slashes
	}
	end := start
	for end < len(url) && url[end] != '/' && url[end] != '?' && url[end] != '#' && url[end] != '\\' {
		end++
	}
	at := strings.LastIndexByte(url[start:end], '@')
	if at < 0 && end < len(url) { // a password may hold the characters that end an authority
		colon := strings.LastIndexByte(url[start:end], ':')
		if colon < 0 || isPort(url[start+colon+1:end]) || url[start] == '[' && url[end-1] == ']' {
			return 0, 0
		}
		if at = strings.IndexByte(url[start:], '@'); at < 0 {
			return 0, 0
		}
	}
	if at < 0 {
		return 0, 0
	}
	return start, start + at
}

// appendQuery appends the pairs of a query or form. It tells whether something was hidden.
func (r *Redactor) appendQuery(dst []byte, query string, o options, c *Counts) ([]byte, bool) {
	changed := false
	for first := true; ; first = false {
		pair, rest, more := strings.Cut(query, "&")
		if !first {
			dst = append(dst, '&')
		}
		in := options{m: o.m, cut: o.cut && !more, nesting: o.nesting, plus: true}
		var hidden bool
		dst, hidden = r.appendPair(dst, pair, in, c)
		changed = changed || hidden
		if !more {
			return dst, changed
		}
		query = rest
	}
}

// appendPair appends name=value.
func (r *Redactor) appendPair(dst []byte, pair string, o options, c *Counts) ([]byte, bool) {
	name, value, found := strings.Cut(pair, "=")
	if !found {
		return r.appendEncoded(dst, pair, o, c)
	}
	class := r.classifyEncoded(name, o.m)
	whole := o
	whole.cut = false
	dst, changed := r.appendEncoded(dst, name, whole, c)
	dst = append(dst, '=')
	if value == "" || isPlaceholder(value) {
		return append(dst, value...), changed
	}
	switch {
	case class.hides(), class == weak && looksLikeKey(value), changed: // a secret with a = in it
	case class == number && !r.hidesEncoded(value, o) && isNumberLike(value):
	default:
		dst, hidden := r.appendEncoded(dst, value, o, c)
		return dst, changed || hidden
	}
	return r.hideEncoded(dst, class.label(), value, o, c), true
}

// hideEncoded hides a value that may be percent-encoded. Its fingerprint is that of the text.
func (r *Redactor) hideEncoded(dst []byte, l label, value string, o options, c *Counts) []byte {
	if strings.IndexByte(value, '%') < 0 && (!o.plus || strings.IndexByte(value, '+') < 0) {
		return r.hide(dst, l, value, c)
	}
	text := unescape(o.m.buffer(), value, o.plus)
	dst = r.hide(dst, l, view(text), c)
	o.m.giveBuffer(text)
	return dst
}

// classifyEncoded judges a name that may be percent-encoded.
func (r *Redactor) classifyEncoded(name string, m *memory) class {
	if strings.IndexByte(name, '%') < 0 {
		return r.classify(name)
	}
	text := append(m.buffer(), name...)
	for range maxNesting {
		if text = unescape(text[:0], view(text), true); bytes.IndexByte(text, '%') < 0 {
			break
		}
	}
	c := r.classify(view(text))
	m.giveBuffer(text)
	return c
}

// unescape appends s with percent-encoding taken off. What is no encoding stays.
func unescape(dst []byte, s string, plus bool) []byte {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			dst = append(dst, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		case c == '+' && plus:
			dst = append(dst, ' ')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// escape appends s percent-encoded but for what can be read safely, placeholders among it.
func escape(dst []byte, s []byte) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		if charClass[c]&(charAlnum|charDash|charDot) != 0 || c == '*' || c == '~' {
			dst = append(dst, c)
			continue
		}
		if c == opening[0] {
			if n := placeholderAt(view(s[i:])); n > 0 {
				dst = append(dst, s[i:i+n]...)
				i += n - 1
				continue
			}
		}
		dst = append(dst, '%', hex[c>>4], hex[c&15])
	}
	return dst
}

// appendEncoded appends a part of a URL or form that may be percent-encoded. It stays as it was written unless it hides something.
func (r *Redactor) appendEncoded(dst []byte, s string, o options, c *Counts) ([]byte, bool) {
	if strings.IndexByte(s, '%') < 0 && (!o.plus || strings.IndexByte(s, '+') < 0) {
		return r.appendValue(dst, s, o, c)
	}
	if o.nesting >= maxNesting {
		return r.hide(dst, labelEncoded, s, c), true
	}
	text := unescape(o.m.buffer(), s, o.plus)
	inner := options{m: o.m, cut: o.cut, nesting: o.nesting + 1, formed: o.plus || o.formed}
	clean, hidden := r.appendValue(o.m.buffer(), view(text), inner, c)
	if hidden {
		dst = escape(dst, clean)
	}
	o.m.giveBuffer(text)
	o.m.giveBuffer(clean)
	if hidden {
		return dst, true
	}
	return r.appendText(dst, s, options{m: o.m, cut: o.cut, nesting: o.nesting, raw: true, formed: o.plus || o.formed}, c)
}

// hidesEncoded tells whether appendEncoded would change s.
func (r *Redactor) hidesEncoded(s string, o options) bool {
	out, hidden := r.appendEncoded(o.m.buffer(), s, o, nil)
	o.m.giveBuffer(out)
	return hidden
}

// secretsEncoded is how many secrets appendEncoded would hide in s.
func (r *Redactor) secretsEncoded(s string, o options) int {
	var c Counts
	out, hidden := r.appendEncoded(o.m.buffer(), s, o, &c)
	o.m.giveBuffer(out)
	if !hidden {
		return 0
	}
	return max(c.Total(), 1)
}

// appendValue appends the decoded value of a parameter: a URL, JSON, or any text.
func (r *Redactor) appendValue(dst []byte, s string, o options, c *Counts) ([]byte, bool) {
	if o.nesting < maxNesting {
		switch {
		case looksLikeURL(s):
			o.nesting++
			return r.appendURL(dst, s, o, c)
		case len(s) > 1 && (s[0] == '{' || s[0] == '['):
			o.nesting++
			clean, hidden := r.json(s, o, c)
			return append(dst, clean...), hidden
		}
	}
	return r.appendText(dst, s, o, c)
}

// looksLikeURL tells whether s begins like a URL with an authority, or like a path with a query.
func looksLikeURL(s string) bool {
	if len(s) > 1 && s[0] == '/' {
		return strings.IndexByte(s, '?') > 0 || s[1] == '/'
	}
	n := wordEnd(s, 0, charAlnum)
	return n > 1 && n < 16 && strings.HasPrefix(s[n:], "://")
}
