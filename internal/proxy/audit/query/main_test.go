package query

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when the trails of the tests happen.
var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// writer is a trail that is written as the daemon writes it, so that formats cannot drift apart.
type writer struct {
	*audit.Log
	t testing.TB
}

func newWriter(t testing.TB, path string, adjust func(*audit.Config)) *writer {
	t.Helper()
	cfg := audit.Default()
	cfg.Output, cfg.MaxFiles = path, 0
	if adjust != nil {
		adjust(&cfg)
	}
	l, err := audit.Open(cfg, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return &writer{l, t}
}

func (w *writer) end() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.Close(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// call is an exchange to be recorded.
type call struct {
	id, method, url, host   string
	kind                    exchange.Kind
	mode                    exchange.Mode
	tenant, client, policy  string
	status                  int
	by, outcome             string
	attempts                []int // statuses; 0: the connection was reset
	took, wait              time.Duration
	in, out                 int64
	detail, breaker, header string
	observed                []string
	at                      time.Duration // after noon
}

func (w *writer) call(c call) {
	end := noon.Add(c.at)
	x := &exchange.Exchange{ID: c.id, Kind: c.kind, Mode: c.mode, Start: end.Add(-c.took), Client: c.client, Tenant: c.tenant, Method: c.method, URL: c.url,
		Target: exchange.Authority{Host: c.host, Port: 443}, Policy: c.policy}
	if x.Kind == "" {
		x.Kind, x.Mode = exchange.KindRequest, exchange.ModeIntercept
	}
	if x.Client == "" {
		x.Client = "192.0.2.7:40112"
	}
	for _, status := range c.attempts {
		i := x.BeginAttempt(x.Start)
		code := exchange.Code("")
		if status == 0 {
			code = exchange.UpstreamReset
		}
		x.EndAttempt(i, end, status, code)
	}
	x.Update(func(s *exchange.Story) {
		s.Status, s.StatusBy, s.Outcome, s.Detail, s.Breaker = c.status, c.by, exchange.Code(c.outcome), c.detail, c.breaker
		s.BytesIn, s.BytesOut, s.LimitWait, s.Observed = c.in, c.out, c.wait, c.observed
	})
	e := &audit.Extra{End: end}
	if c.header != "" {
		e.RequestHeader = map[string][]string{"X-Note": {c.header}}
	}
	w.Exchange(x, e)
}

// notes collects what a person was told.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (k *notes) tell(line string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lines = append(k.lines, line)
}

func (k *notes) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.lines, "\n")
}

// ids is a sink that keeps the ids of exchanges and the events of other records.
type ids struct {
	mu    sync.Mutex
	found []string
	idled int
}

func (s *ids) record(r *record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := string(r.str("id"))
	if name == "" {
		name = string(r.str("event"))
	}
	s.found = append(s.found, name)
	return nil
}

func (s *ids) idle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idled++
	return nil
}
func (s *ids) end() error { return nil }

func (s *ids) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.found...)
}

// ask runs a query and returns what it found and told.
func ask(t testing.TB, q Query, words ...string) (found []string, said string, err error) {
	t.Helper()
	var s ids
	said, err = show(t, q, &s, words...)
	return s.found, said, err
}

func show(t testing.TB, q Query, to Sink, words ...string) (string, error) {
	t.Helper()
	f, err := Parse(words, noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var k notes
	q.Filter, q.Tell = f, k.tell
	err = q.Run(context.Background(), to)
	return k.String(), err
}

func put(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	z.Close()
	return b.String()
}

func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func wantText(t testing.TB, what, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%s: %q is not in %q", what, p, got)
		}
	}
}

// mixed writes a trail with something for every filter.
func mixed(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWriter(t, path, nil)
	w.call(call{id: "a", method: "GET", url: "https://api.example.com/v1/charges?limit=10", host: "api.example.com", policy: "api.example.com /v1", status: 200, by: "upstream",
		outcome: "ok", attempts: []int{200}, took: 87 * time.Millisecond, in: 10, out: 2000, breaker: "closed", observed: []string{"rate_limit", "breaker"}})
	w.call(call{id: "b", method: "POST", url: "https://API.example.com/v2/pay", host: "api.example.com", tenant: "billing", status: 503, by: "upstream", outcome: "upstream_error",
		attempts: []int{429, 503}, took: 2 * time.Second, in: 5000, out: 3 << 20, client: "10.1.2.3:5555", at: time.Minute})
	w.call(call{id: "c", method: "GET", url: "http://pay.example.com/?card=4111111111111111", host: "pay.example.com", status: 504, by: "proxy", outcome: "upstream_timeout",
		attempts: []int{0}, took: 30 * time.Second, detail: "the attempt took longer than 30s", client: "[2001:db8::1]:99", at: 2 * time.Minute})
	w.call(call{id: "d", method: "CONNECT", host: "other.test", kind: exchange.KindTunnel, mode: exchange.ModeTunnel, tenant: "shop", status: 200, by: "proxy", outcome: "ok",
		attempts: []int{0, 200}, took: time.Hour, in: 1 << 20, out: 1, at: 30 * time.Minute})
	w.call(call{id: "e", method: "GET", url: "http://169.254.169.254/", host: "169.254.169.254", status: 403, by: "proxy", outcome: "destination_denied", took: time.Millisecond,
		wait: 3 * time.Second, at: 50 * time.Minute})
	w.Event(audit.KindConfig, slog.String("event", "loaded"), slog.String("config_hash", "abc"))
	w.end()
	return path
}

