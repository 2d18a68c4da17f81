package wire

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"httpowerd/internal/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// serve starts a server with the handler and returns its address.
func serve(t testing.TB, handler http.HandlerFunc, change ...func(*Server)) (*Server, string) {
	t.Helper()
	s := &Server{Handler: handler, MaxHead: 8 << 10, HeaderTimeout: 5 * time.Second, Idle: time.Minute,
		Refused: func(w http.ResponseWriter, _ *http.Request, why *exchange.Refusal) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(why.HTTPStatus())
			_, _ = io.WriteString(w, why.Detail)
		}}
	for _, f := range change {
		f(s)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); err != http.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
	t.Cleanup(func() {
		_ = s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown returned %v", err)
		}
		wg.Wait()
	})
	return s, l.Addr().String()
}

// client is a raw client.
type client struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &client{c.(*net.TCPConn), t, bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.TCPConn, text); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer to its end.
func (c *client) answer(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("the body broke off after %q: %v", body, err)
	}
	return resp, string(body)
}

// rest reads until the connection ends.
func (c *client) rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	if err != nil {
		c.t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

// upstream answers each connection by talk.
func upstream(t testing.TB, talk func(n int, c *net.TCPConn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				talk(n, c.(*net.TCPConn), bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// head reads a request's head; "" at the end.
func head(r *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return ""
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// says answers every request with the same.
func says(answer string) func(int, *net.TCPConn, *bufio.Reader) {
	return func(_ int, c *net.TCPConn, r *bufio.Reader) {
		for head(r) != "" {
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

// seen is a Watch that notes what it is told.
type seen struct {
	mu            sync.Mutex
	conn          net.Conn // the last one
	reused        []bool
	written       int
	informational []int
}

func (s *seen) Connected(c net.Conn, reused bool) {
	s.mu.Lock()
	s.conn = c
	s.reused = append(s.reused, reused)
	s.mu.Unlock()
}

func (s *seen) Written() {
	s.mu.Lock()
	s.written++
	s.mu.Unlock()
}

func (s *seen) Informational(status int, _ http.Header) error {
	s.informational = append(s.informational, status)
	return nil
}

// comes waits until something, or the end, is on the connection, which nobody reads.
func (s *seen) comes(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	socket, _ := socketOf(s.conn)
	s.mu.Unlock()
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var look rawIO
	look.bind(raw)
	eventually(t, "something comes", func() bool { return look.peek() != silent })
}

// transport is one over plain sockets.
func transport(t testing.TB, change ...func(*Transport)) *Transport {
	tr := &Transport{MaxHead: 64 << 10, MaxIdle: 10, Idle: time.Minute, Dial: func(ctx context.Context, addr string) (Dialled, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return Dialled{}, err
		}
		return Dialled{Conn: c, Socket: c.(*net.TCPConn), Bare: true}, nil
	}}
	for _, f := range change {
		f(tr)
	}
	t.Cleanup(tr.Retire)
	return tr
}

func get(t testing.TB, addr string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fetch sends a request and reads its answer to the end.
func fetch(t testing.TB, tr *Transport, r *http.Request, w *seen) (string, error) {
	t.Helper()
	resp, err := tr.Send(r, r.URL.Host, w, new(Room))
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !check(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
