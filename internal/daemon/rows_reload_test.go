package daemon

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// brokenConfigs are what a reload may find in place of a configuration.
func brokenConfigs(dir string) map[string]string {
	bomb := "version: 1\nx0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
	for i := 1; i < 12; i++ {
		ref := fmt.Sprintf("*x%d", i-1)
		bomb += fmt.Sprintf("x%d: &x%d [%s]\n", i, i, strings.Join([]string{ref, ref, ref, ref, ref, ref, ref, ref, ref, ref}, ", "))
	}
	long := strings.Repeat("x", 1<<20)
	return map[string]string{
		"invalid":           "version: 1\n\thosts: {\n",
		"no YAML":           "\x7fELF\x02\x01\x01\x00\x00\x00",
		"no UTF-8":          "version: 1\nhosts: {\"\xff\xfe\": {}}\n",
		"nothing":           "",
		"cut in a key":      "version: 1\ndefaults: {access: deny}\nhosts:\n  api.exam",
		"cut in a flow":     "version: 1\ndefaults: {access: deny}\nhosts: {api.example.com: {retry: {attem",
		"cut in a quote":    "version: 1\ndefaults: {access: deny}\nhosts: {\"api.example.com",
		"alias bomb":        bomb,
		"alias of itself":   "version: 1\nhosts: &h {a.example.com: *h}\n",
		"huge":              "version: 1\n" + strings.Repeat("# "+strings.Repeat("x", 1022)+"\n", 9<<10),
		"huge key":          "version: 1\n" + long + ": 1\n",
		"huge value":        "version: 1\nlog: {level: " + long + "}\n",
		"many keys":         "version: 1\nhosts:\n" + numbers(250_100, "  h%d: {}\n"),
		"deep":              "version: 1\nhosts: " + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + "\n",
		"duplicate key":     "version: 1\ndefaults: {access: allow}\ndefaults: {access: deny}\n",
		"duplicate field":   "version: 1\ndefaults: {access: allow, access: deny}\n",
		"duplicate host":    "version: 1\nhosts: {api.example.com: {}, API.example.com.: {access: deny}}\n",
		"unknown field":     "version: 1\ndefaults: {acess: deny}\n",
		"unknown block":     "version: 1\ndefaults: {firewall: {}}\n",
		"unset variable":    "version: 1\nadmin: {token: \"${HTTPOWERD_TEST_NOT_SET}\"}\n",
		"missing secret":    "version: 1\nadmin: {token: \"${file:" + filepath.Join(dir, "gone") + "}\"}\n",
		"secret is a dir":   "version: 1\nadmin: {token: \"${file:" + dir + "}\"}\n",
		"missing CA":        "version: 1\ndefaults: {upstream: {ca: " + filepath.Join(dir, "gone.pem") + "}}\n",
		"missing include":   "version: 1\ninclude: [gone.yaml]\n",
		"includes itself":   "version: 1\ninclude: [httpowerd.yaml]\n",
		"another version":   "version: 2\n",
		"two documents":     "version: 1\n---\nversion: 1\n",
		"a tag":             "version: 1\nhosts: !!binary aGk=\n",
		"half a limit":      "version: 1\ndefaults: {rate_limit: {requests: 1}}\n",
		"a negative number": "version: 1\ndefaults: {retry: {attempts: -1}}\n",
	}
}

func numbers(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// TestBadReloads: whatever a reload finds, it costs little and says so, the configuration in use goes on, requests are answered meanwhile, and a good file is loaded
// afterwards (A69).
func TestBadReloads(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	const good = "hosts: {denied.example.com: {access: deny}}"
	b := start(t, good)
	hash := b.holder.Load().Hash
	failures := 0
	check := func(name string) {
		t.Helper()
		if got := b.holder.Load().Hash; got != hash {
			t.Errorf("%s: the configuration in use is another", name)
		}
		if a := get(t, b.client(), o.url("/")); a.body != "ok" {
			t.Errorf("%s: %s %s", name, a.Status, a.body)
		}
		refused(t, get(t, b.client(), "http://denied.example.com/"), 403, "denied")
	}
	for name, text := range brokenConfigs(t.TempDir()) {
		if err := os.WriteFile(b.config+".next", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(b.config+".next", b.config); err != nil {
			t.Fatal(err)
		}
		before := heap()
		a := b.admin(http.MethodPost, "/api/v1/reload", "")
		grown := heap() - before
		if faults, _ := b.json(a)["faults"].([]any); a.StatusCode != 422 || len(faults) == 0 || len(a.body) > 1<<20 {
			t.Errorf("%s: %s %.300s", name, a.Status, a.body)
		}
		if grown > 64<<20 {
			t.Errorf("%s: it left %d MiB", name, grown>>20)
		}
		failures++
		metrics := b.admin(http.MethodGet, "/metrics", "").body
		if !strings.Contains(metrics, "\nhttpowerd_config_last_reload_successful 0\n") || strings.Contains(metrics, `httpowerd_config_reloads_total{result="success"} 2`) {
			t.Errorf("%s: the metrics do not tell", name)
		}
		check(name)
	}
	if err := os.Remove(b.config); err != nil {
		t.Fatal(err)
	}
	if a := b.admin(http.MethodPost, "/api/v1/reload", ""); a.StatusCode != 422 {
		t.Errorf("no file: %s %s", a.Status, a.body)
	}
	failures++
	check("no file")
	if metrics := b.admin(http.MethodGet, "/metrics", "").body; counted(metrics, `httpowerd_config_reloads_total{result="failure"}`) < failures {
		t.Errorf("not all of %d failures are counted", failures)
	}
	b.write(good + "\ndefaults: {access: deny}")
	if a := b.admin(http.MethodPost, "/api/v1/reload", ""); a.StatusCode != 200 {
		t.Fatalf("a good file: %s %s", a.Status, a.body)
	}
	refused(t, get(t, b.client(), o.url("/")), 403, "denied")
	if metrics := b.admin(http.MethodGet, "/metrics", "").body; !strings.Contains(metrics, "\nhttpowerd_config_last_reload_successful 1\n") {
		t.Error("the metrics still tell of a failure")
	}
}

// TestReloadWithoutAnAuditFile: whoever moved the file away, and left its place taken, is told.
func TestReloadWithoutAnAuditFile(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "")
	if err := os.Rename(b.audit, b.audit+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.audit, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(t.Context(), "signal"); err == nil {
		t.Error("the reload says nothing")
	}
	if log := b.log.String(); !strings.Contains(log, "the audit file was not opened again") || !strings.Contains(log, "is not empty") {
		t.Errorf("the log says nothing: %s", log)
	}
	if a := get(t, b.client(), o.url("/")); a.body != "ok" {
		t.Errorf("%s %s", a.Status, a.body)
	}
	b.stop()
	if text, err := os.ReadFile(b.audit + ".1"); err != nil || !strings.Contains(string(text), o.url("/")) {
		t.Errorf("records did not go on in the file that was moved: %v\n%s", err, text)
	}
	if text, err := os.ReadFile(b.audit); err != nil || string(text) != "{}\n" {
		t.Errorf("somebody else's file was touched: %v %s", err, text)
	}
}

// counted is a metric's value.
func counted(metrics, name string) int {
	n := -1
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			_, _ = fmt.Sscan(rest, &n)
		}
	}
	return n
}
