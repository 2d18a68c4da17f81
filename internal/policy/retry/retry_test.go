package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
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

// step is what the upstream does with one attempt.
type step struct {
	status int // 0: err
	header map[string]string
	body   string
	err    error
	read   int // of the request's body before it answers; -1: all
	takes  time.Duration
}

// upstream follows its script; the last step repeats.
type upstream struct {
	t        *testing.T
	steps    []step
	mu       sync.Mutex
	at       []time.Duration
	begin    time.Time
	requests []*http.Request
	bodies   []string
	open     int // answers whose body is not closed
	before   func(n int, r *http.Request) error
}

func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	u.mu.Lock()
	n := len(u.requests)
	s := u.steps[min(n, len(u.steps)-1)]
	u.requests = append(u.requests, r)
	u.at = append(u.at, time.Since(u.begin))
	u.mu.Unlock()
	if r.GetBody != nil {
		u.t.Error("the transport may send the body again by itself")
	}
	if u.before != nil {
		if err := u.before(n, r); err != nil {
			return nil, err
		}
	}
	x := exchange.From(r.Context())
	index := x.BeginAttempt(time.Now())
	text := ""
	if r.Body != nil {
		text = u.consume(r.Body, s.read)
		defer r.Body.Close()
	}
	u.mu.Lock()
	u.bodies = append(u.bodies, text)
	u.mu.Unlock()
	time.Sleep(s.takes)
	x.EndAttempt(index, time.Now(), s.status, "")
	if s.status == 0 {
		return nil, s.err
	}
	h := http.Header{}
	for k, v := range s.header {
		h.Set(k, v)
	}
	u.mu.Lock()
	u.open++
	u.mu.Unlock()
	return &http.Response{StatusCode: s.status, Header: h, Body: &answer{Reader: strings.NewReader(s.body), u: u}, ContentLength: int64(len(s.body)), Request: r}, nil
}

// sent is how many attempts there were so far.
func (u *upstream) sent() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.requests)
}

func (u *upstream) consume(body io.Reader, n int) string {
	var b []byte
	var err error
	if n < 0 {
		b, err = io.ReadAll(body)
	} else {
		b = make([]byte, n)
		_, err = io.ReadFull(body, b)
	}
	if err != nil {
		return "broken: " + err.Error()
	}
	return string(b)
}

type answer struct {
	io.Reader
	u    *upstream
	once sync.Once
}

func (a *answer) Close() error {
	a.once.Do(func() { a.u.mu.Lock(); a.u.open--; a.u.mu.Unlock() })
	return nil
}

var target = exchange.Authority{Host: "api.example.com", Port: 443}

func newExchange(method string) *exchange.Exchange {
	return &exchange.Exchange{Method: method, Target: target, Host: "api.example.com"}
}

func request(ctx context.Context, x *exchange.Exchange, body io.Reader) *http.Request {
	r, err := http.NewRequestWithContext(exchange.NewContext(ctx, x), x.Method, "https://api.example.com/v1/things", body)
	if err != nil {
		panic(err)
	}
	r.GetBody = nil // a request that came over a listener has none
	return r
}

// scene is one exchange and everything that came of it.
type scene struct {
	config func(*Config)
	method string // GET
	body   string
	header map[string]string
	steps  []step
	before func(n int, r *http.Request) error
	total  time.Duration // timeout.total; 0: none
	tunnel bool
}

type result struct {
	*upstream
	resp     *http.Response
	text     string
	err      error
	story    exchange.Story
	verdict  exchange.Verdict
	registry *prometheus.Registry
}

