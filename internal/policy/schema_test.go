package policy

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"httpowerd/configs"
)

// keysOfFile lists every path of a file that loads.
func keysOfFile(n *yaml.Node, path string, into map[string]bool) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		inner := strings.TrimPrefix(path+"."+n.Content[i].Value, ".")
		into[inner] = true
		keysOfFile(n.Content[i+1], inner, into)
	}
}

// schemaKeys lists every path that the schema knows below a schema node.
func schemaKeys(t *testing.T, defs, node map[string]any, path string, into map[string]bool) {
	if ref, ok := node["$ref"].(string); ok {
		node = defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	for _, alternative := range anyOf(node) {
		schemaKeys(t, defs, alternative, path, into)
	}
	properties, _ := node["properties"].(map[string]any)
	if properties != nil && node["additionalProperties"] != false {
		t.Errorf("%s: unknown keys are allowed", path)
	}
	for key, v := range properties {
		inner := strings.TrimPrefix(path+"."+key, ".")
		into[inner] = true
		schemaKeys(t, defs, v.(map[string]any), inner, into)
	}
}

func anyOf(node map[string]any) (out []map[string]any) {
	list, _ := node["anyOf"].([]any)
	for _, v := range list {
		out = append(out, v.(map[string]any))
	}
	return out
}

func TestSchemaKnowsWhatTheReferenceShows(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	schemaKeys(t, root["$defs"].(map[string]any), root, "", known)

	var doc yaml.Node
	if err := yaml.Unmarshal(configs.Reference(), &doc); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	keysOfFile(doc.Content[0], "", shown)
	for _, key := range slices.Sorted(maps.Keys(shown)) {
		if strings.HasPrefix(key, "hosts.") || strings.Contains(key, "idempotency_key.") {
			continue
		}
		if !known[key] {
			t.Errorf("the reference shows %s, the schema does not", key)
		}
	}
	if !bytes.Contains(Schema(), []byte(`"$schema": "https://json-schema.org/draft/2020-12/schema"`)) {
		t.Error("the schema does not say its draft")
	}
}

func TestReferenceLoads(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "reference.yaml"), string(configs.Reference()))
	if _, faults := Load(Source{Path: path, Env: func(string) (string, bool) { return "", false }}); len(faults) > 0 {
		t.Fatal(faults)
	}
}

func TestEveryProfileAndProviderLoads(t *testing.T) {
	for key, names := range map[string][]string{"profile": configs.ProfileNames(), "provider": configs.ProviderNames()} {
		if len(names) == 0 {
			t.Errorf("no %ss", key)
		}
		for _, name := range names {
			loadText(t, "version: 1\nhosts:\n  api.example.com: {tls: intercept, rate_limit: {learn: true}, "+key+": "+name+"}\n")
		}
	}
}

// satisfies tells whether a value is one that the schema allows. It knows the keywords that Schema uses.
func satisfies(t *testing.T, root, node map[string]any, v any) bool {
	t.Helper()
	if ref, ok := node["$ref"].(string); ok {
		return satisfies(t, root, root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), v)
	}
	for keyword, want := range node {
		ok := true
		switch keyword {
		case "type":
			list, several := want.([]any)
			if !several {
				list = []any{want}
			}
			ok = slices.ContainsFunc(list, func(name any) bool { return isType(name.(string), v) })
		case "enum":
			ok = slices.Contains(want.([]any), number(v))
		case "const":
			ok = want == number(v)
		case "pattern":
			text, isText := v.(string)
			ok = !isText || regexp.MustCompile(want.(string)).MatchString(text)
		case "minimum":
			n, isNumber := number(v).(float64)
			ok = !isNumber || n >= want.(float64)
		case "anyOf":
			ok = slices.ContainsFunc(want.([]any), func(one any) bool { return satisfies(t, root, one.(map[string]any), v) })
		case "required":
			m, isMap := v.(map[string]any)
			ok = !isMap || !slices.ContainsFunc(want.([]any), func(key any) bool { _, there := m[key.(string)]; return !there })
		case "properties", "additionalProperties":
			m, _ := v.(map[string]any)
			known, _ := node["properties"].(map[string]any)
			for key, value := range m {
				one, isKnown := known[key].(map[string]any)
				if !isKnown {
					one, isKnown = node["additionalProperties"].(map[string]any)
				}
				ok = ok && isKnown && satisfies(t, root, one, value)
			}
		case "items":
			list, _ := v.([]any)
			for _, item := range list {
				ok = ok && satisfies(t, root, want.(map[string]any), item)
			}
		case "minItems", "maxItems":
			if list, isList := v.([]any); isList {
				ok = (keyword == "minItems") == (len(list) >= int(want.(float64))) || len(list) == int(want.(float64))
			}
		case "minProperties", "maxProperties":
			if m, isMap := v.(map[string]any); isMap {
				ok = (keyword == "minProperties") == (len(m) >= int(want.(float64))) || len(m) == int(want.(float64))
			}
		case "description", "default", "title", "$schema", "$defs":
		default:
			t.Fatalf("the schema has the keyword %s, which this test does not know", keyword)
		}
		if !ok {
			return false
		}
	}
	return true
}

