package daemon

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestServerNameInPieces: a ClientHello is read however it is cut up, before any byte of it goes on (A16).
func TestServerNameInPieces(t *testing.T) {
	var got atomic.Int64
	addr := tcpOrigin(t, func(c *net.TCPConn) {
		n, _ := io.Copy(io.Discard, c)
		got.Add(n)
	})
	_, port, _ := net.SplitHostPort(addr)
	b := start(t, "defaults: {upstream: {resolve: {a.example.com: 127.0.0.1}}}")
	hello := clientHello(t, "b.example.com")
	records := func(message string, size int) (out string) {
		for len(message) > 0 {
			n := min(size, len(message))
			out += string([]byte{22, 3, 1, byte(n >> 8), byte(n)}) + message[:n]
			message = message[n:]
		}
		return out
	}
	for name, text := range map[string]string{"whole": hello, "records of one byte": records(hello[5:], 1), "many records": records(hello[5:], 100),
		"and more": hello + "more", "longer than any": records("\x01\x01\xff\xff"+strings.Repeat("a", 0x1ffff), 1<<14)} {
		c := b.dialProxy()
		c.connect("a.example.com:" + port)
		for piece := text; piece != ""; { // and the network's pieces are others again
			n := min(len(piece), max(1, len(text)/10))
			if _, err := io.WriteString(c.Conn, piece[:n]); err != nil {
				break
			}
			piece = piece[n:]
		}
		if rest, _ := io.ReadAll(c.r); len(rest) > 0 {
			t.Errorf("%s: the client got %q", name, rest)
		}
	}
	for _, r := range b.records(5) {
		r.want(t, map[string]any{"outcome": "sni_mismatch"})
	}
	if n := got.Load(); n > 0 {
		t.Errorf("the upstream received %d bytes", n)
	}
}

// clientHello is what crypto/tls sends first.
func clientHello(t *testing.T, name string) string {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() // nobody answers
		client.Close()
	}()
	_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 5)
	if _, err := io.ReadFull(server, b); err != nil {
		t.Fatal(err)
	}
	rest := make([]byte, int(b[3])<<8|int(b[4]))
	if _, err := io.ReadFull(server, rest); err != nil {
		t.Fatal(err)
	}
	return string(b) + string(rest)
}

// TestEarlyBytes: what a client sends in one packet with CONNECT is read as if it had waited, relayed, governed or decrypted (G19).
func TestEarlyBytes(t *testing.T) {
	all := ways(t, "", okAnswer)
	governed, intercepted := all[1], all[3]
	c := governed.box.dialProxy()
	c.send(governed.text("CONNECT {H} HTTP/1.1\r\nHost: {H}\r\n\r\nGET / HTTP/1.1\r\nHost: {H}\r\n\r\n"))
	if a := c.answer(http.MethodConnect); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	if a := c.answer(http.MethodGet); a.body != "ok" {
		t.Errorf("%s %s", a.Status, a.body)
	}
	governed.record().want(t, map[string]any{"kind": "request", "mode": "plain"})
	c = intercepted.box.dialProxy()
	early := &together{rawClient: c, first: intercepted.text("CONNECT {H} HTTP/1.1\r\nHost: {H}\r\n\r\n")}
	inside := tls.Client(early, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if _, err := io.WriteString(inside, intercepted.text("GET / HTTP/1.1\r\nHost: {H}\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(inside), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	intercepted.record().want(t, map[string]any{"kind": "request", "mode": "intercept"})
}

// together sends CONNECT with the first bytes of TLS, and takes its answer away.
type together struct {
	*rawClient
	first string
}

func (c *together) Write(p []byte) (int, error) {
	if c.first == "" {
		return c.Conn.Write(p)
	}
	_, err := io.WriteString(c.Conn, c.first+string(p))
	c.first = ""
	if a := c.answer(http.MethodConnect); a.StatusCode != 200 {
		return 0, errors.New(a.Status)
	}
	return len(p), err
}

// TestTunnelUpstreamHalfClose: an upstream that has said all may still be told something.
func TestTunnelUpstreamHalfClose(t *testing.T) {
	got := make(chan string, 1)
	addr := tcpOrigin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "\x00all")
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		got <- string(b)
	})
	b := start(t, "")
	c := b.dialProxy()
	c.connect(addr)
	if rest := c.rest(); rest != "\x00all" {
		t.Fatalf("%q", rest)
	}
	c.send("\x00and this")
	c.Close()
	if text := <-got; text != "\x00and this" {
		t.Errorf("the upstream heard %q", text)
	}
	b.records(1)[0].want(t, map[string]any{"request_bytes": 9, "response_bytes": 4})
}