func (s scene) play(t *testing.T) *result {
	t.Helper()
	c := Default()
	if s.config != nil {
		s.config(&c)
	}
	if s.method == "" {
		s.method = "GET"
	}
	res := &result{upstream: &upstream{t: t, steps: s.steps, before: s.before, begin: time.Now()}, registry: prometheus.NewRegistry()}
	var keeper state.Keeper
	scope := state.Scope{Generation: keeper.Begin(), Policy: "api.example.com"}
	stage := New(res.registry).Stage(scope, c)
	if s.tunnel {
		stage = New(prometheus.NewRegistry()).TunnelStage(scope, c)
	}
	x := newExchange(s.method)
	ctx := t.Context()
	if s.total > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.total, &exchange.Failure{Code: exchange.UpstreamTimeout, Sent: true})
		defer cancel()
	}
	var body io.Reader
	if s.body != "" {
		body = strings.NewReader(s.body)
	}
	r := request(ctx, x, body)
	for k, v := range s.header {
		r.Header.Set(k, v)
	}
	before := r.Header.Clone()
	res.resp, res.err = stage.Wrap(res).RoundTrip(r)
	if !maps.EqualFunc(r.Header, before, func(a, b []string) bool { return a[0] == b[0] }) {
		t.Error("the client's request was changed")
	}
	if res.resp != nil {
		b, err := io.ReadAll(res.resp.Body)
		if err != nil {
			t.Error("the answer's body:", err)
		}
		res.text = string(b)
		res.resp.Body.Close()
	}
	synctest.Wait()
	if res.open != 0 {
		t.Errorf("%d answers were not closed", res.open)
	}
	res.story, res.verdict = x.Story(), x.Verdict()
	return res
}

// status is the final answer's, 0 for an error.
func (r *result) status() int {
	if r.resp == nil {
		return 0
	}
	return r.resp.StatusCode
}

