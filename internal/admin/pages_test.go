package admin

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/state"
)

func TestHealth(t *testing.T) {
	r := newRig(t, "")
	r.is(r.ask("GET", "/healthz", ""), 200, "")
	r.is(r.ask("GET", "/readyz", ""), 200, "")
	close(r.leaving)
	r.is(r.ask("GET", "/healthz", ""), 200, "")
	w := r.ask("GET", "/readyz", "")
	if r.is(w, 503, "draining"); w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.is(r.ask("GET", "/", ""), 200, "")
	r.is(r.ask("GET", "/api/v1/traffic", ""), 503, "draining")
}

// noPolicies is a daemon whose first configuration is not there yet.
type noPolicies struct{}

func (noPolicies) Load() *policy.Snapshot  { return nil }
func (noPolicies) File() *policy.File      { return nil }
func (noPolicies) RestartNeeded() []string { return nil }

func TestWithoutPolicy(t *testing.T) {
	r := newRig(t, "")
	r.handler.Policies = noPolicies{}
	r.is(r.ask("GET", "/healthz", ""), 200, "")
	r.is(r.ask("GET", "/metrics", ""), 200, "")
	r.is(r.ask("GET", "/readyz", ""), 503, "not_ready")
	for _, q := range guarded {
		r.is(r.ask(q[0], q[1], ""), 503, "not_ready")
	}
}

func TestCA(t *testing.T) {
	r := newRig(t, "")
	w := r.ask("GET", "/ca.pem", "")
	if r.is(w, 200, ""); w.Header().Get("Content-Type") != "application/x-pem-file" || !strings.HasPrefix(w.Body.String(), "-----BEGIN") {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	r.caError = errors.New("open /var/lib/httpowerd/ca/key.pem: permission denied")
	w = r.ask("GET", "/ca.pem", "")
	if r.is(w, 500, "internal"); strings.Contains(w.Body.String(), "key.pem") || !strings.Contains(r.log.String(), "key.pem") {
		t.Errorf("answer %s, log %s", w.Body, r.log.String())
	}
}

// TestHead: every page that is read answers HEAD as GET, without the body. A recorder keeps it, so a server is needed.
func TestHead(t *testing.T) {
	r := newRig(t, "")
	s := httptest.NewServer(r.handler)
	defer s.Close()
	c := s.Client()
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/ca.pem", "/api/v1/config", "/api/v1/hosts", "/api/v1/breakers", "/api/v1/limits",
		"/api/v1/log-level", "/api/v1/traffic", "/api/v1/explain?url=http://a.example.com/"} {
		resp, err := c.Head(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); resp.StatusCode != 200 || len(body) != 0 || err != nil || resp.Header.Get("Content-Type") == "" {
			t.Errorf("HEAD %s: %s %q %v", path, resp.Status, body, err)
		}
	}
	if len(r.watching) != 0 {
		t.Error("HEAD watches the traffic")
	}
	c.CloseIdleConnections()
}

// secretConfig holds secrets in every place that the configuration has for one.
const secretConfig = `admin: {token: token-9f8e7d6c5b4a}
hosts:
  a.example.com: {upstream: {proxy: "http://user:password-1a2b3c4d@parent.example.com:3128"}}
`

func TestConfig(t *testing.T) {
	r := newRig(t, secretConfig)
	auth := []string{"Authorization", "Bearer token-9f8e7d6c5b4a"}
	out := r.is(r.ask("GET", "/api/v1/config", "", auth...), 200, "")
	if out["hash"] != r.holder.Load().Hash || out["restart_needed"] == nil || out["warnings"] == nil {
		t.Errorf("%v", out)
	}
	admin := out["config"].(map[string]any)["admin"].(map[string]any)
	if admin["token"] != "[redacted]" || admin["metrics_auth"] != false {
		t.Errorf("%v", admin)
	}
	for target, want := range map[string]string{"/api/v1/config?format=yaml": "", "/api/v1/config": "application/yaml",
		"/api/v1/config?": "text/html, application/yaml;q=0.9"} {
		w := r.ask("GET", target, "", append(auth, "Accept", want)...)
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/yaml" || !strings.HasPrefix(w.Body.String(), "# hash: "+r.holder.Load().Hash+"\n") ||
			!strings.Contains(w.Body.String(), "\nhosts:\n") || strings.Contains(w.Body.String(), "9f8e7d") {
			t.Errorf("%s: %d %v\n%s", target, w.Code, w.Header(), w.Body)
		}
	}
	for target, accept := range map[string]string{"/api/v1/config?format=json": "application/yaml", "/api/v1/config": "application/json, application/yaml"} {
		r.is(r.ask("GET", target, "", append(auth, "Accept", accept)...), 200, "")
	}
	r.is(r.ask("GET", "/api/v1/config?format=toml", "", auth...), 400, "bad_request")
}

