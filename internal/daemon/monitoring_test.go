package daemon

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// What operators load into Prometheus and Grafana names metrics of this daemon. These tests hold both together.

const deploy = "../../deploy/"

var description = regexp.MustCompile(`^Desc\{fqName: "([^"]+)".* variableLabels: \{([^}]*)\}\}$`)

// registered are the labels of all metrics that a daemon has, by name: those too that nothing was counted in yet.
func registered(t *testing.T) map[string][]string {
	t.Helper()
	// A server that is away will do: the metrics of the shared state are there as soon as it is configured.
	b := start(t, `state: {backend: redis, url: "redis://127.0.0.1:1", secret: the-same-in-all-daemons}
proxy: {limits: {memory: 1GiB}}`)
	descriptions := make(chan *prometheus.Desc, 1000)
	b.metrics.Describe(descriptions)
	close(descriptions)
	out := map[string][]string{}
	for d := range descriptions {
		m := description.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("a description that this test cannot read: %s", d)
		}
		out[m[1]] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	if len(out) < 60 {
		t.Fatalf("only %d metrics: %v", len(out), slices.Sorted(maps.Keys(out)))
	}
	return out
}

// selector is a metric in an expression, with the labels that are asked for.
type selector struct {
	metric string
	labels []string
}

var (
	ranges    = regexp.MustCompile(`\[[^\]]*\]`)
	grouping  = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	selection = regexp.MustCompile(`\b([a-zA-Z_:][\w:]*)\s*(\{(?:[^}"]|"[^"]*")*\})?(\s*\()?`)
	matcher   = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	literals  = regexp.MustCompile(`"[^"]*"`)
	words     = []string{"and", "or", "unless", "offset", "bool"}
)

// parts takes an expression apart, as far as ours go: its selectors, and the labels that it groups by.
func parts(expr string) (selectors []selector, groups []string) {
	expr = ranges.ReplaceAllString(literals.ReplaceAllString(expr, `""`), "")
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		groups = append(groups, strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	for _, m := range selection.FindAllStringSubmatch(grouping.ReplaceAllString(expr, " "), -1) {
		if m[3] != "" && m[2] == "" || slices.Contains(words, m[1]) {
			continue // a function, or a word of the language
		}
		s := selector{metric: m[1]}
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			s.labels = append(s.labels, l[1])
		}
		selectors = append(selectors, s)
	}
	return selectors, groups
}

func TestPartsOfExpressions(t *testing.T) {
	selectors, groups := parts(`sum by (job, le) (rate(a_total{x="by (y)",z=~"}"}[5m] offset 1m)) / on (k) group_left (h) max(b) unless job:c:rate5m > 0.1`)
	want := []selector{{"a_total", []string{"x", "z"}}, {"b", nil}, {"job:c:rate5m", nil}}
	if !slices.EqualFunc(selectors, want, func(a, b selector) bool { return a.metric == b.metric && slices.Equal(a.labels, b.labels) }) {
		t.Errorf("%v", selectors)
	}
	if !slices.Equal(groups, []string{"job", "le", "k", "h"}) {
		t.Errorf("%v", groups)
	}
}

// expression is one of a file of ours.
type expression struct{ origin, record, expr, legend string }

// ruled reads the expressions of a file of rules: on the line of the key, or indented below it.
func ruled(t *testing.T, name string) (out []expression) {
	t.Helper()
	lines := strings.Split(read(t, deploy+"prometheus/"+name), "\n")
	title := ""
	for i, line := range lines {
		key, value, _ := strings.Cut(strings.TrimLeft(line, " -"), ": ")
		switch key {
		case "alert", "record":
			title = value
		case "expr":
			indent := len(line) - len(strings.TrimLeft(line, " "))
			for j := i + 1; value == "|" || j > i+1 && strings.HasPrefix(lines[j], strings.Repeat(" ", indent+1)); j++ {
				value = strings.TrimPrefix(value, "|") + " " + lines[j]
			}
			out = append(out, expression{origin: name + ": " + title, record: title, expr: value})
		}
	}
	return out
}

