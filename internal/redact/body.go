package redact

import (
	"encoding/binary"
	"encoding/json"
	"mime"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"httpowerd/internal/swar"
)

// Body is the content of a message without secrets, as UTF-8. It reads JSON (also several documents, one after the other), forms, multipart forms,
// XML, HTML and event streams by their structure and everything else as text; what contentType says is a hint that the content may overrule. Content
// that is no text is replaced by a marker with its length. truncated says that the content went on: what begins like a secret at its end then counts as
// one. Where nothing is hidden data itself is returned.
func (r *Redactor) Body(contentType string, data []byte, truncated bool, c *Counts) []byte {
	if len(data) == 0 {
		return data
	}
	m := borrow()
	defer m.release()
	return r.body(contentType, data, options{m: m, cut: truncated}, c)
}

func (r *Redactor) body(contentType string, data []byte, o options, c *Counts) []byte {
	kind, params := mediaType(contentType)
	text, ok := decodeText(view(data), kind, params["charset"], o.cut)
	if !ok {
		return marker(len(data))
	}
	clean, hidden := r.content(kind, params, text, o, c)
	if !hidden && text == view(data) {
		return data
	}
	return []byte(clean)
}

// marker stands for content that cannot be shown.
func marker(n int) []byte {
	return append(strconv.AppendInt([]byte("[binary content, "), int64(n), 10), " bytes]"...)
}

// mediaType reads a Content-Type, a broken one as far as possible.
func mediaType(contentType string) (string, map[string]string) {
	if contentType == "application/json" {
		return contentType, nil
	}
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil && kind == "" {
		kind, _, _ = strings.Cut(contentType, ";")
		kind = strings.ToLower(strings.TrimSpace(kind))
	}
	return kind, params
}

// content reads a text by its structure.
func (r *Redactor) content(kind string, params map[string]string, s string, o options, c *Counts) (string, bool) {
	start := strings.TrimLeft(s, " \t\r\n\ufeff")
	if start == "" {
		return s, false
	}
	switch {
	case o.nesting > maxNesting:
		return r.asText(s, o, c)
	case kind == formType && strings.IndexByte("{[<-", start[0]) >= 0 && !json.Valid([]byte(s)) && !strings.ContainsAny(start, " \t\r\n\""):
		out, hidden := r.appendQuery(nil, s, o, c)
		return string(out), hidden
	case strings.HasPrefix(kind, "multipart/"), strings.HasPrefix(start, "--") && strings.Contains(s[:min(len(s), 2048)], "ontent-"):
		return r.multipart(s, params["boundary"], o, c)
	case kind == "text/event-stream":
		return r.events(s, o, c)
	case isCSV(kind):
		return r.csv(s, o, c)
	case start[0] == '{' || start[0] == '[':
		return r.json(strings.TrimPrefix(s, "\ufeff"), o, c)
	case start[0] == '<' && len(start) > 1 && placeholderAt(start) == 0 && (start[1] == '?' || start[1] == '!' || isAlnum(start[1])):
		return r.xml(s, o, c)
	case isForm(kind, start):
		out, hidden := r.appendQuery(nil, s, o, c)
		return string(out), hidden
	case guardAt(kind, start) > 0:
		at := len(s) - len(start) + guardAt(kind, start)
		out, changed := r.appendText(nil, s[:at], options{m: o.m, nesting: o.nesting}, c)
		text, hidden := r.json(s[at:], o, c)
		return string(append(out, text...)), changed || hidden
	case strings.HasSuffix(kind, "json") && (start[0] == '"' || start[0] == '-' || isDigit(start[0])):
		return r.json(s, o, c)
	}
	return r.asText(s, o, c)
}

// guardAt is where the JSON begins behind what keeps browsers from running it: )]}', while(1); or the name of a callback.
func guardAt(kind, s string) int {
	const longest = 64
	if !strings.HasSuffix(kind, "json") && !strings.HasSuffix(kind, "javascript") || s[0] == '"' || s[0] == '-' || isDigit(s[0]) {
		return 0
	}
	return strings.IndexAny(s[:min(len(s), longest)], "{[")
}

func (r *Redactor) asText(s string, o options, c *Counts) (string, bool) {
	out, hidden := r.appendText(nil, s, o, c)
	return string(out), hidden
}

const formType = "application/x-www-form-urlencoded"

// isForm tells whether s is a form: it is said to be one, or reads like one.
func isForm(kind, s string) bool {
	if kind == formType {
		return true
	}
	name := wordEnd(s, 0, charAlnum|charName)
	if name == 0 || name >= len(s) || s[name] != '=' {
		return false
	}
	return !strings.ContainsAny(strings.TrimRight(s, " \t\r\n"), " \t\r\n\"<>{}")
}

