package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"httpowerd/internal/redact"
)

// TestMain looks for goroutines that were left, but for the library's that sleeps for a second before it sees that its pool is closed.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// patience is how long anything that must happen may take on a busy machine.
const patience = 20 * time.Second

// ample is a timeout for calls that are expected to succeed.
const ample = 5 * time.Second

// server is a redis-server of this test alone.
type server struct {
	t      testing.TB
	config string // a file; "": none
	args   []string
	port   int
	dir    string
	raw    *goredis.Client
	cmd    *exec.Cmd
}

// startServer starts one on a free port of loopback, without persistence, and stops it with the test.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is missing: run make deps")
	}
	s := &server{t: t, args: args, port: freePort(t), dir: t.TempDir()}
	s.raw = goredis.NewClient(&goredis.Options{Addr: s.address(), Protocol: 2, DisableIdentity: true, MaxRetries: 5})
	t.Cleanup(func() {
		s.kill()
		_ = s.raw.Close()
	})
	s.start()
	return s
}

// freePort is one that nothing listens on, and that is given to no outgoing connection while the server is down; the same holds for
// the port 10,000 above it, where a node of a cluster listens too.
func freePort(t testing.TB) int {
	t.Helper()
	free := func(port int) bool {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			_ = l.Close()
		}
		return err == nil
	}
	for range 100 {
		if port := 15000 + rand.IntN(7000); free(port) && free(port+10000) {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func (s *server) address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }
func (s *server) url() string     { return "redis://" + s.address() }

func (s *server) start() {
	s.t.Helper()
	var out text
	args := []string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--loglevel", "warning"}
	if s.config != "" {
		args = append([]string{s.config, "--sentinel"}, args...)
	} else {
		args = append(append(args, "--save", "", "--appendonly", "no"), s.args...)
	}
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.Stdout, s.cmd.Stderr = &out, &out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var err error
	defer func() {
		if s.t.Failed() {
			s.t.Logf("redis-server: %v\n%s", err, &out)
		}
	}()
	eventually(s.t, "redis-server answers", func() bool {
		var e goredis.Error
		err = s.raw.Ping(context.Background()).Err()
		return err == nil || errors.As(err, &e)
	})
}

// kill ends the server at once.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// open makes a client, which ends with the test.
func (s *server) open(change ...func(*Config)) *Client { return openAt(s.t, s.url(), change...) }

func openAt(t testing.TB, url string, change ...func(*Config)) *Client {
	t.Helper()
	c := Config{URL: redact.NewSecret(url), Prefix: "test", Timeout: ample, Secret: redact.NewSecret("a secret of " + "all daemons")}
	for _, f := range change {
		f(&c)
	}
	client, err := Open(c, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func class(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return fmt.Sprint(err)
}

func (c *Client) errorsOf(op string) int { return counted(c.metrics.ops[op].errors) }

func counted(c prometheus.Counter) int {
	var m dto.Metric
	_ = c.Write(&m)
	return int(m.GetCounter().GetValue())
}

// relay stands between a client and the server, and delays, holds or breaks what the server answers.
type relay struct {
	listener net.Listener
	to       string
	delay    atomic.Int64
	narrow   atomic.Int64 // how long 64 KiB take
	held     atomic.Bool
	reads    atomic.Int64 // from clients
	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	wg       sync.WaitGroup
}

func startRelay(t testing.TB, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, to: to, conns: map[net.Conn]struct{}{}}
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.held.Store(false)
		r.cut()
		r.wg.Wait()
	})
	return r
}

func (r *relay) url() string { return "redis://" + r.listener.Addr().String() }

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
}

func (r *relay) serve(c net.Conn) {
	up, err := net.Dial("tcp", r.to)
	if err != nil {
		_ = c.Close()
		return
	}
	r.mu.Lock()
	r.conns[c], r.conns[up] = struct{}{}, struct{}{}
	r.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { r.copy(up, c, true) })
	wg.Go(func() { r.copy(c, up, false) })
	wg.Wait()
}

func (r *relay) copy(to, from net.Conn, asks bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	b := make([]byte, 1<<20)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if asks {
			r.reads.Add(1)
		} else {
			time.Sleep(time.Duration(r.delay.Load() + r.narrow.Load()*int64(n)/(64<<10)))
			for r.held.Load() {
				time.Sleep(time.Millisecond)
			}
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// liar answers whatever is asked with the same bytes, again and again.
func liar(t testing.TB, says string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				go func() { _, _ = io.Copy(io.Discard, c) }()
				for range 1000 {
					if _, err := io.WriteString(c, says); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return "redis://" + l.Addr().String()
}

// text is what a process writes, for several goroutines.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *text) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *text) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func socketPath(s string) string { return filepath.Join(s, "redis.sock") }