// TestWebSocketIdle: an upgraded connection without a byte ends (A33).
func TestWebSocketIdle(t *testing.T) {
	o := tcpOrigin(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	b := start(t, "proxy: {limits: {tunnel_idle: 1s}}")
	c := b.dialProxy()
	c.send("GET http://" + o + "/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	if err := c.ended(); err != nil {
		t.Error(err)
	}
	b.records(1)[0].want(t, map[string]any{"status": 101, "outcome": "ok"})
}

// TestHeadsOfStreams: the head of an answer that goes on for long is there before the first of its body, and each part as it comes (G15, G16).
func TestHeadsOfStreams(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "application/x-ndjson", "application/json"} {
		next := make(chan struct{})
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Httpowerd-Error", "fake")
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("Content-Type", kind)
			w.(http.Flusher).Flush()
			for range 2 {
				<-next
				_, _ = io.WriteString(w, "part\n")
				w.(http.Flusher).Flush()
			}
		})
		plain, secure := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
		defer plain.Close()
		onlyHTTP2(secure)
		secure.StartTLS()
		defer secure.Close()
		config := "defaults: {upstream: {ca: " + originCA(t, secure) + "}"
		p, s := plain.Listener.Addr().String(), secure.Listener.Addr().String()
		tunnelled := start(t, config+"}").dialProxy()
		tunnelled.connect(p)
		for name, way := range map[string]struct {
			c      *rawClient
			target string
		}{
			"plain":                 {start(t, config+"}").dialProxy(), "http://" + p},
			"plaintext in a tunnel": {tunnelled, ""},
			"absolute https":        {start(t, config+"}").dialProxy(), "https://" + s},
			"intercepted":           {start(t, config+", tls: intercept}").intercepted(s, "http/1.1"), ""},
			"upgrade":               {start(t, config+", upgrade: https}").dialProxy(), "http://" + s},
		} {
			host := s
			if strings.HasPrefix(name, "plain") {
				host = p
			}
			way.c.send("GET " + way.target + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
			hint := way.c.answer(http.MethodGet)
			if hint.StatusCode != 103 || hint.Header.Get("Link") == "" || hint.Header.Get("Httpowerd-Error") != "" {
				t.Errorf("%s, %s: first came %s %v", name, kind, hint.Status, hint.Header)
			}
			resp, err := http.ReadResponse(way.c.r, nil)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%s, %s: %v %v", name, kind, resp, err)
			}
			for range 2 {
				next <- struct{}{}
				part := make([]byte, 5)
				if _, err := io.ReadFull(resp.Body, part); err != nil || string(part) != "part\n" {
					t.Fatalf("%s, %s: %q %v", name, kind, part, err)
				}
			}
		}
	}
}

// TestContinueOnAllWays: a body that waits to be asked for is asked for when the upstream asks, and no sooner (G18, A34).
func TestContinueOnAllWays(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Header.Get("Expect"), body)
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	config := "defaults: {upstream: {ca: " + originCA(t, secure) + "}"
	p, s := plain.Listener.Addr().String(), secure.Listener.Addr().String()
	tunnelled := start(t, config+"}").dialProxy()
	tunnelled.connect(p)
	for name, way := range map[string]struct {
		c            *rawClient
		target, host string
	}{
		"plain":                 {start(t, config+"}").dialProxy(), "http://" + p, p},
		"plaintext in a tunnel": {tunnelled, "", p},
		"absolute https":        {start(t, config+"}").dialProxy(), "https://" + s, s},
		"intercepted":           {start(t, config+", tls: intercept}").intercepted(s, "http/1.1"), "", s},
		"upgrade":               {start(t, config+", upgrade: https}").dialProxy(), "http://" + s, s},
	} {
		for range 2 {
			way.c.send("PUT " + way.target + "/bucket/key HTTP/1.1\r\nHost: " + way.host + "\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
			if a := way.c.answer(http.MethodPut); a.StatusCode != 100 {
				t.Fatalf("%s: first came %s", name, a.Status)
			}
			way.c.send("body")
			if a := way.c.answer(http.MethodPut); a.body != "100-continue body" || a.Close {
				t.Errorf("%s: %s %q close %v", name, a.Status, a.body, a.Close)
			}
		}
	}
}

