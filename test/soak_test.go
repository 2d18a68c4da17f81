package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestSoak is half a minute (SOAK sets another duration) of traffic in every mode, with upstreams that fail, clients that leave, and reloads. No exchange may be lost: each has the
// end that was due and one audit record, and what records, metrics and upstreams have counted is the same. A tunnel stays open throughout. Memory, goroutines
// and file descriptors are at the end where they were when the daemon was warm (A70).
func TestSoak(t *testing.T) {
	length := 30 * time.Second
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	ca, o := newAuthority(t), &soaked{seen: map[string]*int32{}, leaving: map[string]context.CancelFunc{}}
	plain, secure, two := serve(t, nil, false, o), serve(t, ca, false, o), serve(t, ca, true, o)
	blind := &counted{}
	tunnelled := serve(t, ca, false, blind)
	dir := t.TempDir()
	config := func(round int) string {
		return fmt.Sprintf(`audit: {output: %s, max_size: 64GiB}
defaults: {timeout: {attempt: %ds}, retry: {backoff: {base: 5ms}}}
hosts:
  plain.example.com: {upstream: {resolve: {plain.example.com: "%s"}}}
  one.example.com: {tls: intercept, upstream: {resolve: {one.example.com: "%s"}, ca: %s}}
  two.example.com: {tls: intercept, upstream: {resolve: {two.example.com: "%s"}, ca: %s}}
  upgrade.example.com: {upgrade: https, upstream: {resolve: {upgrade.example.com: "%s"}, ca: %s}}
  tunnel.example.com: {upstream: {resolve: {tunnel.example.com: "%s"}}}
  echo.example.com: {upstream: {resolve: {echo.example.com: "%s"}}}
`, filepath.Join(dir, "audit.jsonl"), 30+round%10, plain, secure, ca.certFile, two, ca.certFile, secure, ca.certFile, tunnelled, o.echo)
	}
	o.echo = serveEcho(t)
	d := start(t, config(0))
	d.audit = filepath.Join(dir, "audit.jsonl")
	tunnel := openTunnel(t, d)
	_ = tunnel.conn.SetDeadline(time.Now().Add(length + time.Minute))

	s := &soak{t: t, d: d, ca: ca, origin: o}
	s.run(length / 5)
	warm := s.usage()
	begin := time.Now()
	s.start()
	for round := 1; time.Since(begin) < length*4/5; round++ {
		time.Sleep(min(10*time.Second, length/10))
		d.write(config(round))
		d.signal(syscall.SIGHUP)
		tunnel.echo(t, fmt.Sprintf("round %d\n", round))
	}
	s.stop()
	tunnel.echo(t, "at the end\n")
	tunnel.close()
	end := s.usage()
	t.Logf("%d exchanges and %d tunnels in %s; warm %+v, at the end %+v", len(s.done), blind.n.Load(), length, warm, end)
	if end.rss > warm.rss*3/2 || end.goroutines > warm.goroutines+10 || end.descriptors > warm.descriptors+20 {
		t.Errorf("the daemon grew from %+v to %+v", warm, end)
	}
	s.account(blind)
	d.stop()
	if out, err := exec.Command(binary, "audit", "verify", d.audit).CombinedOutput(); err != nil {
		t.Errorf("audit verify: %v\n%s", err, out)
	}
}

// soaked is the upstream. The path of a request says what becomes of it: /WORD/ID.
type soaked struct {
	echo    string // the address of another one
	mu      sync.Mutex
	seen    map[string]*int32 // requests by id
	leaving map[string]context.CancelFunc
}

func (o *soaked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, word, _ := strings.Cut(r.URL.Path, "/")
	word, id, _ := strings.Cut(word, "/")
	o.mu.Lock()
	if o.seen[id] == nil {
		o.seen[id] = new(int32)
	}
	*o.seen[id]++
	n, leave := *o.seen[id], o.leaving[id]
	o.mu.Unlock()
	control := http.NewResponseController(w)
	switch {
	case word == "post":
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	case word == "big":
		_, _ = w.Write(bigAnswer)
	case word == "flaky" && n == 1:
		w.WriteHeader(http.StatusServiceUnavailable)
	case word == "reset" && n == 1, word == "cut" && n > 1: // the second is for a client that asks again, which none does
		panic(http.ErrAbortHandler)
	case word == "cut":
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "part")
		_ = control.Flush()
		time.Sleep(5 * time.Millisecond)
		panic(http.ErrAbortHandler)
	case word == "abandon": // its client leaves before the head
		leave()
		<-r.Context().Done()
	case word == "abort": // and this one's within the body
		_, _ = io.WriteString(w, "part")
		_ = control.Flush()
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	default:
		_, _ = io.WriteString(w, "ok")
	}
}

var bigAnswer = bytes.Repeat([]byte("0123456789abcdef"), 16<<10)

// counted is an upstream behind blind tunnels.
type counted struct{ n atomic.Int64 }

