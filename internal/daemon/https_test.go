package daemon

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// securedBox is a daemon with an HTTPS listener that offers HTTP/2.
type securedBox struct {
	*box
	roots *x509.CertPool
	dir   string
}

func startSecured(t *testing.T, config string) *securedBox {
	t.Helper()
	s := &securedBox{dir: t.TempDir(), roots: x509.NewCertPool()}
	ca, caKey := certificate(t, s.dir, "ca", nil, nil)
	certificate(t, s.dir, "server", ca, caKey)
	certificate(t, s.dir, "billing.svc", ca, caKey)
	s.roots.AddCert(ca)
	path := func(name string) string { return filepath.Join(s.dir, name) }
	asks := ""
	if strings.Contains(config, "mtls:") {
		asks = ", client_ca: " + path("ca.pem")
	}
	s.box = start(t, "proxy: {tls: {cert: "+path("server.pem")+", key: "+path("server.key")+asks+", http2: true}}\n"+config)
	return s
}

// dialTLS opens a connection that offers these protocols.
func (s *securedBox) dialTLS(protocols ...string) *tls.Conn {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.ProxyAddrs()[0], &tls.Config{RootCAs: s.roots, ServerName: "localhost", NextProtos: protocols})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// speak opens a connection by HTTP/2.
func (s *securedBox) speak(certs ...tls.Certificate) *http.ClientConn {
	s.t.Helper()
	transport := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{RootCAs: s.roots, ServerName: "localhost", Certificates: certs}}
	transport.Protocols.SetHTTP2(true)
	cc, err := transport.NewClientConn(s.t.Context(), "https", s.ProxyAddrs()[0])
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cc.Close() })
	return cc
}

// streamed is a CONNECT over HTTP/2 with its two directions.
type streamed struct {
	*http.Response
	up *io.PipeWriter
}

func connectH2(t *testing.T, cc *http.ClientConn, authority string, header http.Header) streamed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	body, up := io.Pipe()
	if header == nil {
		header = http.Header{}
	}
	r := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Host: authority}, Host: authority, Header: header, Body: body}).WithContext(ctx)
	resp, err := cc.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return streamed{resp, up}
}

// endingEcho writes what it reads, and a dot when the client's end has arrived.
func endingEcho(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_, _ = io.WriteString(c, ".")
}

// TestTunnelsOverHTTP2: one connection to the proxy carries many tunnels, each with its own end and record.
func TestTunnelsOverHTTP2(t *testing.T) {
	addr := tcpOrigin(t, endingEcho)
	b := startSecured(t, "")
	cc := b.speak()
	const tunnels, size = 20, 200_000
	var wg sync.WaitGroup
	for i := range tunnels {
		wg.Go(func() {
			s := connectH2(t, cc, addr, nil)
			if s.StatusCode != 200 || s.Header.Get("Httpowerd-Request-Id") == "" {
				t.Errorf("%s %v", s.Status, s.Header)
				return
			}
			text := strings.Repeat(string(rune('a'+i)), size)
			go func() {
				_, _ = io.WriteString(s.up, text)
				_ = s.up.Close()
			}()
			got, err := io.ReadAll(s.Body)
			if err != nil || string(got) != text+"." {
				t.Errorf("tunnel %d: %d bytes, %v", i, len(got), err)
			}
			_ = s.Body.Close()
		})
	}
	wg.Wait()
	for _, r := range b.records(tunnels) {
		r.want(t, map[string]any{"kind": "tunnel", "mode": "tunnel", "outcome": "ok", "request_bytes": size, "response_bytes": size + 1})
	}
}

// TestLeavingTunnelsOverHTTP2: a stream that is reset ends its tunnel and no other, and so does the connection's end.
func TestLeavingTunnelsOverHTTP2(t *testing.T) {
	addr := tcpOrigin(t, endingEcho)
	b := startSecured(t, "")
	cc := b.speak()
	gone, stays := connectH2(t, cc, addr, nil), connectH2(t, cc, addr, nil)
	say := func(s streamed, text string) {
		t.Helper()
		buf := make([]byte, len(text))
		if _, err := io.WriteString(s.up, text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s.Body, buf); err != nil || string(buf) != text {
			t.Fatalf("%q, %v", buf, err)
		}
	}
	say(gone, "hello")
	_ = gone.Body.Close() // RST_STREAM
	b.records(1)
	say(stays, "still here")
	_ = cc.Close()
	for i, r := range b.records(2) {
		if i == 1 {
			r.want(t, map[string]any{"kind": "tunnel", "request_bytes": len("still here")})
		}
	}
}

