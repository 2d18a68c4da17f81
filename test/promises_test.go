package test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// gated is an upstream that holds every request until it is let go, or until its client leaves, and answers with who asked.
type gated struct {
	arrived atomic.Int64
	release chan struct{}
	left    atomic.Int64
}

func newGated() *gated { return &gated{release: make(chan struct{})} }

func (g *gated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, _ := io.ReadAll(r.Body)
	n := g.arrived.Add(1)
	if r.Header.Get("X-At-Once") == "" {
		select {
		case <-g.release:
		case <-r.Context().Done():
			g.left.Add(1)
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	if r.Method == http.MethodPost {
		w.WriteHeader(http.StatusCreated)
	}
	_, _ = fmt.Fprintf(w, "%s %s no. %d", r.Header.Get("Authorization"), content, n)
}

// arrive waits until the upstream has had n requests in all.
func (g *gated) arrive(t *testing.T, n int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("request %d is at the upstream", n), func() error {
		if got := g.arrived.Load(); got < n {
			return fmt.Errorf("it had %d", got)
		}
		return nil
	})
}

// rig is a daemon with one host, and a client of it.
type rig struct {
	*daemon
	client *http.Client
	host   string
}

func newRig(t *testing.T, upstream http.Handler, policy string) *rig {
	t.Helper()
	const host = "api.example.com"
	address := serve(t, nil, false, upstream)
	d := start(t, fmt.Sprintf("hosts:\n  %s: {upstream: {resolve: {%s: \"%s\"}}, %s}\n", host, host, address, policy))
	transport := &http.Transport{Proxy: http.ProxyURL(d.proxyURL()), DisableKeepAlives: true}
	return &rig{d, &http.Client{Transport: transport, Timeout: 2 * patience}, host}
}

// said is an answer.
type said struct {
	status int
	code   string // of the proxy's own
	header http.Header
	body   string
	err    error
}

// send sends a request; fields are pairs.
func (r *rig) send(ctx context.Context, method, content string, fields ...string) said {
	q, err := http.NewRequestWithContext(ctx, method, "http://"+r.host+"/pay", strings.NewReader(content))
	if err != nil {
		return said{err: err}
	}
	for pair := range slices.Chunk(fields, 2) {
		q.Header.Set(pair[0], pair[1])
	}
	resp, err := r.client.Do(q)
	if err != nil {
		return said{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return said{resp.StatusCode, resp.Header.Get("Httpowerd-Error"), resp.Header, string(text), err}
}

// begin sends a request of which the answer comes later.
func (r *rig) begin(ctx context.Context, method, content string, fields ...string) <-chan said {
	out := make(chan said, 1)
	go func() { out <- r.send(ctx, method, content, fields...) }()
	return out
}

// admitted asks for one that goes through at once.
func (r *rig) admitted(t *testing.T, what string) {
	t.Helper()
	if got := r.send(t.Context(), http.MethodGet, "", "X-At-Once", "1"); got.err != nil || got.status != http.StatusOK {
		t.Errorf("%s: %d %s %v", what, got.status, got.code, got.err)
	}
}

func (r *rig) counted(family string, labels ...string) map[string]float64 {
	return parseMetrics(r.ask("/metrics")).of(family, r.host, labels...)
}

// until waits for a metric of the host.
func (r *rig) until(t *testing.T, family string, want float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is %v", family, want), func() error {
		if got := r.counted(family)[""]; got != want {
			return fmt.Errorf("it is %v", got)
		}
		return nil
	})
}

// TestDoubleClicks: two hundred equal writes with one key at once are one write upstream. Those that come while it runs are told so, those that
// come later get its answer.
func TestDoubleClicks(t *testing.T) {
	g := newGated()
	r := newRig(t, g, "dedup: {methods: [POST]}")
	const clicks = 200
	all := make([]said, clicks)
	var wg sync.WaitGroup
	var answered atomic.Int64
	for i := range all {
		wg.Go(func() {
			all[i] = r.send(t.Context(), http.MethodPost, "amount=1", "Idempotency-Key", "order-1", "Authorization", "Bearer a")
			answered.Add(1)
		})
	}
	g.arrive(t, 1)
	eventually(t, "all others were told that it runs", func() error {
		if n := answered.Load(); n < clicks-1 {
			return fmt.Errorf("%d were", n)
		}
		return nil
	})
	close(g.release)
	wg.Wait()
	later := r.send(t.Context(), http.MethodPost, "amount=1", "Idempotency-Key", "order-1", "Authorization", "Bearer a")
	count := map[int]int{}
	for _, s := range all {
		count[s.status]++
		if s.err != nil || s.status == http.StatusConflict && s.code != "idempotency_conflict" || s.status == 201 && s.body != "Bearer a amount=1 no. 1" {
			t.Errorf("%d %s %q %v", s.status, s.code, s.body, s.err)
		}
	}
	if n := g.arrived.Load(); n != 1 || count[201] != 1 || count[409] != clicks-1 {
		t.Errorf("the upstream got it %d times; the answers were %v", n, count)
	}
	if later.status != 201 || later.body != "Bearer a amount=1 no. 1" || later.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the click that came later got %d %q %v", later.status, later.body, later.header)
	}
	other := r.send(t.Context(), http.MethodPost, "amount=2", "Idempotency-Key", "order-1", "Authorization", "Bearer a")
	if other.status != http.StatusUnprocessableEntity || g.arrived.Load() != 1 {
		t.Errorf("another body under the same key got %d %q", other.status, other.body)
	}
	stranger := r.send(t.Context(), http.MethodPost, "amount=1", "Idempotency-Key", "order-1", "Authorization", "Bearer b")
	if stranger.status != 201 || stranger.body != "Bearer b amount=1 no. 2" {
		t.Errorf("somebody else's order of that name got %d %q", stranger.status, stranger.body)
	}
	r.stop()
}

