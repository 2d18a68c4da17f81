package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"httpowerd/internal/policy"
)

// startTo is start with another output for the audit trail.
func startTo(t *testing.T, output, config string) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{t: t, config: filepath.Join(dir, "httpowerd.yaml"), audit: output, log: &buffer{}}
	b.write(config)
	admin, state := "127.0.0.1:0", filepath.Join(dir, "state")
	d, err := Start(Options{Version: "test", Log: b.log, Source: policy.Source{Path: b.config, Overrides: policy.Overrides{
		Listen: []string{"127.0.0.1:0"}, Admin: &admin, AuditOutput: &output, StateDir: &state, Wire: wireOf()}}})
	if err != nil {
		t.Fatal(err)
	}
	b.Daemon = d
	running.Add(1)
	t.Cleanup(b.stop)
	return b
}

// slowReader is a syslog receiver that reads nothing until it is told to.
type slowReader struct {
	l    net.Listener
	read chan struct{}
	once sync.Once
	mu   sync.Mutex
	got  []string
	wait sync.WaitGroup
}

func newSlowReader(t *testing.T) *slowReader {
	t.Helper()
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = setReadBuffer(fd, 4096) })
	}}
	l, err := small.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &slowReader{l: l, read: make(chan struct{})}
	s.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wait.Go(func() { s.take(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.let()
		s.wait.Wait()
	})
	return s
}

func (s *slowReader) let() { s.once.Do(func() { close(s.read) }) }

func (s *slowReader) take(c net.Conn) {
	defer c.Close()
	<-s.read
	for b := bufio.NewReader(c); ; {
		word, err := b.ReadString(' ')
		if err != nil {
			return
		}
		n, _ := strconv.Atoi(strings.TrimSpace(word))
		m := make([]byte, n)
		if _, err := io.ReadFull(b, m); err != nil {
			return
		}
		s.mu.Lock()
		s.got = append(s.got, string(m[strings.IndexByte(string(m), '{'):]))
		s.mu.Unlock()
	}
}

// has waits for a record that contains text.
func (s *slowReader) has(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		found := slices.ContainsFunc(s.got, func(m string) bool { return strings.Contains(m, text) })
		s.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no record with %s", text)
		}
	}
}

// refusedSum is a sum of exchanges that there was no room to record.
var refusedSum = regexp.MustCompile(`"event":"exchanges_refused","count":([0-9]+)`)

// refusals waits until so many are accounted for: in sums, or, where the reader was found stuck before the queue was full, one by one.
func (s *slowReader) refusals(t *testing.T, want int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		text := strings.Join(s.got, "\n")
		s.mu.Unlock()
		n := strings.Count(text, `"outcome":"overloaded"`)
		for _, sum := range refusedSum.FindAllStringSubmatch(text, -1) {
			count, _ := strconv.Atoi(sum[1])
			n += count
		}
		switch {
		case n == want:
			return
		case time.Now().After(deadline):
			t.Fatalf("%d refusals are accounted for; want %d", n, want)
		}
	}
}