func (r *result) count(name, reason string) float64 {
	families, err := r.registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == "api.example.com" && m.GetLabel()[1].GetValue() == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func failure(code exchange.Code, sent bool) error { return &exchange.Failure{Code: code, Sent: sent} }

func signal(c *Config) { c.Signal = "vendor-should-retry" }

// TestWhatIsRetried (A35).
func TestWhatIsRetried(t *testing.T) {
	permanent := &exchange.Failure{Code: exchange.UpstreamTLS, Permanent: true}
	for name, c := range map[string]struct {
		scene
		attempts   int
		status     int
		notRetried string
		reason     string // of the second attempt
	}{
		"success":                {scene{steps: []step{{status: 200}}}, 1, 200, "", ""},
		"503 to GET":             {scene{steps: []step{{status: 503}, {status: 200}}}, 2, 200, "", "status"},
		"500 to PUT":             {scene{method: "PUT", steps: []step{{status: 500}, {status: 201}}}, 2, 201, "", "status"},
		"503 to POST":            {scene{method: "POST", steps: []step{{status: 503}}}, 1, 503, "method", ""},
		"503 to PATCH with body": {scene{method: "PATCH", body: "x", steps: []step{{status: 503, read: -1}}}, 1, 503, "method", ""},
		"PUT where safe":         {scene{method: "PUT", config: func(c *Config) { c.Methods = Methods{name: Safe} }, steps: []step{{status: 503}}}, 1, 503, "method", ""},
		"POST where all":         {scene{method: "POST", config: func(c *Config) { c.Methods = Methods{name: All} }, steps: []step{{status: 503}, {status: 200}}}, 2, 200, "", "status"},
		"REPORT where listed":    {scene{method: "REPORT", config: func(c *Config) { c.Methods = Methods{list: []string{"REPORT"}} }, steps: []step{{status: 503}, {status: 200}}}, 2, 200, "", "status"},
		"GET where not listed":   {scene{config: func(c *Config) { c.Methods = Methods{list: []string{"PUT"}} }, steps: []step{{status: 503}}}, 1, 503, "method", ""},
		"501":                    {scene{steps: []step{{status: 501}}}, 1, 501, "", ""},
		"404":                    {scene{steps: []step{{status: 404}}}, 1, 404, "", ""},
		"unknown status":         {scene{steps: []step{{status: 999}}}, 1, 999, "", ""},
		"all attempts":           {scene{steps: []step{{status: 503}}}, 4, 503, "attempts", "status"},
		"refused connection":     {scene{method: "POST", steps: []step{{err: failure(exchange.UpstreamConnect, false)}, {status: 200}}}, 2, 200, "", "connect"},
		"unknown name":           {scene{steps: []step{{err: failure(exchange.UpstreamDNS, false)}, {status: 200}}}, 2, 200, "", "dns"},
		"handshake":              {scene{method: "POST", steps: []step{{err: failure(exchange.UpstreamTLS, false)}, {status: 200}}}, 2, 200, "", "tls"},
		"wrong certificate":      {scene{steps: []step{{err: permanent}}}, 1, 0, "", ""},
		"reset after sending":    {scene{steps: []step{{err: failure(exchange.UpstreamReset, true)}, {status: 200}}}, 2, 200, "", "reset"},
		"POST reset after":       {scene{method: "POST", steps: []step{{err: failure(exchange.UpstreamReset, true)}}}, 1, 0, "method", ""},
		"timeout of GET":         {scene{steps: []step{{err: failure(exchange.UpstreamTimeout, true)}, {status: 200}}}, 2, 200, "", "timeout"},
		"timeout of POST":        {scene{method: "POST", steps: []step{{err: failure(exchange.UpstreamTimeout, true)}}}, 1, 0, "method", ""},
		"refusal":                {scene{steps: []step{{err: exchange.Refuse(exchange.DestinationDenied, "no")}}}, 1, 0, "", ""},
		"breaker open":           {scene{steps: []step{{err: exchange.Refuse(exchange.BreakerOpen, "no")}}}, 1, 0, "", ""},
		"unknown error":          {scene{steps: []step{{err: errors.New("?")}}}, 1, 0, "", ""},
		"the upstream says no":   {scene{steps: []step{{status: 503, header: map[string]string{"X-Should-Retry": "false"}}}}, 1, 503, "", ""},
		"the upstream says yes":  {scene{steps: []step{{status: 409, header: map[string]string{"X-Should-Retry": "true"}}, {status: 200}}}, 2, 200, "", "status"},
		"yes to a POST":          {scene{method: "POST", steps: []step{{status: 409, header: map[string]string{"X-Should-Retry": "true"}}}}, 1, 409, "method", ""},
		"529 where listed":       {scene{config: func(c *Config) { c.Statuses = []int{529} }, steps: []step{{status: 529}, {status: 200}}}, 2, 200, "", "status"},
		"529":                    {scene{steps: []step{{status: 529}}}, 1, 529, "", ""},
		"408":                    {scene{steps: []step{{status: 408}, {status: 200}}}, 2, 200, "", "status"},
		"425":                    {scene{method: "PUT", body: "b", steps: []step{{status: 425, read: -1}, {status: 200, read: -1}}}, 2, 200, "", "status"},
		"429 to POST":            {scene{method: "POST", steps: []step{{status: 429}}}, 1, 429, "method", ""},
		"yes beside a 501":       {scene{steps: []step{{status: 501, header: map[string]string{"X-Should-Retry": "true"}}}}, 1, 501, "", ""},
		"the vendor says no":     {scene{config: signal, steps: []step{{status: 503, header: map[string]string{"Vendor-Should-Retry": "False"}}}}, 1, 503, "", ""},
		"the vendor says yes":    {scene{config: signal, steps: []step{{status: 400, header: map[string]string{"Vendor-Should-Retry": " true "}}, {status: 200}}}, 2, 200, "", "status"},
		"the vendor's yes to a POST": {scene{method: "POST", config: signal, steps: []step{{status: 400, header: map[string]string{"Vendor-Should-Retry": "true"}}}},
			1, 400, "method", ""},
		"yes and no": {scene{config: signal, steps: []step{{status: 503, header: map[string]string{"Vendor-Should-Retry": "true", "X-Should-Retry": "false"}}}},
			1, 503, "", ""},
		"another vendor's":     {scene{steps: []step{{status: 400, header: map[string]string{"Vendor-Should-Retry": "true"}}}}, 1, 400, "", ""},
		"yes beside a success": {scene{steps: []step{{status: 200, header: map[string]string{"X-Should-Retry": "true"}}}}, 1, 200, "", ""},
		"tunnel not connected": {scene{method: "CONNECT", tunnel: true, steps: []step{{err: failure(exchange.UpstreamConnect, false)}, {status: 200}}}, 2, 200, "", "connect"},
		"tunnel's answer":      {scene{method: "CONNECT", tunnel: true, steps: []step{{status: 503}}}, 1, 503, "", ""},
		"tunnel broken":        {scene{method: "CONNECT", tunnel: true, steps: []step{{err: failure(exchange.UpstreamReset, true)}}}, 1, 0, "method", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := c.play(t)
				if len(r.requests) != c.attempts || r.status() != c.status || r.story.NotRetried != c.notRetried {
					t.Fatalf("%d attempts, status %d, not retried because of %q, %v", len(r.requests), r.status(), r.story.NotRetried, r.err)
				}
				if c.attempts > 1 && r.story.Attempts[1].Reason != c.reason {
					t.Errorf("the second attempt is for %q", r.story.Attempts[1].Reason)
				}
				if !c.tunnel && (r.count("httpowerd_retries_total", c.reason) != float64(c.attempts-1) || c.notRetried != "" && r.count("httpowerd_retries_refused_total", c.notRetried) != 1) {
					t.Error("the metrics tell something else")
				}
				if c.status == 0 && r.err != c.steps[0].err {
					t.Errorf("the error became %v", r.err)
				}
			})
		})
	}
}