// TestUpstreamCertificates: no upstream without a certificate that verifies gets a byte of a request (G3, A55).
func TestUpstreamCertificates(t *testing.T) {
	for name, change := range map[string]func(*x509.Certificate){
		"expired":      func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"not yet":      func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) },
		"another name": func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} },
		"self-signed":  func(*x509.Certificate) {},
	} {
		cert, ca := selfSigned(t, change)
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
		if err != nil {
			t.Fatal(err)
		}
		o := serveRaw(t, l, inTurn(okAnswer))
		config := "defaults: {retry: off, upstream: {ca: " + ca + "}"
		if name == "self-signed" {
			config = "defaults: {retry: off"
		}
		intercepted := start(t, config+", tls: intercept}")
		for way, c := range map[string]*rawClient{
			"absolute https": start(t, config+"}").dialProxy(),
			"upgrade":        start(t, config+", upgrade: https}").dialProxy(),
			"intercepted":    intercepted.intercepted(o.addr, "http/1.1"),
		} {
			target := map[string]string{"absolute https": "https://" + o.addr, "upgrade": "http://" + o.addr}[way]
			c.send("GET " + target + "/ HTTP/1.1\r\nHost: " + o.addr + "\r\nAuthorization: Bearer x\r\n\r\n")
			refused(t, c.answer(http.MethodGet), 502, "upstream_tls")
			if got := o.requests(); len(got) > 0 {
				t.Errorf("%s, %s: the upstream received %q", name, way, got)
			}
		}
	}
}

// TestLogHoldsNothing: neither the daemon's log at its most talkative nor that of the standard library holds what a client or an upstream said (G27).
func TestLogHoldsNothing(t *testing.T) {
	var standard buffer
	log.SetOutput(&standard)
	defer log.SetOutput(os.Stderr)
	const secret = "sk_" + "live_51Hx7f3aQ9vT2mK8"
	extra := "HTTP/1.1 200 OK\r\nX-Canary: " + secret + "\r\nContent-Length: 48\r\n\r\n" + secret + secret
	for _, w := range scriptedWays(t, "retry: off", byName(map[string]string{
		"extra": okAnswer + extra, "garbage": secret + "\r\n\r\n", "field": "HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n", "length": "HTTP/1.1 200 OK\r\nContent-Length: " + secret + "\r\n\r\n"})) {
		w.box.write(strings.TrimPrefix(readFile(t, w.box.config), "version: 1\n") + "log: {level: debug}\n")
		if err := w.box.Reload(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"extra", "garbage", "field", "length", "?token=" + secret, "%zz" + secret} {
			c := w.open()
			c.send(w.text("POST {T}/" + path + " HTTP/1.1\r\nHost: {H}\r\nAuthorization: Bearer " + secret + "\r\nCookie: a=" + secret + "\r\nContent-Length: 24\r\n\r\n" + secret))
			c.answer(http.MethodPost)
			c.Close()
			w.record()
		}
		c := w.open()
		c.send(w.text("GET {T}/ HTTP/1.1\r\nX: " + secret + "\r\n" + secret + "\r\n\r\n"))
		c.answer(http.MethodGet)
		w.record()
		if text := w.box.log.String(); strings.Contains(text, secret) {
			t.Errorf("%s: the log:\n%s", w.name, text)
		}
	}
	if text := standard.String(); strings.Contains(text, secret) {
		t.Errorf("the standard log:\n%s", text)
	}
}

