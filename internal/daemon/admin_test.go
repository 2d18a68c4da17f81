package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// admin asks the admin listener; extra are header fields, name and value by turns.
func (b *box) admin(method, path, body string, extra ...string) answer {
	b.t.Helper()
	r := request(b.t, method, "http://"+b.AdminAddr()+path, body)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(extra); i += 2 {
		if extra[i] == "Host" {
			r.Host = extra[i+1]
			continue
		}
		r.Header.Set(extra[i], extra[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	return do(b.t, c, r)
}

// json reads an answer of the admin listener.
func (b *box) json(a answer) map[string]any {
	b.t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		b.t.Fatalf("%s: no JSON: %v: %s", a.Status, err, a.body)
	}
	return out
}

// events waits until there are n audit records of a kind.
func (b *box) events(kind string, n int) []record {
	b.t.Helper()
	var out []record
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		out = nil
		data, _ := os.ReadFile(b.audit)
		for line := range strings.Lines(string(data)) {
			var r record
			if json.Unmarshal([]byte(line), &r) == nil && r.text("kind") == kind {
				out = append(out, r)
			}
		}
		if len(out) >= n || time.Now().After(deadline) {
			break
		}
	}
	if len(out) != n {
		b.t.Fatalf("%d records of kind %s; want %d: %v", len(out), kind, n, out)
	}
	return out
}

func TestAdminPages(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "hosts: {127.0.0.1: {rate_limit: {requests: 100, per: 1s}}}")
	get(t, b.client(), o.url("/"))
	b.records(1)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/ca.pem", "/", "/api/v1/config", "/api/v1/config?format=yaml", "/api/v1/hosts",
		"/api/v1/hosts/127.0.0.1", "/api/v1/breakers", "/api/v1/limits", "/api/v1/log-level", "/api/v1/explain?url=http://127.0.0.1/"} {
		if a := b.admin(http.MethodGet, path, ""); a.StatusCode != 200 || a.body == "" {
			t.Errorf("%s: %s %s", path, a.Status, a.body)
		}
	}
	if block, _ := pem.Decode([]byte(b.admin(http.MethodGet, "/ca.pem", "").body)); block == nil || block.Type != "CERTIFICATE" {
		t.Error("/ca.pem is no certificate")
	}
	host := b.json(b.admin(http.MethodGet, "/api/v1/hosts/127.0.0.1", ""))
	requests := host["counters"].(map[string]any)["requests"].(map[string]any)
	if requests["total"] != 1.0 || requests["by"].(map[string]any)["ok"] != 1.0 || len(host["breakers"].([]any)) != 1 || len(host["limits"].([]any)) != 1 {
		t.Errorf("%v", host)
	}
	if page := b.admin(http.MethodGet, "/", "").body; !strings.Contains(page, "<td>127.0.0.1</td><td class=\"n\">1</td>") || !strings.Contains(page, "httpowerd test") {
		t.Errorf("%s", page)
	}
	if a := b.admin(http.MethodDelete, "/api/v1/cache", ""); a.StatusCode != 404 || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
}

func TestAdminToken(t *testing.T) {
	b := start(t, "admin: {token: let-me-in-1234}")
	if a := b.admin(http.MethodGet, "/api/v1/config", ""); a.StatusCode != 401 {
		t.Error(a.Status)
	}
	auth := []string{"Authorization", "Bearer let-me-in-1234"}
	a := b.admin(http.MethodGet, "/api/v1/config", "", auth...)
	if a.StatusCode != 200 || strings.Contains(a.body, "let-me-in") {
		t.Errorf("%s %s", a.Status, a.body)
	}
	b.write("admin: {token: another-5678}")
	if a := b.admin(http.MethodPost, "/api/v1/reload", "", auth...); a.StatusCode != 200 {
		t.Errorf("%s %s", a.Status, a.body)
	}
	if a := b.admin(http.MethodGet, "/api/v1/config", "", auth...); a.StatusCode != 401 {
		t.Error("the old token still opens: " + a.Status)
	}
	if a := b.admin(http.MethodGet, "/api/v1/config", "", "Authorization", "Bearer another-5678"); a.StatusCode != 200 {
		t.Error(a.Status)
	}
	if a := b.admin(http.MethodGet, "/healthz", ""); a.StatusCode != 200 {
		t.Error(a.Status)
	}
}

