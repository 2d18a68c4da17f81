//go:build observability

package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// hurry is how much faster than life the rules run here: ranges and waits of hours and minutes become minutes and seconds.
const hurry = 30

// TestObservability runs Prometheus with the rules of deploy/prometheus against daemons under load with faults. Each rule must record something, each
// panel of the dashboard must show something, and the alerts that the faults are made for must fire. With PICTURES=DIR it leaves screenshots there.
func TestObservability(t *testing.T) {
	need(t, "prometheus", "promtool", "redis-server")
	s := newScene(t)
	p := startPrometheus(t, map[string]string{"httpowerd": s.main.admin + " " + s.broken.admin})
	stop := s.load(t)
	defer stop()

	broken, whole := fmt.Sprintf("instance=%q", s.broken.admin), fmt.Sprintf("instance=%q", s.main.admin)
	p.fire(t, [][2]string{ // what the faults are made for
		{"HttpowerdBreakerOpen", `host="down.example.com"`},
		{"HttpowerdRetryRateHigh", `host="flaky.example.com"`},
		{"HttpowerdRetryBudgetEmpty", `host="strained.example.com"`},
		{"HttpowerdUpstreamFailing", `host="flaky.example.com"`},
		{"HttpowerdEffectiveSuccessLow", `host="down.example.com"`},
		{"HttpowerdRateLimitRefusing", `host="limited.example.com"`},
		{"HttpowerdConcurrencyRefusing", `host="crowded.example.com"`},
		{"HttpowerdQuotaNearlyUsed", `host="quota.example.com"`},
		{"HttpowerdAuditWriteFailing", broken},
		{"HttpowerdAuditStalled", broken},
		{"HttpowerdAuditDropped", broken},
		{"HttpowerdConfigDiffers", ""},
		{"HttpowerdDestinationsRefused", whole},
	})

	p.recorded(t)
	p.shown(t)
	p.quiet(t, "HttpowerdEffectiveSuccessLow", `host="api.example.com"`)
	p.quiet(t, "HttpowerdUpstreamFailing", `host="api.example.com"`)
	p.quiet(t, "HttpowerdInternalErrors", "")
	p.quiet(t, "HttpowerdAuditDropped", whole)
	p.quiet(t, "HttpowerdDown", "")
	// The distance that retries mend, as Prometheus sees it.
	effective, actual := p.value(t, `job_host:httpowerd_requests_success:ratio_rate5m{host="flaky.example.com"}`), p.value(t, `job_host:httpowerd_attempts_success:ratio_rate5m{host="flaky.example.com"}`)
	t.Logf("flaky.example.com: effective success %.3f, actual success %.3f", effective, actual)
	if effective < actual+0.1 {
		t.Errorf("retries mend nothing: effective success %.3f, actual %.3f", effective, actual)
	}
	p.annotated(t)

	if os.Getenv("PICTURES") != "" {
		time.Sleep(time.Until(begun.Add(80 * time.Second))) // so that lines have a length
	}
	s.main.write("hosts: {api.example.com: {retries: {}}}\n") // no such key
	p.fire(t, [][2]string{{"HttpowerdConfigReloadFailed", whole}, {"HttpowerdNotificationsFailing", `target="lost"`}})
	pictures(t, p)
	_ = s.broken.cmd.Process.Kill()
	p.fire(t, [][2]string{{"HttpowerdDown", broken}})
}

// scene is an upstream with many faces, a daemon before it, and one that cannot write its audit trail.
type scene struct {
	main, broken *daemon
	echo         string
}

