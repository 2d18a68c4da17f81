package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is an upstream that reads request heads and says what its script says.
type origin struct {
	net.Listener
	mu    sync.Mutex
	heads []string
	conns int
	wg    sync.WaitGroup
	open  []net.Conn
}

// serve answers each connection by talk, which gets the connection's number from 0.
func serve(t *testing.T, talk func(n int, c net.Conn, br *bufio.Reader, o *origin)) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{Listener: l}
	o.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			n := o.conns
			o.conns++
			o.open = append(o.open, c)
			o.mu.Unlock()
			o.wg.Go(func() { defer c.Close(); talk(n, c, bufio.NewReader(c), o) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		o.mu.Lock()
		for _, c := range o.open {
			c.Close()
		}
		o.mu.Unlock()
		o.wg.Wait()
	})
	return o
}

// head reads and remembers a request's head; "" at the end.
func (o *origin) head(br *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := br.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return ""
		}
		if line == "\r\n" {
			o.mu.Lock()
			o.heads = append(o.heads, b.String())
			o.mu.Unlock()
			return b.String()
		}
	}
}

func (o *origin) seen() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.heads...)
}

// says answers every request with the same bytes.
func says(t *testing.T, answer string) *origin {
	return serve(t, func(_ int, c net.Conn, br *bufio.Reader, o *origin) {
		for o.head(br) != "" {
			io.WriteString(c, answer)
		}
	})
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// fixed resolves names from a table.
type fixed map[string][]netip.Addr

func (f fixed) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := f[host]; ok {
		return append([]netip.Addr(nil), a...), nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

type setup struct {
	options Options
	up      func(*upstream.Config)
	rules   destination.Config
	remote  bool // the proxy listens beyond loopback
	tunnels bool
	limits  timeout.Config
}

// onStandard has net/http speak HTTP/1.1.
var onStandard = os.Getenv("HTTPOWERD_WIRE") == "standard"

func end(t testing.TB, s setup) http.RoundTripper {
	t.Helper()
	up := upstream.Default()
	if s.up != nil {
		s.up(&up)
	}
	if faults := up.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	if s.rules.Private == "" {
		s.rules = destination.Default()
	}
	rules, err := destination.Compile(s.rules, !s.remote)
	if err != nil {
		t.Fatal(err)
	}
	if s.limits == (timeout.Config{}) {
		s.limits = timeout.Config{Connect: setting.Duration(5 * time.Second), TLS: setting.Duration(5 * time.Second)}
	}
	s.options.Standard = onStandard
	if s.options.Registerer == nil {
		s.options.Registerer = prometheus.NewRegistry()
	}
	return compiled(t, New(s.options), s, up, rules)
}

// endOf is end with an Egress of the test's own.
func endOf(t testing.TB, e *Egress, s setup) http.RoundTripper {
	t.Helper()
	rules, err := destination.Compile(destination.Default(), true)
	if err != nil {
		t.Fatal(err)
	}
	s.limits = timeout.Config{Connect: setting.Duration(5 * time.Second), TLS: setting.Duration(5 * time.Second)}
	return compiled(t, e, s, upstream.Default(), rules)
}

func newRegistry() prometheus.Registerer { return prometheus.NewRegistry() }

func compiled(t testing.TB, e *Egress, s setup, up upstream.Config, rules *destination.Rules) http.RoundTripper {
	t.Helper()
	keeper := new(state.Keeper)
	g := keeper.Begin()
	compile := e.Requests
	if s.tunnels {
		compile = e.Tunnels
	}
	rt, err := compile(state.Scope{Generation: g, Policy: "test"}, up, s.limits, rules)
	if err != nil {
		t.Fatal(err)
	}
	g.Commit()
	t.Cleanup(func() { keeper.Begin().Commit() })
	return rt
}

func (o *origin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.conns
}

// request makes one with its exchange.
func request(t testing.TB, method, rawURL, body string) (*http.Request, *exchange.Exchange) {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(80)
	if u.Scheme == "https" {
		port = 443
	}
	a, err := exchange.ParseAuthority(u.Host, port)
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange.Exchange{Host: "label", Target: a, Scheme: u.Scheme, Method: method}
	u.Host = a.String()
	r := (&http.Request{Method: method, URL: u, Host: a.ForScheme(u.Scheme), Header: http.Header{}}).WithContext(
		exchange.NewContext(t.Context(), x))
	if body != "" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	return r, x
}

// get sends a request and returns the answer as one line: status and body, or the error.
func get(rt http.RoundTripper, r *http.Request) string {
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return describe(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Sprintf("%d %s then %s", resp.StatusCode, b, describe(err))
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, b)
}

func describe(err error) string {
	if r, ok := errors.AsType[*exchange.Refusal](err); ok {
		return "refusal " + string(r.Code)
	}
	f, ok := errors.AsType[*exchange.Failure](err)
	if !ok {
		return "error " + err.Error()
	}
	s := "failure " + string(f.Code)
	if f.Sent {
		s += " sent"
	}
	if f.Permanent {
		s += " permanent"
	}
	return s
}

func want(t testing.TB, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
