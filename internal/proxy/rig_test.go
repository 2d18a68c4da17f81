package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/dedup"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/hedge"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
	"httpowerd/internal/policy/sanitize"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/proxy/audit"
	"httpowerd/internal/proxy/egress"
	"httpowerd/internal/proxy/intercept"
	"httpowerd/internal/state"
)

// ends are the ends of all chains: fakes where they are set, a real Egress for the rest.
type ends struct {
	real     *egress.Egress
	requests http.RoundTripper
	tunnels  http.RoundTripper
}

func (e ends) Requests(s state.Scope, up upstream.Config, t timeout.Config, rules *destination.Rules) (http.RoundTripper, error) {
	if e.requests != nil {
		return e.requests, nil
	}
	return e.real.Requests(s, up, t, rules)
}

func (e ends) Tunnels(s state.Scope, up upstream.Config, t timeout.Config, rules *destination.Rules) (http.RoundTripper, error) {
	if e.tunnels != nil {
		return e.tunnels, nil
	}
	return e.real.Tunnels(s, up, t, rules)
}

// rig is a door in front of chains with ends of the test's own.
type rig struct {
	*Server
	t         *testing.T
	addr      string
	auditPath string
	log       *lines
}

// lines is a log for several goroutines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func standardLimits() Limits {
	return Limits{Connections: 1000, Tunnels: 1000, HeaderBytes: 64 << 10, HeaderTimeout: 5 * time.Second, Idle: 5 * time.Second, TunnelIdle: time.Minute}
}

// newRig serves a configuration (without version:) on a free port.
// standardWire runs the tests on net/http.
var standardWire = os.Getenv("HTTPOWERD_WIRE") == policy.WireStandard

func newRig(t *testing.T, config string, e ends, limits Limits, tune ...func(*Server)) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, auditPath: filepath.Join(dir, "audit.jsonl"), log: &lines{}}
	path := filepath.Join(dir, "httpowerd.yaml")
	if err := os.WriteFile(path, []byte("version: 1\n"+config+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, faults := policy.Load(policy.Source{Path: path})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	registry, log, own := prometheus.NewRegistry(), slog.New(slog.NewTextHandler(r.log, nil)), &Own{}
	trail, err := audit.Open(audit.Config{Output: r.auditPath}, registry, log)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := intercept.Open(intercept.Config{Dir: filepath.Join(dir, "ca")})
	if err != nil {
		t.Fatal(err)
	}
	if e.real == nil {
		e.real = egress.New(egress.Options{Registerer: registry, Own: own.Has, Standard: standardWire})
	}
	keeper := &state.Keeper{}
	snapshot, err := policy.Compile(file, policy.Rooms{Timeout: timeout.New(), Retry: retry.New(registry), Hedge: hedge.New(registry), Dedup: dedup.New(registry), Sanitize: sanitize.New(registry), RateLimit: ratelimit.New(registry),
		Concurrency: concurrency.New(registry), Breaker: breaker.New(registry, log), Ends: e}, keeper)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = New(Options{Policies: fixed{snapshot}, Audit: trail, CA: func() (*intercept.Authority, error) { return ca, ca.Ready() },
		Limits: limits, Open: OpenAll, Labels: NewLabels(10, false), Own: own, Registerer: registry, Logger: log, Standard: standardWire})
	for _, f := range tune {
		f(r.Server)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	served := make(chan struct{})
	go func() { defer close(served); _ = r.Serve(l, nil) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_ = r.Shutdown(ctx)
		<-served
		keeper.Begin().Commit()
		_ = trail.Close(t.Context())
		if strings.Contains(r.log.String(), "panicked") && !strings.Contains(t.Name(), "Fault") {
			t.Errorf("something panicked:\n%s", r.log)
		}
	})
	return r
}

type fixed struct{ snapshot *policy.Snapshot }

func (f fixed) Load() *policy.Snapshot { return f.snapshot }

// peer is a client with bytes of its own.
type peer struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func newPeer(t *testing.T, c net.Conn) *peer {
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	return &peer{Conn: c, t: t, r: bufio.NewReader(c)}
}

func (r *rig) dial() *peer {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	return newPeer(r.t, c)
}

// connect opens a tunnel; secure adds a TLS client on top, which speaks what protocol says.
func (r *rig) connect(authority string) *peer {
	r.t.Helper()
	p := r.dial()
	p.send("CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n\r\n")
	if resp, body := p.answer(http.MethodConnect); resp.StatusCode != 200 {
		r.t.Fatalf("CONNECT %s: %s %s", authority, resp.Status, body)
	}
	return p
}

func (p *peer) secure(protocol string) *peer {
	p.t.Helper()
	c := tls.Client(p.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	if err := c.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	return newPeer(p.t, c)
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.Conn, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) answer(method string) (*http.Response, string) {
	p.t.Helper()
	resp, err := http.ReadResponse(p.r, &http.Request{Method: method})
	if err != nil {
		p.t.Fatalf("reading an answer: %v", err)
	}
	if method == http.MethodConnect && resp.StatusCode == http.StatusOK {
		return resp, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("reading an answer's body: %v", err)
	}
	return resp, string(body)
}

// begun is when what a record tells of began.
func begun(record map[string]any) time.Time {
	text, _ := record["time"].(string)
	end, _ := time.Parse(time.RFC3339Nano, text)
	took, _ := record["duration_ms"].(float64)
	return end.Add(-time.Duration(took * float64(time.Millisecond)))
}

// records waits until n are written, and returns them in the order in which what they tell of began: each is written behind its answer, perhaps after the next one's.
func (r *rig) records(n int) (out []map[string]any) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		out = out[:0]
		data, _ := os.ReadFile(r.auditPath)
		for line := range strings.Lines(string(data)) {
			var one map[string]any
			if json.Unmarshal([]byte(line), &one) == nil && (one["kind"] == "request" || one["kind"] == "tunnel") {
				out = append(out, one)
			}
		}
		if len(out) >= n {
			break
		}
	}
	if len(out) != n {
		r.t.Fatalf("%d records; want %d: %v", len(out), n, out)
	}
	slices.SortStableFunc(out, func(one, other map[string]any) int { return begun(one).Compare(begun(other)) })
	return out
}

func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

func urlOf(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}
