package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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
)

func TestMain(m *testing.M) {
	if mode := os.Getenv("AUDIT_TEST_CHILD"); mode != "" {
		os.Exit(child(mode))
	}
	goleak.VerifyTestMain(m)
}

// fake is a sink that fails as it is told. It keeps the lines it took and can be read at any time.
type fake struct {
	mu     sync.Mutex
	data   []byte
	writes int
	syncs  int
	closed bool
	fail   func(p []byte) (int, error) // nil: takes everything
	broken error                       // of Sync
}

func (f *fake) Write(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	n = len(p)
	if f.fail != nil {
		n, err = f.fail(p)
	}
	f.data = append(f.data, p[:n]...)
	return n, err
}

func (f *fake) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncs++
	return f.broken
}

func (f *fake) Reopen() (bool, error) { return false, nil }

func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

func (f *fake) failing(fail func(p []byte) (int, error)) {
	f.mu.Lock()
	f.fail = fail
	f.mu.Unlock()
}

func (f *fake) count() (writes, syncs int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes, f.syncs
}

func (f *fake) lines() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return splitLines(string(f.data))
}

func splitLines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// buffer is the daemon's log.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// trail is a Log under test.
type trail struct {
	*Log
	t    testing.TB
	said *buffer
	reg  *prometheus.Registry
}

// on starts a Log on a sink of the test's own.
func on(t testing.TB, s sink, chain bool, lim limits) *trail {
	t.Helper()
	return with(t, s, Config{Output: "test", Chain: chain}, lim)
}

func with(t testing.TB, s sink, cfg Config, lim limits) *trail {
	t.Helper()
	tr := &trail{t: t, said: &buffer{}, reg: prometheus.NewRegistry()}
	var err error
	tr.Log, err = start(cfg, s, opened{chain: chainNew, state: genesis()}, environment{tr.reg, tr.said.logger(), lim})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

var standard = limits{records: maxRecords, bytes: maxBytes}

// at opens a Log on a file; adjust may be nil.
func at(t testing.TB, path string, adjust func(*Config)) *trail {
	t.Helper()
	tr, err := tryAt(path, adjust)
	if err != nil {
		t.Fatal(err)
	}
	tr.t = t
	return tr
}

func tryAt(path string, adjust func(*Config)) (*trail, error) {
	tr := &trail{said: &buffer{}, reg: prometheus.NewRegistry()}
	cfg := Default()
	cfg.Output = path
	if adjust != nil {
		adjust(&cfg)
	}
	var err error
	tr.Log, err = Open(cfg, tr.reg, tr.said.logger())
	return tr, err
}

// end closes the Log with plenty of time.
func (tr *trail) end() {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := tr.Close(ctx); err != nil {
		tr.t.Fatal(err)
	}
}

// events records n events, numbered.
func (tr *trail) events(n int) {
	for i := range n {
		tr.Event(KindConfig, slog.String("event", "loaded"), slog.Int("n", i))
	}
}

// counter reads a counter of the Log's registry.
func (tr *trail) counter(name string) float64 {
	tr.t.Helper()
	families, err := tr.reg.Gather()
	if err != nil {
		tr.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// decode reads a line as strictly as anybody would.
func decode(t testing.TB, line string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatalf("%v in %q", err, line)
	}
	return m
}

// summary is the events of lines, in order: "audit_started loaded:0 loaded:1 …".
func summary(t testing.TB, lines []string) string {
	t.Helper()
	var out []string
	for _, l := range lines {
		m := decode(t, l)
		s := fmt.Sprint(m["event"])
		for _, key := range []string{"n", "count"} {
			if v, ok := m[key]; ok {
				s += fmt.Sprintf(":%v", v)
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
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

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func put(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// trailFiles are the rotated files of path, the oldest first, and path itself.
func trailFiles(t testing.TB, path string) []string {
	t.Helper()
	n := newNaming(path)
	all, err := n.list()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range all {
		out = append(out, filepath.Join(n.dir, r.name))
	}
	return append(out, path)
}

// verified is the report of a trail that has to be right.
func verified(t testing.TB, files ...string) *Report {
	t.Helper()
	r, err := VerifyFiles(files...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// typical is an exchange as most are: one attempt, answered by the upstream.
func typical() *exchange.Exchange {
	begin := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	x := &exchange.Exchange{ID: "0198c1f29a537f0e8b1d5a1f6d3c2b10", OwnID: true, Kind: exchange.KindRequest, Mode: exchange.ModeIntercept, Start: begin,
		Client: "192.0.2.7:40112", Method: "POST", URL: "https://api.example.com/v1/charges?expand=customer&limit=10",
		Target: exchange.Authority{Host: "api.example.com", Port: 443}, Policy: "api.example.com", Host: "api.example.com"}
	i := x.BeginAttempt(begin)
	x.Connected(i, "198.51.100.20:443", true)
	x.EndAttempt(i, begin.Add(87*time.Millisecond), 200, "")
	x.Update(func(s *exchange.Story) {
		s.Status, s.StatusBy, s.Outcome, s.Breaker = 200, "upstream", exchange.OK, "closed"
		s.BytesIn, s.BytesOut, s.Overhead = 312, 2048, 210*time.Microsecond
	})
	return x
}