// TestNoSecretIsShown (A47).
func TestNoSecretIsShown(t *testing.T) {
	r := newRig(t, secretConfig)
	auth := []string{"Authorization", "Bearer token-9f8e7d6c5b4a"}
	r.write(secretConfig + "  b.example.com: {access: \"sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc\"}\n")
	bad := r.ask("POST", "/api/v1/reload", "", auth...)
	r.is(bad, 422, "invalid_config")
	all := bad.Body.String()
	for _, path := range []string{"/", "/metrics", "/api/v1/config", "/api/v1/config?format=yaml", "/api/v1/hosts", "/api/v1/hosts/a.example.com", "/api/v1/breakers",
		"/api/v1/limits", "/api/v1/explain?url=http://u:passw0rd-77@a.example.com/", "/api/v1/explain?url=ftp://u:passw0rd-77@a.example.com/"} {
		w := r.ask("GET", path, "", auth...)
		all += fmt.Sprint(path, w.Header(), w.Body)
	}
	all = strings.ReplaceAll(all, "/api/v1/explain?url=http://u:passw0rd-77@a.example.com/", "")
	all = strings.ReplaceAll(all, "/api/v1/explain?url=ftp://u:passw0rd-77@a.example.com/", "")
	for _, secret := range []string{"9f8e7d6c5b4a", "1a2b3c4d", "4eC39HqLyjWDarjtT1zdp7dc", "passw0rd-77"} {
		if i := strings.Index(all, secret); i >= 0 {
			t.Errorf("%s is shown: …%s", secret, all[max(0, i-300):i+20])
		}
	}
}

func TestExplain(t *testing.T) {
	r := newRig(t, `hosts:
  a.example.com:
    tls: intercept
    routes: [{name: reports, match: {methods: [GET], path: /r/**, headers: {X-Kind: big}}, access: deny}]
`)
	out := r.is(r.ask("GET", "/api/v1/explain?method=get&url=https%3A%2F%2Fa.example.com%2Fr%2F1&header=X-Kind%3A%20big", ""), 200, "")
	if out["policy"] != "a.example.com#reports" || out["mode"] != "intercept" || out["access"] != "deny" || len(out["chain"].([]any)) < 3 {
		t.Errorf("%v", out)
	}
	out = r.is(r.ask("GET", "/api/v1/explain?url=https%3A%2F%2Fa.example.com%2Fr%2F1&tenant=billing", ""), 200, "")
	if out["policy"] != "a.example.com" || out["tenant"] != "billing" || out["method"] != "GET" {
		t.Errorf("%v", out)
	}
	out = r.is(r.ask("GET", "/api/v1/explain?method=CONNECT&url=b.example.com:443", ""), 200, "")
	if out["mode"] != "tunnel" || out["authority"] != "b.example.com:443" {
		t.Errorf("%v", out)
	}
	for _, query := range []string{"", "url=", "url=a.example.com", "url=ftp://a.example.com/", "url=http://127.1/", "url=http://a.example.com/&method=a%20b",
		"url=http://a.example.com/&method=" + strings.Repeat("A", 33), "url=http://a.example.com/&header=x", "url=http://a.example.com/&header=a%0d%0ab:c",
		"url=http://a.example.com/&header=a:b%0d%0ac", "url=http://a.example.com/&hdr=a:b", "url=%zz", "url=http://%00/", "a;b"} {
		w := r.ask("GET", "/api/v1/explain?"+query, "")
		r.is(w, 400, "bad_request")
		if strings.Contains(w.Body.String(), "parse ") {
			t.Errorf("%s: %s", query, w.Body)
		}
	}
}