// TestAdminForeign: no web page reaches the listener (A68).
func TestAdminForeign(t *testing.T) {
	b := start(t, "")
	_, port, _ := net.SplitHostPort(b.AdminAddr())
	for _, fields := range [][]string{{"Host", "rebind.example.net:" + port}, {"Origin", "http://evil.example.net"}, {"Sec-Fetch-Site", "cross-site"}} {
		for _, path := range []string{"/healthz", "/metrics", "/", "/api/v1/config"} {
			if a := b.admin(http.MethodGet, path, "", fields...); a.StatusCode != 403 {
				t.Errorf("%s with %v: %s", path, fields, a.Status)
			}
		}
		if a := b.admin(http.MethodPost, "/api/v1/reload", "", fields...); a.StatusCode != 403 {
			t.Errorf("reload with %v: %s", fields, a.Status)
		}
	}
	for _, r := range b.events("admin", 3) {
		r.want(t, map[string]any{"event": "reload", "result": "denied", "status": 403, "client": "127.0.0.1"})
	}
	for _, host := range []string{"localhost:" + port, "[::1]:" + port} {
		if a := b.admin(http.MethodGet, "/api/v1/config", "", "Host", host); a.StatusCode != 200 {
			t.Errorf("%s: %s", host, a.Status)
		}
	}
}

// TestAdminThroughProxy: the listener is out of the proxy's reach, by whatever name (A13).
func TestAdminThroughProxy(t *testing.T) {
	b := start(t, "")
	_, port, _ := net.SplitHostPort(b.AdminAddr())
	for _, host := range []string{"127.0.0.1", "[::ffff:127.0.0.1]", "localhost"} {
		refused(t, get(t, b.client(), "http://"+host+":"+port+"/healthz"), 502, "loop")
	}
}

func TestAdminReload(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "")
	if a := get(t, b.client(), o.url("/")); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	b.write("defaults: {access: deny}")
	out := b.json(b.admin(http.MethodPost, "/api/v1/reload", ""))
	if out["hash"] != b.holder.Load().Hash || fmt.Sprint(out["restart_needed"]) != "[]" {
		t.Errorf("%v", out)
	}
	refused(t, get(t, b.client(), o.url("/")), 403, "denied")
	b.write("defauts: {}")
	a := b.admin(http.MethodPost, "/api/v1/reload", "")
	faults, _ := b.json(a)["faults"].([]any)
	if a.StatusCode != 422 || len(faults) != 1 || faults[0].(map[string]any)["line"] != 2.0 {
		t.Errorf("%s %s", a.Status, a.body)
	}
	if page := b.admin(http.MethodGet, "/", "").body; !strings.Contains(page, ">failed<") || !strings.Contains(page, "defauts") {
		t.Errorf("the page hides a failed reload: %s", page)
	}
	refused(t, get(t, b.client(), o.url("/")), 403, "denied")
	records := b.events("admin", 2)
	records[0].want(t, map[string]any{"event": "reload", "result": "ok", "status": 200, "client": "127.0.0.1", "config_hash": out["hash"]})
	records[1].want(t, map[string]any{"event": "reload", "result": "invalid_config", "status": 422, "faults": 1})
}

func TestAdminBreakers(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "")
	path := "/api/v1/breakers/" + o.addr
	if a := b.admin(http.MethodPost, path, `{"state": "open"}`); a.StatusCode != 404 {
		t.Errorf("%s %s", a.Status, a.body)
	}
	get(t, b.client(), o.url("/"))
	out := b.json(b.admin(http.MethodPost, path, `{"state": "open"}`))
	if list := out["breakers"].([]any); len(list) != 1 || list[0].(map[string]any)["state"] != "open" || list[0].(map[string]any)["forced"] != true {
		t.Errorf("%v", out)
	}
	refused(t, get(t, b.client(), o.url("/")), 503, "breaker_open")
	if page := b.admin(http.MethodGet, "/", "").body; !strings.Contains(page, "set by an operator") {
		t.Error("the page does not show the breaker")
	}
	b.admin(http.MethodPost, path, `{"state": "auto"}`)
	if a := get(t, b.client(), o.url("/")); a.StatusCode != 200 {
		t.Errorf("%s %s", a.Status, a.body)
	}
	records := b.events("admin", 3)
	records[0].want(t, map[string]any{"event": "breaker", "authority": o.addr, "state": "open", "result": "not_found"})
	records[1].want(t, map[string]any{"event": "breaker", "authority": o.addr, "state": "open", "result": "ok"})
	records[2].want(t, map[string]any{"event": "breaker", "authority": o.addr, "state": "auto", "result": "ok"})
}

