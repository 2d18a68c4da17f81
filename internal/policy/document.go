package policy

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"httpowerd/internal/setting"
)

// Bounds of what a configuration may hold: beyond them it is a mistake or an attack (an alias that doubles itself).
const (
	maxFileSize = 8 << 20
	maxNodes    = 250_000 // after aliases are expanded
	maxDepth    = 64
)

type position struct {
	file         string
	line, column int
}

type kind uint8

const (
	broken kind = iota // a fault was reported already
	scalar
	list
	mapping
)

// node is one value of a configuration, its aliases expanded and its ${…} filled in.
type node struct {
	kind    kind
	at      position // of its key, or of itself in a list
	path    string   // hosts["api.example.com"].retry
	origin  string   // which layer wrote it
	value   any      // a scalar: nil, bool, int64, float64 or string
	text    string   // a scalar as it was written
	secret  bool     // filled in from a file or a variable that is named like a secret
	filled  []string // what ${…} put into it
	private bool     // it stands where a secret may be wanted
	fields  []field  // of a mapping, in order
	items   []*node  // of a list
}

type field struct {
	key   string
	value *node
}

func (n *node) get(key string) *node {
	if n == nil || n.kind != mapping {
		return nil
	}
	for i := range n.fields {
		if n.fields[i].key == key {
			return n.fields[i].value
		}
	}
	return nil
}

// item is the one of a list that a room's fault names by its number.
func (n *node) item(number string) *node {
	if i, err := strconv.Atoi(number); err == nil && i >= 0 && i < len(n.items) {
		return n.items[i]
	}
	return nil
}

// set replaces or adds a field.
func (n *node) set(key string, v *node) {
	for i := range n.fields {
		if n.fields[i].key == key {
			n.fields[i].value = v
			return
		}
	}
	n.fields = append(n.fields, field{key, v})
}

// words are a scalar, or a list of scalars, as they were written.
func (n *node) words() []string {
	if n.kind == scalar {
		return []string{n.text}
	}
	var out []string
	for _, item := range n.items {
		out = append(out, item.text)
	}
	return out
}

// isOff tells off and false.
func (n *node) isOff() bool {
	return n != nil && n.kind == scalar && (n.value == false || n.value == "off")
}

// isOn tells on and true, the spelling of {} for those who write switches.
func (n *node) isOn() bool {
	return n != nil && n.kind == scalar && (n.value == true || n.value == "on")
}

// plain is the value as setting.Decoder takes it.
func (n *node) plain() any {
	switch n.kind {
	case scalar:
		return n.value
	case list:
		items := make([]any, len(n.items))
		for i, item := range n.items {
			items[i] = item.plain()
		}
		return items
	case mapping:
		m := make(map[string]any, len(n.fields))
		for _, f := range n.fields {
			m[f.key] = f.value.plain()
		}
		return m
	}
	return nil
}

// hasBroken tells whether a part of n was reported already.
func (n *node) hasBroken() bool {
	switch n.kind {
	case broken:
		return true
	case list:
		for _, item := range n.items {
			if item.hasBroken() {
				return true
			}
		}
	case mapping:
		for _, f := range n.fields {
			if f.value.hasBroken() {
				return true
			}
		}
	}
	return false
}

