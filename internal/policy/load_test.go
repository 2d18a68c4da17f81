package policy

import (
	"encoding/pem"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"httpowerd/internal/redact"
)

var update = flag.Bool("update", false, "write what the tests get into testdata")

// testEnv is the environment that test files are filled in from.
func testEnv(name string) (string, bool) {
	v, ok := map[string]string{
		"PORT": "3200", "EMPTY": "", "ATTEMPTS": "7", "STRUCTURE": "{a: {access: deny}}", "LIMIT": "12",
		"API_TOKEN": "not-a-" + "level-but-a-token", "HOME": "/home/someone", "WORD": "intercept", "HARMLESS": "Qx7" + "Lm2Vd9Rk4Ts",
	}[name]
	return v, ok
}

func testSource(path string) Source { return Source{Path: path, Env: testEnv} }

// Each file of testdata/bad breaks a rule and ends with what it is told.
func TestBadFiles(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no files", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			f, faults := Load(testSource(path))
			if f != nil || len(faults) == 0 {
				t.Fatal("loaded")
			}
			here, err := filepath.Abs("testdata")
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(faults.Error(), here, "testdata")
			got = strings.ReplaceAll(got, path+":", "")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			body, want, _ := strings.Cut(string(data), "# want: ")
			if *update {
				if err := os.WriteFile(path, []byte(body+"# want: "+strings.ReplaceAll(got, "\n", "\n# want: ")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want = strings.TrimSuffix(strings.ReplaceAll(want, "\n# want: ", "\n"), "\n")
			if got != want {
				t.Errorf("told\n%s\nwant\n%s", got, want)
			}
			if logged := redact.Default().Text(got); logged != got {
				t.Errorf("the log makes of it\n%s", logged)
			}
			if strings.Contains(got, "level-but-a-token") {
				t.Error("a secret is shown")
			}
		})
	}
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loadText loads a configuration that must be valid.
func loadText(t testing.TB, text string) *File {
	t.Helper()
	f, faults := Load(testSource(write(t, filepath.Join(t.TempDir(), "c.yaml"), text)))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return f
}

func TestNoFile(t *testing.T) {
	f, faults := Load(Source{Env: testEnv})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s := f.Settings()
	if !slices.Equal(s.Proxy.Listen, []string{"127.0.0.1:3128"}) || s.Admin.Listen != "127.0.0.1:9128" || s.Audit.Output != "stdout" {
		t.Errorf("%+v", s)
	}
	if !s.Proxy.LoopbackOnly() || s.CA.Dir != filepath.Join(s.State.Dir, "ca") || len(f.Warnings()) > 0 || len(f.Files()) > 0 {
		t.Errorf("%+v %v %v", s, f.Warnings(), f.Files())
	}
}

func TestInterpolation(t *testing.T) {
	dir := t.TempDir()
	secret := "tok_" + strings.Repeat("a", 12)
	write(t, filepath.Join(dir, "token"), secret+"\n")
	f, faults := Load(testSource(write(t, filepath.Join(dir, "c.yaml"), `version: 1
proxy: {listen: "127.0.0.1:${PORT}"}
admin: {token: "${file:token}", listen: "127.0.0.1:${UNSET:-9129}"}
defaults:
  retry:
    attempts: ${ATTEMPTS}
  tls: ${WORD}
  rate_limit:
    requests: ${LIMIT}0
    per: ${EMPTY:-1s}
  redact:
    headers: ["$${LITERAL}", "$PORT"]
`)))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s := f.Settings()
	if s.Proxy.Listen[0] != "127.0.0.1:3200" || s.Admin.Listen != "127.0.0.1:9129" || s.Admin.Token.Reveal() != secret {
		t.Errorf("%+v", s)
	}
	c := settingsOf(f.base)
	if c.retry.Attempts != 7 || c.limits[0].Config.Requests != 120 || f.base.wordOf("tls") != "intercept" {
		t.Errorf("%+v", c)
	}
	shown, err := f.Effective().YAML()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(shown), secret) || !strings.Contains(string(shown), "token: '[redacted]'") {
		t.Errorf("the token is not hidden in\n%s", shown)
	}
	if !strings.Contains(string(shown), "${LITERAL}") {
		t.Error("$${ is not a literal ${")
	}
	if !slices.Contains(f.Files(), filepath.Join(dir, "token")) {
		t.Errorf("files: %v", f.Files())
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	dir := t.TempDir()
	planted := "hunter" + "2hunter2"
	write(t, filepath.Join(dir, "pw"), planted)
	f, faults := Load(testSource(write(t, filepath.Join(dir, "c.yaml"), `version: 1
admin: {token: `+planted+`}
defaults:
  upstream: {proxy: "http://user:${file:pw}@proxy.example.com:3128"}
hosts:
  api.example.com:
    upstream: {proxy: "http://user:`+planted+`@proxy.example.com:3128"}
`)))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	x, err := Explain(f, "GET", "https://user:"+planted+"@api.example.com/", "", nil)
	if err == nil && strings.Contains(x.Text(), planted) {
		t.Errorf("explain shows the password:\n%s", x.Text())
	}
	x, err = Explain(f, "GET", "http://api.example.com/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := f.Effective().YAML()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"explain": x.Text(), "effective": string(shown)} {
		if strings.Contains(text, planted) {
			t.Errorf("%s shows the password:\n%s", name, text)
		}
	}
}

func TestIncludes(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "conf.d/b.yaml"), "version: 1\nhosts: {b.example.com: {retry: {attempts: 2}}}\n")
	write(t, filepath.Join(dir, "conf.d/a.yaml"), "hosts: {a.example.com: {}}\n")
	f, faults := Load(testSource(write(t, filepath.Join(dir, "c.yaml"), "version: 1\ninclude: [conf.d/*.yaml, \"none/*.yaml\"]\n")))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if len(f.hosts) != 2 || len(f.Files()) != 3 {
		t.Errorf("hosts %v, files %v", f.hosts, f.Files())
	}
	if w := f.Warnings(); len(w) != 1 || !strings.Contains(w[0].Message, "matches no file") {
		t.Errorf("warnings %v", w)
	}
}

