package test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	rulesDir      = "../deploy/prometheus"
	dashboardFile = "../deploy/grafana/dashboards/httpowerd.json"
)

func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	need(t, "promtool")
	cmd := exec.Command("promtool", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, tail(string(out), 6000))
	}
}

// TestRules: Prometheus takes the configurations and rules, and each alert fires and does not fire where tests.yaml says.
func TestRules(t *testing.T) {
	configs, err := filepath.Glob(rulesDir + "/*.yaml")
	if err != nil || len(configs) != 5 {
		t.Fatalf("%v, %v", configs, err)
	}
	promtool(t, "", "check", "config", rulesDir+"/prometheus.yaml", rulesDir+"/compose.yaml")
	promtool(t, "", "check", "rules", rulesDir+"/recording.yaml", rulesDir+"/alerts.yaml")
	promtool(t, "", "test", "rules", rulesDir+"/tests.yaml")
}

// TestEveryAlertIsTestedAndExplained: both of its tests, and a section of the page that it links to.
func TestEveryAlertIsTestedAndExplained(t *testing.T) {
	rules, tests, page := text(t, rulesDir+"/alerts.yaml"), text(t, rulesDir+"/tests.yaml"), text(t, "../docs/alerts.md")
	blocks := strings.Split(rules, "- alert: ")[1:]
	if len(blocks) < 20 {
		t.Fatalf("only %d alerts", len(blocks))
	}
	var names []string
	for _, b := range blocks {
		name, _, _ := strings.Cut(b, "\n")
		names = append(names, name)
		for _, want := range []string{"labels: {severity: ", "summary: ", "description: ", "runbook_url: docs/alerts.md#" + strings.ToLower(name) + "\n"} {
			if !strings.Contains(b, want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
		for _, want := range []string{"- name: '" + name + ": fires", "- name: '" + name + ": does not fire"} {
			if !strings.Contains(tests, want) {
				t.Errorf("tests.yaml has no test %q", want)
			}
		}
		_, section, found := strings.Cut(page, "\n### "+name+"\n")
		section, _, _ = strings.Cut(section, "\n#")
		if !found || len(section) < 150 {
			t.Errorf("docs/alerts.md has no section about %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Httpowerd\w+)$`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("docs/alerts.md explains %s, which is no alert", m[1])
		}
	}
}

func text(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// panel is one of the dashboard.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ RefID, Expr, LegendFormat string }
}

func dashboard(t testing.TB) (panels []panel) {
	t.Helper()
	var d struct {
		UID, Title    string
		SchemaVersion int
		Panels        []panel
		Templating    struct{ List []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(text(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion == 0 || len(d.Panels) < 50 {
		t.Fatalf("no dashboard: %q %q %d, %d panels", d.UID, d.Title, d.SchemaVersion, len(d.Panels))
	}
	for _, v := range []string{"datasource", "job", "instance", "host", "tenant"} {
		if !slices.ContainsFunc(d.Templating.List, func(l struct{ Name string }) bool { return l.Name == v }) {
			t.Errorf("the dashboard has no variable %s", v)
		}
	}
	return d.Panels
}

// concrete is an expression with values for the dashboard's variables.
func concrete(expr, interval string) string {
	return strings.NewReplacer("$__rate_interval", interval, "$job", "httpowerd", "$instance", ".*", "$host", ".*", "$tenant", ".*").Replace(expr)
}

// TestDashboard: Grafana can lay it out, and Prometheus can read all that it asks for.
func TestDashboard(t *testing.T) {
	taken := map[[2]int]string{}
	ids := map[int]bool{}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for _, p := range dashboard(t) {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: the id %d is not its own", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%s is off the grid: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("%s lies over %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Title == "" || (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %d, %q: %d targets", p.ID, p.Title, len(p.Targets))
		}
		for _, q := range p.Targets {
			expr := concrete(q.Expr, "1m")
			if strings.Contains(expr, "$") {
				t.Errorf("%s: a variable that the dashboard does not have: %s", p.Title, q.Expr)
			}
			rule, _ := json.Marshal(map[string]string{"record": "x", "expr": expr}) // JSON is YAML
			rules.WriteString("  - " + string(rule) + "\n")
		}
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", "--lint=none", path)
}

// TestMetricsPage: what is scraped is in good form, and tells the bounds that alerts compare with.
func TestMetricsPage(t *testing.T) {
	upstream := serve(t, nil, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	d := start(t, `proxy: {limits: {connections: 100, tunnels: 50}}
hosts: {127.0.0.1: {rate_limit: {requests: 100, per: 1s}, concurrency: {max: 5}, dedup: {}, hedge: {after: 1s}}}`)
	get(t, plainClient(t, d), "http://"+upstream+"/")
	page := d.ask("/metrics")
	promtool(t, page, "check", "metrics")
	for _, want := range []string{"\nhttpowerd_connections_limit 100\n", "\nhttpowerd_tunnels_limit 50\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}
