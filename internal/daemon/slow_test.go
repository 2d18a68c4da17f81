package daemon

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// drip writes a byte at a time until the proxy has had enough.
func (c *rawClient) drip(text string) {
	for _, b := range []byte(text) {
		if _, err := c.Conn.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond) // what is tested is a client that takes its time
	}
}

// ended waits until the proxy ends the connection.
func (c *rawClient) ended() error {
	_, err := io.Copy(io.Discard, c.r)
	if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
		return err
	}
	return nil
}

// TestSlowClients: whoever takes too long, at whatever point, is cut off by a configured deadline, and others are served meanwhile (A29, G9).
func TestSlowClients(t *testing.T) {
	cert, ca := selfSigned(t)
	o := newRawOrigin(t, okAnswer)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	secure := serveRaw(t, l, inTurn(okAnswer))
	silent := tcpOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	const limits = "proxy: {limits: {header_timeout: 1s, idle: 1s, tunnel_idle: 1s}}\n"
	defaults := "defaults: {retry: off, breaker: off, timeout: {attempt: 500ms, total: 1s}, upstream: {ca: " + ca + "}"
	b := start(t, limits+defaults+"}")
	intercepting := start(t, limits+defaults+", tls: intercept}")
	long := strings.Repeat("a", 400) // eight seconds' worth
	plain := "http://" + o.addr + "/ HTTP/1.1\r\nHost: x\r\n"
	inner := "/ HTTP/1.1\r\nHost: " + secure.addr + "\r\n"
	inside := func() *rawClient { return intercepting.intercepted(secure.addr, "http/1.1") }
	tunnel := func(authority string) *rawClient {
		c := b.dialProxy()
		c.connect(authority)
		return c
	}
	var wait sync.WaitGroup
	for name, slow := range map[string]func() *rawClient{
		"nothing at all":   func() *rawClient { return b.dialProxy() },
		"the request line": func() *rawClient { c := b.dialProxy(); go c.drip("GET http://" + o.addr + "/" + long); return c },
		"a field":          func() *rawClient { c := b.dialProxy(); go c.drip("GET " + plain + "X-A: " + long); return c },
		"between requests": func() *rawClient { c := b.dialProxy(); c.send("GET " + plain + "\r\n"); c.answer("GET"); return c },
		"the second line": func() *rawClient {
			c := b.dialProxy()
			c.send("GET " + plain + "\r\n")
			c.answer("GET")
			go c.drip("GET /" + long)
			return c
		},
		"a body": func() *rawClient {
			c := b.dialProxy()
			c.send("POST " + plain + "Content-Length: 400\r\n\r\n")
			go c.drip(long)
			return c
		},
		"no body": func() *rawClient {
			c := b.dialProxy()
			c.send("POST " + plain + "Content-Length: 400\r\n\r\n")
			return c
		},
		"a chunk": func() *rawClient {
			c := b.dialProxy()
			c.send("POST " + plain + "Transfer-Encoding: chunked\r\n\r\n")
			go c.drip("fff;" + long)
			return c
		},
		"no promised body": func() *rawClient {
			c := b.dialProxy()
			c.send("POST " + plain + "Expect: 100-continue\r\nContent-Length: 400\r\n\r\n")
			return c
		},
		"after CONNECT": func() *rawClient { return tunnel(silent) },
		"a ClientHello": func() *rawClient {
			c := tunnel(silent)
			go c.drip("\x16\x03\x01\x01\xff\x01\x00\x01\xfb" + long)
			return c
		},
		"a head in a tunnel": func() *rawClient {
			c := tunnel(o.addr)
			go c.drip("GET / HTTP/1.1\r\nX-A: " + long)
			return c
		},
		"between requests in a tunnel": func() *rawClient {
			c := tunnel(o.addr)
			c.send("GET / HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
			c.answer("GET")
			return c
		},
		"inside: nothing": func() *rawClient { return inside() },
		"inside: a field": func() *rawClient { c := inside(); go c.drip("GET " + inner + "X-A: " + long); return c },
		"inside: a body": func() *rawClient {
			c := inside()
			c.send("POST " + inner + "Content-Length: 400\r\n\r\n")
			go c.drip(long)
			return c
		},
		"inside: between requests": func() *rawClient { c := inside(); c.send("GET " + inner + "\r\n"); c.answer("GET"); return c },
		"h2: nothing":              func() *rawClient { return intercepting.dialH2(secure.addr).rawClient },
		"h2: half a head": func() *rawClient {
			h := intercepting.dialH2(secure.addr)
			h.send(frame(frameHeaders, 0, 1, block(":method", "GET")))
			return h.rawClient
		},
		"h2: half a frame": func() *rawClient {
			h := intercepting.dialH2(secure.addr)
			h.send(frame(frameHeaders, flagEndHeaders, 1, block(":method", "GET"))[:12])
			return h.rawClient
		},
		"h2: no body": func() *rawClient {
			h := intercepting.dialH2(secure.addr)
			h.request(1, false, ":method", "POST", ":scheme", "https", ":authority", secure.addr, ":path", "/", "content-length", "400")
			return h.rawClient
		},
	} {
		wait.Go(func() {
			c := slow()
			defer c.Close()
			if err := c.ended(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for range 20 {
		if a := get(t, b.client(), o.url("/")); a.body != "ok" {
			t.Errorf("somebody else got %s %s", a.Status, a.body)
		}
	}
	wait.Wait()
	for _, got := range append(o.requests(), secure.requests()...) {
		if !strings.HasPrefix(got, "GET / HTTP/1.1\r\n") {
			t.Errorf("an upstream received %q", got)
		}
	}
}

// TestSlowReader: a client that does not read its answer is let go, and the upstream with it (A29).
func TestSlowReader(t *testing.T) {
	left := make(chan struct{})
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		piece := make([]byte, 1<<20)
		for range 1000 {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}))
	defer o.Close()
	b := start(t, "proxy: {limits: {tunnel_idle: 1s}}")
	c := b.dialProxy()
	c.send("GET " + o.URL + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream still writes")
	}
	b.records(1)[0].want(t, map[string]any{"outcome": "client_gone"})
}

// TestSlowReaderHTTP2: the same for a client that speaks HTTP/2 and grants no more room, none at all or what there is by default, of any answer.
func TestSlowReaderHTTP2(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for name, row := range map[string]struct{ settings, answer string }{
		"no room":             {"\x00\x04\x00\x00\x00\x00", "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + long[:10_000]},
		"chunks without room": {"\x00\x04\x00\x00\x00\x00", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n<hang>"},
		"the default window":  {"", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + long},
	} {
		t.Run(name, func(t *testing.T) {
			cert, ca := selfSigned(t)
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
			if err != nil {
				t.Fatal(err)
			}
			o := serveRaw(t, l, inTurn(row.answer))
			b := start(t, "proxy: {limits: {tunnel_idle: 1s}}\ndefaults: {tls: intercept, timeout: {body_idle: 1s}, upstream: {ca: "+ca+"}}")
			h := &h2Client{b.intercepted(o.addr, "h2"), t}
			h.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(frameSettings, 0, 0, row.settings))
			h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", o.addr, ":path", "/")
			if got := h.body(1); !strings.HasSuffix(got, "reset 2") {
				t.Errorf("the client got %d bytes, then %q", len(got), got[max(0, len(got)-100):])
			}
			b.records(1)[0].want(t, map[string]any{"outcome": "client_gone", "status": 200})
			if got := o.requests(); len(got) != 1 {
				t.Errorf("the upstream received %q", got)
			}
		})
	}
}

// TestEarlyAnswer: an answer that comes before the upload is complete reaches the client at once, refused by the upstream or by the proxy, asked for with
// 100-continue or not, and the connection ends behind it (A34, G18).
func TestEarlyAnswer(t *testing.T) {
	// This upstream answers as soon as it has the head.
	answer := func(c net.Conn) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(c)
		for line := ""; line != "\r\n"; {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		_, _ = io.Copy(io.Discard, r)
	}
	addr := tcpOrigin(t, func(c *net.TCPConn) { answer(c) })
	b := start(t, "proxy: {limits: {header_timeout: 300ms}}\nhosts: {denied.example.com: {access: deny}}")
	var wait sync.WaitGroup
	defer wait.Wait()
	for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
		for _, framing := range []string{"Content-Length: 100000000\r\n\r\n", "Content-Length: 10\r\n\r\nonly", "Transfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n"} {
			if expect != "" {
				framing, _, _ = strings.Cut(framing, "only")
				framing = strings.TrimSuffix(framing, "4\r\n")
			}
			for target, body := range map[string]string{"http://" + addr + "/": "no", "http://denied.example.com/": `"code":"denied"`} {
				c := b.dialProxy()
				c.send("PUT " + target + " HTTP/1.1\r\nHost: x\r\n" + expect + framing)
				a := c.answer(http.MethodPut)
				if a.StatusCode == http.StatusContinue { // an upstream that takes more than a second is not waited for
					a = c.answer(http.MethodPut)
				}
				if a.StatusCode != 403 || !strings.Contains(a.body, body) || !a.Close {
					t.Errorf("%s%s to %s: %s close %v %s", expect, framing, target, a.Status, a.Close, a.body)
				}
				wait.Go(func() {
					if err := c.ended(); err != nil {
						t.Errorf("%s%s to %s: %v", expect, framing, target, err)
					}
				})
			}
		}
	}
}

// TestEarlyAnswerHTTP2: so does one of an upstream that speaks HTTP/2, to clients that send nothing more until they have all of it.
func TestEarlyAnswerHTTP2(t *testing.T) {
	var told atomic.Int32
	addr := serveFrames(t, func(_ int, f *http2.Framer, frame http2.Frame) {
		if data, ok := frame.(*http2.DataFrame); ok && string(data.Data()) == "only" && !data.StreamEnded() {
			lengths := []string{"content-length", "2"}
			if told.Add(1) > 2 {
				lengths = append(lengths, "content-length", "3") // which is no answer
			}
			writeHead(f, data.StreamID, false, append([]string{":status", "413"}, lengths...)...)
			_ = f.WriteData(data.StreamID, true, []byte("no"))
		}
	})
	for _, retry := range []string{"{}", "off"} { // where bodies are kept, and where they are not
		told.Store(0)
		b := start(t, "defaults: {tls: intercept, retry: "+retry+", upstream: {insecure_skip_verify: true}}")
		h := b.dialH2(addr)
		h.request(1, false, ":method", "PUT", ":scheme", "https", ":authority", addr, ":path", "/")
		h.send(frame(frameData, 0, 1, "only"))
		if got := h.body(1); got != "no" {
			t.Errorf("retry: %s: by HTTP/2 the client got %q", retry, got)
		}
		c := b.intercepted(addr, "http/1.1")
		c.send("PUT / HTTP/1.1\r\nHost: " + addr + "\r\nContent-Length: 10\r\n\r\nonly")
		if a := c.answer(http.MethodPut); a.StatusCode != http.StatusRequestEntityTooLarge || a.body != "no" || !a.Close {
			t.Errorf("retry: %s: by HTTP/1.1 the client got %s %q, close %v", retry, a.Status, a.body, a.Close)
		}
		for _, r := range b.records(2) {
			r.want(t, map[string]any{"status": 413, "status_by": "upstream", "outcome": "ok", "request_bytes": 4, "response_bytes": 2})
			if attempts, _ := r["attempts"].([]any); len(attempts) != 1 {
				t.Errorf("retry: %s: the record has the attempts %v", retry, attempts)
			}
		}
		h.request(3, false, ":method", "POST", ":scheme", "https", ":authority", addr, ":path", "/")
		h.send(frame(frameData, 0, 3, "only"))
		if got := h.body(3); !strings.Contains(got, `"code":"upstream_protocol"`) {
			t.Errorf("retry: %s: an answer that is none became %q", retry, got)
		}
		b.records(3)[2].want(t, map[string]any{"status": 502, "outcome": "upstream_protocol"})
		if n := told.Load(); n != 3 {
			t.Errorf("retry: %s: the upstream was asked %d times", retry, n)
		}
	}
}

// TestEarlyAnswerReadLate: a client that writes all of its upload before it reads, as many do, gets the answer that came long before.
func TestEarlyAnswerReadLate(t *testing.T) {
	if onStandard() {
		t.Skip("net/http reads 256 KiB of such an upload")
	}
	cert, ca := selfSigned(t)
	heads := make(chan string, 4)
	upstream := func(c net.Conn) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		r := bufio.NewReader(c)
		head, _ := r.ReadString('\n')
		for line := head; line != "\r\n"; {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		heads <- head
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		_, _ = io.Copy(io.Discard, r)
	}
	plain := tcpOrigin(t, func(c *net.TCPConn) { upstream(c) })
	secure := tcpOrigin(t, func(c *net.TCPConn) { upstream(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})) })
	b := start(t, "proxy: {limits: {header_timeout: 1m}}\nhosts: {denied.example.com: {access: deny}}\ndefaults: {tls: intercept, upstream: {ca: "+ca+"}}")
	const size = 32 << 20 // more than sockets hold
	for i, c := range []struct {
		target, upstream, body, outcome string
		status                          int
	}{
		{"http://" + plain + "/", plain, "no", "ok", 413},
		{"/", secure, "no", "ok", 413},
		{"http://denied.example.com/", "", `"code":"denied"`, "denied", 403},
	} {
		client := b.dialProxy()
		if c.target == "/" {
			client = b.intercepted(c.upstream, "http/1.1")
		}
		_ = client.SetDeadline(time.Now().Add(time.Minute))
		client.send(fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", c.target, cmp.Or(c.upstream, "denied.example.com"), size))
		for range size >> 20 {
			client.send(strings.Repeat("a", 1<<20))
		}
		if a := client.answer(http.MethodPut); a.StatusCode != c.status || !strings.Contains(a.body, c.body) || !a.Close {
			t.Errorf("%s: %s close %v %s", c.target, a.Status, a.Close, a.body)
		}
		_ = client.Close()
		b.records(i + 1)[i].want(t, map[string]any{"outcome": c.outcome, "status": c.status})
	}
	for range 2 {
		if head := <-heads; head != "PUT / HTTP/1.1\r\n" {
			t.Errorf("the upstream received %q", head)
		}
	}
	if len(heads) > 0 {
		t.Errorf("the upstream received %q too", <-heads)
	}
}

// TestResetWhileUploading: an upstream that breaks off is reported while the upload still drips in, not behind it.
func TestResetWhileUploading(t *testing.T) {
	addr := tcpOrigin(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1024))
		_ = c.SetLinger(0)
	})
	b := start(t, "proxy: {limits: {header_timeout: 300ms}}\ndefaults: {retry: off}")
	c := b.dialProxy()
	c.send("POST http://" + addr + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
	go c.drip(strings.Repeat("a", 50))
	refused(t, c.answer(http.MethodPost), 502, "upstream_reset")
	if err := c.ended(); err != nil {
		t.Error(err)
	}
}

