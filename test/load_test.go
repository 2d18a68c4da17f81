package test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestReloadUnderLoad reloads twenty times while clients with kept-alive connections ask without a pause. No request may fail, and a tunnel
// that is open must stay. On one processor exchanges give way to each other before they write.
func TestReloadUnderLoad(t *testing.T) {
	for name, env := range map[string][]string{"all processors": nil, "one": {"GOMAXPROCS=1"}} {
		t.Run(name, func(t *testing.T) { reloadUnderLoad(t, env) })
	}
}

func reloadUnderLoad(t *testing.T, env []string) {
	ca := newAuthority(t)
	hosts := loadConfig(t, ca)
	d := start(t, hosts, env...)
	tunnel := openTunnel(t, d)
	load := startLoad(t, d, ca)
	const reloads = 20
	for i := 1; i <= reloads; i++ {
		d.write(hosts + fmt.Sprintf("defaults: {timeout: {attempt: %ds}}\n", 30+i))
		d.signal(syscall.SIGHUP)
		time.Sleep(100 * time.Millisecond) // real load between the reloads
		tunnel.echo(t, fmt.Sprintf("after reload %d\n", i))
	}
	asked, failures := load.stop()
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failures), asked, failures[0])
	}
	if asked < 500 {
		t.Errorf("there were only %d requests; that is no load", asked)
	}
	t.Logf("%d requests during %d reloads", asked, reloads)
	eventually(t, "reloads are counted", func() error {
		metrics := d.ask("/metrics")
		n := metric(metrics, `httpowerd_config_reloads_total{result="success"}`)
		if bad := metric(metrics, `httpowerd_config_reloads_total{result="failure"}`); bad > 0 {
			t.Errorf("%v reloads failed", bad)
		}
		if n < reloads/2 { // signals that arrive together count once
			return fmt.Errorf("%v of %d", n, reloads)
		}
		return nil
	})
	tunnel.echo(t, "at the end\n")
	tunnel.close()
	d.stop()
}

