package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"httpowerd/internal/redact"
)

const redacted = "[redacted]"

// Object is a mapping that keeps its order. Values are Objects, []any, string, bool, int64, float64.
type Object []Member

// Member is one key of an Object.
type Member struct {
	Key   string
	Value any
}

// MarshalJSON keeps the order.
func (o Object) MarshalJSON() ([]byte, error) { return appendJSON(nil, o) }

// appendJSON appends what json.Marshal makes of v. That would read what a nested Object has written again for each level above it.
func appendJSON(b []byte, v any) (_ []byte, err error) {
	switch v := v.(type) {
	case Object:
		b = append(b, '{')
		for i, m := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendMember(b, m); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case []any:
		if v == nil {
			return append(b, "null"...), nil
		}
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendJSON(b, item); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case string:
		return appendText(b, v)
	case bool:
		return strconv.AppendBool(b, v), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	}
	text, err := json.Marshal(v)
	return append(b, text...), err
}

func appendMember(b []byte, m Member) ([]byte, error) {
	b, err := appendText(b, m.Key)
	if err != nil {
		return nil, err
	}
	return appendJSON(append(b, ':'), m.Value)
}

func appendText(b []byte, s string) ([]byte, error) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, err := json.Marshal(s)
			return append(b, text...), err
		}
	}
	return append(append(append(b, '"'), s...), '"'), nil
}

// YAML is the object as a file.
func (o Object) YAML() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(toYAML(o)); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

func toYAML(v any) *yaml.Node {
	n := &yaml.Node{}
	switch v := v.(type) {
	case Object:
		n.Kind = yaml.MappingNode
		if len(v) == 0 {
			n.Style = yaml.FlowStyle
		}
		for _, m := range v {
			n.Content = append(n.Content, toYAML(m.Key), toYAML(m.Value))
		}
	case []any:
		n.Kind, n.Style = yaml.SequenceNode, yaml.FlowStyle
		for _, item := range v {
			if _, ok := item.(Object); ok {
				n.Style = 0
			}
			n.Content = append(n.Content, toYAML(item))
		}
	case string:
		n.SetString(v)
		if _, isText := typed(v).(string); !isText {
			n.Style = yaml.DoubleQuotedStyle
		}
	default:
		n.Kind, n.Value = yaml.ScalarNode, fmt.Sprint(v)
	}
	return n
}

// encoder turns settings into what may be shown. visit, where there is one, hears of every value.
type encoder struct {
	visit func(path []string, v reflect.Value, shown any)
}

// value encodes v; n is the node that wrote it, or nil.
func (e encoder) value(v reflect.Value, n *node, path []string) any {
	out, leaf := e.shown(v, n, path)
	if leaf && e.visit != nil {
		e.visit(path, v, out)
	}
	return out
}

func (e encoder) shown(v reflect.Value, n *node, path []string) (out any, leaf bool) {
	if v.Type() == reflect.TypeFor[redact.Secret]() {
		if v.Interface().(redact.Secret).IsZero() {
			return "", true
		}
		return redacted, true
	}
	if n != nil && n.hasSecret() && v.Kind() != reflect.Struct && v.Kind() != reflect.Map {
		return redacted, true
	}
	if s, ok := special(v); ok {
		return s, true
	}
	switch v.Kind() {
	case reflect.Bool:
		return v.Bool(), true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return int64(v.Uint()), true
	case reflect.Float64:
		return v.Float(), true
	case reflect.String:
		return harmless(v.String()), true
	case reflect.Slice, reflect.Array:
		items := make([]any, 0, v.Len())
		for i := range v.Len() {
			item, _ := encoder{}.shown(v.Index(i), nil, nil)
			items = append(items, item)
		}
		return items, true
	case reflect.Map:
		return e.entries(v, n, path), v.Len() == 0
	case reflect.Struct:
		o := Object{}
		for _, f := range fieldsOf(v.Type()) {
			o = append(o, Member{f.key, e.value(v.FieldByIndex(f.index), n.get(f.key), e.below(path, f.key))})
		}
		return o, false
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return "", true
		}
		return e.shown(v.Elem(), n, path)
	}
	return fmt.Sprint(v.Interface()), true
}

func (e encoder) entries(v reflect.Value, n *node, path []string) Object {
	o := Object{}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		o = append(o, Member{k.String(), e.value(v.MapIndex(k), n.get(k.String()), e.below(path, k.String()))})
	}
	return o
}

// below is the path of a key, for those who hear of it.
func (e encoder) below(path []string, key string) []string {
	if e.visit == nil {
		return nil
	}
	return append(slices.Clone(path), key)
}

// special is the text of types that write themselves.
func special(v reflect.Value) (string, bool) {
	if kind := v.Kind(); v.Type().PkgPath() == "" && kind != reflect.Struct && kind != reflect.Pointer && kind != reflect.Interface {
		return "", false // a type that nobody has defined has no methods
	}
	candidates := []any{v.Interface()}
	if v.CanAddr() {
		candidates = append(candidates, v.Addr().Interface())
	}
	for _, c := range candidates {
		if t, ok := c.(encoding.TextMarshaler); ok {
			if text, err := t.MarshalText(); err == nil {
				return harmless(string(text)), true
			}
		}
	}
	for _, c := range candidates {
		if s, ok := c.(fmt.Stringer); ok {
			return harmless(s.String()), true
		}
	}
	return "", false
}