// mark names the layer that wrote n and everything in it.
func (n *node) mark(origin string) *node {
	n.origin = origin
	for _, f := range n.fields {
		f.value.mark(origin)
	}
	for _, item := range n.items {
		item.mark(origin)
	}
	return n
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// join is the path of a key below another.
func join(parent, key string) string {
	switch {
	case parent == "hosts" || !plainKey.MatchString(key):
		return parent + "[" + strconv.Quote(key) + "]"
	case parent == "":
		return key
	default:
		return parent + "." + key
	}
}

// parse reads one document. It returns nil where there is nothing to go on with.
func (r *reader) parse(name string, data []byte) *node {
	start := position{name, 1, 1}
	if len(data) > maxFileSize {
		r.faults.add(start, "", "the file is larger than 8 MiB")
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	switch err := decoder.Decode(&first); {
	case errors.Is(err, io.EOF):
		return &node{kind: mapping, at: start}
	case err != nil:
		r.syntax(name, data, err)
		return nil
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		r.syntax(name, data, err)
		return nil
	default:
		r.faults.add(position{name, second.Line, max(1, second.Column)}, "", "a second document begins here: write everything into one")
		return nil
	}
	root := first.Content[0]
	if root.Kind == yaml.ScalarNode && root.Value == "" && root.Style == 0 {
		return &node{kind: mapping, at: start} // only comments
	}
	n := r.convert(root, "", position{name, root.Line, root.Column}, 0)
	if n.kind != mapping {
		if n.kind != broken {
			r.faults.add(n.at, "", "must be a mapping of keys, is %s", n.instead(reflect.TypeFor[Settings]()))
		}
		return nil
	}
	return n
}

var (
	unknownAnchor = regexp.MustCompile(`unknown anchor '(.*)' referenced`)
	quotedByYAML  = regexp.MustCompile("(anchor )'.*'|`.*`")
	usualTag      = regexp.MustCompile(`^!!(str|int|float|bool|null|map|seq|set|omap|binary|timestamp)$`)
	parserError   = regexp.MustCompile(`did not find expected (<document start>|node content|'-' indicator|key|',' or)`)
)

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?:.*: line (\d+): )?(.*)`)

// syntax reports what yaml.v3 says in words, with a line that an editor can go to.
func (r *reader) syntax(name string, data []byte, err error) {
	line, message := 0, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		for _, digits := range m[1:3] {
			if n, err := strconv.Atoi(digits); err == nil {
				line = n
			}
		}
		message = m[3]
	}
	switch {
	case unknownAnchor.MatchString(message):
		name := unknownAnchor.FindStringSubmatch(message)[1]
		if i := bytes.Index(data, []byte("*"+name)); i >= 0 {
			line = 1 + bytes.Count(data[:i], []byte("\n"))
		}
	case parserError.MatchString(message):
		line++ // yaml.v3 counts these from 0
	}
	switch {
	case strings.Contains(message, "alphabetic or numeric"):
		message += `: a pattern that begins with * must be quoted ("*.example.com")`
	case strings.Contains(message, "flow") || strings.Contains(message, "',' or"):
		if bytes.Contains(data, []byte("${")) {
			message += ": ${…} must be quoted inside {…} and […]"
		}
	case strings.Contains(message, "cannot start any token") && bytes.Contains(lineOf(data, line), []byte("\t")):
		message = "has a tab: indent with blanks"
	case strings.Contains(message, "mapping values"):
		message += ": this line, or the one before, is indented otherwise than its neighbours, or lacks the blank behind a colon"
	case strings.Contains(message, "expected key"):
		message += ": look at the indentation here and in the lines below"
	case strings.Contains(message, "UTF-8"):
		line, message = 1+bytes.Count(data[:validUTF8(data)], []byte("\n")), "has a byte that is no UTF-8: save the file in that encoding"
	case strings.Contains(message, "control characters"):
		if i := bytes.IndexFunc(data, func(r rune) bool { return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0 }); i >= 0 {
			line = 1 + bytes.Count(data[:i], []byte("\n"))
		}
	case strings.Contains(message, "unexpected end of stream"):
		message += ": a quote is not closed"
	}
	message = quotedByYAML.ReplaceAllString(message, "$1…") // a part of a value, such as a password that begins with *
	r.faults.add(position{name, max(1, line), 1}, "", "not YAML: %s", setting.Own(message))
}

// validUTF8 is how much of the text is.
func validUTF8(data []byte) int {
	n := 0
	for n < len(data) {
		r, size := utf8.DecodeRune(data[n:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		n += size
	}
	return n
}

// lineOf is a line of the text, counted from 1.
func lineOf(data []byte, line int) []byte {
	for ; line > 1; line-- {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	data, _, _ = bytes.Cut(data, []byte("\n"))
	return data
}

// convert expands aliases, refuses what a configuration has no use for, and fills in ${…}.
func (r *reader) convert(y *yaml.Node, path string, at position, depth int) *node {
	bad := &node{kind: broken, at: at, path: path}
	if r.nodes++; r.nodes > maxNodes || depth > maxDepth {
		if !r.exceeded {
			r.exceeded = true
			if len(path) > 80 {
				path = path[:80] + "…"
			}
			r.faults.add(at, path, "the file is too deep or too large once its aliases are expanded (at most %d levels and %d values)", maxDepth, maxNodes)
		}
		return bad
	}
	if y.Style&yaml.TaggedStyle != 0 {
		if !usualTag.MatchString(y.Tag) { // an unquoted password may begin so
			r.faults.add(at, path, "has a tag (!…): tags are not supported, write the value alone, in quotes where it begins with !")
			return bad
		}
		r.faults.add(at, path, "has the tag %s: tags are not supported, write the value alone", y.Tag)
		return bad
	}
	n := &node{at: at, path: path}
	switch y.Kind {
	case yaml.AliasNode:
		return r.convert(y.Alias, path, at, depth+1)
	case yaml.ScalarNode:
		return r.scalar(y, n)
	case yaml.SequenceNode:
		n.kind = list
		for i, item := range y.Content {
			where := position{at.file, item.Line, item.Column}
			v := r.convert(item, path+"["+strconv.Itoa(i)+"]", where, depth+1)
			if v.kind == scalar && v.value == nil {
				r.faults.at(v, "is empty: write a value, or remove the dash")
				v.kind = broken
			}
			n.items = append(n.items, v)
		}
	case yaml.MappingNode:
		n.kind = mapping
		r.fields(y, n, depth)
	default:
		return bad
	}
	return n
}

func (r *reader) fields(y *yaml.Node, n *node, depth int) {
	lines := map[string]int{}
	for i := 0; i+1 < len(y.Content) && !r.exceeded; i += 2 {
		k := y.Content[i]
		at := position{n.at.file, k.Line, k.Column}
		switch {
		case k.Kind != yaml.ScalarNode || k.Style&yaml.TaggedStyle != 0:
			r.faults.add(at, n.path, "a key must be plain text")
			continue
		case k.Tag == "!!merge":
			r.faults.add(at, n.path, "merge keys (<<) are not supported: policies inherit from defaults, profile and host")
			continue
		case strings.Contains(k.Value, "${"):
			r.faults.add(at, n.path, "a key cannot hold ${…}")
			continue
		}
		path := join(n.path, k.Value)
		if line, ok := lines[k.Value]; ok {
			r.faults.add(at, path, "is written twice, first in line %d", line)
			continue
		}
		lines[k.Value] = k.Line
		v := r.convert(y.Content[i+1], path, at, depth+1)
		if v.kind == scalar && v.value == nil {
			r.faults.at(v, "has nothing after its colon: write a value, {} to switch it on as it is, or off; what belongs to it stands further in")
			v.kind = broken
		}
		n.fields = append(n.fields, field{k.Value, v})
	}
}

const unquoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle

func (r *reader) scalar(y *yaml.Node, n *node) *node {
	n.kind, n.text = scalar, y.Value
	filled := false
	if strings.Contains(y.Value, "${") {
		text, secret, err := r.fill(y.Value, n)
		if err != nil {
			r.faults.at(n, "%v", err)
			n.kind = broken
			return n
		}
		filled = text != y.Value
		n.text, n.secret = text, secret
		if secret && len(text) >= leastHidden {
			r.hidden.add(text, true)
		}
	}
	n.value = n.text
	if y.Style&unquoted == 0 {
		n.value = typed(n.text)
		if n.value == nil && filled {
			n.value = n.text // an empty variable is an empty text, not a forgotten value
		}
	}
	return n
}

var (
	integer = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)$`)
	decimal = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)?(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
)

// typed reads an unquoted scalar by YAML 1.2's rules: what looks like a date, an octal number or a yes is text.
func typed(s string) any {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	if integer.MatchString(s) {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
	}
	if decimal.MatchString(s) && strings.ContainsAny(s, "0123456789") {
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f
		}
	}
	return s
}
