package test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// scriptedEnv makes this test binary the upstream of the chaos matrix.
const scriptedEnv = "HTTPOWERD_TEST_UPSTREAM"

// wire is a connection of the scripted upstream, after a request was read from it.
type wire struct {
	net.Conn              // TLS, where there is some
	tcp      *net.TCPConn // below it
	stream   *stream      // of HTTP/2; nil: HTTP/1.1
	upstream *scripted
	noted    *sighting
}

func (w wire) say(text string) { _, _ = io.WriteString(w, text) }

// reset ends the connection as a crashed process does.
func (w wire) reset() bool {
	_ = w.tcp.SetLinger(0)
	_ = w.tcp.Close()
	return false
}

func (w wire) halfClose() { _ = w.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// rest waits until the proxy has given the request up: of a connection by HTTP/2 the others go on.
func (w wire) rest() bool {
	if w.stream != nil {
		<-w.stream.ended
		return true
	}
	_, _ = io.Copy(io.Discard, w.Conn)
	return false
}

// part is the beginning of an answer with a body of ten bytes, and of a hundred announced.
func (w wire) part() wire {
	if w.stream != nil {
		w.stream.head(200, "content-length", "100")
		w.stream.data("0123456789", false)
	} else {
		w.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")
	}
	return w
}

// behaviours are what a scripted upstream does with a request; false ends the connection.
var behaviours = map[string]func(wire) bool{
	"ok":         func(w wire) bool { return w.answer(200) },
	"reset":      func(w wire) bool { return w.reset() },
	"close":      func(w wire) bool { return false },
	"half-close": func(w wire) bool { w.halfClose(); return w.rest() },
	"hang":       func(w wire) bool { return w.rest() },
	"slow":       func(w wire) bool { time.Sleep(300 * time.Millisecond); return w.answer(200) },
	"late":       func(w wire) bool { time.Sleep(patience); return w.answer(200) },
	"head-cut":   func(w wire) bool { w.say("HTTP/1.1 200 OK\r\nContent-Len"); return false },
	"head-hang":  func(w wire) bool { w.say("HTTP/1.1 200 OK\r\nContent-Len"); return w.rest() },
	"body-reset": func(w wire) bool { w.part(); time.Sleep(50 * time.Millisecond); return w.reset() },
	"body-cut":   func(w wire) bool { w.part(); return false },
	"body-hang":  func(w wire) bool { return w.part().rest() },
	"chunk-cut": func(w wire) bool {
		w.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n")
		return false
	},
	"too-long": func(w wire) bool { w.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok, and more"); return false },
	"two-lengths": func(w wire) bool {
		w.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok")
		return false
	},
	"garbage":      func(w wire) bool { w.say("\x16\x03\x01 this is no HTTP\r\n\r\n"); return false },
	"busy":         func(w wire) bool { return w.answer(200, "X-Busy: 1") },
	"after-1":      func(w wire) bool { w.allow(time.Now().Add(time.Second)); return w.answer(503, "Retry-After: 1") },
	"after-0":      func(w wire) bool { return w.answer(503, "Retry-After: 0") },
	"after-10":     func(w wire) bool { return w.answer(503, "Retry-After: 10") },
	"after-hour":   func(w wire) bool { return w.answer(503, "Retry-After: 3600") },
	"after-word":   func(w wire) bool { return w.answer(503, "Retry-After: soon") },
	"after-minus":  func(w wire) bool { return w.answer(503, "Retry-After: -5") },
	"after-ages":   func(w wire) bool { return w.answer(503, "Retry-After: 99999999999999999999") },
	"after-date":   func(w wire) bool { return w.answer(503, "Retry-After: "+w.date(2*time.Second)) },
	"after-past":   func(w wire) bool { return w.answer(503, "Retry-After: "+w.date(-time.Hour)) },
	"after-never":  func(w wire) bool { return w.answer(503, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT") },
	"429-after-1":  func(w wire) bool { w.allow(time.Now().Add(time.Second)); return w.answer(429, "Retry-After: 1") },
	"429-hour":     func(w wire) bool { return w.answer(429, "Retry-After: 3600") },
	"429-date":     func(w wire) bool { return w.answer(429, "Retry-After: "+w.date(2*time.Second)) },
	"503-again":    func(w wire) bool { return w.answer(503, "X-Should-Retry: true") },
	"503-not":      func(w wire) bool { return w.answer(503, "X-Should-Retry: false") },
	"409-again":    func(w wire) bool { return w.answer(409, "X-Should-Retry: true") },
	"413-unread":   func(w wire) bool { w.answer(413, "Connection: close"); return false },
	"informed-cut": func(w wire) bool { w.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); return false },
}

func behaviour(word string) func(wire) bool {
	if f := behaviours[word]; f != nil {
		return f
	}
	return onlyHTTP2[word]
}

// answer is a whole one, with its number for a body; 200 says ok.
func (w wire) answer(status int, fields ...string) bool {
	text := strconv.Itoa(status)
	if status == http.StatusOK {
		text = "ok"
	}
	if w.stream != nil {
		w.stream.answer(status, text, fields)
		return true
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: %d\r\n", status, http.StatusText(status), len(text))
	w.say(head + strings.Join(append(fields, ""), "\r\n") + "\r\n" + text)
	return true
}

// sighting is a request as the scripted upstream received it.
type sighting struct {
	Method, Body string
	Proto        int // major version
	Header       http.Header
	At           time.Time
	NotBefore    time.Time // when the answer allows the next one
}

// allow notes before which time the next request must not come.
func (w wire) allow(t time.Time) {
	w.upstream.mu.Lock()
	w.noted.NotBefore = t
	w.upstream.mu.Unlock()
}

// date allows the next request after that time, and is it in the form of the field, which has no fractions.
func (w wire) date(d time.Duration) string {
	t := time.Now().Add(d).Truncate(time.Second)
	w.allow(t)
	return t.UTC().Format(http.TimeFormat)
}

// scripted is an upstream that does with the n-th request to a host what the n-th word of the path says, and with those beyond what the last one
// says. A number is that status.
type scripted struct {
	mu   sync.Mutex
	seen map[string][]*sighting
}

// runScripted is the process: it says its addresses, and ends with its input. identity is a file with a certificate and its key.
func runScripted(identity string) int {
	s := &scripted{seen: map[string][]*sighting{}}
	certificate, err := tls.LoadX509KeyPair(identity, identity)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, serve := range []func(*net.TCPConn){
		func(c *net.TCPConn) { s.serve(wire{Conn: c, tcp: c}) },
		func(c *net.TCPConn) { s.serve(wire{Conn: s.secure(c, certificate, "http/1.1"), tcp: c}) },
		func(c *net.TCPConn) { s.serveH2(wire{Conn: s.secure(c, certificate, "h2"), tcp: c}) },
		nil, // tells what was received
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if serve != nil {
			go accept(l, serve)
		} else {
			go func() { _ = http.Serve(l, s) }()
		}
		fmt.Println(l.Addr())
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func accept(l net.Listener, serve func(*net.TCPConn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serve(c.(*net.TCPConn))
	}
}

// secure speaks the one protocol alone, and says so to whoever offers another.
func (s *scripted) secure(c net.Conn, certificate tls.Certificate, protocol string) net.Conn {
	return tls.Server(c, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{protocol}}
		if !slices.Contains(hello.SupportedProtos, protocol) {
			config.NextProtos = []string{"h3"} // the library takes an offer of HTTP/1.1 for none
		}
		return config, nil
	}})
}

// note remembers a request, and says which of its host it is.
func (s *scripted) note(method, host string, proto int, header http.Header) (noted *sighting, n int) {
	noted = &sighting{Method: method, Proto: proto, Header: header, At: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[host] = append(s.seen[host], noted)
	return noted, len(s.seen[host]) - 1
}

func (s *scripted) serve(w wire) {
	defer w.Close()
	in := bufio.NewReader(w.Conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		noted, n := s.note(r.Method, r.Host, 1, r.Header)
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		noted.Body = string(content)
		s.mu.Unlock()
		w.upstream, w.noted = s, noted
		if !play(r.URL.Path, n, w) {
			return
		}
	}
}

// play does what the n-th word says, or the last one. It is one that the table knows: the test has looked.
func play(script string, n int, w wire) bool {
	words := strings.Split(strings.Trim(script, "/"), "/")
	word := words[min(n, len(words)-1)]
	if status, err := strconv.Atoi(word); err == nil {
		return w.answer(status)
	}
	return behaviour(word)(w)
}

// ServeHTTP tells what was received.
func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(s.seen[path.Base(r.URL.Path)])
}

// upstream is a scripted one that runs.
type upstream struct {
	ca                              *authority
	address, secure, http2, control string
}

// startScripted starts it, and ends it with the test.
func startScripted(t testing.TB) *upstream {
	t.Helper()
	u := &upstream{ca: newAuthority(t)}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), scriptedEnv+"="+u.ca.identity(t))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		if stderr.Len() > 0 {
			t.Errorf("the upstream said:\n%s", &stderr)
		}
	})
	if _, err := fmt.Fscan(stdout, &u.address, &u.secure, &u.http2, &u.control); err != nil {
		t.Fatalf("the upstream did not say its addresses: %v", err)
	}
	return u
}

// seen is what a host received.
func (u *upstream) seen(t testing.TB, host string) (out []sighting) {
	t.Helper()
	resp, err := http.Get("http://" + u.control + "/" + host)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(body(t, resp)), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// known fails for a script with a word that nobody taught the upstream.
func known(t testing.TB, script string) {
	t.Helper()
	for word := range strings.SplitSeq(script, "/") {
		if _, err := strconv.Atoi(word); err != nil && behaviour(word) == nil {
			t.Fatalf("the upstream does not know %q, only statuses, %q and by HTTP/2 %q", word, slices.Sorted(maps.Keys(behaviours)),
				slices.Sorted(maps.Keys(onlyHTTP2)))
		}
	}
}

// refusing is an address that nobody listens on, and nobody else can: it is bound.
func refusing(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
}
