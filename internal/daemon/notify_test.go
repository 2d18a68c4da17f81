package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// receiver takes notifications.
type receiver struct {
	*httptest.Server
	got chan map[string]any
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{got: make(chan map[string]any, 100)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		var n map[string]any
		if body, err := io.ReadAll(req.Body); err != nil || json.Unmarshal(body, &n) != nil {
			t.Errorf("no notification: %q %v", body, err)
		}
		n["signed"] = req.Header.Get("Webhook-Signature") != ""
		r.got <- n
	}))
	t.Cleanup(r.Close)
	return r
}

// next is the next notification; delivery is the one thing here that takes real time.
func (r *receiver) next(t *testing.T) map[string]any {
	t.Helper()
	select {
	case n := <-r.got:
		return n
	case <-time.After(15 * time.Second):
		t.Fatal("nothing was posted")
		return nil
	}
}

func TestNotifications(t *testing.T) {
	ops, other := newReceiver(t), newReceiver(t)
	o := newRawOrigin(t, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	targets := fmt.Sprintf("notify:\n  ops: {url: %q, secret: %q}\n  other: {url: %q, events: [config.reload_failed]}\n",
		ops.URL+"/hush-hush", "whsec_"+strings.Repeat("A", 32), other.URL+"/hush-hush")
	hosts := "hosts: {127.0.0.1: {retry: off, breaker: {consecutive: 2, notify: [ops, other]}}}\n"
	b := start(t, targets+hosts)
	for range 2 {
		get(t, b.client(), o.url("/"))
	}
	n := ops.next(t)
	if n["type"] != "breaker.state_changed" || n["from"] != "closed" || n["to"] != "open" || n["signed"] != true || n["host"] != "127.0.0.1" ||
		n["reason"] != "2 failures in a row, the last: status 503" || n["retry_after_seconds"].(float64) < 26 || n["authority"] != o.addr {
		t.Errorf("%v", n)
	}
	host := b.json(b.admin(http.MethodGet, "/api/v1/hosts/127.0.0.1", ""))
	shown := host["breakers"].([]any)[0].(map[string]any)
	changes := shown["changes"].([]any)
	if len(changes) != 1 || changes[0].(map[string]any)["to"] != "open" || changes[0].(map[string]any)["reason"] != n["reason"] || shown["opened"] != 1.0 {
		t.Errorf("%v", shown)
	}

	b.write(targets + hosts + "nonsense: 1\n")
	if a := b.admin(http.MethodPost, "/api/v1/reload", ""); a.StatusCode == 200 {
		t.Fatal("loaded")
	}
	for _, r := range []*receiver{ops, other} {
		if n := r.next(t); n["type"] != "config.reload_failed" || !strings.Contains(n["reason"].(string), "nonsense: unknown key") ||
			strings.Contains(n["reason"].(string), b.config) {
			t.Errorf("%v", n)
		}
	}

	b.write(hosts) // the names are not there any more: refused, and the targets stay
	if a := b.admin(http.MethodPost, "/api/v1/reload", ""); a.StatusCode == 200 || !strings.Contains(a.body, `there is no target \"ops\"`) {
		t.Errorf("%s %s", a.Status, a.body)
	}
	config := b.admin(http.MethodGet, "/api/v1/config", "").body
	if !strings.Contains(config, ops.URL+"/[redacted]") {
		t.Errorf("the target is not shown: %s", config)
	}
	b.stop()
	audit, _ := os.ReadFile(b.audit)
	for where, text := range map[string]string{"the log": b.log.String(), "the trail": string(audit), "the admin API": config} {
		if strings.Contains(text, "hush-hush") || strings.Contains(text, strings.Repeat("A", 32)) {
			t.Errorf("%s shows a secret:\n%s", where, text)
		}
	}
}

// TestGateNotifications: every target hears of a quota that is used up, and of a later answer that says that there is more.
func TestGateNotifications(t *testing.T) {
	ops, other := newReceiver(t), newReceiver(t)
	o := newRawOrigin(t, "HTTP/1.1 200 OK\r\nX-RateLimit-Limit: 60\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 60\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX-RateLimit-Limit: 60\r\nX-RateLimit-Remaining: 59\r\nX-RateLimit-Reset: 300\r\nContent-Length: 0\r\n\r\n")
	b := start(t, fmt.Sprintf("notify: {ops: {url: %q}, other: {url: %q, events: [gate.opened]}}\n"+
		"hosts: {127.0.0.1: {rate_limit: {learn: true, mode: observe}}}\n", ops.URL, other.URL))
	get(t, b.client(), o.url("/"))
	if n := ops.next(t); n["type"] != "gate.closed" || n["from"] != "open" || n["to"] != "closed" || n["host"] != "127.0.0.1" || n["authority"] != o.addr ||
		n["reason"] != "an announced quota is used up" || n["retry_after_seconds"].(float64) < 55 || n["policy"] != "127.0.0.1" {
		t.Errorf("%v", n)
	}
	get(t, b.client(), o.url("/"))
	for _, r := range []*receiver{ops, other} {
		if n := r.next(t); n["type"] != "gate.opened" || n["from"] != "closed" || n["to"] != "open" || n["authority"] != o.addr ||
			n["reason"] != "the upstream says that there is more" {
			t.Errorf("%v", n)
		}
	}
	b.stop()
	if log := b.log.String(); !strings.Contains(log, `"gate closed"`) || !strings.Contains(log, `"gate open"`) {
		t.Errorf("%s", log)
	}
	if audit, err := os.ReadFile(b.audit); err != nil || strings.Contains(string(audit), `"gate`) || strings.Count(string(audit), `"kind":"request"`) != 2 {
		t.Errorf("%v, the trail: %s", err, audit)
	}
}

// TestNotificationsAtTheEnd: what happened last is told before the daemon is gone.
func TestNotificationsAtTheEnd(t *testing.T) {
	ops := newReceiver(t)
	o := newRawOrigin(t, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	b := start(t, fmt.Sprintf("notify: {ops: {url: %q}}\nhosts: {127.0.0.1: {retry: off, breaker: {consecutive: 1, notify: [ops]}}}\n", ops.URL))
	get(t, b.client(), o.url("/"))
	b.stop()
	if n := ops.next(t); n["to"] != "open" {
		t.Errorf("%v", n)
	}
}

// TestCopiesThatFail: copies of the trail that are down from the beginning are told of, each by its name, and the trail itself is not taken for one of them.
func TestCopiesThatFail(t *testing.T) {
	ops := newReceiver(t)
	b := startTo(t, filepath.Join(t.TempDir(), "audit.jsonl"),
		fmt.Sprintf("audit: {also: [\"syslog+tcp://127.0.0.1:1\", \"otlp+http://127.0.0.1:1\"]}\nnotify: {ops: {url: %q}}\n", ops.URL))
	var got []string
	for range 2 {
		n := ops.next(t)
		got = append(got, fmt.Sprint(n["type"], ": ", n["reason"]))
	}
	slices.Sort(got)
	if want := []string{"audit.failed: the copy to otlp+http://127.0.0.1:1: connection refused", "audit.failed: the copy to syslog+tcp://127.0.0.1:1: connection refused"}; !slices.Equal(got, want) {
		t.Errorf("told %q; want %q", got, want)
	}
	if r := b.events("lifecycle", 2); r[0].text("event") != "audit_started" {
		t.Errorf("the trail: %v", r)
	}
}

// TestNotificationsAreRuled: a target is no way round destinations (A11).
func TestNotificationsAreRuled(t *testing.T) {
	ops := newReceiver(t)
	o := newRawOrigin(t, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	port := ops.URL[strings.LastIndexByte(ops.URL, ':')+1:]
	b := start(t, fmt.Sprintf("destinations: {ports: [%s]}\nnotify: {ops: {url: %q}, metadata: {url: \"http://169.254.169.254/latest\"}}\n"+
		"hosts: {127.0.0.1: {retry: off, breaker: {consecutive: 1, notify: [ops, metadata]}}}\n", port, ops.URL))
	if a := get(t, b.client(), o.url("/")); a.StatusCode != 403 { // not that port
		t.Fatal(a.Status)
	}
	b.write("nonsense: 1\n")
	b.admin(http.MethodPost, "/api/v1/reload", "")
	ops.next(t)
	b.stop()
	if log := b.log.String(); !strings.Contains(log, "cannot be reached under destinations") || !strings.Contains(log, "destination_denied") {
		t.Errorf("%s", log)
	}
}
