package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// tcpOrigin serves connections with f.
func tcpOrigin(t *testing.T, f func(c *net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				f(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

func TestTunnel(t *testing.T) {
	addr := tcpOrigin(t, echo)
	b := start(t, "")
	c := b.dialProxy()
	if a := c.connect(addr); a.StatusCode != 200 || a.Header.Get("Httpowerd-Request-Id") == "" {
		t.Fatalf("%s %v", a.Status, a.Header)
	}
	c.send("\x00hello")
	reply := make([]byte, 6)
	if _, err := io.ReadFull(c.r, reply); err != nil || string(reply) != "\x00hello" {
		t.Fatalf("%q %v", reply, err)
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	c.rest()
	r := b.records(1)[0]
	r.want(t, map[string]any{"kind": "tunnel", "mode": "tunnel", "method": "CONNECT", "url": addr, "outcome": "ok", "status": 200,
		"request_bytes": 6, "response_bytes": 6})
}

// TestTunnelEarlyBytes: what the client sends together with CONNECT is not lost (G19).
func TestTunnelEarlyBytes(t *testing.T) {
	addr := tcpOrigin(t, echo)
	b := start(t, "")
	c := b.dialProxy()
	c.send("CONNECT " + addr + " HTTP/1.0\r\n\r\n\x00early")
	if a := c.answer(http.MethodConnect); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	reply := make([]byte, 6)
	if _, err := io.ReadFull(c.r, reply); err != nil || string(reply) != "\x00early" {
		t.Fatalf("%q %v", reply, err)
	}
}

// TestTunnelServerFirst: a server that speaks first (SMTP, SSH) is relayed at once.
func TestTunnelServerFirst(t *testing.T) {
	addr := tcpOrigin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 ready\r\n")
		echo(c)
	})
	b := start(t, "")
	c := b.dialProxy()
	c.connect(addr)
	if line, err := c.r.ReadString('\n'); line != "220 ready\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	c.send("GET / HTTP/1.1\r\n\r\n") // what comes after is the tunnel's own, whatever it looks like
	if line, err := c.r.ReadString('\n'); line != "GET / HTTP/1.1\r\n" {
		t.Fatalf("%q %v", line, err)
	}
}

// TestTunnelShortFirstMessage: a client that says a word and waits is not waited for.
func TestTunnelShortFirstMessage(t *testing.T) {
	addr := tcpOrigin(t, echo)
	b := start(t, "")
	c := b.dialProxy()
	c.connect(addr)
	c.send("HELLO")
	reply := make([]byte, 5)
	if _, err := io.ReadFull(c.r, reply); err != nil || string(reply) != "HELLO" {
		t.Fatalf("%q %v", reply, err)
	}
}

// TestTunnelHalfClose: the end of one direction reaches the other side, and the other direction goes on.
func TestTunnelHalfClose(t *testing.T) {
	addr := tcpOrigin(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c) // until the client's end
		fmt.Fprintf(c, "%d bytes", len(b))
	})
	b := start(t, "")
	c := b.dialProxy()
	c.connect(addr)
	c.send(strings.Repeat("\x00", 100_000))
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if rest := c.rest(); rest != "100000 bytes" {
		t.Errorf("%q", rest)
	}
}