// TestVerdicts: whoever keeps an answer is told what it asks for, although its fields say something else once all attempts are used up.
func TestVerdicts(t *testing.T) {
	field := func(status int, body string, fields ...string) []step {
		h := map[string]string{}
		for i := 0; i < len(fields); i += 2 {
			h[fields[i]] = fields[i+1]
		}
		return []step{{status: status, body: body, header: h}}
	}
	listed := func(c *Config) { c.Statuses = []int{404, 423, 500} }
	not := when("has(response.json.ok) && !response.json.ok")
	with := func(edits ...func(*Config)) func(*Config) {
		return func(c *Config) {
			for _, f := range edits {
				f(c)
			}
		}
	}
	once := func(c *Config) { c.Attempts = 1 }
	for name, c := range map[string]struct {
		config   func(*Config)
		steps    []step
		want     exchange.Verdict
		wantOnce exchange.Verdict // with attempts: 1
	}{
		"good":                    {nil, field(200, ""), exchange.Unsaid, exchange.Unsaid},
		"a usual status":          {nil, field(500, ""), exchange.Unsaid, exchange.Unsaid},
		"no failure":              {nil, field(404, ""), exchange.Unsaid, exchange.Unsaid},
		"500, again":              {nil, field(500, "", "X-Should-Retry", "true"), exchange.Again, exchange.Again},
		"400, again":              {nil, field(400, "", "X-Should-Retry", "True"), exchange.Again, exchange.Again},
		"500, not again":          {nil, field(500, "", "X-Should-Retry", "false"), exchange.Final, exchange.Final},
		"the vendor's again":      {signal, field(400, "", "Vendor-Should-Retry", "true"), exchange.Again, exchange.Again},
		"of two words":            {signal, field(400, "", "X-Should-Retry", "true", "Vendor-Should-Retry", "false"), exchange.Final, exchange.Final},
		"good, again":             {nil, field(200, "", "X-Should-Retry", "true"), exchange.Unsaid, exchange.Unsaid},
		"a listed status":         {listed, field(423, ""), exchange.Again, exchange.Again},
		"another listed one":      {listed, field(404, ""), exchange.Again, exchange.Again},
		"a usual one in the list": {listed, field(500, ""), exchange.Unsaid, exchange.Unsaid},
		"listed, not again":       {listed, field(423, "", "X-Should-Retry", "false"), exchange.Final, exchange.Final},
		"a failure inside":        {not, field(200, `{"ok":false}`), exchange.Again, exchange.Again},
		"none inside":             {not, field(200, `{"ok":true}`), exchange.Unsaid, exchange.Unsaid},
		"inside, not again":       {not, field(200, `{"ok":false}`, "X-Should-Retry", "false"), exchange.Unsaid, exchange.Unsaid},
		"then good":               {not, []step{{status: 200, body: `{"ok":false}`}, {status: 200, body: `{"ok":true}`}}, exchange.Unsaid, exchange.Again},
		"then an error":           {nil, []step{{status: 500, header: map[string]string{"X-Should-Retry": "true"}}, {err: failure(exchange.UpstreamReset, true)}}, exchange.Unsaid, exchange.Again},
		"then refused": {nil, []step{{status: 500, header: map[string]string{"X-Should-Retry": "true"}}, {err: exchange.Refuse(exchange.BreakerOpen, "")}},
			exchange.Again, exchange.Again},
		"observed": {func(c *Config) { c.Mode = setting.Observe; not(c) }, field(200, `{"ok":false}`), exchange.Unsaid, exchange.Unsaid},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.config == nil {
					c.config = func(*Config) {}
				}
				if r := (scene{config: c.config, steps: c.steps}).play(t); r.verdict != c.want {
					t.Errorf("the verdict is %d; want %d", r.verdict, c.want)
				}
				kept := func(c *Config) { c.Kept = true }
				r := scene{config: with(c.config, once, kept), header: map[string]string{"X-Stainless-Retry-Count": "1"}, steps: c.steps}.play(t)
				if r.verdict != c.wantOnce || r.text != c.steps[0].body || r.story.NotRetried != "" || r.resp.Header.Get("X-Should-Retry") != c.steps[0].header["X-Should-Retry"] {
					t.Errorf("with one attempt the verdict is %d; want %d; %+v, %v", r.verdict, c.wantOnce, r.story, r.resp.Header)
				}
				if r = (scene{config: with(c.config, once), steps: c.steps}).play(t); r.verdict != exchange.Unsaid {
					t.Errorf("with one attempt, and nobody who keeps answers, the verdict is %d", r.verdict)
				}
			})
		})
	}
}

func TestAnswersAfterRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := scene{steps: []step{{status: 500}, {status: 200, body: "fine", header: map[string]string{"Proxy-Status": "cdn.example.com; received-status=200"}}}}.play(t)
		if r.text != "fine" || fmt.Sprint(r.resp.Header["Proxy-Status"]) != `[cdn.example.com; received-status=200 httpowerd; received-status=200; details="2 attempts"]` || r.resp.Header["X-Should-Retry"] != nil {
			t.Errorf("after a retry: %q, %v", r.text, r.resp.Header)
		}
		r = scene{steps: []step{{status: 500, body: "broken"}}}.play(t)
		if r.text != "broken" || r.resp.Header.Get("X-Should-Retry") != "false" || r.resp.Header.Get("Proxy-Status") == "" {
			t.Errorf("retried out: %q, %v", r.text, r.resp.Header)
		}
		r = scene{config: signal, steps: []step{{status: 500, header: map[string]string{"Vendor-Should-Retry": "true"}}}}.play(t)
		if len(r.requests) != 4 || r.resp.Header.Get("X-Should-Retry") != "false" || r.resp.Header.Get("Vendor-Should-Retry") != "false" {
			t.Errorf("retried out, with a vendor's signal: %v", r.resp.Header)
		}
		r = scene{method: "POST", steps: []step{{status: 500, body: "broken"}}}.play(t)
		if len(r.resp.Header) != 0 {
			t.Errorf("not retried: %v", r.resp.Header)
		}
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bounds := func(c *Config) {
			c.Attempts, c.Budget.Floor = 6, 1000
			c.Backoff = Backoff{Base: setting.Duration(100 * time.Millisecond), Throttled: setting.Duration(time.Second), Max: setting.Duration(500 * time.Millisecond)}
		}
		longest := map[int][5]time.Duration{}
		for range 300 {
			for _, status := range []int{500, 429} {
				r := scene{config: bounds, steps: []step{{status: status}}}.play(t)
				seen := longest[status]
				for i := range seen {
					waited := r.at[i+1] - r.at[i]
					if waited != r.story.Attempts[i+1].Wait {
						t.Fatalf("waited %v, noted %v", waited, r.story.Attempts[i+1].Wait)
					}
					seen[i] = max(seen[i], waited)
				}
				longest[status] = seen
			}
		}
		const ms = time.Millisecond
		limits := map[int][5]time.Duration{500: {100 * ms, 200 * ms, 400 * ms, 500 * ms, 500 * ms}, 429: {500 * ms, 500 * ms, 500 * ms, 500 * ms, 500 * ms}}
		for status, bound := range limits {
			for i, b := range bound {
				if got := longest[status][i]; got > b || got < b*9/10 {
					t.Errorf("%d: wait %d is up to %v; want %v", status, i+1, got, b)
				}
			}
		}
	})
}

