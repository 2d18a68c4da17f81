package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/upstream"
)

func TestRequestBytes(t *testing.T) {
	o := says(t, ok)
	rt := end(t, setup{})
	r, _ := request(t, "GET", "http://"+o.Addr().String()+"/a?q=1", "")
	r.URL.Opaque = "/a%2Fb/../|c"
	want(t, get(rt, r), "200 ok")
	want(t, o.seen()[0], "GET /a%2Fb/../|c?q=1 HTTP/1.1\r\nHost: "+o.Addr().String()+"\r\n\r\n")
}

func TestReuse(t *testing.T) {
	o := says(t, ok)
	rt := end(t, setup{})
	for i := range 3 {
		r, x := request(t, "GET", "http://"+o.Addr().String()+"/", "")
		want(t, get(rt, r), "200 ok")
		a := x.Story().Attempts
		if len(a) != 1 || a[0].Status != 200 || a[0].Address != o.Addr().String() || a[0].Reused != (i > 0) {
			t.Errorf("attempts %+v", a)
		}
	}
	if o.count() != 1 {
		t.Errorf("%d connections", o.count())
	}
}

func TestFailures(t *testing.T) {
	for name, c := range map[string]struct{ answer, want string }{
		"nothing":     {"", "failure upstream_reset sent"},
		"half a head": {"HTTP/1.1 200 OK\r\nA: b\r\n", "failure upstream_reset sent"},
		"not http":    {"SSH-2.0-x\r\n\r\n", "failure upstream_protocol sent"},
		"bad field":   {"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "failure upstream_protocol sent"},
		"two lengths": {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "failure upstream_protocol sent"},
		"short body":  {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "200 ab then failure upstream_reset sent"},
		"bad chunk":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n", "200 ab then failure upstream_protocol sent"},
		"huge head":   {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 2<<20) + "\r\n\r\n", "failure upstream_protocol sent"},
		"many 1xx":    {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100) + ok, "failure upstream_protocol sent"},
	} {
		t.Run(name, func(t *testing.T) {
			o := serve(t, func(_ int, conn net.Conn, br *bufio.Reader, o *origin) {
				o.head(br)
				io.WriteString(conn, c.answer)
			})
			r, _ := request(t, "GET", "http://"+o.Addr().String()+"/", "")
			want(t, get(end(t, setup{}), r), c.want)
		})
	}
}

func TestConnectFailures(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	r, x := request(t, "GET", "http://"+closed+"/", "")
	want(t, get(end(t, setup{}), r), "failure upstream_connect")
	if a := x.Story().Attempts; len(a) != 1 || a[0].Error != exchange.UpstreamConnect {
		t.Errorf("attempts %+v", a)
	}
	r, _ = request(t, "GET", "http://nowhere.example.com/", "")
	want(t, get(end(t, setup{options: Options{Resolver: fixed{}}}), r), "failure upstream_dns permanent")
}

