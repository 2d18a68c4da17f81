package policy

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// What a fault or warning may quote of a configuration is decided here alone, for every argument of its message; the words around them are ours and stay.
// Never shown are: what came from ${…}, whatever the variable is called; a value that stands where a secret may be wanted; anything of a URL but its scheme and
// host; what redaction finds.

// Who shares pieces of this length with what may not be shown is thought to quote it. Shorter ones are hidden where they are all of it.
const (
	leastPiece  = 5
	leastHidden = 4       // of a value that is named like a secret: hidden in every message
	leastFilled = 6       // of any other that came from ${…}
	mostFilled  = 8 << 10 // of a filled-in text that pieces are looked for in
)

// hidden are the texts that no message may show, each once.
type hidden struct {
	texts   []string
	secrets []string // of them, those that nobody else may show either
	known   map[string]bool
}

func (h *hidden) add(text string, secret bool) {
	if h.known == nil {
		h.known = map[string]bool{}
	}
	if was, known := h.known[text]; !known {
		h.texts = append(h.texts, text)
	} else if was || !secret {
		return
	}
	h.known[text] = secret
	if secret {
		h.secrets = append(h.secrets, text)
	}
}

// quoter puts into a message about n what may be shown.
type quoter struct {
	hidden *hidden
	pieces []string // what may not be shown of n and of what is in it
	values []string // the scalars that hold some of those, as a whole
}

func (h *hidden) quoter(n *node) quoter {
	q := quoter{hidden: h}
	q.look(n)
	return q
}

func (q *quoter) look(n *node) {
	if n == nil {
		return
	}
	if len(n.filled) > 0 {
		q.pieces = append(q.pieces, n.filled...)
		q.values = append(q.values, n.text)
	}
	if n.kind == scalar && strings.Contains(n.text, "://") {
		q.pieces = append(q.pieces, behindURL(n.text)...)
	}
	for _, f := range n.fields {
		q.look(f.value)
	}
	for _, item := range n.items {
		q.look(item)
	}
}

// message is format with args as they may be shown.
func (q quoter) message(format string, args []any) string {
	shown := make([]any, len(args))
	for i, a := range args {
		shown[i] = q.argument(a)
	}
	return fmt.Sprintf(format, shown...)
}

func (q quoter) argument(a any) any {
	switch a := a.(type) {
	case nil, setting.Own:
		return a
	case *node:
		return a.describe()
	case setting.Fault:
		if a.Key == "" && a.Format != "" {
			return q.message(a.Format, a.Args)
		}
	case string:
		return q.text(a)
	}
	plain := fmt.Sprint(a)
	if q.isValue(a, plain) {
		return placeholder(redact.Placeholder)
	}
	if text := q.text(plain); text != plain {
		return placeholder(text)
	}
	return a
}

// isValue tells whether a is a hidden scalar, as a number, a duration or a size.
func (q quoter) isValue(a any, plain string) bool {
	for _, text := range q.values {
		switch a := a.(type) {
		case setting.Duration:
			if d, err := setting.ParseDuration(text); err == nil && d == a.D() {
				return true
			}
		case setting.Size:
			if z, err := setting.ParseSize(text); err == nil && z == int64(a) {
				return true
			}
		}
		if value := typed(text); value != nil && fmt.Sprint(value) == plain {
			return true
		}
	}
	return false
}

// placeholder takes the place of an argument of any type: it is written as it is, whatever the verb.
type placeholder string

// Format writes the text.
func (p placeholder) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(p)) }

// path is where a value stands. Keys are not filled in, but one may be a URL or a secret in the wrong place.
func (q quoter) path(s string) string { return redact.Default().Text(hostsOnly(short(s))) }

func (q quoter) text(s string) string {
	for _, p := range q.pieces {
		if len(p) >= leastPiece {
			s = strings.ReplaceAll(s, p, redact.Placeholder) // most often all of it, however long
		}
	}
	for _, h := range q.hidden.texts {
		s = strings.ReplaceAll(s, h, redact.Placeholder)
	}
	s = short(s)
	for _, p := range q.pieces {
		s = withoutPieces(s, p)
	}
	return redact.Default().Text(hostsOnly(strings.ToValidUTF8(s, "?")))
}

