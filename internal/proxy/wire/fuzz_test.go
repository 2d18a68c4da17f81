package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"httpowerd/internal/exchange"
)

// script is a connection on which everything has been sent and then closed; answers go nowhere.
type script struct {
	net.Conn
	in *bytes.Reader
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { return nil }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// requests notes requests as a handler sees them.
type requests struct {
	mu   sync.Mutex
	seen []string
}

func (l *requests) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	text := fmt.Sprintf("%s %s %q %s %s %d.%d %d %v body %q broken %v", r.Method, r.RequestURI, r.URL, r.URL.Host, r.Host, r.ProtoMajor, r.ProtoMinor, r.ContentLength,
		r.TransferEncoding, body, err != nil)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		text += fmt.Sprintf("\n%s: %q", name, r.Header[name])
	}
	l.mu.Lock()
	l.seen = append(l.seen, text)
	l.mu.Unlock()
	if r.Method == http.MethodConnect || err != nil || r.Header.Get("Upgrade") != "" {
		w.Header().Set("Connection", "close")
	}
}

// guarded is a script behind a Guard, as net/http's server reads it.
type guarded struct {
	*script
	guard Guard
}

func (g *guarded) Read(p []byte) (int, error) {
	return g.guard.Read(g.script, p, func(*exchange.Refusal) []byte { return nil })
}

// once is a listener with one connection.
type once struct {
	c    net.Conn
	done chan struct{}
}

func (o *once) Accept() (net.Conn, error) {
	if c := o.c; c != nil {
		o.c = nil
		return c, nil
	}
	<-o.done
	return nil, net.ErrClosed
}
func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

// byStandard is what net/http's server makes of the same bytes behind a Guard.
func byStandard(in []byte) []string {
	l := &requests{}
	o := &once{c: &guarded{&script{in: bytes.NewReader(in)}, Guard{MaxHead: 8 << 10}}, done: make(chan struct{})}
	ended := make(chan struct{})
	var stop sync.Once
	s := &http.Server{Handler: l, DisableGeneralOptionsHandler: true, MaxHeaderBytes: 8 << 10, ReadHeaderTimeout: time.Second, ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				stop.Do(func() { close(ended) })
			}
		}}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(o) })
	<-ended
	close(o.done)
	wg.Wait()
	return l.seen
}

func byWire(in []byte) []string {
	l := &requests{}
	s := &Server{Handler: l, MaxHead: 8 << 10, HeaderTimeout: time.Second, Idle: time.Second, Refused: func(http.ResponseWriter, *http.Request, *exchange.Refusal) {}}
	s.ServeConn(&script{in: bytes.NewReader(in)})
	return l.seen
}

// FuzzServer: the wire and net/http behind a Guard see the same requests in the same bytes.
func FuzzServer(f *testing.F) {
	const host = "Host: a.example.com\r\n"
	for _, seed := range []string{
		"GET http://a.example.com/ HTTP/1.1\r\n" + host + "\r\n",
		"GET /a%2Fb?c=d#e HTTP/1.1\r\n" + host + "\r\n",
		"GET //a//b?? HTTP/1.1\r\n" + host + "\r\nGET http://b.example.com:80/x? HTTP/1.1\r\n" + host + "X-A: 1\r\nx-a:  2 \r\n\r\n",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n" + host + "\r\n",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-T: 1\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
		"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX Y: 1\r\n\r\n",
		"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\n" + host + "\r\n",
		"CONNECT a.example.com:443 HTTP/1.1\r\n" + host + "\r\nopaque",
		"GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nopaque",
		"GET / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
		"GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", "GET / HTTP/1.1\nHost: x\n\n", "\r\nGET / HTTP/1.1\r\n" + host + "\r\n",
		"\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", "POST / HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nok\r\nGET / HTTP/1.1\r\n" + host + "\r\n\r\n",
		"GET http://[::1]:8080/ HTTP/1.1\r\n" + host + "\r\n", "GET http://a.example.com HTTP/1.1\r\n" + host + "\r\n", "GET http://a_b/ HTTP/1.1\r\n" + host + "\r\n",
		"GET / HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok", "GET / HTTP/1.1\r\n" + host + "Pragma: no-cache\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if lower := bytes.ToLower(in); bytes.Contains(lower, []byte("pragma")) || bytes.Contains(lower, []byte("expect")) && bytes.Contains(in, []byte("HTTP/1.0")) {
			return // net/http invents a Cache-Control beside the one, and lets HTTP/1.0 expect something
		}
		stuck := time.AfterFunc(30*time.Second, func() { panic(fmt.Sprintf("stuck with %q", in)) })
		defer stuck.Stop()
		want, got := byStandard(in), byWire(in)
		if n := len(got); n > 0 && n <= len(want) && spacedName(in) && strings.Contains(got[n-1], " broken true") {
			// RFC 9112 section 5.1 has a name with white space behind it refused, and RFC 9110 section 5.1 has none within; net/http takes both in trailers, and goes on.
			want = want[:n]
			want[n-1] = strings.Replace(want[n-1], " broken false", " broken true", 1)
		}
		if !slices.Equal(want, got) {
			t.Errorf("of %q\nnet/http made %q\nthe wire     %q", in, want, got)
		}
	})
}