// TestTunnelGoodbye: an upstream that resets a tunnel behind its client's close_notify, or has left before it comes, ended in order; one that resets it
// behind a request did not.
func TestTunnelGoodbye(t *testing.T) {
	cert, _ := selfSigned(t)
	hidden := "\x17\x03\x03\x00\x13" + strings.Repeat("\x00", 19) // a close_notify of TLS 1.3, as nobody here can tell it from others
	for name, row := range map[string]struct {
		version  uint16
		upstream func(t *testing.T, c *net.TCPConn, inside *tls.Conn) // after its answer
		client   func(t *testing.T, c net.Conn, inside *tls.Conn)     // after it has that
		outcome  string
	}{
		"reset behind TLS 1.3's goodbye": {tls.VersionTLS13, resetAfter(io.EOF), sayGoodbye, "ok"},
		"reset behind TLS 1.2's goodbye": {tls.VersionTLS12, resetAfter(io.EOF), sayGoodbye, "ok"},
		"reset behind a request": {tls.VersionTLS13, resetAfter(nil), func(t *testing.T, _ net.Conn, inside *tls.Conn) {
			_, _ = io.WriteString(inside, "more")
			_, _ = inside.Read(make([]byte, 1))
		}, "upstream_reset"},
		"goodbyes to one that left":          {tls.VersionTLS13, leaveInside, sendUntilBroken(hidden, 2), "ok"},
		"requests to one that left":          {tls.VersionTLS13, leaveInside, sendUntilBroken(strings.Repeat("\x17\x03\x03\x00\x1e"+strings.Repeat("\x00", 30), 2), 500), "upstream_reset"},
		"a request behind a goodbye, broken": {tls.VersionTLS13, leaveInside, sendUntilBroken(hidden+"\x17\x03\x03\x00\x14"+strings.Repeat("\x00", 20), 500), "upstream_reset"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := tcpOrigin(t, func(c *net.TCPConn) {
				inside := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: row.version})
				if _, err := io.ReadFull(inside, make([]byte, 7)); err != nil {
					t.Error(err)
				}
				_, _ = io.WriteString(inside, "answer")
				row.upstream(t, c, inside)
			})
			b := start(t, "")
			c := b.dialProxy()
			c.connect(addr)
			inside := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			_, _ = io.WriteString(inside, "request")
			if _, err := io.ReadFull(inside, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			row.client(t, c, inside)
			_ = c.Close()
			b.records(1)[0].want(t, map[string]any{"kind": "tunnel", "outcome": row.outcome})
		})
	}
}

// resetAfter reads once, and resets the connection.
func resetAfter(want error) func(*testing.T, *net.TCPConn, *tls.Conn) {
	return func(t *testing.T, c *net.TCPConn, inside *tls.Conn) {
		if _, err := inside.Read(make([]byte, 4)); err != want {
			t.Errorf("the upstream read %v; want %v", err, want)
		}
		_ = c.SetLinger(0)
	}
}

// leaveInside says goodbye and closes.
func leaveInside(_ *testing.T, _ *net.TCPConn, inside *tls.Conn) { _ = inside.Close() }

// sayGoodbye leaves the connection open until the other side has closed it.
func sayGoodbye(_ *testing.T, _ net.Conn, inside *tls.Conn) {
	_ = inside.CloseWrite()
	_, _ = inside.Read(make([]byte, 1))
}

// sendUntilBroken reads to the end, then sends what, so many times at most.
func sendUntilBroken(what string, times int) func(*testing.T, net.Conn, *tls.Conn) {
	return func(t *testing.T, c net.Conn, inside *tls.Conn) {
		if _, err := inside.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		for range times {
			if _, err := io.WriteString(c, what); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // the upstream's host says only then that nobody is there
		}
	}
}

// TestTunnelBulk: what is spliced arrives whole, both ways at once.
func TestTunnelBulk(t *testing.T) {
	addr := tcpOrigin(t, echo)
	b := start(t, "")
	c := b.dialProxy()
	c.connect(addr)
	data := bytes.Repeat([]byte("\x000123456789abcde"), 2<<20) // 32 MiB
	go func() {
		_, _ = c.Conn.Write(data)
		_ = c.Conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c.r)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes came back, or others: %v", len(got), len(data), err)
	}
	b.records(1)[0].want(t, map[string]any{"request_bytes": float64(len(data)), "response_bytes": float64(len(data))})
}

