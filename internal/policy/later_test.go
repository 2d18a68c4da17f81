package policy

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestNotInThisRelease: injected credentials, placeholders, caches and test modes are refused by name wherever they are written, in whatever shape, so that nobody
// relies on a defence, a key or a mode that is not there (A40, A45, A46, A52, A53, A54, A61, A65, A66).
func TestNotInThisRelease(t *testing.T) {
	for _, block := range []string{"credential", "cache"} {
		for _, value := range []string{"stripe", "{name: stripe}", "[stripe]", "on", "true", "1"} {
			for place, text := range map[string]string{
				"defaults": "defaults: {%s: %s}", `hosts["api.example.com"]`: "hosts: {api.example.com: {%s: %s}}",
				`hosts["api.example.com"].routes[0]`: "hosts: {api.example.com: {routes: [{match: {path: /a}, %s: %s}]}}",
				`tenants.a.hosts["api.example.com"]`: "tenants: {a: {auth: [{bearer: {token: \"a token of a\"}}], hosts: {api.example.com: {%s: %s}}}}",
			} {
				refuses(t, fmt.Sprintf(text, block, value), place+"."+block, "is not available in this release")
			}
		}
	}
	for _, block := range []string{"credentials", "test"} {
		for _, value := range []string{"{stripe: {type: apikey, hosts: [api.stripe.com], secret: \"s3cr3t-of-a-credential\"}}", "[{replay: ../../etc/passwd}]", "replay", "on", "true"} {
			refuses(t, block+": "+value, block, "is not available in this release")
		}
	}
}

func refuses(t *testing.T, text, path, message string) {
	t.Helper()
	f, faults := Load(testSource(write(t, filepath.Join(t.TempDir(), "c.yaml"), "version: 1\n"+text+"\n")))
	if f != nil || len(faults) != 1 || faults[0].Path != path || faults[0].Message != message || strings.Contains(faults.Error(), "s3cr3t") {
		t.Errorf("%s: %v", text, faults)
	}
}