// TestRequestsOverHTTP2: what is asked by HTTP/2 is what an upstream receives, and refusals look as they do in HTTP/1.1.
func TestRequestsOverHTTP2(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := startSecured(t, `
tenants:
  billing: {auth: [{mtls: {name: billing.svc}}], only: ["127.0.0.1"]}
  ops: {auth: [{bearer: {token: "a token of ops"}}]}
`)
	pair, err := tls.LoadX509KeyPair(filepath.Join(b.dir, "billing.svc.pem"), filepath.Join(b.dir, "billing.svc.key"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(cc *http.ClientConn, method, target, auth, body string) answer {
		t.Helper()
		r := request(t, method, target, body)
		if auth != "" {
			r.Header.Set("Proxy-Authorization", auth)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		resp, err := cc.RoundTrip(r.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer{resp, string(text)}
	}
	known, unknown := b.speak(pair), b.speak()
	if a := ask(known, http.MethodPost, o.url("/a%2Fb?c=%64"), "", "body"); a.StatusCode != 200 || a.body != "ok" {
		t.Errorf("%s %s", a.Status, a.body)
	}
	if a := ask(unknown, http.MethodGet, o.url("/"), "Bearer a token of ops", ""); a.StatusCode != 200 {
		t.Errorf("%s %s", a.Status, a.body)
	}
	refused(t, ask(unknown, http.MethodGet, o.url("/"), "", ""), 407, "auth_required")
	refused(t, ask(known, http.MethodGet, "http://api.example.com/", "", ""), 403, "denied")
	got := o.requests()
	if len(got) != 2 || !strings.HasPrefix(got[0], "POST /a%2Fb?c=%64 HTTP/1.1\r\n") || !strings.Contains(got[0], "\r\nHost: "+o.addr+"\r\n") || !strings.HasSuffix(got[0], "\r\n\r\nbody") {
		t.Errorf("the upstream received %q", got)
	}
	for _, text := range got {
		if strings.Contains(text, "Proxy-Authorization") || !strings.Contains(text, "\r\nVia: 2.0 ") {
			t.Errorf("the upstream received %q", text)
		}
	}
	tunnelled := connectH2(t, known, o.addr, nil)
	if tunnelled.StatusCode != 200 {
		t.Error(tunnelled.Status)
	}
	no := connectH2(t, unknown, o.addr, nil)
	text, _ := io.ReadAll(no.Body)
	refused(t, answer{no.Response, string(text)}, 407, "auth_required")
	no = connectH2(t, known, "api.example.com:443", nil)
	text, _ = io.ReadAll(no.Body)
	refused(t, answer{no.Response, string(text)}, 403, "denied")
	_ = tunnelled.up.Close()
	_, _ = io.Copy(io.Discard, tunnelled.Body)
	for i, r := range b.records(7) {
		if r.text("tenant") == "" && r.text("outcome") != "auth_required" {
			t.Errorf("record %d: %v", i, r)
		}
	}
}

// TestInterceptedOverHTTP2: what is in a CONNECT over HTTP/2 is governed as in any other, in HTTP/1.1 and HTTP/2.
func TestInterceptedOverHTTP2(t *testing.T) {
	o := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.URL.Path) }))
	t.Cleanup(o.Close)
	b := startSecured(t, "hosts: {127.0.0.1: {tls: intercept, upstream: {ca: "+originCA(t, o)+"}}}\n")
	cc := b.speak()
	ca, err := b.CA()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for _, two := range []bool{false, true} {
		s := connectH2(t, cc, o.Listener.Addr().String(), nil)
		if s.StatusCode != 200 {
			t.Fatal(s.Status)
		}
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: new(http.Protocols),
			DialContext: func(context.Context, string, string) (net.Conn, error) { return &streamConn{s}, nil }}
		transport.Protocols.SetHTTP1(!two)
		transport.Protocols.SetHTTP2(two)
		a := get(t, &http.Client{Transport: transport, Timeout: 10 * time.Second}, o.URL+"/inside")
		if a.body != "GET /inside" || a.ProtoMajor == 2 != two {
			t.Errorf("HTTP/2 %t: %s %s %s", two, a.Proto, a.Status, a.body)
		}
		transport.CloseIdleConnections()
	}
	for _, r := range b.records(2) {
		r.want(t, map[string]any{"kind": "request", "mode": "intercept", "outcome": "ok", "status": 200})
	}
}

