// Package house checks the directions of the whole tree: who may import whom, and what each room must have.
package house

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"httpowerd/internal/policy"
)

const root = "../.."

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath, Dir, Doc, Name string
	GoFiles                    []string
	Imports                    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Name,GoFiles,Imports", "./...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// walk calls f for every file of the tree with this ending.
func walk(t *testing.T, ending string, f func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "node_modules", "testdata"}, d.Name()) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ending) {
			return nil
		}
		text, err := os.ReadFile(path)
		f(path, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// layers are the directions: a package may import packages of layers below its own.
var layers = [][]string{
	{"setting", "coding", "swar"},
	{"exchange", "redact"},
	{"descriptor", "governor", "state", "state/memory", "state/quota", "state/redis", "expr", "trust"},
	{"notify", "policy/match", "policy/timeout", "policy/retry", "policy/hedge", "policy/dedup", "policy/sanitize", "policy/breaker", "policy/ratelimit", "policy/concurrency", "policy/destination", "policy/upstream"},
	{"policy/tenant"},
	{"policy"},
	{"proxy/pipe", "proxy/h2"},
	{"proxy/wire"},
	{"proxy/audit", "proxy/intercept", "proxy/egress", "proxy/trace"},
	{"proxy/audit/query"},
	{"proxy", "admin"},
	{"daemon"},
}

// within are imports inside a layer that are wanted.
var within = map[string][]string{
	"state": {"state/memory", "state/quota"}, "state/redis": {"state/memory"}, "state/quota": {"state"}, "proxy/audit": nil,
}

func TestDirections(t *testing.T) {
	level := map[string]int{}
	for i, layer := range layers {
		for _, name := range layer {
			level[name] = i
		}
	}
	for _, p := range packages(t) {
		name, internal := strings.CutPrefix(p.ImportPath, "httpowerd/internal/")
		if !internal || name == "house" {
			continue
		}
		own, known := level[name]
		if !known {
			t.Errorf("%s has no layer in this test", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			other, ok := strings.CutPrefix(i, "httpowerd/internal/")
			if !ok || level[other] < own || slices.Contains(within[name], other) {
				continue
			}
			t.Errorf("%s imports %s, which is not below it", name, other)
		}
	}
}

// homes are the only places that know an outside library.
var homes = map[string]func(pkg, file string) bool{
	"github.com/elazarl/goproxy":          func(p, f string) bool { return p == "internal/proxy" && f == "door.go" || f == "budget_test.go" }, // which measures it
	"github.com/sony/gobreaker":           func(p, _ string) bool { return p == "internal/policy/breaker" },
	"golang.org/x/time/rate":              func(p, _ string) bool { return p == "internal/state/memory" },
	"gopkg.in/yaml.v3":                    func(p, _ string) bool { return p == "internal/policy" },
	"github.com/redis/go-redis":           func(p, _ string) bool { return p == "internal/state/redis" },
	"cel.dev/cel-go":                      func(p, _ string) bool { return p == "internal/expr" },
	"github.com/spf13/cobra":              func(p, _ string) bool { return p == "cmd/httpowerd" },
	"github.com/go-jose/go-jose":          func(p, _ string) bool { return p == "internal/policy/tenant" },
	"golang.org/x/text":                   func(p, _ string) bool { return p == "internal/coding" },
	"github.com/andybalholm/brotli":       func(p, f string) bool { return p == "internal/coding" || strings.HasSuffix(f, "_test.go") },
	"github.com/klauspost/compress":       func(p, f string) bool { return p == "internal/coding" || strings.HasSuffix(f, "_test.go") },
	"github.com/fsnotify/fsnotify":        func(p, _ string) bool { return p == "internal/policy" },
	"github.com/prometheus/client_golang": prometheusHome,
	"github.com/prometheus/client_model":  prometheusHome,
	"go.opentelemetry.io":                 openTelemetryHome,
	"google.golang.org/grpc":              openTelemetryHome,
	"github.com/rogpeppe/go-internal":     func(p, _ string) bool { return strings.HasPrefix(p, "test") },
	"go.uber.org/goleak":                  func(_, f string) bool { return strings.HasSuffix(f, "_test.go") },
}

// openTelemetryHome: whoever makes spans, and the collectors of tests.
func openTelemetryHome(p, f string) bool {
	return p == "internal/proxy/trace" || p == "internal/daemon" && strings.HasSuffix(f, "_test.go")
}

// prometheusHome: whoever counts, and whoever takes or hands on the registry.
func prometheusHome(p, f string) bool {
	return f == "metrics.go" || p == "internal/admin" || p == "internal/daemon" || strings.HasSuffix(f, "_test.go") || registerers[p+"/"+f]
}

// registerers only name prometheus.Registerer in the signature of their New.
var registerers = map[string]bool{
	"internal/governor/governor.go": true,
	"internal/proxy/server.go":      true, "internal/proxy/trace/trace.go": true, "internal/proxy/egress/egress.go": true, "internal/proxy/egress/conn.go": true,
	"internal/proxy/egress/tunnel.go": true, "internal/notify/notify.go": true, "internal/policy/holder.go": true, "internal/proxy/audit/audit.go": true,
	"internal/policy/retry/retry.go": true, "internal/policy/hedge/hedge.go": true, "internal/policy/dedup/room.go": true, "internal/policy/sanitize/sanitize.go": true, "internal/policy/ratelimit/room.go": true, "internal/policy/ratelimit/ratelimit.go": true,
	"internal/policy/breaker/room.go": true, "internal/policy/breaker/breaker.go": true, "internal/policy/concurrency/room.go": true,
	"internal/policy/concurrency/concurrency.go": true, "internal/state/redis/redis.go": true,
}

func TestHomes(t *testing.T) {
	walk(t, ".go", func(path, text string) {
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(root, path)
		for _, i := range f.Imports {
			name := strings.Trim(i.Path.Value, `"`)
			for library, home := range homes {
				if (name == library || strings.HasPrefix(name, library+"/")) && !home(filepath.ToSlash(filepath.Dir(rel)), filepath.Base(rel)) {
					t.Errorf("%s imports %s, which has its home elsewhere", rel, name)
				}
			}
		}
	})
}

func TestPackagesAreDescribed(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		room, isRoom := strings.CutPrefix(p.ImportPath, "httpowerd/internal/policy/")
		if !isRoom && !slices.Contains([]string{"redact", "proxy/audit", "proxy/intercept", "proxy/egress", "proxy/wire", "admin", "notify"}, strings.TrimPrefix(p.ImportPath, "httpowerd/internal/")) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(p.Dir, "README.md"))
		if err != nil || len(text) < 300 {
			t.Errorf("%s%s has no README.md worth the name", room, p.ImportPath)
		}
	}
}

