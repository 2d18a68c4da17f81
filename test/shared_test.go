package test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// redisServer is a redis-server of one test.
type redisServer struct {
	t    testing.TB
	dir  string
	port int
	cmd  *exec.Cmd
}

func startRedis(t testing.TB) *redisServer {
	t.Helper()
	need(t, "redis-server")
	r := &redisServer{t: t, dir: t.TempDir(), port: freePort(t)}
	t.Cleanup(r.kill)
	r.start()
	return r
}

// freePort is one that nothing listens on, and that is given to no outgoing connection while the server is down.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 27000 + rand.IntN(5000)
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func (r *redisServer) address() string { return "127.0.0.1:" + strconv.Itoa(r.port) }

func (r *redisServer) start() {
	r.t.Helper()
	r.cmd = exec.Command("redis-server", "--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--appendonly", "no",
		"--loglevel", "warning")
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "redis-server listens", func() error {
		c, err := net.Dial("tcp", r.address())
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

func (r *redisServer) kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

// state is the configuration of what daemons share.
func (r *redisServer) state(t testing.TB) string {
	return fmt.Sprintf("state: {dir: %s, backend: redis, url: \"redis://%s\", secret: the-same-in-all-daemons, timeout: 250ms, share: 2}\n", t.TempDir(), r.address())
}

// stateView is what the admin listener says of the shared state.
type stateView struct {
	Backend   string
	Up        bool
	LastError string `json:"last_error"`
}

func (d *daemon) state() (v stateView) {
	d.t.Helper()
	if err := json.Unmarshal([]byte(d.ask("/api/v1/state")), &v); err != nil {
		d.t.Fatal(err)
	}
	return v
}

func (d *daemon) waitShared(up bool) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("the shared state is up: %v", up), func() error {
		if v := d.state(); v.Up != up || v.Backend != "redis" {
			return fmt.Errorf("%+v", v)
		}
		return nil
	})
}

// plainClient goes through the daemon, with a connection for each of many requests at once.
func plainClient(t testing.TB, d *daemon) *http.Client {
	transport := &http.Transport{Proxy: http.ProxyURL(d.proxyURL()), MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func get(t testing.TB, c *http.Client, url string) *http.Response {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body(t, resp)
	return resp
}

// Two daemons with one limit let through what one would.
func TestLimitOfTwoDaemons(t *testing.T) {
	redis := startRedis(t)
	var served atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	defer up.Close()
	const rate, burst = 100, 40
	config := fmt.Sprintf("defaults:\n  rate_limit: {requests: %d, per: 1s, burst: %d, wait: 10s, queue: 1000}\n", rate, burst)
	daemons := []*daemon{start(t, redis.state(t)+config), start(t, redis.state(t)+config)}
	for _, d := range daemons {
		d.waitShared(true)
	}
	started := time.Now()
	stop := make(chan struct{})
	var byDaemon [2]atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		c := plainClient(t, daemons[i%2])
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := c.Get(up.URL)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%v, %v", resp, err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				byDaemon[i%2].Add(1)
			}
		})
	}
	time.Sleep(3 * time.Second)
	close(stop)
	wg.Wait()
	most := burst + rate*time.Since(started).Seconds()
	n := served.Load()
	if float64(n) > most || float64(n) < 0.9*(burst+rate*3) || byDaemon[0].Load() == 0 || byDaemon[1].Load() == 0 {
		t.Errorf("%d went, %d by one and %d by the other; want at most %.1f", n, byDaemon[0].Load(), byDaemon[1].Load(), most)
	}
	t.Logf("%d of at most %.1f", n, most)
}