// streamConn is the client's side of a tunnel.
type streamConn struct{ s streamed }

func (c *streamConn) Read(p []byte) (int, error)       { return c.s.Body.Read(p) }
func (c *streamConn) Write(p []byte) (int, error)      { return c.s.up.Write(p) }
func (c *streamConn) Close() error                     { _ = c.s.up.Close(); return c.s.Body.Close() }
func (c *streamConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *streamConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *streamConn) SetDeadline(time.Time) error      { return nil }
func (c *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

// TestHTTPSListenerSpeaksBoth: clients without HTTP/2 are served as before, and one that never ends its handshake holds up nobody.
func TestHTTPSListenerSpeaksBoth(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := startSecured(t, "")
	silent, err := net.Dial("tcp", b.ProxyAddrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, protocols := range [][]string{nil, {"http/1.1"}} {
		c := b.dialTLS(protocols...)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", o.url("/"))
		if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") || !strings.HasSuffix(string(got), "ok") {
			t.Errorf("%v: %q, %v", protocols, got, err)
		}
	}
}

// TestOddConnectsOverHTTP2: nothing but a host and a port opens a tunnel, and what is refused reaches nobody.
func TestOddConnectsOverHTTP2(t *testing.T) {
	b := startSecured(t, "")
	cc := b.speak()
	for _, authority := range []string{"example.com", "example.com:0", "example.com:443:443", "169.254.169.254:80"} {
		s := connectH2(t, cc, authority, nil)
		text, _ := io.ReadAll(s.Body)
		if s.StatusCode != 400 && s.StatusCode != 403 || s.Header.Get("Httpowerd-Error") == "" || s.Header.Get("Connection") != "" {
			t.Errorf("%s: %s %v %s", authority, s.Status, s.Header, text)
		}
	}
}

// frames opens a connection for HTTP/2 frames of one's own making.
func (s *securedBox) frames() *h2Client {
	s.t.Helper()
	c := s.dialTLS("h2")
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	h := &h2Client{&rawClient{Conn: c, t: s.t, r: bufio.NewReader(c)}, s.t}
	h.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(frameSettings, 0, 0, ""))
	return h
}

// TestHostileHTTP2OfListener: what can be read in two ways is refused on the proxy's own connection too, and reaches nobody (A17, A19, A22).
func TestHostileHTTP2OfListener(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := startSecured(t, "")
	get := func(path string, more ...string) []string {
		return append([]string{":method", "GET", ":scheme", "http", ":authority", o.addr, ":path", path}, more...)
	}
	connect := func(more ...string) []string { return append([]string{":method", "CONNECT"}, more...) }
	for name, row := range map[string]struct {
		fields []string
		want   string
	}{
		"alias":               {get("/", "transfer_encoding", "chunked"), `"code":"bad_request"`},
		"expectation":         {get("/", "expect", "foo"), `"status":417`},
		"another Host":        {get("/", "host", "other.example.com"), `"code":"authority_mismatch"`},
		"no authority":        {[]string{":method", "GET", ":scheme", "http", ":path", "/"}, `"code":"bad_request"`},
		"authority and path":  {[]string{":method", "GET", ":scheme", "http", ":authority", o.addr + "/public", ":path", "/admin"}, `"code":"bad_request"`},
		"authority and query": {[]string{":method", "GET", ":scheme", "http", ":authority", o.addr + "?public", ":path", "/admin"}, `"code":"bad_request"`},
		"userinfo":            {[]string{":method", "GET", ":scheme", "http", ":authority", "user@" + o.addr, ":path", "/"}, "reset 1"},
		"scheme":              {[]string{":method", "GET", ":scheme", "ftp", ":authority", o.addr, ":path", "/"}, "reset 1"},
		"no scheme":           {[]string{":method", "GET", ":authority", o.addr, ":path", "/"}, "reset 1"},
		"URL in the path":     {get("http://other.example.com/"), `"code":"bad_request"`},
		"fragment":            {get("/a#b"), `"code":"bad_request"`},
		"no slash":            {get("a"), "reset 1"},
		"CONNECT with a path": {connect(":authority", o.addr, ":path", "/"), "reset 1"},
		"CONNECT to nobody":   {connect(":path", "/"), "reset 1"},
		"CONNECT, scheme":     {connect(":authority", o.addr, ":scheme", "https"), "reset 1"},
		"CONNECT, userinfo":   {connect(":authority", "user@"+o.addr), `"code":"bad_request"`},
		"CONNECT, alias":      {connect(":authority", o.addr, "content_length", "3"), `"code":"bad_request"`},
		"extended CONNECT":    {connect(":authority", o.addr, ":scheme", "https", ":path", "/", ":protocol", "websocket"), "reset 1"},
		"metadata":            {connect(":authority", "169.254.169.254:80"), `"code":"destination_denied"`},
	} {
		h := b.frames()
		h.request(1, true, row.fields...)
		if got := h.body(1); !strings.Contains(got, row.want) {
			t.Errorf("%s: %q", name, got)
		}
		h.Close()
		if got := o.requests(); len(got) > 0 {
			t.Fatalf("%s: the upstream received %q", name, got)
		}
	}
	if n := o.opened(); n > 0 {
		t.Errorf("%d connections reached the upstream", n)
	}
}

