package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"httpowerd/internal/policy"
)

// box is a daemon under test with everything it writes.
type box struct {
	*Daemon
	t       *testing.T
	config  string
	audit   string
	log     *buffer
	stopped sync.Once
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a daemon on free ports with a configuration (without version:), and stops it with the test.
func start(t *testing.T, config string) *box {
	t.Helper()
	return startOn(t, config, "127.0.0.1:0")
}

// wireOf is whose HTTP/1.1 the tests are run on, where HTTPOWERD_WIRE says so.
func wireOf() *string {
	if w := os.Getenv("HTTPOWERD_WIRE"); w != "" {
		return &w
	}
	return nil
}

// onStandard tells whether that is net/http's.
func onStandard() bool {
	w := wireOf()
	return w != nil && *w == policy.WireStandard
}

func startOn(t *testing.T, config, listen string) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{t: t, config: filepath.Join(dir, "httpowerd.yaml"), audit: filepath.Join(dir, "audit.jsonl"), log: &buffer{}}
	b.write(config)
	b.begin(listen)
	return b
}

// restart ends the daemon and starts another one in its place, with the same files.
func (b *box) restart() *box {
	b.t.Helper()
	b.stop()
	next := &box{t: b.t, config: b.config, audit: b.audit, log: &buffer{}}
	next.begin("127.0.0.1:0")
	return next
}

func (b *box) begin(listen string) {
	t := b.t
	t.Helper()
	admin, state := "127.0.0.1:0", filepath.Join(filepath.Dir(b.config), "state")
	d, err := Start(Options{Version: "test", Log: b.log, Source: policy.Source{Path: b.config, Overrides: policy.Overrides{
		Listen: []string{listen}, Admin: &admin, AuditOutput: &b.audit, StateDir: &state, Wire: wireOf()}}})
	if err != nil {
		t.Fatal(err)
	}
	b.Daemon = d
	running.Add(1)
	t.Cleanup(b.stop)
}

func (b *box) write(config string) {
	b.t.Helper()
	text := "version: 1\n" + config
	if !strings.Contains(config, "drain:") {
		text += "\ndrain: {timeout: 5s}\n"
	}
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// running is how many daemons there are.
var running atomic.Int32

// nothingLeft looks for goroutines that daemons have left behind, whatever their clients and upstreams did.
func nothingLeft(t *testing.T) {
	t.Helper()
	var left string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		stacks := make([]byte, 4<<20)
		left = ""
		for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(stack, "/internal/") && !strings.Contains(stack, "_test.go:") && strings.Contains(stack, "\nhttpowerd/internal/") {
				left = stack
			}
		}
		if left == "" {
			return
		}
	}
	t.Errorf("a daemon has ended, and left a goroutine behind:\n%s", left)
}

// somebodyIn waits until a goroutine is in that function.
func somebodyIn(t *testing.T, function string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		stacks := make([]byte, 4<<20)
		if bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte(function+"(")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody is in %s", function)
		}
	}
}

// stop drains; what is still open is cut.
func (b *box) stop() {
	b.stopped.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = b.Shutdown(ctx)
		if running.Add(-1) == 0 {
			nothingLeft(b.t)
		}
		if strings.Contains(b.log.String(), "panicked") && !strings.Contains(b.t.Name(), "Panic") {
			b.t.Errorf("something panicked:\n%s", b.log)
		}
	})
}

func (b *box) proxyURL() *url.URL { return &url.URL{Scheme: "http", Host: b.ProxyAddrs()[0]} }