// decodeText is s as UTF-8. It reports false for what is no text.
func decodeText(s, kind, charset string, cut bool) (string, bool) {
	switch charset = strings.ToLower(charset); {
	case strings.HasPrefix(s, "\xff\xfe"), charset == "utf-16le":
		return decodeWide(s, binary.LittleEndian)
	case strings.HasPrefix(s, "\xfe\xff"), charset == "utf-16be", charset == "utf-16":
		return decodeWide(s, binary.BigEndian)
	case charset == "utf-7", strings.HasPrefix(charset, "utf-32"), strings.HasPrefix(charset, "ibm"), strings.Contains(charset, "ebcdic"),
		strings.HasPrefix(charset, "iso-2022"), strings.HasPrefix(charset, "hz-"):
		return "", false // ASCII characters stand for others, or others for them
	case utf8.ValidString(s):
		return s, isText(s)
	case cut && utf8.ValidString(trimRune(s)):
		return trimRune(s), isText(s)
	case charset == "iso-8859-1" || charset == "latin1" || charset == "windows-1252" || charset == "iso-8859-15":
		return decodeLatin(s), isText(s)
	case charset != "" && charset != "utf-8" || strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "json") || strings.HasSuffix(kind, "xml") ||
		strings.HasSuffix(kind, "form-urlencoded"):
		return strings.ToValidUTF8(s, "\uFFFD"), isText(s)
	case strings.HasPrefix(kind, "multipart/"): // its parts are judged one by one
		return s, true
	}
	return "", false
}

// isText: text has next to no control characters.
func isText(s string) bool {
	controls := 0
	for i := 0; i < len(s); i++ {
		for i+32 <= len(s) && controls8(s[i:])|controls8(s[i+8:])|controls8(s[i+16:])|controls8(s[i+24:]) == 0 {
			i += 32
		}
		for i+8 <= len(s) && controls8(s[i:]) == 0 {
			i += 8
		}
		if i == len(s) {
			break
		}
		if c := s[i]; c < ' ' && !isSpace(c) && c != 0x1b {
			if controls++; c == 0 || controls > 8+len(s)/256 {
				return false
			}
		}
	}
	return true
}

// controls8 has a bit set for where, of the first eight bytes of s, one is below a space.
func controls8(s string) uint64 { return swar.Below(swar.Word(s), ' ') }

// trimRune takes off a character that was cut in two.
func trimRune(s string) string {
	for n := 1; n < utf8.UTFMax && n <= len(s); n++ {
		if utf8.RuneStart(s[len(s)-n]) {
			if !utf8.FullRuneInString(s[len(s)-n:]) {
				return s[:len(s)-n]
			}
			break
		}
	}
	return s
}

func decodeWide(s string, order binary.ByteOrder) (string, bool) {
	units := make([]uint16, 0, len(s)/2)
	for i := 0; i+1 < len(s); i += 2 {
		units = append(units, order.Uint16([]byte(s[i:i+2])))
	}
	if len(units) > 0 && units[0] != 0xfeff && isSwapped(units) { // the charset says the wrong order, or none
		for i, u := range units {
			units[i] = u<<8 | u>>8
		}
	}
	if len(units) > 0 && units[0] == 0xfeff {
		units = units[1:]
	}
	text := string(utf16.Decode(units))
	return text, isText(text)
}

// isSwapped tells whether there are more ASCII characters in units when their bytes are read the other way round.
func isSwapped(units []uint16) bool {
	as, swapped := 0, 0
	for _, u := range units {
		switch {
		case u < 0x80:
			as++
		case u&0xff == 0 && u < 0x8000:
			swapped++
		}
	}
	return swapped > as
}

func decodeLatin(s string) string {
	var b strings.Builder
	b.Grow(len(s) + len(s)/8)
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

// events reads an event stream: what a data line holds is JSON or text.
func (r *Redactor) events(s string, o options, c *Counts) (string, bool) {
	var out []byte
	changed := false
	for rest := s; rest != ""; {
		line, after, more := strings.Cut(rest, "\n")
		in := options{m: o.m, cut: o.cut && !more, nesting: o.nesting + 1}
		name, value, found := strings.Cut(line, ":")
		var text string
		var hidden bool
		if v := strings.TrimLeft(value, " "); found && name == "data" && v != "" {
			text, hidden = r.content("", nil, v, in, c)
			text = value[:len(value)-len(v)] + text
		} else {
			text, hidden = r.asText(line, in, c)
			name, found = text, false
		}
		out = append(out, name...)
		if found {
			out = append(append(out, ':'), text...)
		}
		if more {
			out = append(out, '\n')
		}
		changed, rest = changed || hidden, after
	}
	if !changed {
		return s, false
	}
	// What is spread over lines is seen only when the lines are seen together.
	text, _ := r.asText(string(out), o, c)
	return text, true
}
