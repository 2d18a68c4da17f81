package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// resilienceBench measures what retries, budgets, breakers and limits come to. Everything is on loopback; daemons are processes of their own.
type resilienceBench struct {
	dir      string
	upstream *failingUpstream
	table    *tabwriter.Writer
	progress io.Writer
}

func benchResilience(ctx context.Context, io stdio) error {
	dir, err := os.MkdirTemp("", "httpowerd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &resilienceBench{dir: dir, upstream: newFailingUpstream(), table: tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0),
		progress: io.err}
	defer b.upstream.server.Close()
	for _, part := range []func(context.Context) error{b.success, b.load, b.limits, b.shared, b.waiters} {
		if err := part(ctx); err != nil {
			return err
		}
		fmt.Fprintln(b.progress)
		fmt.Fprintln(b.table)
		if err := b.table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (b *resilienceBench) row(columns ...any) {
	for _, c := range columns {
		fmt.Fprintf(b.table, "%v\t", c)
	}
	fmt.Fprint(b.progress, ".")
	fmt.Fprintln(b.table)
}

// failingUpstream fails as the host's first label says, and notes when which request came.
type failingUpstream struct {
	server *httptest.Server
	hosts  sync.Map // host: *arrivals
}

// arrivals are a host's requests.
type arrivals struct {
	n     atomic.Int64
	mu    sync.Mutex
	times []time.Time
}

func newFailingUpstream() *failingUpstream {
	u := &failingUpstream{}
	u.server = httptest.NewServer(u)
	return u
}

func (u *failingUpstream) of(host string) *arrivals {
	a, ok := u.hosts.Load(host)
	if !ok {
		a, _ = u.hosts.LoadOrStore(host, &arrivals{})
	}
	return a.(*arrivals)
}

// ServeHTTP answers: -busy- fails one request in ten with 503, -flaky- one in twenty that way and one in twenty with a reset, -down- all with 500;
// the others are noted.
func (u *failingUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := u.of(r.Host)
	a.n.Add(1)
	luck := rand.IntN(20)
	flaky := strings.Contains(r.Host, "-flaky-")
	switch {
	case strings.Contains(r.Host, "-busy-") && luck < 2, flaky && luck == 0:
		w.WriteHeader(http.StatusServiceUnavailable)
	case flaky && luck == 1:
		reset(w)
	case strings.Contains(r.Host, "-down-"):
		w.WriteHeader(http.StatusInternalServerError)
	case strings.Contains(r.Host, "-noted-"):
		a.mu.Lock()
		a.times = append(a.times, time.Now())
		a.mu.Unlock()
	}
}

// reset ends the connection as a crashed process does.
func reset(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// host is a host block with a policy.
func (b *resilienceBench) host(name, policy string) string {
	return fmt.Sprintf("  %s: {upstream: {resolve: {%s: %q}, max_idle: 1000}, %s}\n", name, name, b.upstream.server.Listener.Addr(), policy)
}

// clientOf keeps connections to a daemon.
func clientOf(c *benchChild) *http.Client {
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: c.address}), MaxIdleConnsPerHost: 20_000}}
}

// get is the status of an answer, 0 where there is none.
func get(ctx context.Context, client *http.Client, url string) int {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}

// success is how many GETs succeed where one attempt in ten fails.
func (b *resilienceBench) success(ctx context.Context) error {
	const requests, clients = 50_000, 512
	b.row("One attempt in ten fails", "requests", "succeeded", "attempts each", "seconds", "breaker opened")
	for _, c := range []struct{ what, host, policy string }{
		{"503; four attempts, the default; breaker: off", "four-busy-x.example.com", "breaker: off"},
		{"503; three attempts; breaker: off", "three-busy-x.example.com", "breaker: off, retry: {attempts: 3}"},
		{"503 and resets; breaker: {consecutive: 0}", "ratio-flaky-x.example.com", "breaker: {consecutive: 0}"},
		{"503 and resets; all defaults", "all-flaky-x.example.com", "breaker: {}"},
	} {
		host := c.host
		child, err := launchBenchChild(ctx, b.dir, benchOptions{}, "hosts:\n"+b.host(host, c.policy))
		if err != nil {
			return err
		}
		client, start := clientOf(child), time.Now()
		var good, next atomic.Int64
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for next.Add(1) <= requests && ctx.Err() == nil {
					if get(ctx, client, "http://"+host+"/") == http.StatusOK {
						good.Add(1)
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(start)
		opened := child.metric(ctx, "httpowerd_breaker_transitions_total", `to="open"`)
		client.CloseIdleConnections()
		child.stop()
		b.row(c.what, requests, fmt.Sprintf("%.3f %%", 100*float64(good.Load())/requests),
			fmt.Sprintf("%.3f", float64(b.upstream.of(host).n.Load())/requests), fmt.Sprintf("%.1f", took.Seconds()), opened)
	}
	return nil
}

// load is how much an upstream gets that fails always.
func (b *resilienceBench) load(ctx context.Context) error {
	const perSecond, seconds = 500, 10
	const offered = perSecond * seconds
	plain, whole := "plain-down-x.example.com", "whole-down-x.example.com"
	child, err := launchBenchChild(ctx, b.dir, benchOptions{}, "hosts:\n"+b.host(plain, "breaker: off")+b.host(whole, "breaker: {}"))
	if err != nil {
		return err
	}
	defer child.stop()
	client := clientOf(child)
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / perSecond)
	defer tick.Stop()
	for range offered {
		<-tick.C
		for _, host := range []string{plain, whole} {
			wg.Go(func() { _ = get(ctx, client, "http://"+host+"/") })
		}
	}
	wg.Wait()
	// What the budget had saved up for its ten seconds, and three a second.
	bound := 1 + 0.2 + float64(3*10+3*seconds)/offered
	b.row("Every attempt fails with 500", "offered", "the upstream got", "times the offer", "bound")
	for _, c := range []struct{ what, host string }{{"the budget alone (breaker: off)", plain}, {"all defaults", whole}} {
		n := b.upstream.of(c.host).n.Load()
		b.row(c.what, offered, n, fmt.Sprintf("%.3f", float64(n)/offered), fmt.Sprintf("%.3f", bound))
	}
	return nil
}