// A Redis that is killed and comes back costs no request.
func TestRedisKilledUnderLoad(t *testing.T) {
	redis := startRedis(t)
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	d := start(t, redis.state(t)+"defaults:\n  rate_limit: {requests: 1000000, per: 1s, wait: 5s}\n")
	d.waitShared(true)
	stop := make(chan struct{})
	var served atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		c := plainClient(t, d)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := c.Get(up.URL)
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("a request was answered %s %s", resp.Status, resp.Header.Get("Httpowerd-Error"))
					return
				}
				served.Add(1)
			}
		})
	}
	more := func(what string) {
		t.Helper()
		before := served.Load()
		eventually(t, what, func() error {
			if served.Load() < before+50 {
				return fmt.Errorf("%d", served.Load())
			}
			return nil
		})
	}
	for range 2 {
		more("requests go while it is there")
		redis.kill()
		d.waitShared(false)
		more("requests go while it is away")
		redis.start()
		d.waitShared(true)
	}
	close(stop)
	wg.Wait()
	page := d.ask("/metrics")
	if metric(page, "httpowerd_shared_state_up") != 1 || metric(page, `httpowerd_shared_state_errors_total{op="take"}`) == 0 {
		t.Errorf("the metrics do not tell of it:\n%s", tail(page, 2000))
	}
	if strings.Contains(d.log.String()+d.ask("/api/v1/state"), redis.address()) {
		t.Error("the address of the server is told")
	}
}

// grudging is an upstream that is counted, and refuses what its path says.
func grudging(t testing.TB) (url string, served *atomic.Int64) {
	t.Helper()
	served = new(atomic.Int64)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		switch r.URL.Path {
		case "/quota":
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/down":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(up.Close)
	return up.URL, served
}

func refused(t testing.TB, d *daemon, url, code string) error {
	t.Helper()
	resp := get(t, plainClient(t, d), url)
	if got := resp.Header.Get("Httpowerd-Error"); got != code {
		return fmt.Errorf("answered %s %s; want %s", resp.Status, got, code)
	}
	return nil
}

// A gate that is closed and a breaker that is open are so in the next process too.
func TestGatesAndBreakersSurviveARestart(t *testing.T) {
	quota, quotaServed := grudging(t)
	down, downServed := grudging(t)
	config := fmt.Sprintf("state: {dir: %s}\ndefaults:\n  retry: off\n  rate_limit: {learn: true, wait: 1s}\n  breaker: {consecutive: 3, open: 10m, open_max: 10m}\n", t.TempDir())
	first := start(t, config)
	get(t, plainClient(t, first), quota+"/quota")
	for range 3 {
		get(t, plainClient(t, first), down+"/down")
	}
	first.stop()
	if n, m := quotaServed.Load(), downServed.Load(); n != 1 || m != 3 {
		t.Fatalf("%d and %d requests were served", n, m)
	}
	second := start(t, config)
	if err := refused(t, second, quota+"/anything", "quota_exhausted"); err != nil {
		t.Error(err)
	}
	if err := refused(t, second, down+"/anything", "breaker_open"); err != nil {
		t.Error(err)
	}
	second.stop()
	if n, m := quotaServed.Load(), downServed.Load(); n != 1 || m != 3 {
		t.Errorf("%d and %d requests were served", n, m)
	}
}

// A gate that one daemon found closed is closed for all.
func TestGateOfTwoDaemons(t *testing.T) {
	redis := startRedis(t)
	url, served := grudging(t)
	config := "defaults:\n  retry: off\n  rate_limit: {learn: true, wait: 1s}\n"
	a, b := start(t, redis.state(t)+config), start(t, redis.state(t)+config)
	a.waitShared(true)
	b.waitShared(true)
	get(t, plainClient(t, a), url+"/quota")
	eventually(t, "the other daemon refuses", func() error { return refused(t, b, url+"/fine", "quota_exhausted") })
	n := served.Load()
	if err := refused(t, b, url+"/fine", "quota_exhausted"); err != nil || served.Load() != n {
		t.Errorf("%v; %d requests were served", err, served.Load())
	}
}

// Two hundred writes with one key at two daemons are one, and a repeat gets its answer from either.
func TestKeyedWritesOfTwoDaemons(t *testing.T) {
	redis := startRedis(t)
	var served atomic.Int64
	release := make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := served.Add(1)
		if r.Method == http.MethodPost {
			<-release
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, "payment %d", n)
	}))
	defer up.Close()
	config := "defaults:\n  dedup: {methods: [GET, POST]}\n"
	daemons := []*daemon{start(t, redis.state(t)+config), start(t, redis.state(t)+config)}
	post := func(c *http.Client, body string) (status int, answer string, replayed bool) {
		return postKeyed(t, c, up.URL+"/pay", "order-1", body)
	}
	clients := []*http.Client{plainClient(t, daemons[0]), plainClient(t, daemons[1])}
	for _, d := range daemons {
		d.waitShared(true)
	}
	var created, conflicts atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			switch status, answer, _ := post(clients[i%2], "amount=1"); {
			case status == http.StatusCreated && answer == "payment 1":
				created.Add(1)
			case status == http.StatusConflict:
				if conflicts.Add(1) == 199 {
					close(release)
				}
			default:
				t.Errorf("%d %s", status, answer)
			}
		})
	}
	wg.Wait()
	if served.Load() != 1 || created.Load() != 1 || conflicts.Load() != 199 {
		t.Errorf("%d were sent, %d succeeded, %d were told that one runs", served.Load(), created.Load(), conflicts.Load())
	}
	for i, c := range clients {
		if status, answer, replayed := post(c, "amount=1"); status != http.StatusCreated || answer != "payment 1" || !replayed {
			t.Errorf("daemon %d repeats %d %q, replayed %v", i, status, answer, replayed)
		}
		if status, _, _ := post(c, "amount=2"); status != http.StatusUnprocessableEntity {
			t.Errorf("daemon %d answers another write with %d", i, status)
		}
	}
	redis.kill()
	daemons[0].waitShared(false)
	if status, answer, _ := post(clients[0], "amount=1"); status != http.StatusServiceUnavailable || served.Load() != 1 {
		t.Errorf("without Redis: %d %s; %d were sent", status, answer, served.Load())
	}
}