func TestBreakersAndLimits(t *testing.T) {
	r := newRig(t, "hosts: {\"*.example.com\": {}, a.example.com: {}}")
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.breakers.known = []breaker.Status{
		{Policy: "*.example.com", Authority: "b.example.com:443", State: breaker.Closed, Since: since},
		{Policy: "a.example.com@billing", Authority: "a.example.com:443", State: breaker.Open, Since: since, Reason: "5 failures in a row", RetryAfter: 1500 * time.Millisecond,
			Window: breaker.Window{FailuresLocal: 2, FailuresUpstream: 3}, Opened: 1,
			Changes: []breaker.Transition{{Time: since, From: breaker.Closed, To: breaker.Open, Reason: "5 failures in a row"}}},
		{Policy: "", Authority: "example.org:443", State: breaker.HalfOpen, Since: since},
	}
	r.limits = []ratelimit.LimitStatus{
		{Kind: ratelimit.Configured, Level: "defaults", Authority: "b.example.com:443", Unit: "requests", Limit: 10, Per: 1, Remaining: 3},
		{Kind: ratelimit.Configured, Level: `hosts["a.example.com"]`, Pattern: "a.example.com", Unit: "requests", Limit: 10, Per: 1, Remaining: 3},
		{Kind: ratelimit.Announced, Policy: "a.example.com", Authority: "a.example.com:443", Unit: "requests", Limit: -1, Remaining: 0, Closed: 12},
	}
	r.places = []concurrency.Status{
		{Level: "defaults", Authority: "b.example.com:443", Max: 100, Adaptive: "off", Limit: 100},
		{Level: `hosts["a.example.com"]`, Pattern: "a.example.com", Max: 100, Adaptive: "on", Limit: 14, Held: 14, Waiting: 3,
			Changes: []state.Event{{Time: since, From: "20", To: "14", Reason: "a request timed out"}}},
	}
	if page := r.ask("GET", "/api/v1/hosts/a.example.com", "").Body.String(); !strings.Contains(page, `"to": "14"`) && !strings.Contains(page, `"to":"14"`) ||
		strings.Contains(page, "b.example.com") {
		t.Errorf("the bulkheads of a host: %s", page)
	}
	list, _ := r.is(r.ask("GET", "/api/v1/breakers", ""), 200, "")["breakers"].([]any)
	if len(list) != 3 || list[0].(map[string]any)["retry_after_seconds"] != 1.5 || list[0].(map[string]any)["authority"] != "a.example.com:443" ||
		list[2].(map[string]any)["state"] != "half_open" || list[1].(map[string]any)["since"] != "2026-01-02T03:04:05Z" {
		t.Errorf("%v", list)
	}
	for _, path := range []string{"/api/v1/breakers", "/api/v1/hosts/a.example.com"} {
		page := r.ask("GET", path, "").Body.String()
		for _, text := range []string{`"window":{"successes":0,"failures_local":2,"failures_upstream":3,"slow":0}`, `"streak":{"local":0,"upstream":0}`, `"opened":1`,
			`"changes":[{"time":"2026-01-02T03:04:05Z","from":"closed","to":"open","reason":"5 failures in a row"}]`} {
			if !strings.Contains(strings.NewReplacer(" ", "", "\n", "").Replace(page), strings.ReplaceAll(text, " ", "")) {
				t.Errorf("%s does not show %s: %s", path, text, page)
			}
		}
	}
	limits, _ := r.is(r.ask("GET", "/api/v1/limits", ""), 200, "")["limits"].([]any)
	if len(limits) != 3 || limits[0].(map[string]any)["pattern"] != "a.example.com" {
		t.Errorf("%v", limits)
	}
	for path, want := range map[string][2]int{"a.example.com": {1, 2}, "*.example.com": {1, 1}, "%2A.example.com": {1, 1}, "b.example.com": {1, 1},
		"B.Example.com:443": {1, 1}, "c.example.com": {0, 0}, "example.org": {1, 0}} {
		out := r.is(r.ask("GET", "/api/v1/hosts/"+path, ""), 200, "")
		if b, l := len(out["breakers"].([]any)), len(out["limits"].([]any)); b != want[0] || l != want[1] {
			t.Errorf("%s: %d breakers, %d limits; want %v", path, b, l, want)
		}
	}
	for _, path := range []string{"a%20b", "%00", "a%2Fb", "127.1", "https:%2F%2Fa.example.com", "a.example.com:x"} {
		r.is(r.ask("GET", "/api/v1/hosts/"+path, ""), 404, "not_found")
	}
	page := r.ask("GET", "/", "").Body.String()
	for _, text := range []string{"5 failures in a row", "a.example.com:443", "half_open", "10 requests per 1s", "12s", "unknown"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page does not show %q", text)
		}
	}
	if strings.Contains(page, `<td>*.example.com</td><td>closed`) {
		t.Error("the page shows a closed breaker")
	}
}