func (c *counted) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.n.Add(1)
	_, _ = io.WriteString(w, "ok")
}

// soak is the clients.
type soak struct {
	t      *testing.T
	d      *daemon
	ca     *authority
	origin *soaked
	ids    atomic.Int64
	inside atomic.Int64 // CONNECTs that carry requests in clear: their connection is an attempt, and what they carry is recorded
	quit   chan struct{}
	wg     sync.WaitGroup
	mu     sync.Mutex
	done   map[string]string // words by id
	failed int
}

// words are what is asked, in turn: one request in ten meets something bad, which the retry budget bears.
var words = []string{"ok", "post", "flaky", "ok", "big", "ok", "ok", "post", "cut", "ok", "ok", "big", "abort", "ok", "post", "reset", "ok", "ok", "abandon", "ok", "ok", "ok", "big", "ok", "ok"}

func (s *soak) run(length time.Duration) {
	s.start()
	time.Sleep(length)
	s.stop()
}

func (s *soak) start() {
	s.quit = make(chan struct{})
	roots := s.ca.pool()
	roots.AppendCertsFromPEM([]byte(s.d.ask("/ca.pem")))
	client := func(http2 bool, change func(*http.Transport)) *http.Client {
		transport := &http.Transport{Proxy: http.ProxyURL(s.d.proxyURL()), TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: new(http.Protocols), DisableCompression: true}
		transport.Protocols.SetHTTP1(true)
		transport.Protocols.SetHTTP2(http2)
		if change != nil {
			change(transport)
		}
		return &http.Client{Transport: transport, Timeout: 2 * patience}
	}
	for _, way := range []struct {
		base   string
		client *http.Client
	}{
		{"http://plain.example.com", client(false, nil)},
		{"http://upgrade.example.com", client(false, nil)},
		{"https://one.example.com", client(false, nil)},
		{"https://two.example.com", client(true, nil)},
		{"http://plain.example.com", client(false, func(t *http.Transport) { t.Proxy, t.DialContext = nil, s.tunnelled })},
		{"https://tunnel.example.com", client(false, func(t *http.Transport) { t.DisableKeepAlives = true })},
	} {
		for worker := range 2 {
			s.wg.Go(func() {
				defer way.client.CloseIdleConnections()
				for i := worker * len(words) / 2; ; i++ {
					select {
					case <-s.quit:
						return
					case <-time.After(8 * time.Millisecond): // or a long run would be one of the machine's speed
					}
					s.ask(way.client, way.base, words[i%len(words)])
				}
			})
		}
	}
}

// tunnelled dials by CONNECT for requests that are in clear within it.
func (s *soak) tunnelled(ctx context.Context, _, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", s.d.proxy)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", addr, addr)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return &inside{Conn: c, n: &s.inside}, err
}

// inside is a tunnel that counts as one with requests in it once there is one.
type inside struct {
	net.Conn
	once sync.Once
	n    *atomic.Int64
}

func (c *inside) Write(p []byte) (int, error) {
	c.once.Do(func() { c.n.Add(1) })
	return c.Conn.Write(p)
}

func (s *soak) stop() {
	close(s.quit)
	s.wg.Wait()
}