// client goes through the proxy and trusts its CA and the origins given.
func (b *box) client(origins ...*httptest.Server) *http.Client {
	b.t.Helper()
	roots := x509.NewCertPool()
	for _, o := range origins {
		if cert := o.Certificate(); cert != nil {
			roots.AddCert(cert)
		}
	}
	ca, err := b.CA()
	if err != nil {
		b.t.Fatal(err)
	}
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{Proxy: http.ProxyURL(b.proxyURL()), TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true,
		Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(true)
	b.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// onlyHTTP2 has an origin that is not started yet refuse clients that do not offer HTTP/2, so that it is spoken to whatever the client speaks.
func onlyHTTP2(o *httptest.Server) {
	o.EnableHTTP2 = true
	o.TLS = &tls.Config{}
	o.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		config := o.TLS.Clone()
		if !slices.Contains(hello.SupportedProtos, "h2") {
			config.NextProtos = []string{"h3"}
		}
		return config, nil
	}
}

// h2 makes a client speak HTTP/2 where it can.
func h2(c *http.Client) *http.Client {
	c.Transport.(*http.Transport).Protocols.SetHTTP2(true)
	return c
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

// do sends a request; what fails is the test's end.
func do(t *testing.T, c *http.Client, r *http.Request) answer {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the answer's body: %v", err)
	}
	return answer{resp, string(body)}
}

func get(t *testing.T, c *http.Client, url string) answer {
	t.Helper()
	return do(t, c, request(t, http.MethodGet, url, ""))
}

func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, url, content)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// refused checks that an answer is the proxy's own with this code, in every place that says so.
func refused(t *testing.T, a answer, status int, code string) {
	t.Helper()
	var problem struct {
		Type, Title, Detail, Code string
		Status                    int
		RequestID                 string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(a.body), &problem); err != nil {
		t.Errorf("the refusal is no JSON: %v: %q", err, a.body)
		return
	}
	if a.StatusCode != status || problem.Status != status || problem.Code != code || problem.Type != "urn:httpowerd:error:"+code ||
		a.Header.Get("Httpowerd-Error") != code || !strings.HasPrefix(a.Header.Get("Proxy-Status"), "httpowerd; error=") ||
		a.Header.Get("Content-Type") != "application/problem+json" || problem.RequestID == "" ||
		a.Header.Get("Httpowerd-Request-Id") != problem.RequestID {
		t.Errorf("%s %v %s; want %d %s in every place", a.Status, a.Header, a.body, status, code)
	}
}

// record is one audit record.
type record map[string]any

func (r record) text(key string) string { s, _ := r[key].(string); return s }

// begun is when what it tells of began.
func (r record) begun() time.Time {
	end, _ := time.Parse(time.RFC3339Nano, r.text("time"))
	took, _ := r["duration_ms"].(float64)
	return end.Add(-time.Duration(took * float64(time.Millisecond)))
}

// records waits until n records of requests and tunnels are written, and returns them in the order in which those began: each is written behind its answer, perhaps after
// the next one's.
func (b *box) records(n int) []record {
	b.t.Helper()
	var out []record
	deadline := time.Now().Add(10 * time.Second)
	for {
		out = out[:0]
		data, _ := os.ReadFile(b.audit)
		for _, line := range bytes.Split(data, []byte("\n")) {
			var r record
			if len(line) == 0 || json.Unmarshal(line, &r) != nil {
				continue
			}
			if kind := r.text("kind"); kind == "request" || kind == "tunnel" {
				out = append(out, r)
			}
		}
		if len(out) >= n || time.Now().After(deadline) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if len(out) != n {
		b.t.Fatalf("%d audit records; want %d", len(out), n)
	}
	slices.SortStableFunc(out, func(one, other record) int { return one.begun().Compare(other.begun()) })
	return out
}

// want checks fields of a record.
func (r record) want(t *testing.T, fields map[string]any) {
	t.Helper()
	for key, want := range fields {
		if fmt.Sprint(r[key]) != fmt.Sprint(want) {
			t.Errorf("the record's %s is %v; want %v\n%v", key, r[key], want, r)
		}
	}
}

// rawOrigin is an upstream that notes what it receives byte for byte and answers from a list.
type rawOrigin struct {
	addr  string
	mu    sync.Mutex
	got   []string
	conns []int // the number of the connection that each came by
	open  int   // connections so far
	wait  sync.WaitGroup
}

// newRawOrigin answers the n-th request with answers[n], the last one for ever; an answer that ends in "<close>" closes the connection after it,
// "<reset>" resets it, "<hang>" keeps it open without another byte.
func newRawOrigin(t *testing.T, answers ...string) *rawOrigin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveRaw(t, l, inTurn(answers...))
}