// spacedName tells whether there is a space in what may be a field's name.
func spacedName(in []byte) bool {
	for line := range bytes.Lines(in) {
		if name, _, ok := bytes.Cut(line, []byte(":")); ok && bytes.Contains(name, []byte(" ")) && !bytes.Contains(line, []byte("HTTP/1.")) {
			return true
		}
	}
	return false
}

// FuzzAnswer: what the wire takes from an upstream, net/http would take too, and read the same in it.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
		"HTTP/1.0 200 OK\r\nX: a\r\n b\r\n\r\nto the end", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 304\r\nEtag: \"x\"\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length:02\r\n\r\nok", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nopaque",
		"HTTP/1.1 200 OK\r\nX: a\r\n \r\n\r\n", "HTTP/1.1 200 OK\r\nX: a\r\n \r\n b\r\n \r\n\r\n",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, isHead bool) {
		p := &place{open: 1}
		a := &answer{c: &upConn{Conn: &script{in: bytes.NewReader(in)}, place: p, t: &Transport{retired: true, places: map[string]*place{"": p}}}, head: isHead}
		a.c.begin()
		if a.readHead(8<<10) != nil || a.frame() != nil {
			return
		}
		method := http.MethodGet
		if isHead {
			method = http.MethodHead
		}
		body, err := io.ReadAll(a.resp.Body)
		std, failed := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), &http.Request{Method: method})
		if failed != nil {
			t.Fatalf("net/http does not take %q: %v", in, failed)
		}
		if std.StatusCode != a.resp.StatusCode {
			t.Errorf("%q: %d, net/http reads %d", in, a.resp.StatusCode, std.StatusCode)
		}
		for name, values := range a.resp.Header {
			theirs := slices.Clone(std.Header[name])
			for i := range theirs {
				theirs[i] = strings.Trim(theirs[i], " \t") // net/http leaves the space of a fold with nothing behind it (RFC 9112 section 5.1 has none there)
			}
			if name != "Connection" && name != "Content-Length" && !slices.Equal(values, theirs) {
				t.Errorf("%q: %s is %q, in net/http %q", in, name, values, std.Header[name])
			}
		}
		if std.StatusCode == http.StatusSwitchingProtocols || std.StatusCode < 200 {
			return
		}
		want, broken := io.ReadAll(std.Body)
		if err == nil && (broken != nil || string(want) != string(body)) {
			t.Errorf("%q: the body is %q, in net/http %q %v", in, body, want, broken)
		}
		if err == nil && std.ContentLength != a.resp.ContentLength && !(isHead || strings.Contains(string(in), "304") || strings.Contains(string(in), "204")) {
			t.Errorf("%q: the length is %d, in net/http %d", in, a.resp.ContentLength, std.ContentLength)
		}
	})
}