// ask makes one exchange and looks at its end.
func (s *soak) ask(client *http.Client, base, word string) {
	id := "soak-" + strconv.FormatInt(s.ids.Add(1), 10)
	blind := strings.Contains(base, "tunnel")
	if blind {
		word = "ok"
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	method, body := http.MethodGet, ""
	if word == "post" {
		method, body = http.MethodPost, string(bigAnswer[:20_000])
	}
	s.origin.mu.Lock()
	if word == "abandon" {
		s.origin.leaving[id] = cancel
	}
	s.origin.mu.Unlock()
	r, _ := http.NewRequestWithContext(ctx, method, base+"/"+word+"/"+id, strings.NewReader(body))
	r.Header.Set("X-Request-Id", id)
	got := ""
	resp, err := client.Do(r)
	if err == nil {
		if word == "abort" {
			_, err = io.ReadFull(resp.Body, make([]byte, 4))
			got = "part"
		} else {
			var b []byte
			b, err = io.ReadAll(resp.Body)
			got = string(b)
		}
		_ = resp.Body.Close()
	}
	want := map[string]string{"post": "20000", "big": string(bigAnswer), "abort": "part", "cut": "part"}[word]
	if want == "" {
		want = "ok"
	}
	fine := err == nil && resp.StatusCode == http.StatusOK && got == want
	switch word {
	case "abandon":
		fine = errors.Is(err, context.Canceled)
	case "cut":
		fine = err != nil && resp != nil && got == want
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !fine {
		if s.failed++; s.failed < 10 {
			s.t.Errorf("%s/%s/%s: %v, %v, %.40q", base, word, id, resp, err, got)
		}
	}
	if !blind {
		if s.done == nil {
			s.done = map[string]string{}
		}
		s.done[id] = word
	}
}

// usage is what the daemon holds when nobody asks.
type usage struct{ rss, goroutines, descriptors int }

// usage waits until the daemon holds no more than what it keeps: connections that end do, and it has given back what was garbage (governor.Rest), which it does
// when nobody asks for anything, metrics included, for a second.
func (s *soak) usage() usage {
	s.t.Helper()
	var last usage
	eventually(s.t, "the daemon rests", func() error {
		page := s.d.ask("/metrics")
		now := usage{residentSize(s.t, s.d.cmd.Process.Pid, "VmRSS:"), int(metric(page, "go_goroutines")), int(metric(page, "process_open_fds"))}
		before := last
		if last = now; now.goroutines != before.goroutines || now.descriptors != before.descriptors || now.rss < before.rss-1<<20 {
			time.Sleep(2 * time.Second)
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	return last
}

// account compares what was asked, recorded, counted and received.
func (s *soak) account(blind *counted) {
	t := s.t
	type entry struct {
		ID, Kind, Host, Outcome string
		Attempts                []json.RawMessage
	}
	records, kinds, outcomes, lines, attempts := map[string][]entry{}, map[string]int{}, map[string]float64{}, 0, 0
	tunnelAttempts := 0
	var counts samples
	eventually(t, "everything is recorded", func() error {
		if counts = parseMetrics(s.d.ask("/metrics")); sum(counts, "httpowerd_tunnels_active") != 0 {
			return errors.New("there are tunnels")
		}
		data, err := os.ReadFile(s.d.audit)
		if err != nil {
			return err
		}
		clear(records)
		clear(kinds)
		clear(outcomes)
		lines, attempts, tunnelAttempts = 0, 0, 0
		for line := range bytes.Lines(data) {
			var e entry
			if err := json.Unmarshal(line, &e); err != nil {
				return err
			}
			lines++
			kinds[e.Kind]++
			if e.Kind == "request" {
				records[e.ID] = append(records[e.ID], e)
				outcomes[e.Host+" "+e.Outcome]++
				attempts += len(e.Attempts)
			} else {
				tunnelAttempts += len(e.Attempts)
			}
		}
		if n := int(sum(counts, "httpowerd_audit_records_total")); lines != n || len(records) < len(s.done) {
			return fmt.Errorf("%d of %d exchanges, %d lines of %d records", len(records), len(s.done), lines, n)
		}
		return nil
	})
	wrong := 0
	complain := func(format string, args ...any) {
		if wrong++; wrong < 10 {
			t.Errorf(format, args...)
		}
	}
	outcomeOf := map[string]string{"cut": "upstream_reset", "abort": "client_gone", "abandon": "client_gone"}
	received := 0
	for id, word := range s.done {
		seen := 0
		if n := s.origin.seen[id]; n != nil {
			seen = int(*n)
		}
		received += seen
		want, due := outcomeOf[word], 1
		if want == "" {
			want = "ok"
		}
		if word == "flaky" || word == "reset" {
			due = 2
		}
		got := records[id]
		if len(got) != 1 || got[0].Outcome != want || len(got[0].Attempts) != due || seen != due {
			complain("%s %s: the upstream received %d; recorded is %+v", word, id, seen, got)
		}
	}
	if len(records) != len(s.done) || received != attempts || len(s.origin.seen) != len(s.done) {
		t.Errorf("%d exchanges of %d attempts; %d are recorded with %d attempts; the upstream received %d with %d", len(s.done), received, len(records), attempts, len(s.origin.seen), received)
	}
	metrics := map[string]float64{}
	for _, sample := range counts["httpowerd_requests_total"] {
		metrics[sample.labels["host"]+" "+sample.labels["outcome"]] += sample.value
	}
	for key, n := range outcomes {
		if metrics[key] != n {
			t.Errorf("%s: %v are recorded, %v counted", key, n, metrics[key])
		}
	}
	if total := sum(counts, "httpowerd_requests_total"); int(total) != kinds["request"] {
		t.Errorf("%d requests are recorded, %v counted", kinds["request"], total)
	}
	if total := sum(counts, "httpowerd_attempts_total"); int64(total) != int64(attempts+tunnelAttempts)+s.inside.Load() {
		t.Errorf("%d and %d attempts are recorded, %d connections were for requests in clear, %v are counted", attempts, tunnelAttempts, s.inside.Load(), total)
	}
	if total := sum(counts, "httpowerd_tunnels_total"); int(total) != kinds["tunnel"] || int64(kinds["tunnel"]) < blind.n.Load() {
		t.Errorf("%d tunnels are recorded, %v counted; %d requests came by tunnels of their own", kinds["tunnel"], total, blind.n.Load())
	}
	if n := sum(counts, "httpowerd_audit_dropped_total"); n != 0 {
		t.Errorf("%v records were dropped", n)
	}
}

func sum(s samples, family string) (n float64) {
	for _, one := range s[family] {
		n += one.value
	}
	return n
}