func TestFilters(t *testing.T) {
	path := mixed(t)
	for words, found := range map[string]string{
		"":                                   "audit_started a b c d e loaded audit_stopped",
		"host:api.example.com":               "a b",
		"host:*.EXAMPLE.com":                 "a b c",
		"!host:*.example.com":                "d e",
		"host:~^(api|other)":                 "a b d",
		"host:*p*y*example*":                 "c",
		"host:*pay.example.com*.com":         "",
		"host:other.test,pay.*":              "c d",
		"status:200":                         "a d",
		"status:5xx":                         "b c",
		"status:4XX,503":                     "b e",
		"status:400-503":                     "b e",
		"status:>=503":                       "b c",
		"-status:200":                        "b c e",
		"status:!200":                        "b c e",
		"!status:!200":                       "a d",
		"method:post,connect":                "b d",
		"outcome:!ok":                        "b c e",
		"outcome:upstream_*":                 "b c",
		"tenant:billing":                     "b",
		"tenant:*":                           "b d",
		"!tenant:*":                          "a c e",
		"-tenant:billing":                    "a c d e",
		"policy:api.example.com*":            "a",
		"kind:config,lifecycle":              "audit_started loaded audit_stopped",
		"-kind:request":                      "audit_started d loaded audit_stopped",
		"mode:tunnel":                        "d",
		"client:10.0.0.0/8":                  "b",
		"client:2001:db8::/32,10.1.2.3":      "b c",
		"client:*":                           "a b c d e",
		"id:c":                               "c",
		"by:proxy":                           "c d e",
		"url:/v1/":                           "a",
		"/v1/":                               "a",
		"-/v1/":                              "b c d e",
		"url:~/v[12]/":                       "a b",
		"https://":                           "a b",
		"https://api":                        "a",
		"other.test":                         "d",
		"api.example.com:443":                "",
		"duration:>1s":                       "b c d",
		"duration:<=87ms":                    "a e",
		"duration:50ms-2s":                   "a b",
		"duration_ms:>1h":                    "",
		"attempts:>1":                        "b d",
		"attempts:0":                         "e",
		"attempt:429":                        "b",
		"attempt:upstream_reset":             "c d",
		"attempt:2xx":                        "a d",
		"!attempt:2xx":                       "b c e",
		"bytes:>1MiB":                        "b d",
		"request_bytes:>=1MiB":               "d",
		"response_bytes:0":                   "c e",
		"redactions:pan":                     "c",
		"redactions:>0":                      "c",
		"!redactions:*":                      "a b d e",
		"wait:>1s":                           "e",
		"detail:longer":                      "c",
		"breaker:closed":                     "a",
		"observed:rate_limit":                "a",
		"observed:rate":                      "",
		"event:loaded":                       "loaded",
		"seq:2-3":                            "a b",
		"since:2026-11-26T12:01Z":            "b c d e",
		"since:59m":                          "b c d e",
		"since:2026-11-26T13:02:00+01:00":    "c d e",
		"until:2026-11-26T12:02:00Z":         "a b",
		"since:30m until:11m":                "d",
		"since:12:02 until:12:40":            "c d",
		"since:2026-11-26 until:12:00:01":    "a",
		"since:1h since:40m -kind:lifecycle": "d e",
		"outcome:!ok method:GET by:proxy":    "c e",
	} {
		all := strings.Fields(words)
		if strings.Contains(words, "since") || strings.Contains(words, "until") {
			all = append(all, "-kind:lifecycle", "-kind:config") // these are from when the test runs
		}
		got, said, err := ask(t, Query{Files: []string{path}}, all...)
		if err != nil || said != "" {
			t.Errorf("%s: %v, %q", words, err, said)
		}
		want(t, words, strings.Join(got, " "), found)
	}
}

func TestFilterFaults(t *testing.T) {
	for words, message := range map[string]string{
		"stauts:200":         "there is no filter stauts: did you mean status?",
		"localhost:80":       "url:localhost:… looks for a piece of the URL",
		"status:2000":        "write a number, 5xx, 400-499 or >=500, such as status:5xx",
		"status:7xx":         "is not a status",
		"status:":            "the value is missing: status:5xx is an example",
		"tenant:":            "!tenant:* where there is none",
		"duration:500ms":     "write >500ms or <500ms",
		"duration:>fast":     "is not a duration",
		"duration:2s-1s":     "is not a duration",
		"attempts:many":      "is not a count",
		"bytes:>1XB":         "is not a size",
		"client:10.0.0.0/99": "neither an address nor a network",
		"url:~(":             "not a regular expression",
		"host:a,,b":          "an alternative is empty",
		"since:tomorrow":     "not a time: write a span",
		"!since:1h":          "cannot be negated",
		"since:1h until:2h":  "not before until",
		"!":                  "nothing to look for",
	} {
		_, err := Parse(strings.Fields(words), noon)
		if err == nil {
			t.Errorf("%s: no error", words)
			continue
		}
		wantText(t, words, err.Error(), message)
	}
}