// count fills the registry with what the door and its rooms would.
func (r *rig) count() {
	vec := func(name string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: "x"}, labels)
		r.registry.MustRegister(c)
		return c
	}
	requests := vec("httpowerd_requests_total", "host", "method", "code", "outcome", "tenant")
	requests.WithLabelValues("a.example.com", "GET", "200", "ok", "").Add(10)
	requests.WithLabelValues("a.example.com", "POST", "200", "ok", "").Add(5)
	requests.WithLabelValues("a.example.com", "GET", "503", "breaker_open", "").Add(2)
	requests.WithLabelValues("a.example.com", "GET", "502", "upstream_connect", "").Add(3)
	requests.WithLabelValues("a.example.com", "GET", "0", "client_gone", "").Add(7)
	requests.WithLabelValues("other", "GET", "403", "destination_denied", "").Add(4)
	vec("httpowerd_retries_total", "host", "reason").WithLabelValues("a.example.com", "status").Add(6)
	vec("httpowerd_tunnels_total", "host", "outcome", "tenant").WithLabelValues("free.example.org", "ok", "").Add(9)
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "httpowerd_request_duration_seconds", Help: "x"}, []string{"host"})
	r.registry.MustRegister(h)
	h.WithLabelValues("a.example.com").Observe(0.1)
	h.WithLabelValues("a.example.com").Observe(0.3)
}

// TestCardsInHosts: a card number for a name is masked wherever an authority is shown.
func TestCardsInHosts(t *testing.T) {
	r := newRig(t, "hosts: {a.example.com: {}}")
	const card = "4111" + "111111111111"
	authority := card + ".test:443"
	r.breakers.known = []breaker.Status{{Authority: authority, State: breaker.Open}}
	r.limits = []ratelimit.LimitStatus{{Kind: ratelimit.Configured, Level: "defaults", Authority: authority, Unit: "requests", Limit: 10, Per: 1, Remaining: 0}}
	r.places = []concurrency.Status{{Level: "defaults", Authority: authority, Max: 100, Adaptive: "off", Limit: 100}}
	for _, path := range []string{"/api/v1/breakers", "/api/v1/limits", "/api/v1/hosts", "/api/v1/hosts/b.test", "/"} {
		if page := r.ask("GET", path, "").Body.String(); strings.Contains(page, card) {
			t.Errorf("%s: %s", path, page)
		}
	}
	if page := r.ask("GET", "/api/v1/breakers", "").Body.String(); !strings.Contains(page, "1111.test:443") {
		t.Error(page)
	}
	if page := r.ask("GET", "/api/v1/hosts/"+authority, "").Body.String(); strings.Count(page, `"state"`) != 1 || strings.Contains(page[strings.Index(page, `"breakers"`):], card) {
		t.Errorf("the host's own page: %s", page)
	}
}

func TestHosts(t *testing.T) {
	r := newRig(t, `hosts:
  "*.example.com": {}
  a.example.com: {tls: intercept, rate_limit: {requests: 1, per: 1s}, routes: [{name: r, match: {path: /r/**}, access: deny, upgrade: https}]}
`)
	r.count()
	var out struct {
		Hosts     []hostSummary
		Unmatched []named
	}
	if err := json.Unmarshal(r.ask("GET", "/api/v1/hosts", "").Body.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Hosts) != 2 || len(out.Unmatched) != 2 || out.Unmatched[0].Host != "free.example.org" || out.Unmatched[1].Host != "other" {
		t.Fatalf("%+v", out)
	}
	i := slices.IndexFunc(out.Hosts, func(h hostSummary) bool { return h.Pattern == "a.example.com" })
	c := out.Hosts[i].Counters
	if !slices.Equal(out.Hosts[i].Policies, []string{"a.example.com", "a.example.com#r"}) || c.Requests.Total != 27 || c.Requests.By["ok"] != 15 ||
		c.Retries.By["status"] != 6 || c.Duration.Count != 2 || c.Duration.Mean < 0.199 || c.Duration.Mean > 0.201 {
		t.Errorf("%+v %+v", out.Hosts[i], c)
	}
	if c.refusals() != 2 || c.failures() != 3 {
		t.Errorf("%v refusals, %v failures", c.refusals(), c.failures())
	}
	var view hostView
	if err := json.Unmarshal(r.ask("GET", "/api/v1/hosts/a.example.com", "").Body.Bytes(), &view); err != nil {
		t.Fatal(err)
	}
	if len(view.Policies) != 2 || view.Policies[0].TLS != "intercept" || !slices.Contains(view.Policies[0].Chain, "rate_limit") ||
		view.Policies[1].Access != "deny" || view.Policies[1].Upgrade != "https" || view.Counters.Requests.Total != 27 {
		t.Errorf("%+v", view)
	}
	if err := json.Unmarshal(r.ask("GET", "/api/v1/hosts/free.example.org", "").Body.Bytes(), &view); err != nil {
		t.Fatal(err)
	}
	if view.Pattern != "" || view.Host != "free.example.org" || view.Counters.Tunnels.Total != 9 {
		t.Errorf("%+v", view)
	}
}