// drawn reads those of the dashboard: of panels, variables and annotations.
func drawn(t *testing.T) (out []expression) {
	t.Helper()
	type target struct{ Expr, LegendFormat string }
	var d struct {
		Panels []struct {
			Title   string
			Targets []target
		}
		Annotations struct{ List []struct{ Name, Expr string } }
		Templating  struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, deploy+"grafana/dashboards/httpowerd.json")), &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		for _, one := range p.Targets {
			out = append(out, expression{origin: "dashboard: " + p.Title, expr: one.Expr, legend: one.LegendFormat})
		}
	}
	for _, a := range d.Annotations.List {
		out = append(out, expression{origin: "dashboard, annotation " + a.Name, expr: a.Expr})
	}
	values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, v := range d.Templating.List {
		if m := values.FindStringSubmatch(v.Definition); m != nil {
			out = append(out, expression{origin: "dashboard, variable " + v.Name, expr: "max by (" + m[2] + ") (" + m[1] + ")"})
		}
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// labelsOf are the labels of a metric as Prometheus has it, with those of a scrape.
func labelsOf(known map[string][]string, metric string) ([]string, bool) {
	scrape := []string{"job", "instance"}
	if metric == "up" {
		return scrape, true
	}
	if labels, ok := known[metric]; ok {
		return append(slices.Clone(labels), scrape...), true
	}
	for _, ending := range []string{"_bucket", "_sum", "_count"} {
		base, cut := strings.CutSuffix(metric, ending)
		if labels, ok := known[base]; ok && cut && strings.HasSuffix(base, "_seconds") {
			return append(append(slices.Clone(labels), scrape...), "le"), true
		}
	}
	return nil, false
}

// TestMonitoringNamesMetrics: what rules and dashboard ask for is what the daemon registers, label by label.
func TestMonitoringNamesMetrics(t *testing.T) {
	known := registered(t)
	recorded := ruled(t, "recording.yaml")
	all := slices.Concat(recorded, ruled(t, "alerts.yaml"), drawn(t))
	for _, r := range recorded {
		_, groups := parts(r.expr)
		known[r.record] = groups
	}
	for _, r := range recorded { // one that is made of another has its labels
		if selectors, groups := parts(r.expr); len(groups) == 0 && len(selectors) > 0 {
			known[r.record] = known[selectors[0].metric]
		}
	}
	if len(all) < 100 {
		t.Fatalf("only %d expressions were found", len(all))
	}
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	for _, e := range all {
		selectors, groups := parts(e.expr)
		var there []string
		for _, s := range selectors {
			labels, ok := labelsOf(known, s.metric)
			if !ok {
				t.Errorf("%s: nothing is called %s", e.origin, s.metric)
				continue
			}
			there = append(there, labels...)
			for _, l := range s.labels {
				if !slices.Contains(labels, l) {
					t.Errorf("%s: %s has no label %s, but %v", e.origin, s.metric, l, labels)
				}
			}
		}
		for _, l := range groups {
			if !slices.Contains(there, l) {
				t.Errorf("%s: groups by %s, which nothing in it has", e.origin, l)
			}
		}
		for _, m := range legend.FindAllStringSubmatch(e.legend, -1) {
			if left := append(groups, there...); len(groups) > 0 && !slices.Contains(groups, m[1]) || !slices.Contains(left, m[1]) {
				t.Errorf("%s: the legend names %s, which is not left", e.origin, m[1])
			}
		}
	}
}

// TestMetricsAreDocumented: docs/monitoring.md lists each metric of the daemon with its labels, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	page := read(t, "../../docs/monitoring.md")
	row := regexp.MustCompile("(?m)^\\| `(httpowerd_\\w+)` \\|([^|]*)\\| ([^|]+) \\|$")
	listed := map[string][]string{}
	for _, m := range row.FindAllStringSubmatch(page, -1) {
		listed[m[1]] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	known := registered(t)
	for name, labels := range known {
		if !strings.HasPrefix(name, "httpowerd_") {
			continue
		}
		if got, ok := listed[name]; !ok {
			t.Errorf("docs/monitoring.md does not list %s", name)
		} else if !slices.Equal(got, labels) {
			t.Errorf("docs/monitoring.md says that %s has the labels %v, which are %v", name, got, labels)
		}
	}
	for name := range listed {
		if _, ok := known[name]; !ok {
			t.Errorf("docs/monitoring.md lists %s, which is not registered", name)
		}
	}
}

// TestOutcomesAreJudged: each outcome of an exchange counts for effective success or is the program's own doing; a new code must be one of them.
func TestOutcomesAreJudged(t *testing.T) {
	own := []string{"bad_request", "authority_mismatch", "auth_required", "denied", "destination_denied", "sni_mismatch", "blocked_content", "loop",
		"too_large", "unsupported", "idempotency_conflict", "client_gone", "superseded"}
	judged := regexp.MustCompile(`httpowerd_requests_total\{outcome=~"([^"]+)"\}`).FindStringSubmatch(read(t, deploy+"prometheus/recording.yaml"))
	if judged == nil {
		t.Fatal("recording.yaml judges nothing")
	}
	if text := read(t, deploy+"grafana/dashboards/httpowerd.json"); !strings.Contains(text, judged[1]) {
		t.Error("the dashboard judges other outcomes than recording.yaml")
	}
	counts := regexp.MustCompile("^(?:" + judged[1] + ")$")
	codes := regexp.MustCompile(`(?m)\bCode += "(\w+)"`).FindAllStringSubmatch(read(t, "../exchange/code.go"), -1)
	if len(codes) < 25 {
		t.Fatalf("only %d codes", len(codes))
	}
	for _, c := range codes {
		if counts.MatchString(c[1]) == slices.Contains(own, c[1]) {
			t.Errorf("%s must be judged by recording.yaml and the dashboard, or stand in this test as a program's own doing", c[1])
		}
	}
	var all []string
	for _, c := range codes {
		all = append(all, c[1])
	}
	for _, name := range strings.Split(judged[1], "|") {
		if !strings.Contains(name, ".") && !slices.Contains(all, name) {
			t.Errorf("recording.yaml judges %s, which is no code", name)
		}
	}
}

// TestTurnedAwayIsCounted: a connection beyond the bound is no success, neither in metrics nor in records.
func TestTurnedAwayIsCounted(t *testing.T) {
	b := start(t, "proxy: {limits: {connections: 1}}")
	first := b.dialProxy()
	first.send("GET http://closed.invalid/ HTTP/1.1\r\nHost: closed.invalid\r\n\r\n")
	first.answer("GET") // so it is counted by now
	refused(t, b.dialProxy().answer("GET"), 503, "overloaded")
	rs := b.records(2) // in either order: the first is written when its visit has ended, behind its answer
	r := rs[slices.IndexFunc(rs, func(r record) bool { return r["method"] != "GET" })]
	if r.text("outcome") != "overloaded" || r.text("status_by") != "proxy" || r["status"] != 503.0 {
		t.Errorf("the record says %v", r)
	}
	const want = `httpowerd_requests_total{code="503",host="other",method="_OTHER",outcome="overloaded",tenant=""} 1`
	if page := b.admin("GET", "/metrics", "").body; !strings.Contains(page, want) {
		t.Errorf("the metrics do not say %s", want)
	}
}