// script is what an upstream answers to the n-th request, counted from 0.
type script func(n int, request string) string

// inTurn answers from a list, the last one for ever.
func inTurn(answers ...string) script {
	return func(n int, _ string) string { return answers[min(n, len(answers)-1)] }
}

func serveRaw(t *testing.T, l net.Listener, answers script) *rawOrigin {
	o := &rawOrigin{addr: l.Addr().String()}
	done := make(chan struct{})
	t.Cleanup(func() {
		close(done)
		l.Close()
		o.wait.Wait()
	})
	o.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.wait.Go(func() { o.serve(c, answers, done) })
		}
	})
	return o
}

func (o *rawOrigin) serve(c net.Conn, answers script, done chan struct{}) {
	defer c.Close()
	ended := make(chan struct{})
	defer close(ended)
	go func() { // ends what hangs
		select {
		case <-done:
			c.Close()
		case <-ended:
		}
	}()
	o.mu.Lock()
	number := o.open
	o.open++
	o.mu.Unlock()
	var raw bytes.Buffer
	r := bufio.NewReader(io.TeeReader(c, &raw))
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, err = io.Copy(io.Discard, req.Body)
		if err != nil {
			return
		}
		o.mu.Lock()
		n := len(o.got)
		o.conns = append(o.conns, number)
		o.got = append(o.got, string(raw.Bytes()[:raw.Len()-r.Buffered()]))
		raw.Next(raw.Len() - r.Buffered())
		o.mu.Unlock()
		text := answers(n, o.requests()[n])
		for _, end := range []string{"<close>", "<reset>", "<hang>"} {
			if !strings.HasSuffix(text, end) {
				continue
			}
			_, _ = io.WriteString(c, strings.TrimSuffix(text, end))
			switch end {
			case "<reset>":
				if secure, ok := c.(*tls.Conn); ok {
					c = secure.NetConn()
				}
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			case "<hang>":
				<-done
			}
			return
		}
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

// requests are what came so far.
func (o *rawOrigin) requests() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.got...)
}

// connections are the numbers of the connections that the requests came by.
func (o *rawOrigin) connections() []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]int(nil), o.conns...)
}

// opened is how many connections there were.
func (o *rawOrigin) opened() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open
}

func (o *rawOrigin) url(path string) string { return "http://" + o.addr + path }

// ok is a plain answer.
const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// dialProxy opens a connection to the proxy for bytes of one's own.
func (b *box) dialProxy() *rawClient {
	b.t.Helper()
	return dialRaw(b.t, b.ProxyAddrs()[0])
}

func dialRaw(t *testing.T, addr string) *rawClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	return &rawClient{Conn: c, t: t, r: bufio.NewReader(c)}
}

// rawClient sends bytes and reads answers.
type rawClient struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (c *rawClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer to a request of this method.
func (c *rawClient) answer(method string) answer {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("reading an answer: %v", err)
	}
	if method == http.MethodConnect && resp.StatusCode == http.StatusOK {
		return answer{resp, ""}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("reading an answer's body: %v", err)
	}
	return answer{resp, string(body)}
}

// connect opens a tunnel.
func (c *rawClient) connect(authority string) answer {
	c.t.Helper()
	c.send("CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n\r\n")
	return c.answer(http.MethodConnect)
}

// rest reads until the proxy closes.
func (c *rawClient) rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		c.t.Fatalf("reading to the end: %v", err)
	}
	return string(b)
}

// Read reads what the buffer holds first: for a TLS client on top.
func (c *rawClient) Read(p []byte) (int, error) { return c.r.Read(p) }

// originCA writes an origin's certificate for upstream.ca.
func originCA(t *testing.T, o *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "origin.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