// TestTunnelIdle: a tunnel without a byte ends, one with traffic in a single direction does not.
func TestTunnelIdle(t *testing.T) {
	quiet := tcpOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	busy := tcpOrigin(t, func(c *net.TCPConn) {
		for range 16 {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	b := start(t, "proxy: {limits: {tunnel_idle: 1s}}")
	still, going := b.dialProxy(), b.dialProxy()
	still.connect(quiet)
	going.connect(busy)
	began := time.Now()
	still.rest()
	if waited := time.Since(began); waited < 800*time.Millisecond || waited > 5*time.Second {
		t.Errorf("the idle tunnel ended after %v", waited)
	}
	if rest := going.rest(); rest != strings.Repeat("x", 16) {
		t.Errorf("the busy tunnel carried %q", rest)
	}
}

// TestTunnelRefusals: a CONNECT that fails has a status, and its code in the reason phrase (contract of many clients: they show nothing else).
func TestTunnelRefusals(t *testing.T) {
	closed, _ := net.Listen("tcp", "127.0.0.1:0")
	addr := closed.Addr().String()
	closed.Close()
	b := start(t, "defaults: {retry: off}\nhosts: {denied.example.com: {access: deny}}")
	for target, want := range map[string]string{
		addr:                     "502 httpowerd: upstream_connect",
		"nowhere.invalid:443":    "502 httpowerd: upstream_dns",
		"denied.example.com:443": "403 httpowerd: denied",
		"169.254.169.254:80":     "403 httpowerd: destination_denied",
		"[::ffff:a9fe:a9fe]:80":  "403 httpowerd: destination_denied",
		"127.1:443":              "400 httpowerd: bad_request",
	} {
		a := b.dialProxy().connect(target)
		if a.Status != want {
			t.Errorf("CONNECT %s: %s; want %s", target, a.Status, want)
			continue
		}
		status, code, _ := strings.Cut(want, " httpowerd: ")
		number := 0
		_, _ = fmt.Sscan(status, &number)
		refused(t, a, number, code)
	}
	b.records(6)
}

// TestTunnelRetries: a refused connection is tried again.
func TestTunnelRetries(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	b := start(t, "defaults: {retry: {attempts: 3, backoff: {base: 1ms, max: 5ms}}, breaker: off}")
	a := b.dialProxy().connect(addr)
	if a.StatusCode != 502 {
		t.Fatal(a.Status)
	}
	if attempts, _ := b.records(1)[0]["attempts"].([]any); len(attempts) != 3 {
		t.Errorf("%d attempts", len(attempts))
	}
}

// TestServerName: a ClientHello that names another host than CONNECT did is refused (A16).
func TestServerName(t *testing.T) {
	o := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer o.Close()
	o.Config.ErrorLog = nil
	_, port, _ := net.SplitHostPort(o.Listener.Addr().String())
	for _, row := range []struct {
		config, connect, sni string
		pass                 bool
	}{
		{"", "a.example.com", "a.example.com", true},
		{"", "a.example.com", "A.EXAMPLE.com", true},
		{"", "a.example.com", "", true},
		{"", "a.example.com", "b.example.com", false},
		{"", "127.0.0.1", "b.example.com", true},
		{"sni: require, ", "a.example.com", "a.example.com", true},
		{"sni: require, ", "a.example.com", "", false},
		{"sni: require, ", "127.0.0.1", "b.example.com", false},
	} {
		b := start(t, "defaults: {"+row.config+"upstream: {resolve: {a.example.com: 127.0.0.1}}}")
		c := b.dialProxy()
		if a := c.connect(row.connect + ":" + port); a.StatusCode != 200 {
			t.Fatal(a.Status)
		}
		err := tls.Client(c, &tls.Config{ServerName: row.sni, InsecureSkipVerify: true}).Handshake()
		if (err == nil) != row.pass {
			t.Errorf("%+v: %v", row, err)
		}
		c.Close()
		outcome := "ok"
		if !row.pass {
			outcome = "sni_mismatch"
		}
		if got := b.records(1)[0].text("outcome"); got != outcome && !(row.pass && got == "client_gone") {
			t.Errorf("%+v: the outcome is %s", row, got)
		}
	}
}

// TestServerNameDisguised: the same behind what servers pass over, or in a record of a version that is none (A16).
func TestServerNameDisguised(t *testing.T) {
	o := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer o.Close()
	o.Config.ErrorLog = nil
	_, port, _ := net.SplitHostPort(o.Listener.Addr().String())
	const alert = "\x15\x03\x01\x00\x02\x01\x5a"
	for way, disguise := range map[string]disguised{
		"behind an alert":      {before: alert},
		"long behind an alert": {before: alert, pause: 1200 * time.Millisecond},
		"behind several":       {before: strings.Repeat(alert, 5)},
		"version 2.3":          {version: "\x02\x03"},
		"version 4.1":          {version: "\x04\x01"},
		"both":                 {before: alert, version: "\x04\x01"},
	} {
		b := start(t, "defaults: {upstream: {resolve: {a.example.com: 127.0.0.1}}}")
		for _, row := range []struct{ sni, outcome string }{{"b.example.com", "sni_mismatch"}, {"a.example.com", "ok"}} {
			c := b.dialProxy()
			if a := c.connect("a.example.com:" + port); a.StatusCode != 200 {
				t.Fatal(a.Status)
			}
			d := disguise
			d.Conn = c
			err := tls.Client(&d, &tls.Config{ServerName: row.sni, InsecureSkipVerify: true}).Handshake()
			if (err == nil) != (row.outcome == "ok") {
				t.Errorf("%s, %s: %v", way, row.sni, err)
			}
			c.Close()
		}
		if got := b.records(2)[0].text("outcome"); got != "sni_mismatch" {
			t.Errorf("%s: the outcome is %s", way, got)
		}
	}
}

// disguised changes the first record that a client sends.
type disguised struct {
	net.Conn
	before  string        // what comes first
	pause   time.Duration // behind that
	version string        // of the record; "": its own
	done    bool
}

func (d *disguised) Write(p []byte) (int, error) {
	if d.done {
		return d.Conn.Write(p)
	}
	d.done = true
	if _, err := io.WriteString(d.Conn, d.before); err != nil {
		return 0, err
	}
	time.Sleep(d.pause)
	if d.version != "" {
		copy(p[1:], d.version)
	}
	return d.Conn.Write(p)
}

// TestEncryptedClientHello: of such a hello the outer name counts, and the record says that another one may be inside (A16, RFC 9849).
func TestEncryptedClientHello(t *testing.T) {
	o := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer o.Close()
	_, port, _ := net.SplitHostPort(o.Listener.Addr().String())
	for public, outcome := range map[string]string{"a.example.com": "ok", "b.example.com": "sni_mismatch"} {
		b := start(t, "defaults: {upstream: {resolve: {a.example.com: 127.0.0.1}}}")
		c := b.dialProxy()
		if a := c.connect("a.example.com:" + port); a.StatusCode != 200 {
			t.Fatal(a.Status)
		}
		_ = tls.Client(c, &tls.Config{ServerName: "secret.example.com", InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
			EncryptedClientHelloConfigList: encryptedHello(t, public)}).Handshake() // the origin knows no such thing
		_ = c.Close()
		r := b.records(1)[0]
		if got := r.text("outcome"); got != outcome && (outcome != "ok" || got != "client_gone") {
			t.Errorf("%s: the outcome is %s", public, got)
		}
		r.want(t, map[string]any{"unapplied": "[sni.encrypted_client_hello]"})
	}
}

// encryptedHello is an ECHConfigList (RFC 9849 section 4) with a key that nobody has.
func encryptedHello(t *testing.T, public string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	contents := append([]byte{1, 0, 0x20, 0, 32}, key.PublicKey().Bytes()...) // id, DHKEM(X25519)
	contents = append(contents, 0, 4, 0, 1, 0, 1, 0, byte(len(public)))       // HKDF-SHA256 with AES-128-GCM, and no padding
	contents = append(append(contents, public...), 0, 0)
	config := append([]byte{0xfe, 0x0d, 0, byte(len(contents))}, contents...)
	return append([]byte{0, byte(len(config))}, config...)
}

// TestServerNameRequiredOnlyTLS: with sni: require nothing but TLS passes a tunnel.
func TestServerNameRequiredOnlyTLS(t *testing.T) {
	got := make(chan int, 1)
	addr := tcpOrigin(t, func(c *net.TCPConn) {
		n, _ := io.Copy(io.Discard, c)
		got <- int(n)
	})
	b := start(t, "defaults: {sni: require}")
	c := b.dialProxy()
	c.connect(addr)
	c.send("SSH-2.0-OpenSSH_9.2\r\n")
	c.rest()
	if n := <-got; n != 0 {
		t.Errorf("the upstream received %d bytes", n)
	}
}

// TestPlaintextInTunnel: CONNECT that carries plain HTTP is governed like any request, on the connection that was dialled (Node's fetch).
func TestPlaintextInTunnel(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", okAnswer)
	b := start(t, "defaults: {retry: {backoff: {base: 1ms, throttled: 1ms, max: 2ms}}}")
	c := b.dialProxy()
	if a := c.connect(o.addr); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	for i := range 2 {
		c.send("GET /inside?n=" + fmt.Sprint(i) + " HTTP/1.1\r\nHost: " + o.addr + "\r\nProxy-Connection: keep-alive\r\n\r\n")
		if a := c.answer(http.MethodGet); a.StatusCode != 200 || a.body != "ok" {
			t.Fatalf("%s %q", a.Status, a.body)
		}
	}
	if got := o.requests(); len(got) != 3 || !strings.HasPrefix(got[0], "GET /inside?n=0 HTTP/1.1\r\n") || strings.Contains(got[0], "Proxy-") ||
		!strings.Contains(got[0], "Via: ") {
		t.Errorf("the upstream received %q", got)
	}
	records := b.records(2)
	records[0].want(t, map[string]any{"kind": "request", "mode": "plain", "url": o.url("/inside?n=0"), "status": 200})
	if attempts, _ := records[0]["attempts"].([]any); len(attempts) != 2 {
		t.Errorf("%d attempts", len(attempts))
	}
}

// TestAuthorityInTunnel: what is inside names what CONNECT named (G5, A17).
func TestAuthorityInTunnel(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "")
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
		"GET http://other.example.com/ HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n",
		"GET https://" + o.addr + "/ HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n",
	} {
		c := b.dialProxy()
		c.connect(o.addr)
		c.send(head)
		refused(t, c.answer(http.MethodGet), 400, "authority_mismatch")
	}
	c := b.dialProxy()
	c.connect(o.addr)
	c.send("GET http://" + o.addr + "/absolute HTTP/1.1\r\nHost: other.example.com\r\n\r\n")
	if a := c.answer(http.MethodGet); a.body != "ok" {
		t.Errorf("the absolute form that agrees: %s", a.Status)
	}
	if got := o.requests(); len(got) != 1 {
		t.Errorf("the upstream received %q", got)
	}
	mismatches := 0
	for _, r := range b.records(5) {
		if r["outcome"] == "authority_mismatch" {
			mismatches++
			r.want(t, map[string]any{"kind": "request", "host": "127.0.0.1"}) // whose tunnel it was
		}
	}
	if mismatches != 4 {
		t.Errorf("%d records of mismatches", mismatches)
	}
}

// TestIntercept: HTTP/1.1 and HTTP/2 towards the client. The upstream is spoken to as the client speaks, where it can be.
func TestIntercept(t *testing.T) {
	for _, up := range []struct {
		name     string
		one, two bool // what it speaks
	}{{"HTTP/1.1", true, false}, {"both", true, true}, {"HTTP/2", false, true}} {
		o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %s via %s", r.Proto, r.Method, r.RequestURI, body, r.Header.Get("Via")[:4])
		}))
		if o.EnableHTTP2 = up.two; !up.one {
			onlyHTTP2(o)
		}
		o.StartTLS()
		defer o.Close()
		b := start(t, "defaults: {tls: intercept, upstream: {ca: "+originCA(t, o)+"}}")
		for _, client2 := range []bool{false, true} {
			c := b.client()
			if client2 {
				c = h2(c)
			}
			a := do(t, c, request(t, http.MethodPost, o.URL+"/p%2Fq?x=1", "data"))
			protocol := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}
			via := map[bool]string{false: "1.1 ", true: "2.0 "}[client2]
			if want := protocol[client2 && up.two || !up.one] + " POST /p%2Fq?x=1 data via " + via; a.body != want || a.Proto != protocol[client2] {
				t.Errorf("client h2 %v, upstream %s: %s %q; want %q", client2, up.name, a.Proto, a.body, want)
			}
			if a.TLS == nil || len(a.TLS.PeerCertificates) == 0 || a.TLS.PeerCertificates[0].Subject.CommonName != "" {
				t.Errorf("%+v", a.TLS)
			}
		}
		for _, r := range b.records(2) {
			r.want(t, map[string]any{"kind": "request", "mode": "intercept", "url": o.URL + "/p%2Fq?x=1", "status": 200, "outcome": "ok"})
		}
	}
}

