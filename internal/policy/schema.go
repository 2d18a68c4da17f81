package policy

import (
	"encoding/json"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"

	"httpowerd/configs"
	"httpowerd/internal/governor"
	"httpowerd/internal/notify"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/hedge"
	"httpowerd/internal/policy/match"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
	"httpowerd/internal/policy/sanitize"
	"httpowerd/internal/policy/tenant"
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

func (s *schema) root() Object {
	defaults := defaultSettings()
	v := reflect.ValueOf(&defaults).Elem()
	properties := Object{
		{"version", append(anyForm(Object{{"const", int64(1)}}), Member{"description", "The version of the configuration's format."})},
		{"include", Object{{"description", "Files (globs) with more hosts, relative to this one."},
			{"anyOf", []any{text(), listOf(text())}}}},
	}
	for _, f := range fieldsOf(v.Type()) {
		o := s.of(v.FieldByIndex(f.index), f.key, f.key)
		switch f.key {
		case "admin", "audit", "tracing":
			o = anyForm(o, words("off", false))
		case "notify", "tenants":
			o = anyForm(o, words("off", false), emptyList())
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
			Member{"name", s.described(anyForm(ofPattern(routeName.String()), words(true, false)), "name")},
			Member{"match", s.described(s.of(reflect.New(reflect.TypeFor[match.RouteConfig]()).Elem(), "match", "match"), "match")})
	}
	for _, c := range choices() {
		known := make([]any, 0, len(c.words)+1)
		for _, w := range c.words {
			known = append(known, w)
		}
		if c.words[0] == "off" {
			known = append(known, false)
		}
		properties = append(properties, Member{c.name, s.described(append(anyForm(words(known...)), Member{"default", c.words[0]}), c.name)})
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

// anyForm is a scalar or block that may be written in any of these forms, or filled in.
func anyForm(forms ...any) Object {
	return Object{{"anyOf", append(forms, Object{{"type", "string"}, {"pattern", `\$\{`}})}}
}

func words(known ...any) Object { return Object{{"enum", known}} }

func emptyList() Object { return Object{{"type", "array"}, {"maxItems", int64(0)}} }

func text() Object { return Object{{"type", []any{"string", "number"}}} }

func listOf(items any) Object { return Object{{"type", "array"}, {"items", items}} }

func ofPattern(pattern string) Object { return Object{{"type", "string"}, {"pattern", pattern}} }

// either lets a block be switched off (or, in words, on).
func either(o Object) Object { return anyForm(o, words("off", false, "on", true)) }

func named(names []string) Object {
	known := []any{"none", "off", false}
	for _, n := range names {
		known = append(known, n)
	}
	return append(anyForm(words(known...)), Member{"default", "none"})
}

func later(key string) Object {
	return append(Object{{"description", "Not available in this release: `" + key + "` can only be switched off."}},
		anyForm(words("off", false), Object{{"type", "object"}, {"maxProperties", int64(0)}}, emptyList())...)
}

// forms are those in which a value of several shapes may be written.
func (s *schema) forms(value setting.Decoder, path string) []any {
	word, flag := Object{{"type", "string"}}, anyForm(words(true, false))
	methods := Object{{"type", "array"}, {"minItems", int64(1)}, {"items", word}}
	switch value.(type) {
	case *Addresses:
		return []any{word, listOf(word)}
	case *Open:
		return []any{words(false, "false", "off", true, "true", "on", "private")}
	case *AuditSync:
		return []any{words("always", "off", false), ofPattern(setting.DurationPattern)}
	case *Bodies:
		return []any{words("off", false, "request", "response", "all")}
	case *sanitize.Action:
		return []any{words("off", false, "report", "mask", "block")}
	case *governor.Limit:
		return []any{words("auto", "off", false), ofPattern(setting.SizePattern), Object{{"type", "integer"}}}
	case *setting.OptionalDuration:
		return []any{words("off", false), ofPattern(setting.DurationPattern)}
	case *notify.Format:
		return []any{words("json", "slack")}
	case *notify.Timeout:
		return []any{ofPattern(setting.DurationPattern)}
	case *hedge.After:
		return []any{ofPattern(`^p[0-9]{2}(\.[0-9])?$`), ofPattern(setting.DurationPattern)}
	case *ratelimit.Cost:
		return []any{Object{{"type", []any{"string", "integer"}}}}
	case *retry.Methods:
		return []any{words(retry.Safe, retry.Idempotent, retry.All), listOf(word)}
	case *retry.IdempotencyKey:
		return []any{words("off", false, "on", true), s.closed(path, "header", word, "inject", flag, "quoted", flag, "methods", methods)}
	case *concurrency.Adaptive:
		bound := append(anyForm(Object{{"type", "integer"}}), Member{"description", "A bound of what may wait for its answer at once."})
		return []any{words("off", false, "on", true), s.closed(path, "min", bound, "max", bound)}
	case *destination.Ports:
		port := Object{{"type", []any{"string", "integer"}}}
		return []any{port, Object{{"type", "array"}, {"minItems", int64(1)}, {"items", port}}}
	case *tenant.Hosts:
		return []any{Object{{"type", "object"}, {"additionalProperties", Object{{"$ref", "#/$defs/defaults"}}}}}
	case *tenant.Method:
		signed := s.closed("", "keyid", word, "algorithm", word, "secret", word, "public_key", word, "components", listOf(word), "window", word)
		method := s.closed("", "basic", s.closed("", "user", word, "password", word), "bearer", s.closed("", "token", word), "mtls", s.closed("", "name", word),
			"jwt", s.closed("", "jwks", word, "issuer", word, "audience", word, "claim", word, "value", word),
			"source", Object{{"type", "array"}, {"minItems", int64(1)}, {"items", word}}, "signature", signed, "hmac", signed)
		return []any{append(method, Member{"minProperties", int64(1)}, Member{"maxProperties", int64(1)})}
	}
	return []any{word} // a text with rules of its own, such as a URL
}

// closed is a mapping with these keys and no others.
func (s *schema) closed(path string, pairs ...any) Object {
	var properties Object
	for i := 0; i+1 < len(pairs); i += 2 {
		key := pairs[i].(string)
		properties = append(properties, Member{key, s.described(pairs[i+1].(Object), path+"."+key)})
	}
	return Object{{"type", "object"}, {"properties", properties}, {"additionalProperties", false}}
}

// of is the schema of a field with its default value.
func (s *schema) of(v reflect.Value, key, path string) Object {
	switch value := v.Addr().Interface().(type) {
	case *redact.Secret:
		return Object{{"type", []any{"string", "number", "boolean"}}}
	case setting.Decoder:
		o := append(Object{{"description", value.SettingKind()}}, anyForm(s.forms(value, path)...)...)
		if d, ok := special(v); ok && d != "" {
			o = append(o, Member{"default", d})
		}
		return o
	case *setting.Mode:
		return append(anyForm(words(string(setting.Enforce), string(setting.Observe))), Member{"default", string(*value)})
	case *setting.Duration:
		return append(anyForm(words(int64(0)), ofPattern(setting.DurationPattern)), Member{"default", value.String()})
	case *setting.Size:
		return append(anyForm(Object{{"type", "number"}, {"minimum", int64(0)}}, ofPattern(setting.SizePattern)), Member{"default", value.String()})
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
		return listOf(s.of(reflect.New(v.Type().Elem()).Elem(), key, path))
	case reflect.Bool:
		return append(anyForm(Object{{"type", "boolean"}}, words("on", "off")), Member{"default", v.Bool()})
	case reflect.Float64:
		return append(anyForm(Object{{"type", "number"}}), Member{"default", v.Float()})
	case reflect.String:
		o := text()
		if path == "admin.listen" || path == "audit.output" {
			o = anyForm(o, words(false))
		}
		if v.String() != "" {
			o = append(o, Member{"default", v.String()})
		}
		return o
	case reflect.Int, reflect.Int64:
		return append(anyForm(Object{{"type", "integer"}}), Member{"default", v.Int()})
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