// TestEndBeforeUpload: an upstream that dies while the client says nothing is reported at once, and what comes of the body then is no request.
func TestEndBeforeUpload(t *testing.T) {
	if onStandard() {
		t.Skip("net/http waits for the body that it reads")
	}
	for how, c := range map[string]struct {
		answer, code string
	}{
		"reset":   {"<reset>", "upstream_reset"},
		"close":   {"", "upstream_reset"},
		"garbage": {"garbage\r\n\r\n", "upstream_protocol"},
	} {
		var heard atomic.Int32
		addr := tcpOrigin(t, func(o *net.TCPConn) {
			defer o.Close()
			got := make([]byte, 1024)
			for n := 0; !strings.Contains(string(got[:n]), "only"); {
				m, err := o.Read(got[n:])
				if n += m; err != nil {
					return
				}
			}
			heard.Add(1)
			if c.answer == "<reset>" {
				_ = o.SetLinger(0)
				return
			}
			_, _ = io.WriteString(o, c.answer)
		})
		for method, retry := range map[string]string{http.MethodPost: "off", http.MethodPut: "{attempts: 2}"} {
			b := start(t, "proxy: {limits: {header_timeout: 300ms}}\ndefaults: {breaker: off, retry: "+retry+"}")
			for _, framing := range []string{"Content-Length: 100000\r\n\r\nonly", "Transfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n"} {
				heard.Store(0)
				p := b.dialProxy()
				p.send(method + " http://" + addr + "/ HTTP/1.1\r\nHost: x\r\n" + framing)
				a := p.answer(method) // within the connection's deadline, that is
				refused(t, a, 502, c.code)
				if n := heard.Load(); !a.Close || method == http.MethodPut && c.code == "upstream_reset" && n != 2 {
					t.Errorf("%s, %s, %.10s: close %v, %d attempts had the body", how, method, framing, a.Close, n)
				}
				_, _ = io.WriteString(p, "GET http://"+addr+"/ HTTP/1.1\r\nHost: x\r\n\r\n")
				if rest, _ := io.ReadAll(p.r); len(rest) > 0 {
					t.Errorf("%s, %.10s: behind the answer came %q", how, framing, rest)
				}
			}
			b.records(2)
		}
	}
}