func TestOffFormsOfLaterBlocks(t *testing.T) {
	text := "version: 1\ntenants: {}\ncredentials: off\nwebhooks: []\ntest: false\nnotify: {}\ntracing: off\ndefaults:\n"
	for i, key := range laterBlocks {
		text += "  " + key + ": " + []string{"off", "false", "{}", "[]"}[i%4] + "\n"
	}
	loadText(t, text)
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "open"), "x")
	if err := os.Chmod(filepath.Join(dir, "open"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, faults := Load(testSource(write(t, filepath.Join(dir, "c.yaml"), `version: 1
proxy: {listen: "0.0.0.0:3128", open: true}
admin: {listen: "0.0.0.0:9128", token: "${EMPTY:-}"}
defaults:
  audit: {headers: true}
  upstream: {proxy: "http://u:${file:open}@proxy.example.com:1"}
hosts:
  "*.co.uk": {}
  "*.example.co.uk": {}
  tunnel.example.com:
    audit: {headers: true}
    retry: {attempts: 3, statuses: [503]}
    routes:
      - {match: {path: /v1/**}, timeout: {connect: 1s}}
  intercepted.example.com:
    tls: intercept
    audit: {headers: true}
  upgraded.example.com:
    upgrade: https
    audit: {headers: true}
    upstream: {insecure_skip_verify: true, min_version: "1.1"}
  here.example.com:
    tls: intercept
    upstream: {insecure_skip_verify: true, resolve: {here.example.com: "127.0.0.1:8443"}}
  there.example.com:
    tls: intercept
    upstream: {insecure_skip_verify: true, resolve: {there.example.com: "198.51.100.1", here.example.com: "::1"}}
  modern.example.com:
    tls: intercept
    upstream: {insecure_skip_verify: false, min_version: "1.3"}
  denied.example.com:
    access: deny
    audit: {headers: true}
`)))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var got []string
	for _, w := range f.Warnings() {
		got = append(got, w.Path)
	}
	want := []string{"proxy.open", "admin.listen", "defaults.upstream.proxy", `hosts["*.co.uk"]`,
		`hosts["tunnel.example.com"].audit`, `hosts["tunnel.example.com"].retry.statuses`, `hosts["tunnel.example.com"].routes[0]`,
		`hosts["upgraded.example.com"].upstream.insecure_skip_verify`, `hosts["upgraded.example.com"].upstream.min_version`,
		`hosts["there.example.com"].upstream.insecure_skip_verify`}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOverridesWin(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c.yaml"), `version: 1
proxy: {listen: 127.0.0.1:1}
admin: off
log: {level: warn}
audit: {output: stderr}
defaults: {tls: tunnel}
hosts: {plain.example.com: {tls: tunnel}, other.example.com: {}}
`)
	level, admin, yes, dir := "debug", "127.0.0.1:2", true, "/somewhere/ca"
	f, faults := Load(Source{Path: path, Env: testEnv, Overrides: Overrides{
		Listen: []string{"127.0.0.1:3", "[::1]:3"}, Admin: &admin, LogLevel: &level, Intercept: &yes, NoAudit: true, CADir: &dir}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	s := f.Settings()
	if len(s.Proxy.Listen) != 2 || s.Admin.Listen != admin || s.Log.Level != "debug" || s.Audit.Output != "off" || s.CA.Dir != dir {
		t.Errorf("%+v", s)
	}
	for url, want := range map[string]string{"https://other.example.com/": "intercept", "https://plain.example.com/": "tunnel"} {
		x, err := Explain(f, "GET", url, "", nil)
		if err != nil || x.Mode != want {
			t.Errorf("%s: %v %v", url, x, err)
		}
	}
	x, err := Explain(f, "GET", "https://other.example.com/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := valueOf(t, x, "tls"); v.Origin != "flag" || v.Where != "--intercept" {
		t.Errorf("%+v", v)
	}
	if w := f.Warnings(); len(w) > 0 {
		t.Errorf("%v", w)
	}
	same := "warn"
	f, faults = Load(Source{Path: path, Env: testEnv, Overrides: Overrides{Listen: []string{"127.0.0.1:1"}, Admin: &admin, LogLevel: &same, NoAudit: true, Warn: true}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var got []string
	for _, w := range f.Warnings() {
		got = append(got, fmt.Sprintf("%d %s", w.Line, w.Path))
	}
	if want := []string{"3 admin", "5 audit.output"}; !slices.Equal(got, want) { // what the file says too is no news
		t.Errorf("warns of %q; want %q", got, want)
	}
	bad := "nowhere"
	if _, faults := Load(Source{Overrides: Overrides{Open: &bad}}); len(faults) != 1 || !strings.HasPrefix(faults[0].String(), "--open: proxy.open: ") {
		t.Errorf("%v", faults)
	}
}

// TestAdminToken: where no token is written the variable's holds, hidden like any secret.
func TestAdminToken(t *testing.T) {
	const token = "a token of the variable"
	env := func(name string) (string, bool) { return token, name == "HTTPOWERD_ADMIN_TOKEN" }
	for text, want := range map[string]string{
		"": token, "admin: {metrics_auth: true}": token, "admin: {token: one that is written}": "one that is written", `admin: {token: ""}`: "", "admin: off": "",
	} {
		f, faults := Load(Source{Path: write(t, filepath.Join(t.TempDir(), "c.yaml"), "version: 1\n"+text+"\n"), Env: env})
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		if got := f.Settings().Admin.Token; got.Reveal() != want {
			t.Errorf("%s: %q", text, got.Reveal())
		}
		if want == token && !slices.ContainsFunc(f.Secrets(), func(s redact.Secret) bool { return s.Reveal() == token }) {
			t.Errorf("%s: the token is not known as a secret", text)
		}
	}
	if f, _ := Load(Source{Env: env}); f.Settings().Admin.Token.Reveal() != token {
		t.Error("without a file the variable is not heard")
	}
}

func valueOf(t testing.TB, x *Explanation, path string) Value {
	t.Helper()
	for _, v := range x.Values {
		if v.Path == path {
			return v
		}
	}
	t.Fatalf("no value %s", path)
	return Value{}
}

func TestDidYouMean(t *testing.T) {
	for word, want := range map[string]string{
		"attemps": ": did you mean attempts?", "Attempts": ": did you mean attempts?", "zzz": "", "": "", strings.Repeat("x", 100): "",
	} {
		if got := didYouMean(word, []string{"attempts", "statuses"}); string(got) != want {
			t.Errorf("%s: %q", word, got)
		}
	}
}

// TestAuditWithoutEffect: what is asked for and cannot be is said so; the defaults, and an output that a flag names, ask for nothing.
func TestAuditWithoutEffect(t *testing.T) {
	no := "off"
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	ca := write(t, filepath.Join(t.TempDir(), "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	for text, want := range map[string][]string{
		"{max_size: 1GiB, max_age: 1d, max_files: 3}":                                     {"audit.max_age", "audit.max_files", "audit.max_size"},
		"{output: stderr, max_files: 3}":                                                  {"audit.max_files"},
		"{output: off, max_age: 1d}":                                                      {"audit.max_age"},
		"{output: stdout, max_size: 100MiB, max_age: 0s, max_files: 10}":                  nil,
		"{output: audit.jsonl, max_size: 1GiB, max_age: 1d, max_files: 3}":                nil,
		"{output: ./stdout, max_size: 1GiB}":                                              nil,
		"{output: \"syslog+unix:///dev/log\", keep: 365d, sync: always}":                  {"audit.keep", "audit.sync"},
		"{checkpoint: {records: 5}}":                                                      {"audit.checkpoint"},
		"{chain: false, output: audit.jsonl, checkpoint: {every: 5m}}":                    {"audit.checkpoint"},
		"{checkpoint: {output: audit.checkpoints}}":                                       nil,
		"{output: audit.jsonl, also_on_full: block}":                                      {"audit.also_on_full"},
		"{output: audit.jsonl, also: [stdout], also_on_full: block}":                      nil,
		"{output: audit.jsonl, also_on_full: drop}":                                       nil,
		"{output: audit.jsonl, also: [stdout], tls: {ca: CA}}":                            {"audit.tls"},
		"{output: audit.jsonl, also: [\"syslog+tls://logs.example.com\"], tls: {ca: CA}}": nil,
		"{output: \"otlp+https://logs.example.com\", tls: {ca: CA}}":                      nil,
		"{output: audit.jsonl, max_size: 1GiB, max_age: 1d, max_files: 3} #":              nil, // and then --audit off
	} {
		source := testSource(write(t, filepath.Join(t.TempDir(), "c.yaml"), "version: 1\naudit: "+strings.Replace(text, "CA", ca, 1)+"\n"))
		if strings.HasSuffix(text, "#") {
			source.Overrides.AuditOutput = &no
		}
		f, faults := Load(source)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		var got []string
		for _, w := range f.Warnings() {
			got = append(got, w.Path)
			if w.Line == 0 || !strings.Contains(w.Message, "has no effect") {
				t.Errorf("%s: %v", text, w)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: warns of %v; want %v", text, got, want)
		}
	}
	const closed = "{on_full: fail-closed}"
	for text, want := range map[string]string{
		"audit: {output: off}\ndefaults: {audit: " + closed + "}\nhosts: {a.example.com: {}}":                         "defaults.audit.on_full",
		"audit: off\nhosts: {a.example.com: {tls: intercept, audit: " + closed + "}}":                                 `hosts["a.example.com"].audit.on_full`,
		"audit: off\nhosts: {a.example.com: {tls: intercept, routes: [{match: {path: /v1}, audit: " + closed + "}]}}": `hosts["a.example.com"].routes[0].audit.on_full`,
		"audit: off\ndefaults: {audit: {on_full: drop}}":                                                              "",
		"audit: {output: stdout}\ndefaults: {audit: " + closed + "}":                                                  "",
	} {
		f, faults := Load(testSource(write(t, filepath.Join(t.TempDir(), "c.yaml"), "version: 1\n"+text+"\n")))
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		w := f.Warnings()
		if len(w) > 1 || (want == "") != (len(w) == 0) || want != "" && (w[0].Path != want || w[0].Line == 0 || !strings.Contains(w[0].Message, "has no effect")) {
			t.Errorf("%s: warns of %v; want %s", text, w, want)
		}
	}
	if w := loadReference(t).Warnings(); slices.ContainsFunc(w, func(f Fault) bool { return strings.HasPrefix(f.Path, "audit.") }) {
		t.Errorf("the reference: %v", w)
	}
}

// false is off where there is such a thing, and never the name of a file.
func TestNoPathIsABool(t *testing.T) {
	if s := loadText(t, "version: 1\naudit: {output: false}\nadmin: {listen: false}\n").Settings(); s.Audit.Output != "off" || s.Admin.Listen != "" {
		t.Errorf("audit.output is %q, admin.listen %q", s.Audit.Output, s.Admin.Listen)
	}
	for _, text := range []string{"state: {dir: false}", "ca: {dir: true}", "audit: {output: true}", "audit: {checkpoint: {output: false}}"} {
		if _, faults := Load(testSource(write(t, filepath.Join(t.TempDir(), "c.yaml"), "version: 1\n"+text+"\n"))); len(faults) != 1 || !strings.Contains(faults.Error(), "must be a text") {
			t.Errorf("%s: %v", text, faults)
		}
	}
}

// TestTokenOff: the word that switches other things off is a token here, and everybody's first guess. It was one before, and stays one.
func TestTokenOff(t *testing.T) {
	for text, warned := range map[string]bool{"off": true, "false": true, "OFF": true, `""`: false, "tok-of-somebody": false} {
		f := loadText(t, "version: 1\nadmin: {token: "+text+"}\n")
		w := f.Warnings()
		if (len(w) == 1 && strings.Contains(w[0].String(), ":2:9: admin.token: is that word as a token")) != warned || len(w) > 1 {
			t.Errorf("%s: %v", text, w)
		}
		if f.Settings().Admin.Token.IsZero() != (text == `""`) {
			t.Errorf("%s: there is no token", text)
		}
	}
}

// TestMisspeltVariables are warned of by their names.
func TestMisspeltVariables(t *testing.T) {
	f, faults := Load(Source{Env: testEnv, Overrides: Overrides{Misspelt: []Misspelt{{"HTTPOWERD_CONFG", "HTTPOWERD_CONFIG"}}}})
	if w := f.Warnings(); len(faults) > 0 || len(w) != 1 || w[0].File != "HTTPOWERD_CONFG" || w[0].Message != "this variable has no effect: did you mean HTTPOWERD_CONFIG?" {
		t.Error(faults, w)
	}
}
