package policy

import (
	"encoding/json"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"

	"httpowerd/configs"
	"httpowerd/internal/policy/match"
	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// Schema is the JSON Schema (2020-12) of a configuration, for editors. What depends on several values is checked by Load alone.
func Schema() []byte {
	s := &schema{comments: comments(configs.Reference())}
	text, err := json.MarshalIndent(s.root(), "", "  ")
	if err != nil {
		panic(err) // made of nothing but maps and texts
	}
	return append(text, '\n')
}

type schema struct{ comments map[string]string }

// text matches what ${…} may stand in for.
func filledText() Object { return Object{{"type", "string"}, {"pattern", `\$\{`}} }

func (s *schema) root() Object {
	defaults := defaultSettings()
	v := reflect.ValueOf(&defaults).Elem()
	properties := Object{
		{"version", Object{{"const", int64(1)}, {"description", "The version of the configuration's format."}}},
		{"include", Object{{"description", "Files (globs) with more hosts, relative to this one."},
			{"anyOf", []any{Object{{"type", "string"}}, Object{{"type", "array"}, {"items", Object{{"type", "string"}}}}}}}},
	}
	for _, f := range fieldsOf(v.Type()) {
		o := s.of(v.FieldByIndex(f.index), f.key, f.key)
		if f.key == "admin" || f.key == "audit" || f.key == "notify" || f.key == "tracing" {
			o = either(o)
		}
		properties = append(properties, Member{f.key, s.described(o, f.key)})
	}
	for _, key := range laterTops {
		properties = append(properties, Member{key, later(key)})
	}
	properties = append(properties,
		Member{"defaults", Object{{"$ref", "#/$defs/defaults"}, {"description", "A policy that applies to every host."}}},
		Member{"hosts", Object{{"type", "object"}, {"description", "Policies by host pattern."}, {"additionalProperties", Object{{"$ref", "#/$defs/host"}}}}})
	definitions := Object{{"defaults", s.level(originDefaults)}, {"host", s.level(originHost)}, {"route", s.level(originRoute)}}
	for _, b := range blocks() {
		definitions = append(definitions, Member{b.name, either(s.of(reflect.ValueOf(b.config()).Elem(), b.name, "defaults."+b.name))})
	}
	return Object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "httpowerd configuration"},
		{"type", "object"}, {"required", []any{"version"}},
		{"properties", properties}, {"additionalProperties", false},
		{"$defs", definitions},
	}
}

// level is a policy as it may stand under defaults, a host or a route.
func (s *schema) level(origin string) Object {
	var properties Object
	if origin == originRoute {
		properties = append(properties,
			Member{"name", s.described(Object{{"type", "string"}, {"pattern", routeName.String()}}, "name")},
			Member{"match", s.described(s.of(reflect.New(reflect.TypeFor[match.RouteConfig]()).Elem(), "match", "match"), "match")})
	}
	for _, c := range choices() {
		words := make([]any, 0, len(c.words)+1)
		for _, w := range c.words {
			words = append(words, w)
		}
		if c.words[0] == "off" {
			words = append(words, false)
		}
		properties = append(properties, Member{c.name, s.described(Object{{"enum", words}, {"default", c.words[0]}}, c.name)})
	}
	properties = append(properties, Member{"profile", s.described(named(configs.ProfileNames()), "profile")},
		Member{"provider", s.described(named(configs.ProviderNames()), "provider")})
	for _, b := range blocks() {
		properties = append(properties, Member{b.name, s.described(Object{{"$ref", "#/$defs/" + b.name}}, b.name)})
	}
	for _, key := range laterBlocks {
		properties = append(properties, Member{key, later(key)})
	}
	out := Object{{"type", "object"}}
	switch origin {
	case originHost:
		properties = append(properties, Member{"routes", Object{{"type", "array"},
			{"description", "Policies for some of the host's requests. The first match wins."}, {"items", Object{{"$ref", "#/$defs/route"}}}}})
	case originRoute:
		out = append(out, Member{"required", []any{"match"}})
	}
	return append(out, Member{"properties", properties}, Member{"additionalProperties", false})
}

// either lets a block be switched off (or, in words, on).
func either(o Object) Object {
	return Object{{"anyOf", []any{o, Object{{"enum", []any{"off", false, "on", true}}}}}}
}

func named(names []string) Object {
	words := []any{"none", "off", false}
	for _, n := range names {
		words = append(words, n)
	}
	return Object{{"enum", words}, {"default", "none"}}
}