// TestEndBeforeUploadHTTP2: the same for a client that speaks HTTP/2.
func TestEndBeforeUploadHTTP2(t *testing.T) {
	if onStandard() {
		t.Skip("net/http waits for the body that it reads")
	}
	cert, _ := selfSigned(t)
	addr := tcpOrigin(t, func(o *net.TCPConn) {
		c := tls.Server(o, &tls.Config{Certificates: []tls.Certificate{cert}})
		defer o.Close()
		got := ""
		for b := make([]byte, 1024); !strings.Contains(got, "only"); {
			n, err := c.Read(b)
			if got += string(b[:n]); err != nil {
				return
			}
		}
	})
	b := start(t, "defaults: {retry: off, breaker: off, upstream: {insecure_skip_verify: true}}\nhosts: {127.0.0.1: {tls: intercept}}")
	h := b.dialH2(addr)
	h.request(1, false, ":method", "POST", ":scheme", "https", ":authority", addr, ":path", "/")
	h.send(frame(frameData, 0, 1, "only"))
	if got := h.body(1); !strings.Contains(got, `"code":"upstream_reset"`) {
		t.Error(got)
	}
}

// TestBothWaysAtOnce: an upstream that answers while it is still being told is heard at once.
func TestBothWaysAtOnce(t *testing.T) {
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, line)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer o.Close()
	b := start(t, "")
	c := b.dialProxy()
	c.send("POST " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(resp.Body)
	for i := range 3 {
		said := fmt.Sprintf("word %d\n", i)
		c.send(fmt.Sprintf("%x\r\n%s\r\n", len(said), said))
		if heard, err := out.ReadString('\n'); heard != said {
			t.Fatalf("%q, %v; want %q", heard, err, said)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestStalledUploads: clients that stop sending say nothing of the upstream: its breaker stays closed (A36). One that sends all and gets no answer does.
func TestStalledUploads(t *testing.T) {
	o := newRawOrigin(t, okAnswer)
	silent := tcpOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	b := start(t, "defaults: {retry: off, timeout: {attempt: 1s, total: 1s}, breaker: {consecutive: 2}}")
	ask := func(address, body string) answer {
		c := b.dialProxy()
		c.send("POST http://" + address + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n" + body)
		return c.answer(http.MethodPost)
	}
	for range 3 {
		refused(t, ask(o.addr, "abc"), 504, "upstream_timeout")
	}
	if a := ask(o.addr, "0123456789"); a.StatusCode != 200 {
		t.Errorf("after stalled uploads: %s %s", a.Status, a.body)
	}
	for range 2 {
		refused(t, ask(silent, "0123456789"), 504, "upstream_timeout")
	}
	refused(t, ask(silent, "0123456789"), 503, "breaker_open")
}

// TestDeafHTTP2: a client that takes nothing from its connection, and still talks, is cut off as one of HTTP/1.1 is.
func TestDeafHTTP2(t *testing.T) {
	cert, ca := selfSigned(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	const size = 32 << 20 // which no socket's buffers take
	o := serveRaw(t, l, inTurn(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)+strings.Repeat("x", size)))
	b := start(t, "proxy: {limits: {tunnel_idle: 1s}}\ndefaults: {timeout: {body_idle: 1s}, tls: intercept, upstream: {ca: "+ca+"}}")
	h := b.dialH2(o.addr)
	grant := frame(frameWindowUpdate, 0, 0, "\x3f\xff\x00\x00")
	h.send(frame(frameSettings, 0, 0, "\x00\x04\x7f\xff\xff\xff") + grant)
	h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", o.addr, ":path", "/")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ; ; time.Sleep(100 * time.Millisecond) {
			if _, err := io.WriteString(h.Conn, frame(frameWindowUpdate, 0, 0, "\x00\x00\x00\x01")); err != nil {
				return
			}
		}
	}()
	b.records(1)[0].want(t, map[string]any{"status": 200, "outcome": "client_gone"})
	<-ended
}