func TestThrottled(t *testing.T) {
	for code, want := range map[int]bool{429: true, 503: true, 529: true, 500: false, 408: false, 425: false} {
		if got := throttled(status(code)); got != want {
			t.Errorf("%d: %v", code, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for name, c := range map[string]struct {
		header     map[string]string
		config     func(*Config)
		total      time.Duration
		least      time.Duration
		notRetried string
	}{
		"seconds":         {map[string]string{"Retry-After": "20"}, nil, 0, 20 * time.Second, ""},
		"date":            {map[string]string{"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT", "Date": "Thu, 01 Jan 2026 00:00:00 GMT"}, nil, 0, 30 * time.Second, ""},
		"milliseconds":    {map[string]string{"Retry-After": "1500"}, func(c *Config) { c.RetryAfter.Unit = Milliseconds }, 0, 1500 * time.Millisecond, ""},
		"a finer field":   {map[string]string{"Retry-After": "2", "Retry-After-Ms": "1200"}, nil, 0, 1200 * time.Millisecond, ""},
		"the most":        {map[string]string{"Retry-After": "60"}, nil, 0, time.Minute, ""},
		"too long":        {map[string]string{"Retry-After": "61"}, nil, 0, 0, "retry_after"},
		"endless":         {map[string]string{"Retry-After": "99999999999999999999999"}, nil, 0, 0, "retry_after"},
		"past the total":  {map[string]string{"Retry-After": "20"}, nil, 20 * time.Second, 0, "deadline"},
		"just within":     {map[string]string{"Retry-After": "20"}, nil, 21 * time.Second, 20 * time.Second, ""},
		"garbage":         {map[string]string{"Retry-After": "soon"}, nil, 0, 0, ""},
		"negative":        {map[string]string{"Retry-After": "-5"}, nil, 0, 0, ""},
		"nothing to wait": {map[string]string{"Retry-After": "0"}, nil, 0, 0, ""},
		"backoff past total": {nil, func(c *Config) {
			c.Backoff.Throttled, c.Backoff.Max = setting.Duration(1e6*time.Hour), setting.Duration(1e6*time.Hour)
		}, time.Millisecond, 0, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for range 30 {
					r := scene{config: c.config, total: c.total, steps: []step{{status: 503, header: c.header}, {status: 200}}}.play(t)
					if r.story.NotRetried != c.notRetried || (c.notRetried == "") != (r.status() == 200) {
						t.Fatalf("status %d, not retried because of %q", r.status(), r.story.NotRetried)
					}
					if c.notRetried != "" {
						if r.resp.Header.Get("X-Should-Retry") != "" || time.Since(r.begin) != 0 {
							t.Errorf("the answer came after %v as %v", time.Since(r.begin), r.resp.Header)
						}
						continue
					}
					if waited := r.at[1]; waited < c.least || c.least > 0 && waited > c.least*3/2 || name == "nothing to wait" && waited != 0 {
						t.Errorf("waited %v", waited)
					}
				}
			})
		})
	}
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Default()
		c.Budget = Budget{Ratio: 0.5, Floor: 0, TTL: setting.Duration(10 * time.Second)}
		c.Attempts = 2
		var keeper state.Keeper
		scope := state.Scope{Generation: keeper.Begin(), Policy: "p"}
		room := New(nil)
		u := &upstream{t: t, steps: []step{{err: failure(exchange.UpstreamConnect, false)}}, begin: time.Now()}
		requests, tunnels := room.Stage(scope, c).Wrap(u), room.TunnelStage(scope, c).Wrap(u)
		refused := 0
		send := func(stage http.RoundTripper, tenant string) {
			x := newExchange("GET")
			x.Tenant = tenant
			_, _ = stage.RoundTrip(request(t.Context(), x, nil))
			if x.Story().NotRetried == "budget" {
				refused++
			}
		}
		for range 10 {
			send(requests, "")
			send(tunnels, "")
		}
		if len(u.requests) != 30 || refused != 10 {
			t.Errorf("%d attempts for 20 requests, %d refused", len(u.requests), refused)
		}
		send(requests, "another tenant")
		send(requests, "another tenant")
		if len(u.requests) != 33 || refused != 11 {
			t.Errorf("another tenant's two requests made it %d attempts, %d refused", len(u.requests), refused)
		}
	})
}