func TestDestinations(t *testing.T) {
	o := says(t, ok)
	_, port, _ := net.SplitHostPort(o.Addr().String())
	resolver := fixed{"mixed.example.com": {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254")},
		"inside.example.com": {netip.MustParseAddr("127.0.0.1")}}
	for _, c := range []struct {
		host   string
		remote bool
		want   string
	}{
		{"inside.example.com", false, "200 ok"},
		{"inside.example.com", true, "refusal destination_denied"},
		{"mixed.example.com", false, "refusal destination_denied"},
		{"127.0.0.1", true, "refusal destination_denied"},
		{"[::ffff:169.254.169.254]", false, "refusal destination_denied"},
	} {
		rules := destination.Default()
		if err := rules.Ports.DecodeSetting([]any{"1-65535"}); err != nil {
			t.Fatal(err)
		}
		for _, tunnels := range []bool{false, true} {
			rt := end(t, setup{options: Options{Resolver: resolver}, remote: c.remote, rules: rules, tunnels: tunnels})
			r, _ := request(t, "GET", "http://"+c.host+":"+port+"/", "")
			if !tunnels {
				want(t, get(rt, r), c.want)
				continue
			}
			resp, err := rt.RoundTrip(r)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != (c.want == "200 ok") || err != nil && describe(err) != c.want {
				t.Errorf("tunnel to %s: %v", c.host, err)
			}
		}
	}
	if n := len(o.seen()); n != 1 {
		t.Errorf("%d requests arrived", n)
	}
}

func TestOwnListener(t *testing.T) {
	o := says(t, ok)
	own := netip.MustParseAddrPort(o.Addr().String())
	rt := end(t, setup{options: Options{Own: func(a netip.AddrPort) bool { return a == own }}})
	r, _ := request(t, "GET", "http://"+o.Addr().String()+"/", "")
	want(t, get(rt, r), "refusal loop")
	if o.count() != 0 {
		t.Error("it was connected to")
	}
}

// TestNothingUnsafeTwice: the upstream closes kept connections as it reads the second request.
func TestNothingUnsafeTwice(t *testing.T) {
	for _, c := range []struct {
		method, body, want string
		attempts           int
		repeats            bool // a stage above sends again
	}{
		{"GET", "", "200 ok", 2, false},
		{"GET", "", "failure upstream_reset sent", 1, true},
		{"POST", "", "failure upstream_reset sent", 1, false},
		{"POST", "body", "failure upstream_reset sent", 1, false},
		{"DELETE", "", "failure upstream_reset sent", 1, false},
	} {
		o := serve(t, func(n int, conn net.Conn, br *bufio.Reader, o *origin) {
			for i := 0; o.head(br) != ""; i++ {
				if n == 0 && i == 1 {
					return
				}
				io.WriteString(conn, ok)
			}
		})
		rt := end(t, setup{})
		r, _ := request(t, "GET", "http://"+o.Addr().String()+"/", "")
		want(t, get(rt, r), "200 ok")
		r, x := request(t, c.method, "http://"+o.Addr().String()+"/", c.body)
		r.Header.Set("Idempotency-Key", "k")
		if x.Repeats = c.repeats; c.repeats {
			_, err := rt.RoundTrip(r)
			want(t, describe(err), c.want)
			if f, ok := errors.AsType[*exchange.Failure](err); !ok || !f.Stale {
				t.Errorf("%+v does not say that the connection was stale", f)
			}
		} else {
			want(t, get(rt, r), c.want)
		}
		if n := len(o.seen()); n != 1+c.attempts {
			t.Errorf("%s %q arrived %d times", c.method, c.body, n-1)
		}
		if a := x.Story().Attempts; len(a) != c.attempts {
			t.Errorf("%s %q: attempts %+v", c.method, c.body, a)
		}
	}
}

func TestClientsBody(t *testing.T) {
	o := serve(t, func(_ int, _ net.Conn, br *bufio.Reader, o *origin) { io.Copy(io.Discard, br) })
	r, _ := request(t, "POST", "http://"+o.Addr().String()+"/", "")
	r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("ab"), failing{})), 10
	resp, err := end(t, setup{}).RoundTrip(r)
	var refusal *exchange.Refusal
	if resp != nil || !errors.As(err, &refusal) || refusal.Code != exchange.BadRequest || !refusal.Close {
		t.Errorf("%v, %v", resp, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("malformed chunk") }

func TestCancelAndTimeout(t *testing.T) {
	started := make(chan struct{}, 2)
	o := serve(t, func(_ int, _ net.Conn, br *bufio.Reader, o *origin) {
		o.head(br)
		started <- struct{}{}
		io.Copy(io.Discard, br)
	})
	r, _ := request(t, "GET", "http://"+o.Addr().String()+"/", "")
	ctx, cancel := context.WithCancel(r.Context())
	go func() { <-started; cancel() }()
	_, err := end(t, setup{}).RoundTrip(r.WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithTimeout(r.Context(), 300*time.Millisecond)
	defer cancel()
	want(t, get(end(t, setup{}), r.WithContext(ctx)), "failure upstream_timeout sent")
}

// hints are the links of 103 answers.
type hints []string

func (hs *hints) Inform(_ int, h http.Header) { *hs = append(*hs, textproto.TrimString(h.Get("Link"))) }

func TestInformationalAndTrailers(t *testing.T) {
	o := says(t, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: v\r\n\r\n")
	r, x := request(t, "GET", "http://"+o.Addr().String()+"/", "")
	var hints hints
	x.Informational = &hints
	resp, err := end(t, setup{}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if len(hints) != 1 || hints[0] != "</x>" || resp.Trailer.Get("T") != "v" {
		t.Errorf("hints %q, trailer %q", hints, resp.Trailer)
	}
}

func tlsOrigin(t *testing.T, http2 bool, prepare ...func(*httptest.Server)) (*httptest.Server, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto+" "+r.RequestURI)
	}))
	s.EnableHTTP2 = http2
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	for _, f := range prepare {
		f(s)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, ca
}

func TestTLS(t *testing.T) {
	s, ca := tlsOrigin(t, true)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	resolve := func(c *upstream.Config) {
		c.Resolve = map[string]string{"example.com": "127.0.0.1", "other.test": "127.0.0.1"}
	}
	for name, c := range map[string]struct {
		protocol   int
		host, want string
		up         func(*upstream.Config)
	}{
		"h2":        {2, "example.com", "200 HTTP/2.0 /p%7c", func(c *upstream.Config) { c.CA = ca }},
		"h1":        {1, "example.com", "200 HTTP/1.1 /p%7c", func(c *upstream.Config) { c.CA = ca }},
		"h2 off":    {2, "example.com", "200 HTTP/1.1 /p%7c", func(c *upstream.Config) { c.CA = ca; c.HTTP2 = false }},
		"untrusted": {1, "example.com", "failure upstream_tls permanent", func(c *upstream.Config) {}},
		"name":      {2, "other.test", "failure upstream_tls permanent", func(c *upstream.Config) { c.CA = ca }},
		"insecure":  {2, "other.test", "200 HTTP/2.0 /p%7c", func(c *upstream.Config) { c.InsecureSkipVerify = true }},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := request(t, "GET", "https://"+c.host+":"+port+"/", "")
			r.URL.Opaque, r.ProtoMajor = "/p%7c", c.protocol
			want(t, get(end(t, setup{up: func(u *upstream.Config) { resolve(u); c.up(u) }}), r), c.want)
		})
	}
}