var snippet = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")

// TestDocumentation loads every YAML snippet of every page, and every example file.
func TestDocumentation(t *testing.T) {
	dir := t.TempDir()
	env := func(name string) (string, bool) { return "value-of-" + strings.ToLower(name), true }
	check := func(origin, text string) {
		path := filepath.Join(dir, "snippet.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, faults := policy.Load(policy.Source{Path: path, Env: env}); len(faults) > 0 {
			t.Errorf("%s: %v", origin, faults)
		}
	}
	snippets := 0
	walk(t, ".md", func(path, text string) {
		for _, m := range snippet.FindAllStringSubmatch(text, -1) {
			snippets++
			check(path, m[1])
		}
	})
	if snippets < 10 {
		t.Fatalf("%d snippets", snippets)
	}
	examples, _ := filepath.Glob(filepath.Join(root, "configs/examples/*.yaml"))
	for _, path := range append(examples, filepath.Join(root, "configs/minimal.yaml"), filepath.Join(root, "configs/reference.yaml")) {
		if _, faults := policy.Load(policy.Source{Path: path, Env: env}); len(faults) > 0 {
			t.Errorf("%s: %v", path, faults)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// TestLinks: pages link to files that are there.
func TestLinks(t *testing.T) {
	walk(t, ".md", func(path, text string) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", path, m[1])
			}
		}
	})
}

// TestPublishedKey: goproxy's own CA key is public; nothing of ours may use what is built on it (G2).
func TestPublishedKey(t *testing.T) {
	forbidden := regexp.MustCompile(`\b(GoproxyCa|MitmConnect|OkConnect|AlwaysMitm|HTTPMitmConnect|TLSConfigFromCA)\b`)
	walk(t, ".go", func(path, text string) {
		if m := forbidden.FindString(text); m != "" && !strings.HasSuffix(path, "house_test.go") {
			t.Errorf("%s names %s", path, m)
		}
	})
}

// TestSpans: the wall clock may be set while a span lasts, which is therefore kept in ticks.
func TestSpans(t *testing.T) {
	wall := regexp.MustCompile(`time\.Now\(\)(\.Add\([^\n]*\))?\.UnixNano\(\)`)
	walk(t, ".go", func(path, text string) {
		if m := wall.FindString(text); m != "" && !strings.HasSuffix(path, "_test.go") {
			t.Errorf("%s reads %s: write exchange.Ticks()", path, m)
		}
	})
}