// A keyed write that a drain cuts off may have reached its upstream: the next daemon sends its repeat, and nothing else under that key.
func TestKeyedWriteCutByADrain(t *testing.T) {
	redis := startRedis(t)
	var first atomic.Bool
	var mu sync.Mutex
	var got []string
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		mu.Lock()
		got = append(got, string(text))
		mu.Unlock()
		if first.CompareAndSwap(false, true) {
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, "paid")
	}))
	defer up.Close()
	received := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
	config := "drain: {timeout: 100ms}\ndefaults:\n  dedup: {methods: [GET, POST]}\n"
	leaving, staying := start(t, redis.state(t)+config), start(t, redis.state(t)+config)
	leaving.waitShared(true)
	staying.waitShared(true)
	cut := make(chan int, 1)
	go func() {
		status, _, _ := postKeyed(t, plainClient(t, leaving), up.URL, "order-1", "amount=1")
		cut <- status
	}()
	eventually(t, "the upstream has the write", func() error {
		if n := len(received()); n != 1 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	leaving.stop()
	if status := <-cut; status != http.StatusServiceUnavailable {
		t.Errorf("the client whose write was cut got %d", status)
	}
	if found := leaving.records(t, func(r record) bool { return r.Outcome == "draining" && r.Status == http.StatusServiceUnavailable }); len(found) != 1 {
		t.Errorf("%d records of a write that was cut", len(found))
	}
	c := plainClient(t, staying)
	if status, _, _ := postKeyed(t, c, up.URL, "order-1", "amount=2"); status != http.StatusUnprocessableEntity {
		t.Errorf("another write under its key got %d", status)
	}
	if status, answer, replayed := postKeyed(t, c, up.URL, "order-1", "amount=1"); status != http.StatusOK || answer != "paid" || replayed {
		t.Errorf("its repeat got %d %s, replayed %v", status, answer, replayed)
	}
	if r := received(); !slices.Equal(r, []string{"amount=1", "amount=1"}) {
		t.Errorf("the upstream received %q", r)
	}
}

// postKeyed posts a write with an idempotency key.
func postKeyed(t testing.TB, c *http.Client, url, key, body string) (status int, answer string, replayed bool) {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Idempotency-Key", key)
	resp, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), resp.Header.Get("Idempotency-Replayed") == "true"
}