func newScene(t *testing.T) *scene {
	upstream := serve(t, nil, false, http.HandlerFunc(faces))
	names := []string{"api", "flaky", "down", "strained", "limited", "crowded", "quota", "slow", "big", "clean"}
	var resolve []string
	for _, n := range names {
		resolve = append(resolve, n+".example.com: "+upstream)
	}
	// An answer that no further try would change: what is posted there is lost at once.
	target := serve(t, nil, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	hosts := `
destinations: {deny: [127.9.9.9/32]}
notify: {lost: {url: "http://` + target + `/"}}
defaults:
  upstream: {resolve: {` + strings.Join(resolve, ", ") + `}}
  retry: {backoff: {base: 5ms, throttled: 5ms, max: 20ms}, budget: {ratio: 1, floor: 10}}
  breaker: off
hosts:
  api.example.com: {dedup: {linger: 50ms}, breaker: {}}
  flaky.example.com: {}
  down.example.com: {breaker: {consecutive: 5, open: 10s, notify: [lost]}}
  strained.example.com: {retry: {budget: {ratio: 0, floor: 1}}}
  limited.example.com: {rate_limit: {requests: 10, per: 1s, burst: 5, wait: 200ms, queue: 2}}
  crowded.example.com: {concurrency: {max: 2, queue: 1, wait: 200ms}}
  quota.example.com: {rate_limit: {learn: true}}
  slow.example.com: {hedge: {after: 20ms}}
  clean.example.com: {sanitize: {response: {cards: mask}}}
`
	tenants := `
tenants:
  billing: {auth: [{basic: {password: a-password-of-billing}}], hosts: {}}
  reports: {auth: [{source: [127.0.0.0/8]}], hosts: {}}
proxy: {limits: {memory: 2GiB}}
`
	s := &scene{echo: serveEcho(t)}
	copies := "audit: {output: " + filepath.Join(t.TempDir(), "audit.jsonl") + ", also: [\"syslog+tcp://127.0.0.1:1\"]}\n" // where nobody listens
	s.main = start(t, startRedis(t).state(t)+copies+hosts+tenants)
	s.broken = start(t, "audit: {output: /dev/full}\n"+hosts+"  big.example.com: {audit: {bodies: response, max_body: 64KiB, on_full: drop}}\n")
	return s
}

// begun is when the scene was set: its quota falls from then on.
var begun = time.Now()

// faces answers as the name says.
func faces(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	switch name, _, _ := strings.Cut(r.Host, "."); name {
	case "flaky":
		if rand.IntN(10) < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	case "down", "strained":
		w.WriteHeader(http.StatusBadGateway)
	case "crowded":
		time.Sleep(50 * time.Millisecond)
	case "quota":
		w.Header().Set("X-RateLimit-Limit", "1000")
		w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(max(20, 1000-40*int(time.Since(begun).Seconds()))))
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10))
	case "slow":
		if rand.IntN(10) == 0 {
			time.Sleep(100 * time.Millisecond)
		}
	case "big":
		_, _ = io.WriteString(w, strings.Repeat("a line of text without anything in it\n", 1700))
	default:
		time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
	}
	_, _ = io.WriteString(w, `{"card": "4111111111111111"}`)
}