// TestFullAudit: with a disk that is full, and with a reader that is stuck, block holds exchanges up, drop goes on without records, and fail-closed lets
// nothing out that could not be recorded.
func TestFullAudit(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil || runtime.GOOS != "linux" {
		t.Skip("there is no /dev/full here")
	}
	start := func(t *testing.T) (string, *atomic.Int64) {
		t.Helper()
		t.Parallel() // each ends with records that nobody takes, which is waited for
		seen := new(atomic.Int64)
		origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			seen.Add(1)
			fmt.Fprint(w, "ok")
		}))
		t.Cleanup(origin.Close)
		return origin.URL, seen
	}
	config := func(how string) string {
		return "defaults:\n  audit: {bodies: request, max_body: 2MiB, on_full: " + how + "}\n"
	}
	body := strings.Repeat("words that fill a queue, ", 80_000)
	// fill sends what the queue has no room for, and tells how many were answered.
	fill := func(b *box, origin string) (answered int) {
		c := b.client()
		c.Timeout = time.Minute
		slowest := time.Duration(0)
		for range 12 {
			began := time.Now()
			resp, err := c.Do(request(b.t, http.MethodPost, origin, body))
			if err != nil {
				break
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				break
			}
			answered++
			slowest = max(slowest, time.Since(began))
			c.Timeout = 8*time.Second + 10*slowest // then it is held up; a busy machine takes seconds for each of the others
		}
		return answered
	}
	for name, output := range map[string]func(t *testing.T) string{
		"full disk":    func(*testing.T) string { return "/dev/full" },
		"stuck reader": func(t *testing.T) string { t.Helper(); return "syslog+tcp://" + newSlowReader(t).l.Addr().String() },
	} {
		t.Run(name+", block", func(t *testing.T) {
			origin, _ := start(t)
			b := startTo(t, output(t), config("block"))
			if n := fill(b, origin); n < 5 || n > 10 {
				t.Errorf("%d exchanges ended", n)
			}
			if n := b.metric(t, "httpowerd_audit_dropped_total"); n != 0 {
				t.Errorf("%v records dropped", n)
			}
		})
		t.Run(name+", drop", func(t *testing.T) {
			origin, _ := start(t)
			b := startTo(t, output(t), config("drop"))
			if n := fill(b, origin); n != 12 {
				t.Errorf("%d exchanges ended; want 12", n)
			}
			if n := b.metric(t, "httpowerd_audit_dropped_total"); n < 2 {
				t.Errorf("%v records dropped", n)
			}
		})
	}
	t.Run("full disk, fail-closed", func(t *testing.T) {
		origin, seen := start(t)
		b := startTo(t, "/dev/full", config("fail-closed"))
		b.waitFor(t, "httpowerd_audit_write_failures_total", 1)
		a := do(t, b.client(), request(t, http.MethodPost, origin, body))
		refused(t, a, http.StatusServiceUnavailable, "overloaded")
		if !strings.Contains(a.body, "the audit trail takes no records") || a.Header.Get("Retry-After") == "" {
			t.Error(a.Header, a.body)
		}
		c, err := net.Dial("tcp", b.ProxyAddrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", strings.TrimPrefix(origin, "http://"))
		line, _ := bufio.NewReader(c).ReadString('\n')
		if line != "HTTP/1.1 503 httpowerd: overloaded\r\n" {
			t.Errorf("CONNECT: %q", line)
		}
		if n := seen.Load(); n != 0 {
			t.Errorf("%d requests went out unrecorded", n)
		}
		if n := b.metric(t, "httpowerd_audit_refused_total"); n != 2 {
			t.Errorf("%v refused; want 2", n)
		}
	})
	t.Run("no reader, fail-closed", func(t *testing.T) {
		origin, seen := start(t)
		s := newSlowReader(t)
		s.let()
		l, err := net.Listen("tcp", "127.0.0.2:0") // where nobody else is given the port meanwhile
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		b := startTo(t, "syslog+tcp://"+address, "audit: {also: [\"syslog+tcp://"+s.l.Addr().String()+"\"]}\n"+config("fail-closed"))
		b.waitFor(t, "httpowerd_audit_write_failures_total", 1)
		c := b.client()
		a := get(t, c, origin)
		refused(t, a, http.StatusServiceUnavailable, "overloaded")
		if l, err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if c, err := l.Accept(); err == nil {
				defer c.Close()
				_, _ = io.Copy(io.Discard, c)
			}
		}()
		s.has(t, `"outcome":"overloaded","detail":"the audit trail takes no records`) // its copy comes when the output has it
		s.has(t, `"id":"`+a.Header.Get("Httpowerd-Request-Id")+`"`)
		deadline := time.Now().Add(10 * time.Second)
		for get(t, c, origin).StatusCode != http.StatusOK {
			if time.Now().After(deadline) {
				t.Fatal("nothing gets through, though the output is back")
			}
			time.Sleep(50 * time.Millisecond)
		}
		if n := seen.Load(); n != 1 {
			t.Errorf("the upstream got %d requests; want 1", n)
		}
	})
	t.Run("stuck reader, fail-closed", func(t *testing.T) {
		origin, seen := start(t)
		s := newSlowReader(t)
		b := startTo(t, "syslog+tcp://"+s.l.Addr().String(), config("fail-closed"))
		n := fill(b, origin)
		stuck := strings.Contains(b.log.String(), "a write has not returned") // a busy machine has not filled the queue by then
		if n > 10 || n < 5 && (!stuck || n == 0) {
			t.Errorf("%d exchanges ended", n)
		}
		sent := seen.Load() // the last of which waits for its record
		c := b.client()
		refused(t, do(t, c, request(t, http.MethodPost, origin, body)), http.StatusServiceUnavailable, "overloaded")
		for range 20 { // refusals never wait for room
			refused(t, get(t, c, origin), http.StatusServiceUnavailable, "overloaded")
		}
		if n := seen.Load(); n != sent {
			t.Errorf("%d requests went out unrecorded", n-sent)
		}
		all := int(b.metric(t, "httpowerd_audit_refused_total"))
		if all < 21 { // those above, and perhaps the one that fill ended with
			t.Errorf("%d refusals are counted", all)
		}
		s.let()
		s.refusals(t, all)
		deadline := time.Now().Add(10 * time.Second)
		for get(t, c, origin).StatusCode != http.StatusOK {
			if time.Now().After(deadline) {
				t.Fatal("nothing gets through, though the reader reads again")
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

// waitFor waits until a metric has reached a value.
func (b *box) waitFor(t *testing.T, name string, least float64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); b.metric(t, name) < least; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not get to %v", name, least)
		}
	}
}

// metric is the sum of a metric over its labels.
func (b *box) metric(t *testing.T, name string) (sum float64) {
	t.Helper()
	families, err := b.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}
