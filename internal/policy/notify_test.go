package policy

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNotifyTargets(t *testing.T) {
	f := loadText(t, `version: 1
notify:
  ops: {url: "https://hooks.example.com/T0/hush-hush", format: slack, secret: whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX, events: [audit.failed]}
  filled: {url: "${HOOK:-https://hooks.example.com/hush-hush}", timeout: 2s}
hosts:
  api.example.com: {breaker: {notify: [ops]}}
  quiet.example.com: {breaker: {notify: []}}
`)
	shown, err := json.Marshal(f.Effective())
	if err != nil {
		t.Fatal(err)
	}
	all := string(shown) + fmt.Sprintf("%v %+v %#v", f.Settings(), f.Settings(), f.Settings())
	if strings.Contains(all, "hush-hush") || strings.Contains(all, "AAECAw") {
		t.Errorf("a secret is shown: %s", all)
	}
	want := `"notify":{"filled":{"url":"https://hooks.example.com/[redacted]","format":"json","secret":"","timeout":"2s","events":[]},` +
		`"ops":{"url":"https://hooks.example.com/[redacted]","format":"slack","secret":"[redacted]","timeout":"10s","events":["audit.failed"]}}`
	if !strings.Contains(string(shown), want) {
		t.Errorf("%s\ndoes not show\n%s", shown, want)
	}
	if len(f.Warnings()) > 0 {
		t.Error(f.Warnings())
	}
}

func TestNotifyOff(t *testing.T) {
	for _, off := range []string{"off", "false", "{}", "[]"} {
		if f := loadText(t, "version: 1\nnotify: "+off+"\n"); len(f.Settings().Notify) != 0 {
			t.Errorf("%s: %v", off, f.Settings().Notify)
		}
	}
}

// TestNotifyWarnings: what is posted in the clear, or will not get there, is told at load.
func TestNotifyWarnings(t *testing.T) {
	f, faults := Load(testSource(write(t, filepath.Join(t.TempDir(), "c.yaml"), `version: 1
proxy: {listen: "0.0.0.0:3128", open: private}
admin: {listen: 127.0.0.1:9128}
destinations: {allow: [10.1.2.3]}
notify:
  clear: {url: "http://hooks.example.com/x"}
  local: {url: "http://127.0.0.1/x"}
  metadata: {url: "https://169.254.169.254/x"}
  port: {url: "https://hooks.example.com:8443/x"}
  fine: {url: "https://hooks.example.com/x"}
  allowed: {url: "https://10.1.2.3/x"}
`)))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var got []string
	for _, w := range f.Warnings() {
		got = append(got, fmt.Sprintf("%d %s: %.12s", w.Line, w.Path, w.Message))
	}
	want := []string{"6 notify.clear.url: is not encry", "7 notify.local.url: cannot be re", "8 notify.metadata.url: cannot be re",
		"9 notify.port.url: cannot be re"}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
}

func TestSlowWithoutRatio(t *testing.T) {
	f := loadText(t, "version: 1\nhosts:\n  a.example.com: {tls: intercept, breaker: {ratio: 0, slow: 1s}}\n  b.example.com: {tls: intercept, breaker: {slow: 1s}}\n")
	if w := f.Warnings(); len(w) != 1 || w[0].Path != `hosts["a.example.com"].breaker.slow` {
		t.Errorf("%v", w)
	}
}