// TestAdminLogLevel: it holds through reloads until it is given back.
func TestAdminLogLevel(t *testing.T) {
	b := start(t, "log: {level: warn}")
	if out := b.json(b.admin(http.MethodPut, "/api/v1/log-level", `{"level": "debug"}`)); out["level"] != "debug" || out["forced"] != true {
		t.Errorf("%v", out)
	}
	b.write("log: {level: error}")
	if err := b.Reload(context.Background(), "test"); err != nil {
		t.Fatal(err)
	}
	if b.level.Level() != slog.LevelDebug {
		t.Errorf("after a reload: %v", b.level.Level())
	}
	if out := b.json(b.admin(http.MethodPut, "/api/v1/log-level", `{"level": "auto"}`)); out["level"] != "error" || out["forced"] != false {
		t.Errorf("%v", out)
	}
}

// TestAdminTraffic: records come as events, and the stream ends when the daemon drains.
func TestAdminTraffic(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "drain: {delay: 200ms, timeout: 5s}")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + b.AdminAddr() + "/api/v1/traffic?outcome=ok")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if lines.Scan(); resp.StatusCode != 200 || lines.Text() != ": httpowerd" {
		t.Fatalf("%s %q", resp.Status, lines.Text())
	}
	get(t, b.client(), o.url("/seen?token=hidden-value-12345678"))
	var r record
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &r); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	r.want(t, map[string]any{"kind": "request", "status": 200, "outcome": "ok"})
	if url := r.text("url"); !strings.Contains(url, "/seen?") || strings.Contains(url, "hidden-value") {
		t.Errorf("the record shows %s", url)
	}
	ended := make(chan error, 1)
	go func() { ended <- b.Shutdown(context.Background()) }()
	for lines.Scan() { // to the end
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	b.stopped.Do(func() {})
}

// TestAdminDraining: not ready at once, alive to the end.
func TestAdminDraining(t *testing.T) {
	b := start(t, "drain: {delay: 10s, timeout: 5s}")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Shutdown(ctx) }()
	<-b.leaving
	if a := b.admin(http.MethodGet, "/readyz", ""); a.StatusCode != 503 {
		t.Error(a.Status)
	}
	if a := b.admin(http.MethodGet, "/healthz", ""); a.StatusCode != 200 {
		t.Error(a.Status)
	}
	cancel()
	<-ended
	b.stopped.Do(func() {})
}

// TestMetricNames: what all rooms register keeps to the rules of the trade, and every series stays bounded and clean of paths (A49).
func TestMetricNames(t *testing.T) {
	o := newRawOrigin(t, okAnswer, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", okAnswer)
	b := start(t, `
metrics: {hosts: 3}
hosts: {127.0.0.1: {rate_limit: {requests: 100, per: 1s}, concurrency: {max: 5}, retry: {backoff: {base: 1ms, throttled: 1ms, max: 2ms}}}}`)
	for range 3 {
		get(t, b.client(), o.url("/private/path"))
	}
	tunnel := b.dialProxy()
	tunnel.connect(o.addr)
	tunnel.Close()
	for i := range 50 {
		get(t, b.client(), fmt.Sprintf("http://host%d.invalid/", i))
	}
	b.records(54)
	text := b.admin(http.MethodGet, "/metrics", "").body
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if strings.Contains(text, "private") || strings.Contains(text, "host7.invalid") {
		t.Error("a label holds what a client wrote")
	}
	for _, name := range []string{"httpowerd_requests_total", "httpowerd_request_duration_seconds", "httpowerd_overhead_seconds", "httpowerd_attempts_total",
		"httpowerd_attempt_duration_seconds", "httpowerd_retries_total", "httpowerd_rate_limit_decisions_total", "httpowerd_breaker_state",
		"httpowerd_tunnels_total", "httpowerd_tunnel_bytes_total", "httpowerd_connections_active", "httpowerd_upstream_connections_active",
		"httpowerd_audit_records_total", "httpowerd_audit_dropped_total", "httpowerd_config_reloads_total", "httpowerd_config_last_reload_successful",
		"httpowerd_config_info", "httpowerd_build_info"} {
		if !strings.Contains(text, "\n# TYPE "+name+" ") {
			t.Errorf("no %s", name)
		}
	}
}