func TestStatusPage(t *testing.T) {
	r := newRig(t, "hosts: {a.example.com: {}}")
	r.count()
	r.write("hosts: {a.example.com: {access: \"<script>alert(1)</script>\"}}")
	_ = r.holder.Reload(t.Context(), "test")
	for i := range 3 * maxRows {
		r.breakers.known = append(r.breakers.known, breaker.Status{Authority: fmt.Sprintf("h%d.example.com:443", i), State: breaker.Open,
			Reason: `"><img src=x onerror=alert(1)>`})
		r.limits = append(r.limits, ratelimit.LimitStatus{Kind: "configured", Authority: fmt.Sprintf("h%d.example.com:443", i), Limit: 1, Name: "<b>"})
	}
	w := r.ask("GET", "/", "")
	page := w.Body.String()
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(page)[1]
	sum := sha256.Sum256([]byte(style))
	csp := w.Header().Get("Content-Security-Policy")
	if !strings.Contains(csp, "style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") || strings.Contains(csp, "unsafe") {
		t.Errorf("Content-Security-Policy %q does not fit the page's style", csp)
	}
	for _, bad := range []string{"<script", "<img", "<b>", " style=", " onclick", "http://", "https://", "url(", "@import"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %s", bad)
		}
	}
	for _, text := range []string{"httpowerd 1.2.3", r.holder.Load().Hash, ">failed<", "httpowerd.yaml:2:", "<td>a.example.com</td><td class=\"n\">27</td>",
		"h0.example.com", "and 200 more", `http-equiv="refresh"`, "<td>other</td>", "200ms"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page does not show %q", text)
		}
	}
	if len(page) > 200<<10 {
		t.Errorf("%d bytes", len(page))
	}
}

func TestMetricsPage(t *testing.T) {
	r := newRig(t, "")
	reg := NewRegistry("1.2.3")
	r.handler.Metrics = reg
	w := r.ask("GET", "/metrics", "")
	for _, line := range []string{`httpowerd_build_info{goversion="go`, `version="1.2.3"} 1`, "go_goroutines ", "process_start_time_seconds "} {
		if !strings.Contains(w.Body.String(), line) {
			t.Errorf("no %s", line)
		}
	}
	open := r.ask("GET", "/metrics", "", "Accept", "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(open.Header().Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(open.Body.String(), "# EOF\n") {
		t.Errorf("%v", open.Header())
	}
	problems, err := promlint.New(strings.NewReader(w.Body.String())).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// brokenCollector cannot be gathered.
type brokenCollector struct{}

func (brokenCollector) Describe(chan<- *prometheus.Desc) {}

func (brokenCollector) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken_thing", "x", nil, nil), errors.New("dial 192.0.2.66: refused"))
}

// TestMetricsThatCannotBeGathered: the rest is served, and the error is the log's business.
func TestMetricsThatCannotBeGathered(t *testing.T) {
	r := newRig(t, "")
	r.count()
	r.registry.MustRegister(brokenCollector{})
	w := r.ask("GET", "/metrics", "")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "httpowerd_requests_total{") || strings.Contains(w.Body.String(), "192.0.2.66") ||
		!strings.Contains(r.log.String(), "192.0.2.66") {
		t.Errorf("%d, log %s\n%.300s", w.Code, r.log.String(), w.Body)
	}
	if w = r.ask("GET", "/api/v1/hosts", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "a.example.com") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
