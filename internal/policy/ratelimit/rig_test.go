package ratelimit

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	api    = "api.example.com"
	policy = "*.example.com#0"
)

// rig is the stage before an upstream that answers as the test says.
type rig struct {
	*testing.T
	room   *Room
	reg    *prometheus.Registry
	keeper state.Keeper
	begin  time.Time
	factor func(*exchange.Exchange) float64

	mu     sync.Mutex
	answer func(*http.Request) (*http.Response, error) // nil: 200
	passed []turn                                      // what reached the upstream, by its X-Who
	ended  map[string]*ending                          // of those who were sent in the background
}

// turn says that a request reached the upstream so long after the beginning.
type turn struct {
	who string
	at  time.Duration
}

type ending struct {
	resp *http.Response
	err  error
	at   time.Duration
	x    *exchange.Exchange
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t, reg: prometheus.NewPedanticRegistry(), begin: time.Now(), ended: map[string]*ending{}}
	r.room = New(r.reg)
	r.room.spread = 0
	return r
}

func (r *rig) upstream(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	answer := r.answer
	r.passed = append(r.passed, turn{req.Header.Get("X-Who"), time.Since(r.begin)})
	r.mu.Unlock()
	if answer != nil {
		return answer(req)
	}
	return reply(200), nil
}

// reply is an answer with "Name: value" lines.
func reply(status int, lines ...string) *http.Response {
	h := http.Header{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return &http.Response{StatusCode: status, Header: h, Body: http.NoBody}
}

// replies makes the upstream answer so from now on.
func (r *rig) replies(status int, lines ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = func(*http.Request) (*http.Response, error) { return reply(status, lines...), nil }
}

// level is a block that somebody wrote under that name.
func level(name string, requests int, per time.Duration, edit func(*Config)) Level {
	l := Level{Name: name, Config: Default()}
	l.Config.Requests, l.Config.Per = requests, setting.Duration(per)
	if edit != nil {
		edit(&l.Config)
	}
	return l
}

func wait(d time.Duration) func(*Config) { return func(c *Config) { c.Wait = setting.Duration(d) } }

// load makes the chain of a policy, and commits it.
func (r *rig) load(levels ...Level) http.RoundTripper {
	r.Helper()
	g := r.keeper.Begin()
	chain := r.link(g, policy, levels...)
	g.Commit()
	return chain
}

func (r *rig) link(g *state.Generation, name string, levels ...Level) http.RoundTripper {
	r.Helper()
	for _, l := range levels {
		if faults := l.Config.Validate(); len(faults) > 0 {
			r.Fatal(faults)
		}
	}
	scope := state.Scope{Generation: g, Policy: name}
	return exchange.Chain(exchange.RoundTripperFunc(r.upstream), r.room.Look(scope, levels), r.room.Stage(scope, levels, r.factor))
}

// request is a GET of a host, changed as the test says.
func request(ctx context.Context, host string, edits ...func(*http.Request, *exchange.Exchange)) *http.Request {
	x := &exchange.Exchange{Method: http.MethodGet, Target: exchange.Authority{Host: host, Port: 443}, Host: host, Policy: policy}
	req, err := http.NewRequestWithContext(exchange.NewContext(ctx, x), http.MethodGet, "https://"+host+"/", nil)
	if err != nil {
		panic(err)
	}
	for _, edit := range edits {
		edit(req, x)
	}
	return req
}

func header(name, value string) func(*http.Request, *exchange.Exchange) {
	return func(r *http.Request, _ *exchange.Exchange) { r.Header.Set(name, value) }
}

func path(p string) func(*http.Request, *exchange.Exchange) {
	return func(r *http.Request, _ *exchange.Exchange) { r.URL.Path = p }
}

func tenant(name string) func(*http.Request, *exchange.Exchange) {
	return func(_ *http.Request, x *exchange.Exchange) { x.Tenant = name }
}

// pass sends a request that must get through at once.
func (r *rig) pass(chain http.RoundTripper, host string, edits ...func(*http.Request, *exchange.Exchange)) *http.Response {
	r.Helper()
	begin := time.Now()
	resp, err := chain.RoundTrip(request(r.Context(), host, edits...))
	if err != nil || time.Since(begin) != 0 {
		r.Errorf("%s: %v after %v; want it to pass at once", host, err, time.Since(begin))
	}
	return resp
}

// refused sends a request that must be refused at once, and returns its Retry-After.
func (r *rig) refused(chain http.RoundTripper, code exchange.Code, host string, edits ...func(*http.Request, *exchange.Exchange)) time.Duration {
	r.Helper()
	begin, sent := time.Now(), r.sent()
	_, err := chain.RoundTrip(request(r.Context(), host, edits...))
	var refusal *exchange.Refusal
	if !errors.As(err, &refusal) || refusal.Code != code || refusal.HTTPStatus() != http.StatusTooManyRequests || time.Since(begin) != 0 || r.sent() != sent {
		r.Errorf("%s: %v after %v; want %s at once, and nothing sent", host, err, time.Since(begin), code)
		return 0
	}
	return refusal.RetryAfter
}

func (r *rig) sent() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.passed)
}

// join sends a request in the background.
func (r *rig) join(ctx context.Context, chain http.RoundTripper, who, host string, edits ...func(*http.Request, *exchange.Exchange)) {
	go func() {
		req := request(ctx, host, append(edits, header("X-Who", who))...)
		resp, err := chain.RoundTrip(req)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended[who] = &ending{resp, err, time.Since(r.begin), exchange.From(req.Context())}
	}()
	synctest.Wait()
}

func (r *rig) end(who string) ending {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.ended[who]; e != nil {
		return *e
	}
	return ending{}
}

// wants compares what reached the upstream since the last question.
func (r *rig) wants(turns ...turn) {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.passed, turns) {
		r.Errorf("the upstream saw %v; want %v", r.passed, turns)
	}
	r.passed = nil
}

// metric is the value of a series, or of a histogram's count; -1 where there is none.
func (r *rig) metric(name string, labels ...string) float64 {
	r.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "httpowerd_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() { // sorted by name
				values = append(values, l.GetValue())
			}
			if slices.Equal(values, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}

// decisions compares the counters of a host.
func (r *rig) decisions(host string, allowed, delayed, refused, observed float64) {
	r.Helper()
	for decision, want := range map[string]float64{"allowed": allowed, "delayed": delayed, "refused": refused, "observed": observed} {
		if got := r.metric("rate_limit_decisions_total", decision, host); got != want {
			r.Errorf("%s %s: %v; want %v", host, decision, got, want)
		}
	}
}