// withoutPieces is s without what it has in common with text, in whatever case.
func withoutPieces(s, text string) string {
	if _, rest, ok := strings.Cut(text, "://"); ok {
		text = rest // a scheme is in many of our own words
	}
	if len(text) > mostFilled {
		text = text[:mostFilled]
	}
	least := min(len(text), leastPiece)
	if least < leastPiece && s != text {
		return s
	}
	inS, inText := lowerASCII(s), lowerASCII(text)
	var b strings.Builder
	rest := 0
	for i := 0; least > 0 && i+least <= len(s); i++ {
		end := i + least
		if !strings.Contains(inText, inS[i:end]) {
			continue
		}
		for end < len(s) && strings.Contains(inText, inS[i:end+1]) {
			end++
		}
		b.WriteString(s[rest:i])
		if !strings.HasSuffix(b.String(), redact.Placeholder) {
			b.WriteString(redact.Placeholder)
		}
		rest, i = end, end-1
	}
	if rest == 0 {
		return s
	}
	return b.String() + s[rest:]
}

// lowerASCII is s in lower case, byte for byte.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

var (
	urlShape  = regexp.MustCompile("[A-Za-z][A-Za-z0-9+.-]*://[^\\s\"'`<>]*")
	hostShape = regexp.MustCompile(`^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$`)
	wordShape = regexp.MustCompile(`[A-Za-z0-9]`)
)

// hostsOnly leaves of each URL in s its scheme and host. What begins with a scheme is one URL.
func hostsOnly(s string) string {
	switch i := strings.Index(s, "://"); {
	case i < 0:
		return s
	case i == len(urlScheme(s[:i])):
		return hostOnly(s)
	}
	return urlShape.ReplaceAllStringFunc(s, hostOnly)
}

func hostOnly(s string) string {
	scheme, rest, _ := strings.Cut(s, "://")
	if !wordShape.MatchString(rest) {
		return s // such as "http://," in a list of what may be written
	}
	host := hostOf(s)
	if rest == host || rest == host+"/" {
		return s
	}
	return scheme + "://" + host + "/…"
}

// urlScheme is the scheme that s ends in.
func urlScheme(s string) string {
	i := strings.LastIndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("+.-", r) && !(r < 0x80 && wordShape.MatchString(string(r)))
	})
	return s[i+1:]
}

// hostOf is the host of a URL, with its port; "" where a password might be taken for one.
func hostOf(s string) string {
	_, rest, _ := strings.Cut(s, "://")
	host, behind := rest, ""
	if i := strings.IndexAny(rest, "/?#\\"); i >= 0 {
		host, behind = rest[:i], rest[i:]
	}
	host = host[strings.LastIndexByte(host, '@')+1:]
	if strings.Contains(behind, "@") || !hostShape.MatchString(host) {
		return ""
	}
	return host
}

// behindURL is what stands around the host of a URL.
func behindURL(s string) []string {
	_, rest, _ := strings.Cut(s, "://")
	if host := hostOf(s); host != "" {
		before, behind, _ := strings.Cut(rest, host)
		return []string{before, behind}
	}
	return []string{rest}
}

// describe says what n is, for messages.
func (n *node) describe() setting.Own {
	switch n.kind {
	case list:
		return "a list"
	case mapping:
		return "a mapping"
	case scalar:
		text, _ := n.quoted()
		return text
	}
	return "nothing"
}

// quoted is a scalar for a message. whole is false where it is not shown, or not all of it.
func (n *node) quoted() (shown setting.Own, whole bool) {
	text, isText := n.value.(string)
	switch {
	case n.isFilled():
		return "a text from ${…}", false
	case n.isOn(), n.isOff():
	case strings.Contains(n.text, "://"):
		if host := hostOf(n.text); host != "" {
			return setting.Own(redact.Default().Text("a URL of host " + host)), false
		}
		return "a URL", false
	case n.private:
		return "a text", false
	case strings.Contains(n.text, "@"), redact.Default().Text(n.text) != n.text:
		return "a text", false // it may hold a password
	}
	if !isText {
		return setting.Own(n.text), true
	}
	if whole = len(text) <= 60; !whole {
		text = text[:60] + "…"
	}
	return setting.Own(strconv.QuoteToGraphic(strings.ToValidUTF8(text, "?"))), whole
}

// isFilled tells whether a part of a scalar came from ${…}.
func (n *node) isFilled() bool { return len(n.filled) > 0 }

// instead marks n, which stands where a value of t is wanted: it may be a secret in the wrong place.
func (n *node) instead(t reflect.Type) *node {
	n.private = n.private || holdsSecret(t, 0)
	return n
}

// maxTypeDepth bounds how deep a type is searched: one that holds itself has no end.
const maxTypeDepth = 8

// holdsSecret tells whether a value of t is or holds a secret.
func holdsSecret(t reflect.Type, depth int) bool {
	if t == reflect.TypeFor[redact.Secret]() {
		return true
	}
	if depth > maxTypeDepth {
		return false
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if holdsSecret(t.Field(i).Type, depth+1) {
				return true
			}
		}
	case reflect.Map, reflect.Slice, reflect.Array, reflect.Pointer:
		return holdsSecret(t.Elem(), depth+1)
	}
	return false
}