func later(key string) Object {
	return Object{{"description", "Not available in this release: `" + key + "` can only be switched off."},
		{"anyOf", []any{Object{{"enum", []any{"off", false}}}, Object{{"type", "object"}, {"maxProperties", int64(0)}}, Object{{"type", "array"}, {"maxItems", int64(0)}}}}}
}

// of is the schema of a field with its default value.
func (s *schema) of(v reflect.Value, key, path string) Object {
	switch value := v.Addr().Interface().(type) {
	case *redact.Secret:
		return Object{{"type", []any{"string", "number"}}}
	case setting.Decoder:
		o := Object{{"description", value.SettingKind()}}
		if d, ok := special(v); ok && d != "" {
			o = append(o, Member{"default", d})
		}
		return o
	case *setting.Mode:
		return Object{{"enum", []any{string(setting.Enforce), string(setting.Observe)}}, {"default", string(*value)}}
	case *setting.Duration:
		return Object{{"type", []any{"string", "integer"}}, {"pattern", `^[0-9.]+(ns|us|µs|ms|s|m|h|d)([0-9.]+(ns|us|µs|ms|s|m|h))*$|^0$|\$\{`}, {"default", value.String()}}
	case *setting.Size:
		return Object{{"type", []any{"string", "integer"}}, {"pattern", `^[0-9.]+ ?([KMGT]i?B|kB|B)?$|\$\{`}, {"default", value.String()}}
	}
	switch v.Kind() {
	case reflect.Struct:
		var properties Object
		for _, f := range fieldsOf(v.Type()) {
			inner := path + "." + f.key
			properties = append(properties, Member{f.key, s.described(s.of(v.FieldByIndex(f.index), f.key, inner), inner)})
		}
		return Object{{"type", "object"}, {"properties", properties}, {"additionalProperties", false}}
	case reflect.Map:
		return Object{{"type", "object"}, {"additionalProperties", s.of(reflect.New(v.Type().Elem()).Elem(), key, path)}}
	case reflect.Slice:
		return Object{{"type", "array"}, {"items", s.of(reflect.New(v.Type().Elem()).Elem(), key, path)}}
	case reflect.Bool:
		return Object{{"anyOf", []any{Object{{"type", "boolean"}}, Object{{"enum", []any{"on", "off"}}}, filledText()}}, {"default", v.Bool()}}
	case reflect.Float64:
		return Object{{"anyOf", []any{Object{{"type", "number"}}, filledText()}}, {"default", v.Float()}}
	case reflect.String:
		o := Object{{"type", []any{"string", "number"}}}
		if v.String() != "" {
			o = append(o, Member{"default", v.String()})
		}
		return o
	case reflect.Int, reflect.Int64:
		return Object{{"anyOf", []any{Object{{"type", "integer"}}, filledText()}}, {"default", v.Int()}}
	}
	return Object{}
}

// described adds the reference's comment. A policy's keys are described under defaults:.
func (s *schema) described(o Object, path string) Object {
	text := s.comments[path]
	if text == "" {
		text = s.comments["defaults."+path]
	}
	if text == "" {
		return o
	}
	for i := range o {
		if o[i].Key == "description" {
			o[i].Value = text + " (" + o[i].Value.(string) + ")"
			return o
		}
	}
	return append(Object{{"description", text}}, o...)
}

// comments reads what the reference says about each key. A host's and a route's keys are those of any policy.
func comments(reference []byte) map[string]string {
	out := map[string]string{}
	var doc yaml.Node
	if yaml.Unmarshal(reference, &doc) != nil || len(doc.Content) == 0 {
		return out
	}
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		if n.Kind == yaml.SequenceNode {
			for _, item := range n.Content {
				walk(item, strings.TrimSuffix(path, ".routes"))
			}
		}
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			inner := strings.TrimPrefix(path+"."+k.Value, ".")
			if path == "hosts" {
				inner = "defaults"
			}
			if text := prose(k.HeadComment, k.LineComment, v.HeadComment, v.LineComment); text != "" && out[inner] == "" {
				out[inner] = text
			}
			walk(v, inner)
		}
	}
	walk(doc.Content[0], "")
	return out
}

// prose is the last paragraph before a key and what stands behind it, without their number signs.
func prose(parts ...string) string {
	var words []string
	for _, p := range parts {
		paragraphs := strings.Split(strings.TrimSpace(p), "\n\n")
		for _, line := range strings.Split(paragraphs[len(paragraphs)-1], "\n") {
			if line = strings.TrimSpace(strings.TrimLeft(line, "# ")); line != "" {
				words = append(words, line)
			}
		}
	}
	return strings.Join(words, " ")
}
