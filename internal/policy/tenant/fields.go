package tenant

import (
	"net/http"
	"slices"
	"strings"
)

// members splits a line of a dictionary (RFC 9651 section 3.2) at its own commas, not at those in texts and inner lists.
func members(line string) (out []string) {
	depth, quoted, start := 0, false, 0
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth <= 0:
			out = append(out, line[start:i])
			start = i + 1
		}
	}
	return append(out, line[start:])
}

// labelOf is the key of a member and what it is set to.
func labelOf(member string) (label, value string, ok bool) {
	return strings.Cut(strings.Trim(member, " \t"), "=")
}

// without takes a member out of a dictionary. Lines that do not hold it stay byte for byte; the header's own slice is not written to.
func without(h http.Header, name, label string) {
	var out []string
	for _, line := range h[name] {
		all := members(line)
		kept := slices.DeleteFunc(slices.Clone(all), func(m string) bool { l, _, _ := labelOf(m); return l == label })
		if len(kept) == len(all) {
			out = append(out, line)
		} else if rest := strings.Trim(strings.Join(kept, ","), " \t"); rest != "" {
			out = append(out, rest)
		}
	}
	if out == nil {
		delete(h, name)
		return
	}
	h[name] = out
}

// quotedText reads a text without escapes and what stands behind it.
func quotedText(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[1:i], s[i+1:], true
		case c < ' ' || c >= 0x7f || c == '\\':
			return "", "", false
		}
	}
	return "", "", false
}

// innerList is a list of component names with its parameters, such as ("@method");created=1;keyid="a".
type innerList struct {
	components []string
	params     map[string]string // texts without their quotes
}

const maxComponents = 64

// parseInnerList reads the one form that a serializer writes (RFC 9651 section 4.1), so that what was signed is what was sent. Components have no parameters
// here: none that have are known.
func parseInnerList(text string) (l innerList, ok bool) {
	rest, ok := strings.CutPrefix(text, "(")
	if !ok {
		return l, false
	}
	for rest != "" && rest[0] != ')' {
		if len(l.components) > 0 {
			if rest[0] != ' ' {
				return l, false
			}
			rest = rest[1:]
		}
		var name string
		if name, rest, ok = quotedText(rest); !ok || slices.Contains(l.components, name) || len(l.components) == maxComponents {
			return l, false
		}
		l.components = append(l.components, name)
	}
	if rest == "" {
		return l, false
	}
	l.params, ok = parameters(rest[1:])
	return l, ok
}

// parameters reads ;name=value … to the end: texts and whole numbers, each name once.
func parameters(rest string) (map[string]string, bool) {
	out := map[string]string{}
	for rest != "" {
		if rest[0] != ';' {
			return nil, false
		}
		name, after, ok := strings.Cut(rest[1:], "=")
		if _, twice := out[name]; !ok || twice || name == "" || after == "" {
			return nil, false
		}
		if after[0] == '"' {
			if out[name], rest, ok = quotedText(after); !ok {
				return nil, false
			}
			continue
		}
		end := strings.IndexByte(after, ';')
		if end < 0 {
			end = len(after)
		}
		if _, ok := seconds(after[:end]); !ok {
			return nil, false
		}
		out[name], rest = after[:end], after[end:]
	}
	return out, true
}

// authParams reads name="value", … (RFC 9110 section 11.2), each name once.
func authParams(text string) (map[string]string, bool) {
	out := map[string]string{}
	for {
		name, rest, ok := strings.Cut(strings.TrimLeft(text, " \t"), "=")
		if _, twice := out[name]; !ok || twice || name == "" {
			return nil, false
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			if value, rest, ok = quotedText(rest); !ok {
				return nil, false
			}
		} else {
			end := strings.IndexAny(rest, ", \t")
			if end < 0 {
				end = len(rest)
			}
			value, rest = rest[:end], rest[end:]
		}
		out[name] = value
		if rest = strings.TrimLeft(rest, " \t"); rest == "" {
			return out, true
		}
		if text, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, false
		}
	}
}

// seconds reads a time since 1970, as a serializer writes it.
func seconds(text string) (n int64, ok bool) {
	if text == "" || len(text) > 12 || text[0] == '0' && len(text) > 1 {
		return 0, false
	}
	for i := 0; i < len(text); i++ {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(text[i]-'0')
	}
	return n, true
}
