package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
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
	"httpowerd/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ends answers 204 to everything.
type ends struct{}

func (ends) Requests(state.Scope, upstream.Config, timeout.Config, *destination.Rules) (http.RoundTripper, error) {
	return exchange.RoundTripperFunc(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
	}), nil
}

func (e ends) Tunnels(s state.Scope, u upstream.Config, t timeout.Config, r *destination.Rules) (http.RoundTripper, error) {
	return e.Requests(s, u, t, r)
}

// fakeBreakers knows what a test tells it.
type fakeBreakers struct {
	known  []breaker.Status
	forced []string
	fail   error
}

func (f *fakeBreakers) Status() []breaker.Status { return f.known }

func (f *fakeBreakers) Force(authority, to string) error {
	for _, s := range f.known {
		if s.Authority == authority {
			f.forced = append(f.forced, authority+" "+to)
			return f.fail
		}
	}
	return breaker.ErrUnknown
}

type fakeLevel struct {
	level  slog.Level
	forced bool
}

func (l *fakeLevel) Level() (slog.Level, bool) { return l.level, l.forced }
func (l *fakeLevel) Force(to slog.Level)       { l.level, l.forced = to, true }
func (l *fakeLevel) Release()                  { l.level, l.forced = slog.LevelInfo, false }

// rig is a handler on a real configuration, with everything else made up.
type rig struct {
	*testing.T
	options  Options
	handler  *Handler
	holder   *policy.Holder
	path     string
	breakers *fakeBreakers
	level    *fakeLevel
	limits   []ratelimit.LimitStatus
	places   []concurrency.Status
	budgets  []retry.BudgetStatus
	registry *prometheus.Registry
	reload   error // beside what the configuration says
	caError  error
	lines    chan []byte
	leaving  chan struct{}
	watching chan context.Context // of each viewer

	mu     sync.Mutex
	events []map[string]any
	log    bytes.Buffer
}

func newRig(t *testing.T, config string) *rig {
	t.Helper()
	r := &rig{T: t, path: filepath.Join(t.TempDir(), "httpowerd.yaml"), breakers: &fakeBreakers{}, level: &fakeLevel{}, leaving: make(chan struct{}),
		registry: prometheus.NewRegistry(), lines: make(chan []byte, 16), watching: make(chan context.Context, 100)}
	r.write(config)
	log := slog.New(slog.NewJSONHandler(&locked{r: r}, nil))
	reg := prometheus.NewRegistry()
	r.holder = policy.NewHolder(policy.Source{Path: r.path}, policy.Rooms{Timeout: timeout.New(), Retry: retry.New(reg), Hedge: hedge.New(reg), Dedup: dedup.New(reg), Sanitize: sanitize.New(reg), RateLimit: ratelimit.New(reg),
		Concurrency: concurrency.New(reg), Breaker: breaker.New(reg, log), Ends: ends{}}, reg, log)
	t.Cleanup(r.holder.Close)
	if err := r.holder.Reload(t.Context(), "start"); err != nil {
		t.Fatal(err)
	}
	r.options = Options{Version: "1.2.3", Listen: "127.0.0.1:9128", Names: []string{"Proxy.example.com"}, Started: time.Now(),
		Policies: r.holder, OnReload: r.holder.OnReload, Breakers: r.breakers, Metrics: r.registry, Leaving: r.leaving, Level: r.level, Log: log,
		Reload: func(ctx context.Context, why string) error { return errors.Join(r.holder.Reload(ctx, why), r.reload) },
		Limits: func(f func(ratelimit.LimitStatus)) {
			for _, l := range r.limits {
				f(l)
			}
		},
		State: func() StateStatus {
			return StateStatus{Backend: "redis", LastError: "timeout", OnFailure: "local", Share: 2}
		},
		Places: func(f func(concurrency.Status)) {
			for _, p := range r.places {
				f(p)
			}
		},
		Budgets: func(f func(retry.BudgetStatus)) {
			for _, b := range r.budgets {
				f(b)
			}
		},
		CA:    func() ([]byte, error) { return []byte("-----BEGIN CERTIFICATE-----\n"), r.caError },
		Event: r.event,
		Traffic: func(ctx context.Context) <-chan []byte {
			r.watching <- ctx
			return r.lines
		},
	}
	r.handler = New(r.options)
	return r
}

// locked writes the rig's log.
type locked struct{ r *rig }

func (l *locked) Write(p []byte) (int, error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.r.log.Write(p)
}

func (r *rig) write(config string) {
	r.Helper()
	if err := os.WriteFile(r.path, []byte("version: 1\n"+config), 0o600); err != nil {
		r.Fatal(err)
	}
}

// event notes what would be an audit record.
func (r *rig) event(kind string, attrs ...slog.Attr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := map[string]any{"kind": kind}
	for _, a := range attrs {
		e[a.Key] = a.Value.Any()
	}
	r.events = append(r.events, e)
}

// recorded are the audit records since it was last called.
func (r *rig) recorded() []map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.events
	r.events = nil
	return out
}

// ask sends a request; extra are header fields, name and value by turns.
func (r *rig) ask(method, target, body string, extra ...string) *httptest.ResponseRecorder {
	r.Helper()
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	req.Host, req.RemoteAddr = "127.0.0.1:9128", "127.0.0.1:4444"
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(extra); i += 2 {
		switch name, value := extra[i], extra[i+1]; name {
		case "Host":
			req.Host = value
		case "From": // where the connection comes from
			req.RemoteAddr = value
		default:
			req.Header.Add(name, value)
		}
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w
}

// askAs posts a body under a Content-Type of its own, or none.
func (r *rig) askAs(path, body string, fields []string) *httptest.ResponseRecorder {
	r.Helper()
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	req.Host = "localhost"
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] != "" {
			req.Header.Set(fields[i], fields[i+1])
		}
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w
}

// is checks an answer: its status, that a refusal is a problem in every place that says so, and what every answer must carry.
func (r *rig) is(w *httptest.ResponseRecorder, status int, code string) map[string]any {
	r.Helper()
	if w.Code != status {
		r.Errorf("%d %s; want %d", w.Code, w.Body, status)
	}
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"X-Frame-Options": "DENY"} {
		if got := w.Header().Get(name); got != want {
			r.Errorf("%s is %q; want %q", name, got, want)
		}
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none';") {
		r.Errorf("Content-Security-Policy is %q", csp)
	}
	id := w.Header().Get("Httpowerd-Request-Id")
	if id == "" {
		r.Error("the answer has no id")
	}
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "application/") || !strings.Contains(w.Header().Get("Content-Type"), "json") {
		if code != "" {
			r.Errorf("a refusal as %s", w.Header().Get("Content-Type"))
		}
		return nil
	}
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		r.Fatalf("no JSON: %v: %s", err, w.Body)
	}
	if code != "" && (w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Httpowerd-Error") != code || out["code"] != code ||
		out["type"] != "urn:httpowerd:error:"+code || fmt.Sprint(out["status"]) != fmt.Sprint(status) || out["request_id"] != id || out["title"] == "") {
		r.Errorf("%v %v; want %s in every place", w.Header(), out, code)
	}
	if code == "" && w.Header().Get("Httpowerd-Error") != "" {
		r.Errorf("refused: %v", out)
	}
	return out
}
