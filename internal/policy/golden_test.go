package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// flat lists an Object's values, one on a line.
func flat(v any, path string, into *[]string) {
	switch v := v.(type) {
	case Object:
		if len(v) == 0 {
			*into = append(*into, path+" = {}")
		}
		for _, m := range v {
			flat(m.Value, join(path, m.Key), into)
		}
	case []any:
		if len(v) == 0 {
			*into = append(*into, path+" = []")
		}
		for i, item := range v {
			if _, ok := item.(Object); ok {
				flat(item, fmt.Sprintf("%s[%d]", path, i), into)
				continue
			}
			*into = append(*into, path+" = "+shownText(v))
			return
		}
	default:
		*into = append(*into, path+" = "+shownText(v))
	}
}

// The files of testdata/v1 are never edited: they load, and mean the same, in every later release. New keys may appear beside the pinned ones.
func TestVersionOneKeepsItsMeaning(t *testing.T) {
	paths, err := filepath.Glob("testdata/v1/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no files", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			f, faults := Load(testSource(path))
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			var lines []string
			flat(f.Effective(), "", &lines)
			golden := strings.TrimSuffix(path, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			pinned, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			now := map[string]bool{}
			for _, l := range lines {
				now[l] = true
			}
			for l := range strings.Lines(string(pinned)) {
				if l = strings.TrimSuffix(l, "\n"); !now[l] {
					t.Errorf("no longer holds: %s", l)
				}
			}
		})
	}
}