// TestDoubleClicksAreTwo: without a key two equal writes are two purchases, whatever is configured.
func TestDoubleClicksAreTwo(t *testing.T) {
	g := newGated()
	close(g.release)
	r := newRig(t, g, "dedup: {methods: [GET, POST]}, retry: {idempotency_key: on}")
	var wg sync.WaitGroup
	const clicks = 50
	for range clicks {
		wg.Go(func() {
			if s := r.send(t.Context(), http.MethodPost, "amount=1"); s.status != 201 || s.err != nil {
				t.Errorf("%d %s %v", s.status, s.code, s.err)
			}
		})
	}
	wg.Wait()
	if n := g.arrived.Load(); n != clicks {
		t.Errorf("%d purchases became %d", clicks, n)
	}
	r.stop()
}

// TestFollowersAreWhoTheyAre: of identical requests under two names, each gets the answer to its own.
func TestFollowersAreWhoTheyAre(t *testing.T) {
	g := newGated()
	r := newRig(t, g, "dedup: {}")
	const each = 50
	type asked struct {
		who string
		got said
	}
	all := make([]asked, 2*each)
	var wg sync.WaitGroup
	for i := range all {
		all[i].who = []string{"Bearer alice", "Bearer bob"}[i%2]
		wg.Go(func() { all[i].got = r.send(t.Context(), http.MethodGet, "", "Authorization", all[i].who) })
	}
	g.arrive(t, 2)
	r.connected(t, 2*each)
	close(g.release)
	wg.Wait()
	for _, a := range all {
		if a.got.status != 200 || !strings.HasPrefix(a.got.body, a.who+" ") {
			t.Errorf("%s got %d %q %v", a.who, a.got.status, a.got.body, a.got.err)
		}
	}
	roles := r.counted("httpowerd_dedup_requests_total", "role")
	if n := g.arrived.Load(); roles["follower"] == 0 || float64(n)+roles["follower"] != 2*each {
		t.Errorf("the upstream got %d requests, the roles are %v", n, roles)
	}
	t.Logf("%d requests reached the upstream %d times, %v", 2*each, g.arrived.Load(), roles)
	r.stop()
}

// TestDeadlineBoundsEveryWait: whatever a request waits for may take a minute, and the total deadline a second. A wait that the deadline did
// not end would meet the client's patience.
func TestDeadlineBoundsEveryWait(t *testing.T) {
	const total = "timeout: {attempt: 900ms, total: 1s}"
	for name, c := range map[string]struct {
		policy string
		busy   bool // somebody is there already
		write  bool
		want   []string // one of these
	}{
		"concurrency": {policy: "concurrency: {max: 1, wait: 1m}", busy: true, want: []string{"upstream_timeout", "concurrency_limited"}},
		"rate limit":  {policy: "rate_limit: {requests: 1, per: 1m, burst: 1, wait: 1m}", busy: true, want: []string{"upstream_timeout", "rate_limited"}},
		"dedup":       {policy: "dedup: {wait: 1m}", busy: true, want: []string{"upstream_timeout", "dedup_timeout"}},
		"the answer":  {policy: "retry: {attempts: 10}", want: []string{"upstream_timeout"}},
		"a write":     {policy: "dedup: {methods: [POST], wait: 1m}", write: true, want: []string{"upstream_timeout"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGated()
			r := newRig(t, g, total+", "+c.policy)
			if c.busy {
				first := r.begin(t.Context(), http.MethodGet, "")
				g.arrive(t, 1)
				defer func() { <-first }()
			}
			method := http.MethodGet
			if c.write {
				method = http.MethodPost
			}
			if s := r.send(t.Context(), method, "", "Idempotency-Key", "k"); s.err != nil || !slices.Contains(c.want, s.code) {
				t.Errorf("%d %s %v; want one of %v", s.status, s.code, s.err, c.want)
			}
		})
	}
}

// TestOpenBreakerSpendsNothing: an open breaker refuses before a token is taken and before a queue is entered.
func TestOpenBreakerSpendsNothing(t *testing.T) {
	g := newGated()
	close(g.release)
	r := newRig(t, g, "rate_limit: {requests: 3, per: 1d, burst: 3, wait: 1m, queue: 10}, concurrency: {max: 1, wait: 1m}")
	r.admitted(t, "the first")
	before, _ := r.limitOf(t)
	authority := r.host + ":80"
	r.force(t, authority, "open")
	var wg sync.WaitGroup
	for range 20 { // more than there are tokens, and places to wait
		wg.Go(func() {
			if s := r.send(t.Context(), http.MethodGet, ""); s.code != "breaker_open" || s.header.Get("Retry-After") == "" {
				t.Errorf("%d %s %v", s.status, s.code, s.err)
			}
		})
	}
	wg.Wait()
	if after, waiting := r.limitOf(t); after < before || after > before+1 || waiting != 0 {
		t.Errorf("%v tokens became %v, and %d requests wait", before, after, waiting)
	}
	if decisions := r.counted("httpowerd_rate_limit_decisions_total", "decision"); decisions["allowed"] != 1 || len(decisions) != 1 {
		t.Errorf("the limiter decided %v", decisions)
	}
	if n := g.arrived.Load(); n != 1 {
		t.Errorf("the upstream got %d requests", n)
	}
	r.force(t, authority, "auto")
	r.admitted(t, "the second")
	r.admitted(t, "the third")
	r.stop()
}

func (r *rig) force(t *testing.T, authority, state string) {
	t.Helper()
	resp, err := http.Post("http://"+r.admin+"/api/v1/breakers/"+authority, "application/json", strings.NewReader(`{"state":"`+state+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	if text := body(t, resp); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, text)
	}
}
