package hedge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// step is what the upstream, and the stages before it, do with one attempt.
type step struct {
	held    time.Duration // by the proxy's own limits, before the attempt begins
	refused error         // by them
	takes   time.Duration // to the head
	status  int           // 0: err
	body    string
	err     error
	panics  bool
	exits   bool
	deaf    bool // to cancellation
}

// upstream follows its script; the last step repeats.
type upstream struct {
	t     *testing.T
	steps []step
	begin time.Time

	mu       sync.Mutex
	came     []time.Duration
	requests []*http.Request
	causes   []error // with which attempts were cancelled, in their order
	open     int     // answers whose body is not closed
}

func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	u.mu.Lock()
	n := len(u.requests)
	s := u.steps[min(n, len(u.steps)-1)]
	u.requests, u.came, u.causes = append(u.requests, r), append(u.came, time.Since(u.begin)), append(u.causes, nil)
	u.mu.Unlock()
	x := exchange.From(ctx)
	if err := u.wait(ctx, n, s.held); err != nil {
		return nil, err
	}
	if s.held > 0 {
		x.Waited(s.held)
	}
	if s.refused != nil {
		return nil, s.refused
	}
	index := x.BeginAttemptIn(ctx, time.Now())
	if s.deaf {
		time.Sleep(s.takes)
	} else if err := u.wait(ctx, n, s.takes); err != nil {
		code := exchange.ClientGone
		var deadline *exchange.Failure
		if errors.As(err, &deadline) {
			code = deadline.Code
		}
		x.EndAttempt(index, time.Now(), 0, code)
		return nil, err
	}
	switch {
	case s.panics:
		panic("a defect")
	case s.exits:
		runtime.Goexit()
	}
	x.EndAttempt(index, time.Now(), s.status, "")
	if s.status == 0 {
		return nil, s.err
	}
	u.mu.Lock()
	u.open++
	u.mu.Unlock()
	return &http.Response{StatusCode: s.status, Header: http.Header{}, Request: r,
		Body: &answer{Reader: strings.NewReader(s.body), u: u, ctx: ctx}}, nil
}

func (u *upstream) wait(ctx context.Context, n int, d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		u.mu.Lock()
		u.causes[n] = context.Cause(ctx)
		u.mu.Unlock()
		return context.Cause(ctx)
	}
}

// answer is a body that can be read only while its attempt's context lives, as the transport's.
type answer struct {
	io.Reader
	u    *upstream
	ctx  context.Context
	once sync.Once
}

func (a *answer) Read(p []byte) (int, error) {
	if a.ctx.Err() != nil {
		return 0, context.Cause(a.ctx)
	}
	return a.Reader.Read(p)
}

func (a *answer) Close() error {
	a.once.Do(func() { a.u.mu.Lock(); a.u.open--; a.u.mu.Unlock() })
	return nil
}

// rig is the stage before an upstream.
type rig struct {
	*testing.T
	*upstream
	reg     *prometheus.Registry
	keeper  state.Keeper
	budgets *state.Table[*state.Budget]
	x       *exchange.Exchange
	scarce  func(*exchange.Exchange, *http.Request) bool
	fails   func(*http.Request, *http.Response) bool
	room    *Room
	stage   http.RoundTripper
}

// allowed is how many hedges the rig's budget has at first.
const allowed = 30

func newRig(t *testing.T, c Config, steps ...step) *rig {
	r := &rig{T: t, upstream: &upstream{t: t, steps: steps, begin: time.Now()}, reg: prometheus.NewPedanticRegistry()}
	r.budgets = state.NewTable(0, func(state.Key) *state.Budget { return state.NewBudget(0, allowed/600., 10*time.Minute) })
	r.room = New(r.reg)
	r.load(c)
	return r
}

// load makes the stage from a new configuration.
func (r *rig) load(c Config) {
	g := r.keeper.Begin()
	scarce := func(x *exchange.Exchange, req *http.Request) bool { return r.scarce != nil && r.scarce(x, req) }
	fails := func(req *http.Request, resp *http.Response) (*http.Response, bool) {
		if r.fails == nil {
			return resp, false
		}
		seen := *resp
		return &seen, r.fails(req, &seen)
	}
	r.stage = r.room.Stage(state.Scope{Generation: g, Policy: "p"}, c, r.budgets, scarce, fails).Wrap(r.upstream)
	g.Commit()
}

func fixed(d time.Duration, extra int) Config {
	c := Default()
	c.After, c.Extra = AfterDuration(d), extra
	return c
}

func newExchange() *exchange.Exchange {
	return &exchange.Exchange{Method: "GET", Host: "api.example.com", Target: exchange.Authority{Host: "api.example.com", Port: 443}}
}

func newRequest(ctx context.Context, x *exchange.Exchange, method string) *http.Request {
	r, err := http.NewRequestWithContext(exchange.NewContext(ctx, x), method, "https://api.example.com/things", nil)
	if err != nil {
		panic(err)
	}
	return r
}

// send sends a GET and reads the answer to its end. What it returns is the status and body, or the error.
func (r *rig) send(ctx context.Context) (string, error) {
	r.Helper()
	r.begin, r.x = time.Now(), newExchange()
	resp, err := r.stage.RoundTrip(newRequest(ctx, r.x, "GET"))
	if err != nil {
		return "", err
	}
	took := time.Since(r.begin)
	time.Sleep(time.Millisecond) // whoever lost has ended when the body is read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Errorf("the body broke after %v: %v", took, err)
	}
	if err := resp.Body.Close(); err != nil {
		r.Error(err)
	}
	return http.StatusText(resp.StatusCode) + " " + string(body), nil
}

func (r *rig) sent() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests)
}

// spent is how many retries of the budget are used.
func (r *rig) spent() int {
	budget, n := r.budgets.Get(state.KeyOf(r.x)), 0
	for {
		if _, ok := budget.Reserve(); !ok {
			return allowed - n
		}
		n++
	}
}

// counted is what the metric says, as "won=1 lost=2".
func (r *rig) counted() string {
	families, err := r.reg.Gather()
	if err != nil {
		r.Fatal(err)
	}
	var all []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := m.GetLabel()
			if f.GetName() != "httpowerd_hedges_total" || len(labels) != 2 || labels[0].GetValue() != "api.example.com" {
				r.Errorf("unexpected %s %v", f.GetName(), labels)
			}
			all = append(all, labels[1].GetValue()+"="+strings.TrimSuffix(time.Duration(m.GetCounter().GetValue()).String(), "ns"))
		}
	}
	return strings.Join(all, " ")
}

// finished checks that nothing is left over once everybody has had the time to end.
func (r *rig) finished() {
	r.Helper()
	time.Sleep(time.Minute)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open != 0 {
		r.Errorf("%d bodies are open", r.open)
	}
	for i, req := range r.requests {
		if req.Context().Err() == nil {
			r.Errorf("the context of attempt %d lives on", i+1)
		}
	}
}

var errReset = &exchange.Failure{Code: exchange.UpstreamReset, Sent: true}

func refusal(code exchange.Code) error { return exchange.Refuse(code, "no") }

var errLeft = errors.New("the client left")

// times are those that the stage has of its authority.
func (r *rig) times() *latency { return r.stage.(*plan).times.Get(state.KeyOf(r.x)) }
