package query

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxDepth is how deep a record may be nested; ours are not deeper than three.
const maxDepth = 32

// record is one line, cut into its fields. It is valid until the next one is read.
type record struct {
	line   []byte
	fields []field
	text   [2][]byte // scratch for strings with escapes
}

type field struct{ key, value []byte }

// parse cuts a line. It is as strict as JSON is, so that whatever is printed as it stands is one JSON object; what has no time or no kind is no record of ours.
func (r *record) parse(line []byte) bool {
	r.line, r.fields = line, r.fields[:0]
	s := scanner{b: line}
	if !s.object(0, func(key, value []byte) { r.fields = append(r.fields, field{key, value}) }) {
		return false
	}
	s.space()
	return s.at == len(line) && len(r.get("time")) > 2 && len(r.get("kind")) > 2
}

// get is the raw value of a field, nil where there is none.
func (r *record) get(key string) []byte {
	for i := range r.fields {
		if string(r.fields[i].key) == key {
			return r.fields[i].value
		}
	}
	return nil
}

// str is a field's text: a string without its escapes, any other value as JSON. It is valid until the next call.
func (r *record) str(key string) []byte { return r.plain(0, r.get(key)) }

// plain takes a value's quotes and escapes away; slot chooses the scratch.
func (r *record) plain(slot int, raw []byte) []byte {
	if len(raw) < 2 || raw[0] != '"' {
		return raw
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return raw
	}
	r.text[slot] = append(r.text[slot][:0], text...)
	return r.text[slot]
}

// number is a field that is one.
func (r *record) number(key string) (float64, bool) {
	raw := r.get(key)
	if len(raw) == 0 || raw[0] == '"' {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	return v, err == nil && !math.IsInf(v, 0)
}

// time is when the record was written.
func (r *record) time() (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, string(r.str("time")))
	return t, err == nil
}

// exchange tells whether the record is of a request or a tunnel, and not of something that befell the daemon.
func (r *record) exchange() bool {
	kind := string(r.get("kind"))
	return kind == `"request"` || kind == `"tunnel"`
}

// attempts calls f with each attempt; the number of calls is the number of attempts.
func (r *record) attempts(f func(attempt *record)) int {
	n := 0
	var a record
	s := scanner{b: r.get("attempts")}
	s.array(0, func(value []byte) {
		n++
		if f == nil {
			return
		}
		a.fields = a.fields[:0]
		inner := scanner{b: value}
		inner.object(0, func(key, value []byte) { a.fields = append(a.fields, field{key, value}) })
		f(&a)
	})
	return n
}

// each calls f with the texts of a list.
func (r *record) each(key string, f func(text []byte)) {
	s := scanner{b: r.get(key)}
	s.array(0, func(value []byte) { f(r.plain(1, value)) })
}

// redactions calls f with what was hidden, by kind.
func (r *record) redactions(f func(kind []byte, n float64)) {
	raw := r.get("redactions")
	if raw == nil {
		return
	}
	s := scanner{b: raw}
	s.object(0, func(key, value []byte) {
		if n, err := strconv.ParseFloat(string(value), 64); err == nil {
			f(key, n)
		}
	})
}

// scanner walks JSON (RFC 8259) without making values of it.
type scanner struct {
	b  []byte
	at int
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// take is whether the next byte is c, which is then behind.
func (s *scanner) take(c byte) bool {
	if s.at < len(s.b) && s.b[s.at] == c { // without space before it, as we write
		s.at++
		return true
	}
	s.space()
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) object(depth int, f func(key, value []byte)) bool {
	if depth > maxDepth || !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		s.space()
		from := s.at
		if !s.string() {
			return false
		}
		key := s.b[from+1 : s.at-1]
		if !s.take(':') {
			return false
		}
		s.space()
		from = s.at
		if !s.value(depth + 1) {
			return false
		}
		if f != nil {
			f(key, s.b[from:s.at])
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) array(depth int, f func(value []byte)) bool {
	if depth > maxDepth || !s.take('[') {
		return false
	}
	if s.take(']') {
		return true
	}
	for {
		s.space()
		from := s.at
		if !s.value(depth + 1) {
			return false
		}
		if f != nil {
			f(s.b[from:s.at])
		}
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) value(depth int) bool {
	if s.at == len(s.b) {
		return false
	}
	switch c := s.b[s.at]; {
	case c == '"':
		return s.string()
	case c == '{':
		return s.object(depth, nil)
	case c == '[':
		return s.array(depth, nil)
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(s.b[s.at:], []byte(word)) {
			s.at += len(word)
			return true
		}
	}
	return false
}

// stops are the bytes at which the way through a string is no longer simple.
var stops = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

func (s *scanner) string() bool {
	if s.at == len(s.b) || s.b[s.at] != '"' {
		return false
	}
	for i := s.at + 1; i < len(s.b); i++ {
		c := s.b[i]
		if !stops[c] {
			continue
		}
		switch c {
		case '"':
			s.at = i + 1
			return true
		case '\\':
			n := escape(s.b[i+1:])
			if n == 0 {
				return false
			}
			i += n
		default:
			return false
		}
	}
	return false
}

// escape is how many bytes follow the backslash, 0 for none that may.
func escape(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	if bytes.IndexByte([]byte(`"\/bfnrt`), b[0]) >= 0 {
		return 1
	}
	if b[0] != 'u' || len(b) < 5 {
		return 0
	}
	for _, c := range b[1:5] {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return 0
		}
	}
	return 5
}

func (s *scanner) number() bool {
	if s.b[s.at] == '-' {
		s.at++
	}
	zero := s.at < len(s.b) && s.b[s.at] == '0'
	if n := s.digits(); n == 0 || zero && n > 1 {
		return false
	}
	if s.at < len(s.b) && s.b[s.at] == '.' {
		s.at++
		if s.digits() == 0 {
			return false
		}
	}
	if s.at < len(s.b) && s.b[s.at]|0x20 == 'e' {
		s.at++
		if s.at < len(s.b) && (s.b[s.at] == '+' || s.b[s.at] == '-') {
			s.at++
		}
		return s.digits() > 0
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (s *scanner) digits() int {
	from := s.at
	for s.at < len(s.b) && isDigit(s.b[s.at]) {
		s.at++
	}
	return s.at - from
}

// printable escapes in text what could move a terminal's cursor, end a line or turn the reading direction.
func printable(b, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, "\ufffd"...)
		case !strconv.IsPrint(r):
			quoted := strconv.AppendQuoteRune(nil, r)
			b = append(b, quoted[1:len(quoted)-1]...)
		default:
			b = append(b, text[:n]...)
		}
		text = text[n:]
	}
	return b
}