// ownGoroutines counts those that are no test's.
func ownGoroutines() (n int) {
	stacks := make([]byte, 64<<20)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if !strings.Contains(stack, "_test.go:") {
			n++
		}
	}
	return n
}

// TestHTTP2FloodsOfListener: tunnels that are opened and reset at once, and ones that are only opened, cost no more than the streams there may be (A30).
func TestHTTP2FloodsOfListener(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	b := startSecured(t, "")
	connect := block(":method", "CONNECT", ":authority", o.addr)
	for name, flood := range map[string]func(i uint32) string{
		"opened and reset": func(i uint32) string {
			return frame(frameHeaders, flagEndHeaders, 2*i+1, connect) + frame(frameReset, 0, 2*i+1, "\x00\x00\x00\x08")
		},
		"opened": func(i uint32) string { return frame(frameHeaders, flagEndHeaders, 2*i+1, connect) },
	} {
		before, goroutines := heap(), ownGoroutines()
		h := b.frames()
		_ = h.SetDeadline(time.Now().Add(700 * time.Millisecond))
		ended := false
		for i := uint32(0); i < 20_000 && !ended; {
			var text strings.Builder
			for ; text.Len() < 16<<10; i++ {
				text.WriteString(flood(i))
			}
			_, err := io.WriteString(h.Conn, text.String())
			ended = err != nil
		}
		if grown := heap() - before; grown > 48<<20 {
			t.Errorf("%s: the heap grew by %d MiB", name, grown>>20)
		}
		if grown := ownGoroutines() - goroutines; grown > 250*8 {
			t.Errorf("%s: %d goroutines more", name, grown)
		}
		h.Close()
		healthy := b.frames()
		healthy.request(1, true, ":method", "GET", ":scheme", "http", ":authority", o.addr, ":path", "/")
		if body := healthy.body(1); body != "ok" {
			t.Errorf("%s: afterwards somebody else got %q", name, body)
		}
		healthy.Close()
	}
}

// TestStalledStreams: however many uploads of a connection nobody reads, one that somebody does is served.
func TestStalledStreams(t *testing.T) {
	stuck, o := newRawOrigin(t, "<hang>"), newRawOrigin(t, okAnswer)
	b := startSecured(t, `hosts: {"`+stuck.addr+`": {concurrency: {max: 1, queue: 1000, wait: 1m}}}`)
	h := b.frames()
	const streams, room = 250, 128 << 10
	post := func(stream uint32, authority string, size int) {
		h.request(stream, false, ":method", "POST", ":scheme", "http", ":authority", authority, ":path", "/", "content-length", fmt.Sprint(size))
		for ; size > 0; size -= 16 << 10 {
			h.send(frame(frameData, 0, stream, strings.Repeat("x", min(size, 16<<10))))
		}
	}
	for {
		if kind, _, _, _, err := h.next(); err != nil {
			t.Fatal(err)
		} else if kind == frameWindowUpdate { // of the connection: before, there is less room
			break
		}
	}
	last := uint32(2*streams - 1)
	for stream := uint32(1); stream < last; stream += 2 {
		post(stream, stuck.addr, room)
	}
	post(last, o.addr, 4)
	h.send(frame(frameData, flagEndStream, last, ""))
	if got := h.body(last); got != "ok" {
		t.Errorf("behind %d uploads that nobody reads: %q", streams-1, got)
	}
	if got := o.requests(); len(got) != 1 || !strings.HasSuffix(got[0], "\r\n\r\nxxxx") {
		t.Errorf("the upstream received %q", got)
	}
	b.records(1)[0].want(t, map[string]any{"outcome": "ok", "status": 200, "request_bytes": 4})
}