// harmless takes passwords and keys out of a text, such as an upstream proxy's URL.
func harmless(s string) string {
	if len(s) < 12 {
		return s // too short for a card number, a key or a URL with a password
	}
	r := redact.Default()
	if strings.Contains(s, "://") {
		return string(r.AppendURL(nil, s, nil))
	}
	return r.Text(s)
}

// hasSecret tells whether a part of n was filled in from a secret place.
func (n *node) hasSecret() bool {
	if n.secret {
		return true
	}
	for _, item := range n.items {
		if item.hasSecret() {
			return true
		}
	}
	return slices.ContainsFunc(n.fields, func(f field) bool { return f.value.hasSecret() })
}

// Effective is the whole configuration as it holds, in the order of the reference, without secrets.
func (f *File) Effective() Object {
	hosts := Object{}
	for h := range f.effectiveHosts() {
		hosts = append(hosts, h)
	}
	return append(f.effectiveRest(), Member{"hosts", hosts})
}

// effectiveRest is all but the hosts.
func (f *File) effectiveRest() Object {
	out := Object{{"version", int64(1)}}
	for _, t := range f.tops {
		shown := encoder{}.value(reflect.ValueOf(t.config).Elem(), t.body, nil)
		if t.name == "tenants" {
			f.showTenants(shown)
		}
		out = append(out, Member{t.name, shown})
	}
	return append(out, Member{"defaults", f.base.object()})
}

// effectiveHosts are the policies of each host, made one after the other: those of ten thousand hosts take hundreds of MiB.
func (f *File) effectiveHosts() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		for _, h := range f.hosts {
			o := h.base.object()
			var routes []any
			for _, r := range h.routes {
				route := Object{{"name", r.label}, {"match", encoder{}.value(reflect.ValueOf(r.plan.matches), nil, nil)}}
				routes = append(routes, append(route, r.plan.object()...))
			}
			if routes != nil {
				o = append(o, Member{"routes", routes})
			}
			if !yield(Member{h.pattern, o}) {
				return
			}
		}
	}
}

// showTenants puts the tenants' policies where the settings know only that there are some.
func (f *File) showTenants(section any) {
	o, _ := section.(Object)
	for i := range o {
		body, _ := o[i].Value.(Object)
		for j := range body {
			if body[j].Key == "hosts" {
				body[j].Value = f.tenantObject(o[i].Key)
			}
		}
	}
}

func (f *File) tenantObject(name string) Object {
	out := Object{}
	for _, t := range f.tenants {
		if t.name != name {
			continue
		}
		for _, h := range t.hosts {
			out = append(out, Member{h.pattern.String(), h.rest.object()})
		}
	}
	return out
}

// object is the policy of one level with every block.
func (p *plan) object() Object {
	var o Object
	for _, c := range choices() {
		o = append(o, Member{c.name, p.word(c)})
	}
	o = append(o, Member{"profile", p.setName("profile")}, Member{"provider", p.setName("provider")})
	for _, b := range blocks() {
		o = append(o, Member{b.name, p.block(b, encoder{})})
	}
	return o
}

// set is the node that names the topmost profile or provider, nil where there is none.
func (p *plan) set(key string) *node {
	for _, l := range slices.Backward(p.layers) {
		if n := l.body.get(key); n != nil && n.kind == scalar {
			return n
		}
	}
	return nil
}

func (p *plan) setName(key string) string {
	if n := p.set(key); n != nil {
		return n.text
	}
	return "none"
}

func (p *plan) block(b block, e encoder) any {
	m := p.blocks[b.name]
	switch {
	case !m.on:
		return "off"
	case b.adds == levels:
		all := []any{}
		for _, l := range m.levels {
			o := encoder{visit: e.visit}.value(reflect.ValueOf(l.config).Elem(), l.body, []string{b.name, l.name}).(Object)
			all = append(all, append(Object{{"level", l.name}}, o...))
		}
		return all
	default:
		return e.value(reflect.ValueOf(m.config).Elem(), m.body, []string{b.name})
	}
}

// Hash names the effective configuration: it is of Effective's JSON. Nothing secret goes into it: it is a metrics label.
func (f *File) Hash() string {
	f.hashing.Do(func() {
		sum := sha256.New()
		if err := f.writeJSON(sum); err != nil {
			sum.Reset()
			sum.Write([]byte(f.digest))
		}
		f.hash = hex.EncodeToString(sum.Sum(nil)[:8])
	})
	return f.hash
}

// writeJSON writes what json.Marshal makes of Effective, host by host.
func (f *File) writeJSON(w io.Writer) error {
	b, err := appendJSON(nil, f.effectiveRest())
	if err != nil {
		return err
	}
	b = append(b[:len(b)-1], `,"hosts":{`...)
	between := ""
	for h := range f.effectiveHosts() {
		if b, err = appendMember(append(b, between...), h); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		b, between = b[:0], ","
	}
	_, err = w.Write(append(b, "}}"...))
	return err
}
