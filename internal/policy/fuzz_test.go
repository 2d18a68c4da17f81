package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad: whatever a file holds, loading it ends, with faults that name a place and show no value of the environment, or with a File that can be shown and hashed.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/v1/*.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte("version: 1\nlog: {level: \"${HARMLESS}\"}\nnotify: {a: \"${HARMLESS}\"}\ndefaults: {upstream: {ca: \"x/${HARMLESS}\", proxy: \"http://u:${HARMLESS}@h\"}}\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "${file:") || strings.Contains(string(data), "include") {
			return // the machine's own files are none of its business
		}
		path := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, faults := Load(testSource(path))
		if (file == nil) != (len(faults) > 0) {
			t.Fatalf("%v and %v", file, faults)
		}
		if marker, _ := testEnv("HARMLESS"); strings.Contains(faults.Error(), marker) && !strings.Contains(string(data), marker[:8]) {
			t.Fatalf("a value of the environment is shown: %v", faults)
		}
		for _, fault := range faults {
			if fault.File != path && !strings.HasPrefix(fault.File, "pro") {
				t.Fatalf("a fault without its file: %+v", fault)
			}
		}
		if file == nil {
			return
		}
		if file.Hash() == "" {
			t.Fatal("no hash")
		}
		text, err := file.Effective().YAML()
		if err != nil || len(text) == 0 {
			t.Fatal(err)
		}
	})
}
