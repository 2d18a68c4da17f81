package policy

import (
	"bytes"
	"encoding/json"
	"maps"
	"path/filepath"
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