// TestHTTP2Alone: an upstream that refuses HTTP/1.1 is spoken to in HTTP/2 whatever the client speaks, and no request is lost for that. Where it begins to refuse, one
// request finds out for all others.
func TestHTTP2Alone(t *testing.T) {
	var alone atomic.Bool
	s, ca := tlsOrigin(t, true, func(s *httptest.Server) {
		s.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			config := s.TLS.Clone()
			if alone.Load() && !slices.Contains(hello.SupportedProtos, "h2") {
				config.NextProtos = []string{"h3"}
			}
			return config, nil
		}}
	})
	target := s.Listener.Addr().String()
	send := func(rt http.RoundTripper, method, body string, protocol int) string {
		r, _ := request(t, method, "https://"+target+"/", body)
		r.ProtoMajor = protocol
		return get(rt, r)
	}
	alone.Store(true)
	rt := end(t, setup{up: func(c *upstream.Config) { c.CA = ca }})
	want(t, send(rt, "POST", "data", 1), "200 HTTP/2.0 /")
	want(t, send(rt, "GET", "", 1), "200 HTTP/2.0 /")
	want(t, send(rt, "GET", "", 2), "200 HTTP/2.0 /")

	alone.Store(false)
	rt = end(t, setup{up: func(c *upstream.Config) { c.CA, c.MaxIdle = ca, 0 }}) // each request has a connection of its own
	want(t, send(rt, "GET", "", 1), "200 HTTP/1.1 /")
	want(t, send(rt, "GET", "", 1), "200 HTTP/1.1 /")
	alone.Store(true)
	want(t, send(rt, "GET", "", 1), "failure upstream_tls")
	want(t, send(rt, "GET", "", 1), "200 HTTP/2.0 /")
	rt = end(t, setup{up: func(c *upstream.Config) { c.CA, c.HTTP2 = ca, false }})
	want(t, send(rt, "GET", "", 1), "failure upstream_tls")
}