// TestInterceptAuthority: HTTP/2's :authority is held to CONNECT's too.
func TestInterceptAuthority(t *testing.T) {
	o := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Errorf("%s reached the upstream", r.Host) }))
	defer o.Close()
	b := start(t, "defaults: {tls: intercept, upstream: {ca: "+originCA(t, o)+"}}")
	for _, c := range []*http.Client{b.client(), h2(b.client())} {
		r := request(t, http.MethodGet, o.URL, "")
		r.Host = "other.example.com"
		refused(t, do(t, c, r), 400, "authority_mismatch")
	}
}

// TestInterceptBytes: what is neither TLS nor HTTP is refused, plaintext HTTP is governed (A59).
func TestInterceptBytes(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := start(t, "defaults: {tls: intercept}")
	for i, refused := range []struct{ bytes, detail string }{
		{"SSH-2.0-x\r\n", "what the client sent is neither TLS nor HTTP"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 without TLS passes through tunnels alone: write tls: tunnel for this host"}, // gRPC without TLS
	} {
		c := b.dialProxy()
		c.connect(o.addr)
		c.send(refused.bytes)
		if rest := c.rest(); rest != "" {
			t.Errorf("%q", rest)
		}
		b.records(i + 1)[i].want(t, map[string]any{"kind": "tunnel", "mode": "intercept", "outcome": "bad_request", "detail": refused.detail})
	}
	c := b.dialProxy()
	c.connect(o.addr)
	c.send("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
	if a := c.answer(http.MethodGet); a.body != "ok" {
		t.Errorf("%s", a.Status)
	}
	b.records(3)[2].want(t, map[string]any{"kind": "request", "mode": "plain"})
}

// TestInterceptServerName (G31, A57).
func TestInterceptServerName(t *testing.T) {
	b := start(t, "defaults: {tls: intercept}")
	for sni, pass := range map[string]bool{"": true, "a.example.com": true, "b.example.com": false} {
		c := b.dialProxy()
		c.connect("a.example.com:443")
		tc := tls.Client(c, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
		err := tc.Handshake()
		if err == nil {
			_, err = io.WriteString(tc, "GET /\r\n\r\n")
			if err == nil {
				_, err = http.ReadResponse(bufio.NewReader(tc), nil)
			}
		}
		if (err == nil) != pass {
			t.Errorf("%q: %v", sni, err)
		}
		c.Close()
	}
}

// TestTLSToThePlainListener: a program whose proxy URL says https:// is told apart from one that writes nonsense.
func TestTLSToThePlainListener(t *testing.T) {
	b := start(t, "")
	for i, middle := range []string{"", "\n", "\r\n", " x\r\n", " / HTTP/1.1\r\n"} { // what is random in a ClientHello
		c := b.dialProxy()
		c.send("\x16\x03\x01\x02\x00\x01" + middle + "\x00\xff")
		if a := c.answer(http.MethodGet); a.StatusCode != 400 || !a.Close {
			t.Errorf("%q: %s", middle, a.Status)
		}
		b.records(i + 1)[i].want(t, map[string]any{"status": 400, "outcome": "bad_request",
			"detail": "the client speaks TLS to a listener without: write http:// in the proxy's URL"})
	}
}

// TestShaken: the record of a handshake that failed says who ended it, and why: the client, which does not trust the CA, or we.
func TestShaken(t *testing.T) {
	for name, c := range map[string]struct {
		config          *tls.Config
		says            string // in place of a handshake
		outcome, detail string
	}{
		"untrusted":            {&tls.Config{ServerName: "a.example.com"}, "", "client_gone", "may not trust the CA"},
		"untrusted by OpenSSL": {&tls.Config{ServerName: "a.example.com"}, "", "client_gone", "may not trust the CA"},
		"another name":         {&tls.Config{ServerName: "b.example.com", InsecureSkipVerify: true}, "", "sni_mismatch", "does not name the CONNECT host"},
		"an old version": {&tls.Config{ServerName: "a.example.com", InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", "unsupported",
			"no version"},
		"no protocol": {&tls.Config{ServerName: "a.example.com", InsecureSkipVerify: true, NextProtos: []string{"h3"}}, "", "unsupported", "or protocol"},
		"no TLS":      {&tls.Config{}, "\x16GET / HTTP/1.1\r\n\r\n", "bad_request", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, "defaults: {tls: intercept}")
			p := b.dialProxy()
			p.connect("a.example.com:443")
			if c.says != "" {
				p.send(c.says)
				_, _ = io.Copy(io.Discard, p)
			} else if err := tls.Client(&inTheClear{Conn: p, always: name == "untrusted by OpenSSL"}, c.config).Handshake(); err == nil {
				t.Fatal("the handshake came to an end")
			}
			p.Close()
			r := b.records(1)[0]
			r.want(t, map[string]any{"kind": "tunnel", "mode": "intercept", "outcome": c.outcome})
			if !strings.Contains(r.text("detail"), c.detail) {
				t.Error(r.text("detail"))
			}
		})
	}
}

// inTheClear says all but its first words by an unencrypted alert, as OpenSSL does where it does not trust a certificate by TLS 1.3.
type inTheClear struct {
	net.Conn
	always, begun bool
}

func (c *inTheClear) Write(p []byte) (int, error) {
	if c.always && c.begun {
		_, err := c.Conn.Write([]byte("\x15\x03\x03\x00\x02\x02\x30"))
		return len(p), err
	}
	c.begun = true
	return c.Conn.Write(p)
}

// TestNamesMintedByPolicy: no certificate for what policy forbids (A56).
func TestNamesMintedByPolicy(t *testing.T) {
	b := start(t, "defaults: {tls: intercept}\nhosts: {denied.example.com: {access: deny}}")
	for _, target := range []string{"denied.example.com:443", "169.254.169.254:443"} {
		if a := b.dialProxy().connect(target); a.StatusCode != 403 {
			t.Errorf("%s: %s", target, a.Status)
		}
	}
}

// TestWebSocket in all modes (A33).
func TestWebSocket(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || !strings.HasSuffix(r.Header.Get("Connection"), "Upgrade") {
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		c, rw, _ := w.(http.Hijacker).Hijack()
		defer c.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nfirst")
		_ = rw.Flush()
		_, _ = io.Copy(c, rw)
	})
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(handler)
	secure.EnableHTTP2 = true // the upgrade must not be tried over h2
	secure.StartTLS()
	defer secure.Close()
	b := start(t, "defaults: {upstream: {ca: "+originCA(t, secure)+"}}")
	intercepting := start(t, "defaults: {tls: intercept, upstream: {ca: "+originCA(t, secure)+"}}")
	head := func(target, host string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n\r\n"
	}
	talk := func(name string, c io.ReadWriter, r *bufio.Reader, target, host string) {
		t.Helper()
		if _, err := io.WriteString(c, head(target, host)+"early"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "x" || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
			t.Fatalf("%s: %v %v", name, resp, err)
		}
		want := "firstearlylate"
		_, _ = io.WriteString(c, "late")
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	p := plain.Listener.Addr().String()
	s := secure.Listener.Addr().String()
	c := b.dialProxy()
	talk("plain", c, c.r, "http://"+p+"/", p)
	c.Close()
	c = b.dialProxy()
	c.connect(p)
	talk("plaintext in a tunnel", c, c.r, "/", p)
	c.Close()
	c = b.dialProxy()
	talk("absolute https", c, c.r, "https://"+s+"/", s)
	c.Close()
	c = b.dialProxy()
	c.connect(s)
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	talk("tunnel", tc, bufio.NewReader(tc), "/", s)
	c.Close()
	c = intercepting.dialProxy()
	c.connect(s)
	tc = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	talk("intercepted", tc, bufio.NewReader(tc), "/", s)
	c.Close()
	for _, r := range append(b.records(4), intercepting.records(1)...) {
		if r.text("kind") == "request" {
			r.want(t, map[string]any{"status": 101, "status_by": "upstream", "request_bytes": 9, "response_bytes": 14})
		}
	}
}

// TestWebSocketRefused: an answer that is no 101 is an ordinary one, and the connection ends with it.
func TestWebSocketRefused(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
	b := start(t, "")
	c := b.dialProxy()
	c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET http://smuggled.example.com/ HTTP/1.1\r\n\r\n")
	if a := c.answer(http.MethodGet); a.StatusCode != 403 || a.body != "no" {
		t.Errorf("%s %q", a.Status, a.body)
	}
	if rest := c.rest(); rest != "" {
		t.Errorf("then came %q", rest)
	}
}

// TestUpgradeSmuggling: no other protocol is asked for in the client's name.
func TestUpgradeSmuggling(t *testing.T) {
	for _, upgrade := range []string{"h2c", "websocket, h2c", "TLS/1.0"} {
		o := newRawOrigin(t, okAnswer)
		b := start(t, "")
		c := b.dialProxy()
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + "\r\n\r\n")
		c.answer(http.MethodGet)
		if got := o.requests()[0]; strings.Contains(got, "h2c") || strings.Contains(got, "TLS") {
			t.Errorf("%s: the upstream received %q", upgrade, got)
		}
	}
}

// TestDrainAsReloaded: how long is drained is what the configuration says that was loaded last.
func TestDrainAsReloaded(t *testing.T) {
	addr := tcpOrigin(t, echo)
	b := start(t, "drain: {delay: 1h, timeout: 1h}")
	tunnel := b.dialProxy()
	tunnel.connect(addr)
	b.write("drain: {delay: 0s, timeout: 100ms}")
	if a := b.admin(http.MethodPost, "/api/v1/reload", ""); a.StatusCode != 200 {
		t.Fatalf("%s %s", a.Status, a.body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.Shutdown(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the drain took as long as the first configuration said, or the tunnel was not cut: %v", err)
	}
	b.stopped.Do(func() {})
	tunnel.rest()
	b.records(1)[0].want(t, map[string]any{"kind": "tunnel", "outcome": "draining"})
}

// TestDrain: what is in flight is answered, tunnels are cut when the time is up, nobody new is served.
func TestDrain(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-finish
		_, _ = io.WriteString(w, "in time")
	}))
	defer o.Close()
	addr := tcpOrigin(t, echo)
	b := start(t, "drain: {timeout: 600ms}")
	tunnel := b.dialProxy()
	tunnel.connect(addr)
	answers := make(chan answer, 1)
	go func() { answers <- get(t, b.client(), o.URL) }()
	<-began
	ended := make(chan error, 1)
	go func() { ended <- b.Shutdown(context.Background()) }()
	for !b.Draining() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	if c, err := net.Dial("tcp", b.ProxyAddrs()[0]); err == nil {
		c.Close()
		t.Error("the listener still accepts")
	}
	close(finish)
	if a := <-answers; a.body != "in time" {
		t.Errorf("%s %q", a.Status, a.body)
	}
	if err := <-ended; err == nil || !strings.Contains(b.log.String(), "what was still open has been cut") {
		t.Errorf("a tunnel was cut and nobody says so: %v\n%s", err, b.log)
	}
	tunnel.rest()
	b.stopped.Do(func() {})
	for _, r := range b.records(2) {
		if r.text("kind") == "tunnel" {
			r.want(t, map[string]any{"outcome": "draining"})
		}
	}
}