// number is a JSON number as encoding/json has it.
func number(v any) any {
	switch n := v.(type) {
	case int:
		return float64(n)
	case []any, map[string]any:
		return nil // compared with scalars alone
	}
	return v
}

func isType(name string, v any) bool {
	switch v := number(v).(type) {
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case float64:
		return name == "number" || name == "integer" && v == math.Trunc(v)
	}
	switch v.(type) {
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	return false
}

// checker validates texts against the schema.
func checker(t *testing.T) (root map[string]any, valid func(text string) bool) {
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	return root, func(text string) bool {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		return satisfies(t, root, root, v)
	}
}

// places calls visit with a file for each key that the schema knows, up to its value. What several levels may hold is walked through at the first.
type places struct {
	root  map[string]any
	seen  map[string]bool
	visit func(before string)
}

func (p *places) walk(node map[string]any, before string, depth int) {
	if ref, ok := node["$ref"].(string); ok {
		if p.seen[ref] {
			return
		}
		p.seen[ref] = true
		node = p.root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	into := func(inner any, line string) {
		if inner, ok := inner.(map[string]any); ok {
			line = before + "\n" + strings.Repeat("  ", depth) + line
			p.visit(line)
			p.walk(inner, line, depth+1)
		}
	}
	for _, one := range anyOf(node) {
		p.walk(one, before, depth)
	}
	properties, _ := node["properties"].(map[string]any)
	beside := ""
	if required, _ := node["required"].([]any); len(required) > 0 {
		beside = map[any]string{"match": "match: {}", "version": "version: 1"}[required[0]] + "\n" + strings.Repeat("  ", depth)
	}
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		if strings.HasPrefix(beside, key+":") {
			into(properties[key], key+":")
			continue
		}
		into(properties[key], beside+key+":")
	}
	into(node["additionalProperties"], "api.example.com:")
	into(node["items"], "-")
}

// Whatever loads is what an editor with the schema calls right: else its user learns to overlook what it says.
func TestSchemaTakesWhatLoads(t *testing.T) {
	root, valid := checker(t)
	values := []string{"off", "false", "on", "true", "[]", "{}", "0", "100", "0.5", "1.5s", "+5s", "1d12h", "1.5MiB", "text", `""`, "p95", "auto", "all", "127.0.0.1:0", "[127.0.0.1:0]",
		"[GET]", "{min: 5}", "{basic: {password: long-enough}}", "https://example.com/x", "${UNSET:-off}", "${UNSET:-5s}", "${UNSET:-5}", "${UNSET:-observe}"}
	path := filepath.Join(t.TempDir(), "c.yaml")
	tried, loaded := 0, 0
	p := places{root, map[string]bool{}, nil}
	p.visit = func(before string) {
		for _, value := range values {
			text := before + " " + value + "\n"
			tried++
			if _, faults := Load(testSource(write(t, path, text))); len(faults) > 0 {
				continue
			}
			loaded++
			if !valid(text) {
				t.Errorf("this loads, and the schema refuses it:%s", text)
			}
		}
	}
	p.walk(root, "", 0)
	t.Logf("%d files, %d of them load", tried, loaded)
	if loaded < 800 {
		t.Errorf("only %d of %d files load: nothing is proved", loaded, tried)
	}
}

func TestSchemaAndLoaderAgree(t *testing.T) {
	_, valid := checker(t)
	for _, test := range []struct {
		text  string
		loads bool
	}{
		{"tenants: off", true}, {"tenants: false", true}, {"tenants: []", true}, {"tenants: on", false}, {"tenants: [a]", false},
		{"notify: off", true}, {"notify: []", true}, {"notify: true", false}, {"notify: {ops: {url: 5}}", false}, {"notify: {ops: {url: 'https://h.example.com', timeout: 5}}", false},
		{"admin: off", true}, {"admin: on", false}, {"admin: ${UNSET:-off}", true}, {"admin: {listen: false}", true}, {"admin: {listen: off}", true}, {"admin: {listen: true}", false},
		{"audit: off", true}, {"audit: {output: false}", true}, {"audit: {output: true}", false}, {"audit: {sync: never}", false}, {"audit: {checkpoint: {key: false}}", false},
		{"audit: {sync: always}", true}, {"audit: {sync: false}", true}, {"audit: {sync: 5}", false}, {"tracing: on", false}, {"state: {dir: false}", false}, {"ca: {dir: true}", false},
		{"proxy: {listen: [127.0.0.1:1, 127.0.0.1:2]}", true}, {"proxy: {listen: {a: b}}", false}, {"proxy: {listen: [5]}", false}, {"proxy: {open: yes}", false},
		{"proxy: {limits: {memory: 1.5GiB}}", true}, {"proxy: {limits: {memory: lots}}", false}, {"destinations: {ports: 443}", true}, {"destinations: {ports: []}", false}, {"destinations: {ports: [true]}", false},
		{"drain: {timeout: +5s}", true}, {"drain: {timeout: 1h30m}", true}, {"drain: {timeout: 0}", true}, {"drain: {timeout: 5}", false}, {"drain: {timeout: -5s}", false}, {"drain: {timeout: 5 s}", false},
		{"drain: {timeout: 1h-5m}", false}, {"drain: {timeout: 1d+5s}", false}, {"drain: {timeout: 5sec}", false}, {"drain: {timeout: .s}", false}, {"drain: {timeout: 1..5s}", false}, {"drain: {timeout: 1e2s}", false},
		{"defaults: {audit: {max_body: 1.5}}", true}, {"defaults: {audit: {max_body: 1.5 KiB}}", true}, {"defaults: {audit: {max_body: 64kib}}", false}, {"defaults: {audit: {max_body: -1}}", false},
		{"defaults: {audit: {max_body: 1..5KiB}}", false}, {"defaults: {audit: {max_body: 64K}}", false}, {"defaults: {audit: {max_body: true}}", false},
		{"defaults:\n  tls: ${UNSET:-intercept}\n  provider: ${UNSET:-stripe}\n  retry: ${UNSET:-off}\n  cache: ${UNSET:-off}\n  breaker:\n    mode: ${UNSET:-observe}", true},
		{"defaults: {upgrade: false}", true}, {"defaults: {tls: false}", false}, {"defaults: {retry: []}", false}, {"defaults: off", false},
		{"defaults: {retry: {methods: safe}}", true}, {"defaults: {retry: {methods: some}}", false}, {"defaults: {retry: {methods: [5]}}", false}, {"defaults: {retry: {attempts: '3'}}", false},
		{"defaults: {tls: intercept, retry: {idempotency_key: on}}", true}, {"defaults: {tls: intercept, retry: {idempotency_key: {inject: 5}}}", false}, {"defaults: {tls: intercept, retry: {idempotency_key: {heder: X-Key}}}", false},
		{"defaults: {concurrency: {adaptive: {min: 5}}}", true}, {"defaults: {concurrency: {adaptive: {least: 5}}}", false}, {"defaults: {concurrency: {adaptive: 5}}", false},
		{"defaults: {breaker: {slow: 5s}}", true}, {"defaults: {breaker: {slow: false}}", true}, {"defaults: {breaker: {slow: 0}}", false}, {"defaults: {breaker: {slow: on}}", false},
		{"defaults: {tls: intercept, hedge: {after: p99.9}}", true}, {"defaults: {tls: intercept, hedge: {after: 250ms}}", true}, {"defaults: {tls: intercept, hedge: {after: p999}}", false}, {"defaults: {tls: intercept, hedge: {after: 0}}", false},
		{"tenants: {a: {auth: [{basic: {password: long-enough}}], hosts: {api.example.com: {access: deny}}}}", true}, {"tenants: {a: {auth: [{basic: {password: 12345678}}]}}", false},
		{"tenants: {a: {auth: [{basic: {password: long-enough}, source: [192.0.2.1]}]}}", false}, {"tenants: {a: {auth: [{bearer: long-enough}]}}", false},
		{"tenants: {a: {auth: [{source: [192.0.2.1]}], hosts: {api.example.com: {routes: []}}}}", false}, {"tenants: {a: {auth: [{source: []}]}}", false},
	} {
		text := "version: 1\n" + test.text + "\n"
		_, faults := Load(testSource(write(t, filepath.Join(t.TempDir(), "c.yaml"), text)))
		if loads := len(faults) == 0; loads != test.loads {
			t.Errorf("%s: loads is %v: %v", test.text, loads, faults)
		}
		if v := valid(text); v != test.loads {
			t.Errorf("%s: valid by the schema is %v", test.text, v)
		}
	}
}