func TestPlaintextAnswersTLS(t *testing.T) {
	o := serve(t, func(_ int, c net.Conn, br *bufio.Reader, o *origin) {
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	r, _ := request(t, "GET", "https://"+o.Addr().String()+"/", "")
	want(t, get(end(t, setup{}), r), "failure upstream_tls")
}

func TestUpgrade(t *testing.T) {
	o := serve(t, func(_ int, c net.Conn, br *bufio.Reader, o *origin) {
		o.head(br)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		io.CopyN(c, br, 4)
	})
	r, _ := request(t, "GET", "http://"+o.Addr().String()+"/", "")
	r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	resp, err := end(t, setup{}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	rw := resp.Body.(io.ReadWriteCloser)
	io.WriteString(rw, "echo")
	b := make([]byte, 4)
	io.ReadFull(rw, b)
	rw.Close()
	want(t, string(b), "echo")
}

func TestTunnelAndOffer(t *testing.T) {
	o := says(t, ok)
	rt := end(t, setup{tunnels: true})
	r, x := request(t, "CONNECT", "http://"+o.Addr().String()+"/", "")
	resp, err := rt.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	tunnel := TunnelOf(resp)
	if tunnel == nil {
		t.Fatal("there is no tunnel")
	}
	c := tunnel.Conn
	if _, isTCP := c.(*net.TCPConn); !isTCP {
		t.Fatalf("%T", c)
	}
	tunnel.Detach()
	resp.Body.Close()
	requests := end(t, setup{})
	for range 3 {
		r, x2 := request(t, "GET", "http://"+o.Addr().String()+"/", "")
		want(t, get(requests, r.WithContext(Offer(r.Context(), x.Target, c))), "200 ok")
		if a := x2.Story().Attempts; len(a) != 1 || a[0].Error != "" {
			t.Errorf("attempts %+v", a)
		}
	}
	if o.count() != 1 {
		t.Errorf("%d connections", o.count())
	}
	c.Close()
	r, _ = request(t, "GET", "http://"+o.Addr().String()+"/", "")
	want(t, get(requests, r.WithContext(Offer(r.Context(), x.Target, c))), "200 ok")
	if o.count() != 2 {
		t.Errorf("%d connections", o.count())
	}
}

func TestParentHTTP(t *testing.T) {
	target := says(t, ok)
	p := serve(t, func(_ int, c net.Conn, br *bufio.Reader, o *origin) {
		for {
			head := o.head(br)
			switch {
			case head == "":
				return
			case strings.HasPrefix(head, "CONNECT "):
				up, err := net.Dial("tcp", target.Addr().String())
				if err != nil {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 ok\r\n\r\n")
				go func() { io.Copy(up, br); up.Close() }()
				io.Copy(c, up)
				return
			}
			io.WriteString(c, ok)
		}
	})
	up := func(c *upstream.Config) { c.Proxy = "http://user:pw@" + p.Addr().String() }
	r, _ := request(t, "GET", "http://example.com/a?q", "")
	r.URL.Opaque = "/%7e|"
	want(t, get(end(t, setup{up: up}), r), "200 ok")
	want(t, p.seen()[0], "GET http://example.com/%7e|?q HTTP/1.1\r\nHost: example.com\r\nProxy-Authorization: Basic dXNlcjpwdw==\r\n\r\n")

	r, _ = request(t, "CONNECT", "https://example.com/", "")
	resp, err := end(t, setup{up: up, tunnels: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	want(t, p.seen()[1], "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nProxy-Authorization: Basic dXNlcjpwdw==\r\n\r\n")

	r, _ = request(t, "GET", "http://169.254.169.254/", "")
	want(t, get(end(t, setup{up: up}), r), "refusal destination_denied")
	r, _ = request(t, "GET", "http://inside.example.com/", "")
	local := func(c *upstream.Config) { up(c); c.DNS = "local" }
	want(t, get(end(t, setup{up: local, options: Options{Resolver: fixed{"inside.example.com": {netip.MustParseAddr("169.254.1.1")}}}}), r),
		"refusal destination_denied")
	if len(p.seen()) != 2 {
		t.Errorf("the parent was asked: %q", p.seen())
	}
}

// TestHTTP2Unsafe: an upstream that resets a stream sees a DELETE once.
func TestHTTP2Unsafe(t *testing.T) {
	var served atomic.Int32
	s, ca := tlsOrigin(t, true, func(s *httptest.Server) {
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			panic(http.ErrAbortHandler)
		})
	})
	r, x := request(t, "DELETE", "https://example.com:"+s.Listener.Addr().String()[len("127.0.0.1:"):]+"/", "")
	rt := end(t, setup{up: func(c *upstream.Config) { c.CA = ca; c.Resolve = map[string]string{"example.com": "127.0.0.1"} }})
	got := get(rt, r)
	if !strings.HasSuffix(got, " sent") || served.Load() != 1 || len(x.Story().Attempts) != 1 {
		t.Errorf("%s after %d requests, attempts %+v", got, served.Load(), x.Story().Attempts)
	}
}

// TestSecureParent: what is sent through an https parent counts as sent.
func TestSecureParent(t *testing.T) {
	var broken atomic.Bool
	s, ca := tlsOrigin(t, false, func(s *httptest.Server) {
		well := s.Config.Handler
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if broken.Load() {
				panic(http.ErrAbortHandler)
			}
			well.ServeHTTP(w, r)
		})
	})
	up := func(c *upstream.Config) { c.CA = ca; c.Proxy = "https://" + s.Listener.Addr().String() }
	r, x := request(t, "GET", "http://other.example.com/p", "")
	want(t, get(end(t, setup{up: up}), r), "200 HTTP/1.1 http://other.example.com/p")
	if a := x.Story().Attempts; len(a) != 1 || a[0].Address == "" {
		t.Errorf("attempts %+v", a)
	}
	broken.Store(true)
	r, _ = request(t, "POST", "http://other.example.com/p", "x")
	want(t, get(end(t, setup{up: up}), r), "failure upstream_reset sent")
}

func TestParentSocks(t *testing.T) {
	got := make(chan string, 1)
	p := serve(t, func(_ int, c net.Conn, br *bufio.Reader, o *origin) {
		b := make([]byte, 64)
		io.ReadFull(br, b[:4]) // 5 2 0 2
		c.Write([]byte{5, 2})
		io.ReadFull(br, b[:2+4+1+2])
		c.Write([]byte{1, 0})
		io.ReadFull(br, b[:5+11+2])
		got <- string(b[5:16])
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		o.head(br)
		io.WriteString(c, ok)
	})
	up := func(c *upstream.Config) { c.Proxy = "socks5://user:pw@" + p.Addr().String() }
	r, _ := request(t, "GET", "http://example.com/", "")
	want(t, get(end(t, setup{up: up}), r), "200 ok")
	want(t, <-got, "example.com")
}

func BenchmarkRequests(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4<<10)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					io.WriteString(c, ok)
				}
			}()
		}
	}()
	bare := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	defer bare.CloseIdleConnections()
	for name, rt := range map[string]http.RoundTripper{"egress": end(b, setup{}), "bare": bare} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			r, x := request(b, "GET", "http://"+l.Addr().String()+"/", "")
			r.Header.Set("User-Agent", "bench")
			for b.Loop() {
				x2 := &exchange.Exchange{Host: x.Host, Target: x.Target}
				resp, err := rt.RoundTrip(r.WithContext(exchange.NewContext(context.Background(), x2)))
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
