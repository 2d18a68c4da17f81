package policy

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"httpowerd/configs"
)

func bareEnv(string) (string, bool) { return "", false }

func referenceDocument(t *testing.T) *yaml.Node {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(configs.Reference(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Content[0]
}

func loadReference(t *testing.T) *File {
	t.Helper()
	f, faults := Load(Source{Path: write(t, filepath.Join(t.TempDir(), "reference.yaml"), string(configs.Reference())), Env: bareEnv})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return f
}

// member is a value of an Object.
func member(o Object, key string) any {
	for _, m := range o {
		if m.Key == key {
			return m.Value
		}
	}
	return nil
}

// TestReferenceIsTheDefault: all but its hosts is what holds with no file at all.
func TestReferenceIsTheDefault(t *testing.T) {
	empty, faults := Load(Source{Env: bareEnv})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	got, want := loadReference(t).Effective(), empty.Effective()
	for i, m := range want {
		if m.Key == "hosts" {
			continue
		}
		a, errA := json.Marshal(got[i].Value)
		b, errB := json.Marshal(m.Value)
		if errA != nil || errB != nil || got[i].Key != m.Key || string(a) != string(b) {
			t.Errorf("the reference says\n%s: %s\nwithout it\n%s: %s", got[i].Key, a, m.Key, b)
		}
	}
}

// TestReferenceShowsTheDefaultsOfWhatIsOff: what stands under hosts, because it is off without being written, is the default of its block.
func TestReferenceShowsTheDefaultsOfWhatIsOff(t *testing.T) {
	hosts := member(loadReference(t).Effective(), "hosts").(Object)
	host := hosts[0].Value.(Object)
	for _, b := range blocks() {
		if b.adds != levels {
			continue
		}
		config := reflect.ValueOf(b.config()).Elem()
		want := encoder{}.value(config, nil, nil).(Object)
		got := member(host, b.name).([]any)[0].(Object)
		for _, m := range want {
			if b.name == "rate_limit" && slices.Contains([]string{"requests", "per", "burst"}, m.Key) {
				continue // without a default
			}
			if v := member(got, m.Key); shownText(v) != shownText(m.Value) {
				t.Errorf("%s.%s is shown as %s, is %s", b.name, m.Key, shownText(v), shownText(m.Value))
			}
		}
	}
	f := loadText(t, "version: 1\nhosts: {a.example.com: {tls: intercept, retry: {idempotency_key: {}}}}\n")
	bare := member(member(f.Effective(), "hosts").(Object)[0].Value.(Object), "retry").(Object)
	if got, want := member(member(host, "retry").(Object), "idempotency_key"), member(bare, "idempotency_key"); got != want {
		t.Errorf("idempotency_key is shown as %v, is %v", got, want)
	}
}

// shown walks the reference and tells each key by its path; a host's and a route's keys are those of any policy, match stands at the top.
func shown(n *yaml.Node, path string, visit func(path string, key, value *yaml.Node)) {
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			shown(item, strings.TrimSuffix(path, ".routes"), visit)
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
		visit(inner, k, v)
		shown(v, inner, visit)
	}
}

func TestReferenceShowsEveryKey(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	defs := root["$defs"].(map[string]any)
	known := map[string]bool{}
	schemaKeys(t, defs, root, "", known)
	schemaKeys(t, defs, defs["host"].(map[string]any), "defaults", known)
	schemaKeys(t, defs, defs["route"].(map[string]any), "defaults", known)
	there := map[string]bool{}
	shown(referenceDocument(t), "", func(path string, _, _ *yaml.Node) { there[path] = true })
	for _, key := range slices.Sorted(maps.Keys(known)) {
		name := strings.TrimPrefix(key, "defaults.")
		if slices.Contains(laterTops, key) || slices.Contains(laterBlocks, name) {
			if there[key] {
				t.Errorf("the reference shows %s, which does nothing in this release", key)
			}
			continue
		}
		if strings.HasPrefix(name, "concurrency.adaptive.") {
			continue // shown as off; its comment tells the rest
		}
		if !there[key] {
			t.Errorf("the reference does not show %s", key)
		}
	}
}

// TestReferenceCommentsOnEveryKey: once is enough where a key stands under defaults and hosts.
func TestReferenceCommentsOnEveryKey(t *testing.T) {
	told := comments(configs.Reference())
	keys := 0
	shown(referenceDocument(t), "", func(path string, k, v *yaml.Node) {
		if strings.Contains(path, ".headers.") {
			return // names that the user chooses
		}
		keys++
		if len(told[path]) < 15 {
			t.Errorf("line %d: %s has no comment worth the name: %q", k.Line, path, told[path])
		}
		if v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
			t.Errorf("line %d: %s has no value", k.Line, path)
		}
	})
	if keys < 120 {
		t.Errorf("%d keys", keys)
	}
}

// TestReferenceKeepsTheOrder of the blocks, which is that of every output too.
func TestReferenceKeepsTheOrder(t *testing.T) {
	var check func(n *yaml.Node, o Object, path string)
	check = func(n *yaml.Node, o Object, path string) {
		last := -1
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			at := slices.IndexFunc(o, func(m Member) bool { return m.Key == key.Value })
			if at < 0 {
				continue
			}
			if at < last {
				t.Errorf("line %d: %s stands too late", key.Line, join(path, key.Value))
			}
			last = at
			switch inner := o[at].Value.(type) {
			case Object:
				if path != "" || key.Value != "hosts" {
					check(value, inner, join(path, key.Value))
				}
			case []any:
				if level, ok := first(inner).(Object); ok {
					check(value, level, join(path, key.Value))
				}
			}
		}
	}
	o := loadReference(t).Effective()
	check(referenceDocument(t), o, "")
	host := member(o, "hosts").(Object)[0]
	document := referenceDocument(t)
	for i := 0; i+1 < len(document.Content); i += 2 {
		if document.Content[i].Value == "hosts" {
			check(document.Content[i+1].Content[1], host.Value.(Object), host.Key)
		}
	}
}

func first(items []any) any {
	if len(items) == 0 {
		return nil
	}
	return items[0]
}

// TestSchemaDescribesEveryKey: what the reference says stands in the schema, for the editor.
func TestSchemaDescribesEveryKey(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	var check func(node map[string]any, path string)
	check = func(node map[string]any, path string) {
		for _, alternative := range anyOf(node) {
			check(alternative, path)
		}
		properties, _ := node["properties"].(map[string]any)
		for key, v := range properties {
			property := v.(map[string]any)
			if text, _ := property["description"].(string); text == "" {
				t.Errorf("%s.%s has no description", path, key)
			}
			check(property, path+"."+key)
		}
	}
	check(root, "")
	for name, v := range root["$defs"].(map[string]any) {
		check(v.(map[string]any), name)
	}
}
