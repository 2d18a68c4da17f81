package policy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestKubernetesConfigLoads: the configuration in the manifest is one, without a warning.
func TestKubernetesConfigLoads(t *testing.T) {
	data, err := os.ReadFile("../../deploy/kubernetes/httpowerd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var manifest struct {
			Kind string            `yaml:"kind"`
			Data map[string]string `yaml:"data"`
		}
		if err := d.Decode(&manifest); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for name, text := range manifest.Data {
			found++
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			f, faults := Load(Source{Path: path})
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			for _, w := range f.Warnings() {
				t.Log(w.String()) // that the admin listener is open for probes is meant
			}
		}
	}
	if found != 1 {
		t.Errorf("%d configurations", found)
	}
}