// Retries that sleep have their place in the budget already.
func TestBudgetIsReservedBeforeTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Default()
		c.Budget = Budget{Ratio: 0.2, Floor: 0, TTL: setting.Duration(time.Minute)}
		var keeper state.Keeper
		u := &upstream{t: t, steps: []step{{status: 503, header: map[string]string{"Retry-After": "20"}}}, begin: time.Now()}
		stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, c).Wrap(u)
		leaving, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		send := func(ctx context.Context) {
			wg.Go(func() {
				if resp, err := stage.RoundTrip(request(ctx, newExchange("GET"), nil)); err == nil {
					resp.Body.Close()
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		for range 5 {
			send(leaving)
		}
		time.Sleep(time.Second)
		before := u.sent()
		send(t.Context()) // 6 × 0.2: the one retry is reserved
		time.Sleep(time.Second)
		leave()
		synctest.Wait()
		if before != 5 || u.sent() != 6 || u.open != 0 {
			t.Fatalf("%d, then %d attempts, %d answers open", before, u.sent(), u.open)
		}
		send(t.Context()) // the client that left gave it back
		wg.Wait()
		if u.sent() != 8 {
			t.Errorf("%d attempts in the end", u.sent())
		}
	})
}

// When the proxy itself keeps the next attempt from starting, the client gets what the upstream said.
func TestNotAdmitted(t *testing.T) {
	for _, size := range []int{0, 10, 64 << 10, 64<<10 + 1, 300 << 10} {
		for code, why := range map[exchange.Code]string{exchange.BreakerOpen: "breaker", exchange.QuotaExhausted: "gate", exchange.RateLimited: "gate", exchange.ConcurrencyLimited: "gate"} {
			t.Run(fmt.Sprint(code, " ", size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					body := strings.Repeat("x", size)
					s := scene{steps: []step{{status: 503, body: body, header: map[string]string{"X-Own": "1"}}}}
					s.before = func(n int, _ *http.Request) error {
						if n == 0 {
							return nil
						}
						return exchange.Refuse(code, "no")
					}
					r := s.play(t)
					if r.status() != 503 || r.text != body || r.resp.Header.Get("X-Own") != "1" || r.resp.Header.Get("X-Should-Retry") != "" {
						t.Errorf("status %d, %d bytes, %v, %v", r.status(), len(r.text), r.resp.Header, r.err)
					}
					if r.story.NotRetried != why || len(r.story.Attempts) != 1 || r.count("httpowerd_retries_total", "status") != 0 || r.count("httpowerd_retries_refused_total", why) != 1 {
						t.Errorf("the story: %+v", r.story)
					}
				})
			})
		}
	}
	t.Run("after a failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			first := failure(exchange.UpstreamConnect, false)
			r := scene{steps: []step{{err: first}, {err: exchange.Refuse(exchange.BreakerOpen, "no")}}}.play(t)
			if r.err != first || r.story.NotRetried != "breaker" {
				t.Errorf("told %v, %q", r.err, r.story.NotRetried)
			}
		})
	})
}

// An attempt that waited for a limit until the exchange was over was none, and is not counted.
func TestOverWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scene{steps: []step{{status: 503}}, total: 10 * time.Second, config: func(c *Config) { c.Budget.Ratio, c.Budget.Floor = 0, 1 }}
		s.before = func(n int, r *http.Request) error {
			if n == 0 {
				return nil
			}
			<-r.Context().Done()
			return context.Cause(r.Context())
		}
		r := s.play(t)
		if r.err == nil || len(r.story.Attempts) != 1 || r.story.NotRetried != "deadline" || r.count("httpowerd_retries_refused_total", "deadline") != 1 {
			t.Errorf("%v, the story: %+v", r.err, r.story)
		}
		if n := r.count("httpowerd_retries_total", "status"); n != 0 {
			t.Errorf("%v retries are counted, and none was made", n)
		}
	})
}

// A short failed answer gives its connection and its place back before the next attempt asks for one.
func TestAFailedAnswerMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := -1
		u := &upstream{t: t, steps: []step{{status: 503, body: "sorry", header: map[string]string{"Retry-After": "1"}}, {status: 200}}, begin: time.Now()}
		u.before = func(n int, _ *http.Request) error {
			if n == 1 {
				u.mu.Lock()
				open = u.open
				u.mu.Unlock()
			}
			return nil
		}
		var keeper state.Keeper
		resp, err := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, Default()).Wrap(u).RoundTrip(request(t.Context(), newExchange("GET"), nil))
		if err != nil || resp.StatusCode != 200 || open != 0 {
			t.Errorf("%v; %d answers were open when the second attempt began", err, open)
		}
		resp.Body.Close()
	})
}

func TestTheClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keeper state.Keeper
		u := &upstream{t: t, steps: []step{{status: 503, body: "later", header: map[string]string{"Retry-After": "30"}}}, begin: time.Now()}
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		x := newExchange("GET")
		_, err := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, Default()).Wrap(u).RoundTrip(request(ctx, x, nil))
		if !errors.Is(err, context.Canceled) || time.Since(u.begin) != time.Second || len(u.requests) != 1 || u.open != 0 || x.Story().NotRetried != "" {
			t.Errorf("%v after %v, %d attempts, %d open, %q", err, time.Since(u.begin), len(u.requests), u.open, x.Story().NotRetried)
		}
		if b := x.Story().Backoff; b != time.Second {
			t.Errorf("%v of the wait are noted: the rest would pass for the proxy's own time", b)
		}
	})
}

func TestIdempotencyKey(t *testing.T) {
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	quoted := regexp.MustCompile(`^"[0-9a-f-]{36}"$`)
	key := func(v any) func(*Config) {
		return func(c *Config) {
			if err := c.IdempotencyKey.DecodeSetting(v); err != nil {
				panic(err)
			}
		}
	}
	for name, c := range map[string]struct {
		scene
		attempts int
		header   string
		want     *regexp.Regexp
	}{
		"made":         {scene{method: "POST", body: "b", config: key(true)}, 2, "Idempotency-Key", uuid},
		"quoted":       {scene{method: "PATCH", config: key(map[string]any{"quoted": true, "header": "x-request-key"})}, 2, "X-Request-Key", quoted},
		"the client's": {scene{method: "POST", config: key(true), header: map[string]string{"Idempotency-Key": "mine"}}, 2, "Idempotency-Key", regexp.MustCompile("^mine$")},
		"none made":    {scene{method: "POST", config: key(map[string]any{"inject": false})}, 1, "Idempotency-Key", regexp.MustCompile("^$")},
		"sent, none made": {scene{method: "POST", config: key(map[string]any{"inject": false}), header: map[string]string{"Idempotency-Key": "mine"}},
			2, "Idempotency-Key", regexp.MustCompile("^mine$")},
		"not honoured here": {scene{method: "POST", header: map[string]string{"Idempotency-Key": "mine"}}, 1, "Idempotency-Key", regexp.MustCompile("^mine$")},
		"another method":    {scene{method: "POST", config: key(map[string]any{"methods": []any{"PATCH"}})}, 1, "Idempotency-Key", regexp.MustCompile("^$")},
		"not for GET":       {scene{config: key(true)}, 2, "Idempotency-Key", regexp.MustCompile("^$")},
		"empty":             {scene{method: "POST", config: key(true), header: map[string]string{"Idempotency-Key": ""}}, 2, "Idempotency-Key", uuid},
		"empty in quotes":   {scene{method: "POST", config: key(true), header: map[string]string{"Idempotency-Key": `""`}}, 2, "Idempotency-Key", uuid},
		"empty, none made": {scene{method: "POST", config: key(map[string]any{"inject": false}), header: map[string]string{"Idempotency-Key": " "}},
			1, "Idempotency-Key", regexp.MustCompile("^ $")},
		"none is made in observe mode": {scene{method: "POST", config: func(c *Config) { key(true)(c); c.Mode = setting.Observe }}, 1, "Idempotency-Key", regexp.MustCompile("^$")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.steps = []step{{status: 503, read: min(0, -len(c.body))}, {status: 200, read: min(0, -len(c.body))}}
				r := c.play(t)
				if len(r.requests) != c.attempts {
					t.Fatalf("%d attempts", len(r.requests))
				}
				first := r.requests[0].Header.Get(c.header)
				for _, request := range r.requests {
					if got := request.Header.Get(c.header); !c.want.MatchString(got) || got != first {
						t.Errorf("the attempts carry %q and %q", first, got)
					}
				}
			})
		})
	}
}