// TestEnvironment: no proxy variable of the daemon's own environment means anything, for GET, CONNECT and https (G4, A71).
func TestEnvironment(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, "http://192.0.2.1:9")
	}
	t.Setenv("NO_PROXY", "")
	all := ways(t, "", okAnswer)
	for _, w := range all {
		config := strings.TrimPrefix(readFile(t, w.box.config), "version: 1\n")
		w.box.write(strings.Replace(config, "upstream: {", "retry: off, upstream: {resolve: {a.example.com: \""+w.origin.addr+"\"}, ", 1))
		if err := w.box.Reload(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		// Loopback addresses are exempt from the variables anyway: the name is what would go astray.
		c := w.box.dialProxy()
		switch w.name {
		case "plaintext in a tunnel":
			c.connect("a.example.com:80")
		case "intercepted":
			c = w.box.intercepted("a.example.com:443", "http/1.1")
		}
		target, _, _ := strings.Cut(w.prefix, "://")
		if target != "" {
			target += "://a.example.com"
		}
		c.send("GET " + target + "/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
		if a := c.answer(http.MethodGet); a.body != "ok" {
			t.Errorf("%s: %s %s", w.name, a.Status, a.body)
		}
	}
}

// TestRequestIDs: what a client calls its request is taken over only where it is harmless (A26).
func TestRequestIDs(t *testing.T) {
	b := start(t, "defaults: {access: deny}")
	for id, taken := range map[string]bool{"my-request.1": true, "abc": false, "a b c d": false, "<script>x": false, "caf\xe9-12": false, `"quoted"`: false, strings.Repeat("a", 200): false,
		"%0d%0aX: 1": false} {
		c := b.dialProxy()
		c.send("GET http://api.example.com/ HTTP/1.1\r\nHost: x\r\nX-Request-Id: " + id + "\r\n\r\n")
		a := c.answer(http.MethodGet)
		refused(t, a, 403, "denied")
		if got := a.Header.Get("Httpowerd-Request-Id"); (got == id) != taken || len(got) < 4 || len(got) > 128 {
			t.Errorf("%q became %q", id, got)
		}
	}
}

// sockets counts those that the process has open; 0 where nobody says.
func sockets() (n int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(link, "socket:") {
			n++
		}
	}
	return n
}

// TestNothingLeftBehind: hundreds of tunnels, requests and intercepted connections, ended in every way, leave no goroutine and no socket behind
// (G30, A29).
func TestNothingLeftBehind(t *testing.T) {
	o := tcpOrigin(t, echo)
	all := ways(t, "retry: off, breaker: off", okAnswer)
	b := all[0].box
	runtime.GC()
	// What the first of each kind opens for good is not counted.
	warm := func() {
		for _, w := range all {
			c := w.open()
			c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n\r\n"))
			c.answer(http.MethodGet)
			c.Close()
		}
	}
	warm()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which would close what nobody else does
	settled := func() (goroutines, open int) { return runtime.NumGoroutine(), sockets() }
	goroutines, open := settled()
	var wait sync.WaitGroup
	for worker := range 10 {
		wait.Go(func() {
			for i := range 50 {
				c, err := net.Dial("tcp", b.ProxyAddrs()[0])
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				target := o
				if i%10 == 9 {
					target = "127.0.0.1:1" // nobody there
				}
				fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n\x00hello", target)
				reply := make([]byte, 256)
				switch (worker + i) % 4 {
				case 0: // to the end
					_ = c.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, c)
				case 1: // left in the middle
					_, _ = c.Read(reply)
				case 2: // broken off
					_ = c.(*net.TCPConn).SetLinger(0)
				case 3: // after the answer
					_, _ = io.ReadFull(c, reply[:100])
				}
				c.Close()
			}
		})
	}
	wait.Wait()
	for _, w := range all {
		for i := range 20 {
			c := w.open()
			c.send(w.text("POST {T}/ HTTP/1.1\r\nHost: {H}\r\nContent-Length: 4\r\n\r\nbo"))
			if i%2 == 0 {
				c.send("dy")
				c.answer(http.MethodPost)
			}
			c.Close()
		}
		c := w.open()
		c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n\r\n"))
		c.answer(http.MethodGet)
		c.Close()
	}
	b.records(500 + 22)
	const slack = 12 // kept connections to upstreams
	deadline := time.Now().Add(10 * time.Second)
	for {
		g, f := settled()
		if g <= goroutines+slack && f <= open+slack {
			return
		}
		if time.Now().After(deadline) {
			var stacks bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Fatalf("%d goroutines and %d sockets; before: %d and %d\n%s", g, f, goroutines, open, stacks.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestNothingRunsOn: a daemon that has shut down has left nothing running.
func TestNothingRunsOn(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		all := ways(t, "", okAnswer)
		for _, w := range all {
			c := w.open()
			c.send(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			c.answer(http.MethodGet)
			c.Close()
			w.box.stop()
		}
		for _, w := range all {
			if _, err := net.Dial("tcp", w.box.ProxyAddrs()[0]); !errors.Is(err, os.ErrDeadlineExceeded) && err == nil {
				t.Errorf("%s: still there", w.name)
			}
		}
	}
	const upstreams = 3 * 5 * 4 // the test's own servers live on
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+upstreams; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			var stacks bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Fatalf("%d goroutines; before: %d\n%s", runtime.NumGoroutine(), before, stacks.String())
		}
	}
}