// load is bounded: a few clients, each with a pause between its requests, until it is stopped or five minutes are over.
func (s *scene) load(t *testing.T) (stop func()) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	var wg sync.WaitGroup
	client := func(d *daemon, user *url.Userinfo) *http.Client {
		proxy := d.proxyURL()
		proxy.User = user
		transport := &http.Transport{Proxy: http.ProxyURL(proxy), MaxIdleConnsPerHost: 16}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport, Timeout: patience}
	}
	repeat := func(pause time.Duration, do func()) {
		wg.Go(func() {
			for ctx.Err() == nil {
				do()
				time.Sleep(pause)
			}
		})
	}
	ask := func(c *http.Client, url string) {
		resp, err := c.Get(url)
		if err != nil {
			return // what programs meet here is looked at in Prometheus
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	billing, reports, broken := client(s.main, url.UserPassword("billing", "a-password-of-billing")), client(s.main, nil), client(s.broken, nil)
	for host, pause := range map[string]int{"api": 10, "flaky": 20, "down": 200, "strained": 200, "quota": 100, "slow": 30, "clean": 100} {
		repeat(time.Duration(pause)*time.Millisecond, func() {
			ask(billing, "http://"+host+".example.com/v1/items?card=4111111111111111&token="+"sk_"+"live_0123456789abcdefghijklmn")
		})
	}
	for range 2 {
		repeat(20*time.Millisecond, func() { ask(reports, "http://api.example.com/v1/items") })
	}
	for range 5 {
		repeat(100*time.Millisecond, func() { ask(billing, "http://limited.example.com/") })
	}
	for range 6 {
		repeat(60*time.Millisecond, func() { ask(billing, "http://crowded.example.com/") })
	}
	repeat(300*time.Millisecond, func() { ask(reports, "http://127.9.9.9/") }) // destination_denied
	repeat(time.Second, func() {
		c, err := net.Dial("tcp", s.main.proxy)
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", s.echo, s.echo)
		_, _ = c.Read(make([]byte, 1024))
		_, _ = io.WriteString(c, "hello\n")
		_, _ = c.Read(make([]byte, 1024))
		time.Sleep(800 * time.Millisecond)
	})
	for range 2 {
		repeat(10*time.Millisecond, func() { ask(broken, "http://big.example.com/") })
	}
	repeat(50*time.Millisecond, func() { ask(broken, "http://api.example.com/") })
	return func() {
		cancel()
		wg.Wait()
	}
}

// prometheus is a running one.
type prometheus struct{ address string }

// duration is one of a rule: behind `for:`, in brackets, or behind offset.
var duration = regexp.MustCompile(`(for: |\[|offset )(\d+)([smhd])`)

// hurried are rules with all times made shorter.
func hurried(rules string) string {
	rules = duration.ReplaceAllStringFunc(rules, func(found string) string {
		m := duration.FindStringSubmatch(found)
		n, _ := strconv.Atoi(m[2])
		unit := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[m[3]]
		return m[1] + strconv.Itoa(max(2, int((time.Duration(n)*unit/hurry).Seconds()))) + "s"
	})
	return rules
}

func startPrometheus(t *testing.T, jobs map[string]string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"recording.yaml", "alerts.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(hurried(text(t, rulesDir+"/"+name))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [recording.yaml, alerts.yaml]\nscrape_configs:\n"
	for job, targets := range jobs {
		config += fmt.Sprintf("  - {job_name: %s, static_configs: [{targets: [%q]}]}\n", job, strings.ReplaceAll(targets, " ", `", "`))
	}
	config = strings.ReplaceAll(config, `\"`, `"`)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &prometheus{address: "127.0.0.1:" + strconv.Itoa(freePort(t))}
	log := &buffer{}
	cmd := exec.Command("prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--web.listen-address="+p.address)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus says:\n%s", tail(log.String(), 2000))
		}
	})
	eventually(t, "Prometheus is ready", func() error {
		resp, err := http.Get("http://" + p.address + "/-/ready")
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
	return p
}

// api asks Prometheus and reads what it answers as data.
func (p *prometheus) api(t *testing.T, path string, data any) {
	t.Helper()
	resp, err := http.Get("http://" + p.address + "/api/v1/" + path)
	if err != nil {
		t.Fatal(err)
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if content := body(t, resp); json.Unmarshal([]byte(content), &answer) != nil || answer.Status != "success" {
		t.Fatalf("%s: %s", path, content)
	}
}

type series struct {
	Metric map[string]string
	Value  [2]any
}

func (p *prometheus) query(t *testing.T, expr string) []series {
	t.Helper()
	var data struct{ Result []series }
	p.api(t, "query?query="+url.QueryEscape(expr), &data)
	return data.Result
}

func (p *prometheus) value(t *testing.T, expr string) float64 {
	t.Helper()
	result := p.query(t, expr)
	if len(result) != 1 {
		t.Fatalf("%s has %d values", expr, len(result))
	}
	v, err := strconv.ParseFloat(result[0].Value[1].(string), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func alerts(name, labels string) string {
	return fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing",%s}`, name, labels)
}

// fire waits for alerts, longer than anything takes that their rules wait for.
func (p *prometheus) fire(t *testing.T, wanted [][2]string) {
	t.Helper()
	begin := time.Now()
	for len(wanted) > 0 {
		wanted = slices.DeleteFunc(wanted, func(a [2]string) bool {
			fires := len(p.query(t, alerts(a[0], a[1]))) > 0
			if fires {
				t.Logf("%s fires after %s %s", a[0], time.Since(begin).Round(time.Second), a[1])
			}
			return fires
		})
		if time.Since(begin) > 100*time.Second {
			t.Errorf("these do not fire: %v", wanted)
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// quiet: it never did.
func (p *prometheus) quiet(t *testing.T, name, labels string) {
	t.Helper()
	if got := p.query(t, fmt.Sprintf("max_over_time(%s[10m])", alerts(name, labels))); len(got) > 0 {
		t.Errorf("%s fires: %v", name, got)
	}
}

type rules struct {
	Groups []struct {
		Rules []struct {
			Name, Query, Type, Health, LastError string
			Alerts                               []struct{ Labels, Annotations map[string]string }
		}
	}
}

// recorded: every rule can be evaluated, and each that records has recorded something.
func (p *prometheus) recorded(t *testing.T) {
	t.Helper()
	var all rules
	p.api(t, "rules", &all)
	n := 0
	for _, g := range all.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" {
				t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
			}
			if r.Type == "recording" && len(p.query(t, r.Name)) == 0 {
				t.Errorf("%s has recorded nothing", r.Name)
			}
		}
	}
	if n < 40 {
		t.Errorf("Prometheus has %d rules", n)
	}
}

// annotated: nobody is sent a text with holes in it.
func (p *prometheus) annotated(t *testing.T) {
	t.Helper()
	var all rules
	p.api(t, "rules", &all)
	hole := regexp.MustCompile(`<no value>|<error|\{\{|  |^ | $|\b(of|to|from|at|for) (is|are|and|$)|NaN`)
	for _, g := range all.Groups {
		for _, r := range g.Rules {
			for _, a := range r.Alerts {
				for _, key := range slices.Sorted(maps.Keys(a.Annotations)) {
					if hole.MatchString(a.Annotations[key]) {
						t.Errorf("%s: %s: %q", r.Name, key, a.Annotations[key])
					}
				}
				t.Logf("%s: %s", r.Name, a.Annotations["summary"])
			}
		}
	}
}

// shown: every expression of the dashboard has data. None may be empty here: the scene has all that panels are for.
func (p *prometheus) shown(t *testing.T) {
	t.Helper()
	n := 0
	for _, panel := range dashboard(t) {
		for _, q := range panel.Targets {
			n++
			expr := concrete(q.Expr, "30s")
			if q.Expr == `sum by (op) (rate(httpowerd_shared_state_errors_total{job=~"$job",instance=~"$instance"}[$__rate_interval])) > 0` {
				expr = strings.TrimSuffix(expr, " > 0") // empty while Redis answers, which is meant
			}
			if len(p.query(t, expr)) == 0 {
				t.Errorf("%s shows nothing: %s", panel.Title, expr)
			}
		}
	}
	t.Logf("%d expressions of the dashboard have data", n)
}

// pictures leaves screenshots of Prometheus' own page of alerts, and of the dashboard as testdata/dashboard.html draws it.
func pictures(t *testing.T, p *prometheus) {
	dir := os.Getenv("PICTURES")
	if dir == "" {
		return
	}
	need(t, "chromium")
	target, err := url.Parse("http://" + p.address)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", httputil.NewSingleHostReverseProxy(target))
	mux.HandleFunc("GET /dashboard.json", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, dashboardFile) })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/dashboard.html") })
	page := httptest.NewServer(mux)
	defer page.Close()
	for name, shot := range map[string]struct{ url, size string }{
		"alerts":      {"http://" + p.address + "/classic/alerts", "1280,1880"},
		"dashboard-1": {page.URL + "/?seconds=75&rows=1-5", "1600,1450"},
		"dashboard-2": {page.URL + "/?seconds=75&rows=6-8", "1600,1240"},
		"dashboard-3": {page.URL + "/?seconds=75&rows=9-11", "1600,1450"},
	} {
		out := filepath.Join(dir, name+".png")
		cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir="+t.TempDir(),
			"--window-size="+shot.size, "--virtual-time-budget=20000", "--timeout=60000", "--screenshot="+out, shot.url)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, tail(string(said), 2000))
		}
		if info, err := os.Stat(out); err != nil || info.Size() < 20_000 || info.Size() > 300_000 {
			t.Errorf("%s: %v, %v", name, err, info)
		}
	}
}
