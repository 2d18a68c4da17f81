package policy

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOpenFiles: secrets that others can read and configurations that everybody can write are warned of at load, under the name that was written; a symbolic link
// is what it points to. Nothing else is warned of (A51).
func TestOpenFiles(t *testing.T) {
	for name, row := range map[string]struct {
		config, included, secret fs.FileMode
		linked                   bool
		want                     []string
	}{
		"as they should be":       {0o600, 0o600, 0o600, false, nil},
		"links to such":           {0o600, 0o600, 0o600, true, nil},
		"readable configuration":  {0o644, 0o644, 0o400, false, nil},
		"group's configuration":   {0o664, 0o664, 0o600, false, nil},
		"secret of the group":     {0o600, 0o600, 0o640, false, []string{"secret can be read by its group or by everybody (mode 0640)"}},
		"secret of everybody":     {0o600, 0o600, 0o644, false, []string{"secret can be read by its group or by everybody (mode 0644)"}},
		"writable secret":         {0o600, 0o600, 0o602, false, []string{"secret can be read by its group or by everybody (mode 0602)"}},
		"link to such a secret":   {0o600, 0o600, 0o644, true, []string{"secret can be read by its group or by everybody (mode 0644)"}},
		"everybody's":             {0o646, 0o600, 0o600, false, []string{"main.yaml:1:1: can be written by everybody (mode 0646)"}},
		"everybody's by a link":   {0o666, 0o600, 0o600, true, []string{"main.yaml:1:1: can be written by everybody (mode 0666)"}},
		"everybody's hosts":       {0o600, 0o602, 0o600, false, []string{"hosts.yaml:1:1: can be written by everybody (mode 0602)"}},
		"everybody's, everything": {0o777, 0o777, 0o777, true, []string{"main.yaml:1:1: can", "secret can be read", "hosts.yaml:1:1: can"}},
	} {
		dir := t.TempDir()
		put := func(name, text string, mode fs.FileMode) string {
			path := filepath.Join(dir, name)
			target := path
			if row.linked {
				target = filepath.Join(dir, "target-"+name)
				if err := os.Symlink(target, path); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(write(t, target, text), mode); err != nil {
				t.Fatal(err)
			}
			return path
		}
		put("secret", "s3cr3t-of-a-file", row.secret)
		put("hosts.yaml", "hosts: {a.example.com: {access: deny}}\n", row.included)
		main := put("main.yaml", "version: 1\nadmin: {token: \"${file:secret}\"}\ninclude: [hosts.yaml]\n", row.config)
		f, faults := Load(testSource(main))
		if len(faults) > 0 {
			t.Fatalf("%s: %v", name, faults)
		}
		var got []string
		for _, w := range f.Warnings() {
			got = append(got, w.String())
		}
		if !slices.EqualFunc(got, row.want, strings.Contains) || strings.Contains(strings.Join(got, ""), "s3cr3t") {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}