// TestTerminateUnderLoad ends the daemon while requests are being answered: each of them gets its answer (A70).
func TestTerminateUnderLoad(t *testing.T) {
	ca := newAuthority(t)
	var inside atomic.Int64
	release := make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inside.Add(1)
		<-release
		_, _ = io.WriteString(w, "in the end")
	})
	plain, tlsAddress := serve(t, nil, false, slow), serve(t, ca, true, slow)
	d := start(t, loadHosts(plain, tlsAddress, ca))
	client := proxied(t, d, ca)
	const each = 20
	var wg sync.WaitGroup
	var answered atomic.Int64
	for _, url := range []string{"http://plain.example.com/", "https://intercept.example.com/", "https://tunnel.example.com/"} {
		for range each {
			wg.Go(func() {
				resp, err := client.Get(url)
				if err != nil {
					t.Errorf("%s: %v", url, err)
					return
				}
				if got := body(t, resp); resp.StatusCode != http.StatusOK || got != "in the end" {
					t.Errorf("%s: %s %q", url, resp.Status, got)
					return
				}
				answered.Add(1)
			})
		}
	}
	eventually(t, "all requests are at the upstream", func() error {
		if n := inside.Load(); n != 3*each {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	d.signal(syscall.SIGTERM)
	eventually(t, "nobody new gets in", func() error {
		c, err := net.Dial("tcp", d.proxy)
		if err == nil {
			c.Close()
			return errors.New("the listener still accepts")
		}
		return nil
	})
	close(release)
	wg.Wait()
	client.CloseIdleConnections() // lets the tunnels end
	select {
	case <-d.exited:
	case <-time.After(patience):
		t.Fatal("the daemon did not end")
	}
	if d.err != nil || answered.Load() != 3*each {
		t.Errorf("%d of %d requests were answered, the daemon ended with %v", answered.Load(), 3*each, d.err)
	}
	if found := d.records(t, func(r record) bool { return r.Outcome == "ok" }); len(found) < 2*each+1 {
		t.Errorf("there are %d audit records; want one for each request and tunnel", len(found))
	}
}

// loadConfig starts upstreams that answer at once and returns the hosts for them.
func loadConfig(t *testing.T, ca *authority) string {
	quick := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
	return loadHosts(serve(t, nil, false, quick), serve(t, ca, true, quick), ca) + fmt.Sprintf(
		"  echo.example.com: {upstream: {resolve: {echo.example.com: \"%s\"}}}\n", serveEcho(t))
}

func loadHosts(plain, tls string, ca *authority) string {
	return fmt.Sprintf(`hosts:
  plain.example.com: {upstream: {resolve: {plain.example.com: "%s"}}}
  tunnel.example.com: {upstream: {resolve: {tunnel.example.com: "%s"}}}
  intercept.example.com: {tls: intercept, upstream: {resolve: {intercept.example.com: "%s"}, ca: %s}}
`, plain, tls, tls, ca.certFile)
}

// proxied is a client that keeps connections and trusts the upstreams and the daemon.
func proxied(t testing.TB, d *daemon, ca *authority) *http.Client {
	t.Helper()
	roots := ca.pool()
	roots.AppendCertsFromPEM([]byte(d.ask("/ca.pem")))
	transport := &http.Transport{Proxy: http.ProxyURL(d.proxyURL()), TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * patience}
}

// load is clients that ask without a pause until they are stopped.
type load struct {
	quit     chan struct{}
	wg       sync.WaitGroup
	asked    atomic.Int64
	mu       sync.Mutex
	failures []error
	client   *http.Client
}

func startLoad(t testing.TB, d *daemon, ca *authority) *load {
	t.Helper()
	l := &load{quit: make(chan struct{}), client: proxied(t, d, ca)}
	for _, url := range []string{"http://plain.example.com/", "https://intercept.example.com/", "https://tunnel.example.com/"} {
		for range 4 {
			l.wg.Go(func() { l.run(url) })
		}
	}
	return l
}

func (l *load) run(url string) {
	for {
		select {
		case <-l.quit:
			return
		default:
		}
		question := fmt.Sprintf("question %d", l.asked.Add(1))
		// Nothing is repeated on a POST, neither by this client nor by the proxy: each failure shows.
		resp, err := l.client.Post(url, "text/plain", strings.NewReader(question))
		if err == nil {
			var content []byte
			content, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil && (resp.StatusCode != http.StatusOK || string(content) != question) {
				err = fmt.Errorf("%s: %s: %.300s", url, resp.Status, content)
			}
		}
		if err != nil {
			l.mu.Lock()
			l.failures = append(l.failures, err)
			l.mu.Unlock()
		}
	}
}

func (l *load) stop() (int64, []error) {
	close(l.quit)
	l.wg.Wait()
	l.client.CloseIdleConnections()
	return l.asked.Load(), l.failures
}

// serveEcho runs an upstream that says back what it hears, by lines.
func serveEcho(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return listener.Addr().String()
}

// line is an open tunnel to an echo.
type line struct {
	conn net.Conn
	in   *bufio.Reader
}

func openTunnel(t testing.TB, d *daemon) *line {
	t.Helper()
	c, err := net.Dial("tcp", d.proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(c, "CONNECT echo.example.com:7 HTTP/1.1\r\nHost: echo.example.com:7\r\n\r\n")
	l := &line{c, bufio.NewReader(c)}
	resp, err := http.ReadResponse(l.in, &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("CONNECT: %v %v", resp, err)
	}
	return l
}

func (l *line) echo(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(l.conn, text); err != nil {
		t.Fatalf("the tunnel was cut: %v", err)
	}
	if got, err := l.in.ReadString('\n'); got != text {
		t.Fatalf("the tunnel said %q, %v; want %q", got, err, text)
	}
}

func (l *line) close() { _ = l.conn.Close() }

// metric is the value of a sample, 0 where there is none.
func metric(page, sample string) (value float64) {
	for text := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(text, sample+" "); ok {
			_, _ = fmt.Sscan(rest, &value)
		}
	}
	return value
}
