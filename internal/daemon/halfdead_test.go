package daemon

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// falter is an upstream's address at which connections can stay open and carry nothing any more.
type falter struct {
	net.Listener
	mu     sync.Mutex
	dead   chan struct{} // is closed when those of now fall silent
	choked chan struct{} // is closed when nothing is taken any more
	made   atomic.Int32
}

func newFalter(t *testing.T, upstream string) *falter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &falter{Listener: l, dead: make(chan struct{}), choked: make(chan struct{})}
	var pairs sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); f.silence(); pairs.Wait() })
	pairs.Go(func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = down.Close()
				return
			}
			t.Cleanup(func() { _ = down.Close() })
			_ = down.(*net.TCPConn).SetReadBuffer(4 << 10)
			f.mu.Lock()
			dead, choked := f.dead, f.choked
			f.mu.Unlock()
			f.made.Add(1)
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}
			pairs.Go(func() { pass(up, silenced{down, dead, choked}) })
			pairs.Go(func() { pass(silenced{down, dead, choked}, up) })
			pairs.Go(func() { <-dead; _ = up.Close() })
		}
	})
	return f
}

// silence has the connections of now carry nothing any more. New ones do.
func (f *falter) silence() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.dead)
	f.dead = make(chan struct{})
}

// choke has nothing be taken from the connections of now any more; what comes by them goes on.
func (f *falter) choke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.choked)
	f.choked = make(chan struct{})
}

// silenced stays open when it is dead.
type silenced struct {
	net.Conn
	dead, choked chan struct{}
}

func (s silenced) Read(p []byte) (int, error) {
	select {
	case <-s.choked:
		<-s.dead
		return 0, io.EOF
	default:
		return s.Conn.Read(p)
	}
}

func (s silenced) Write(p []byte) (int, error) {
	select {
	case <-s.dead:
		return len(p), nil
	default:
		return s.Conn.Write(p)
	}
}

func (s silenced) Close() error {
	select {
	case <-s.dead:
		return nil
	default:
		return s.Conn.Close()
	}
}

// TestHalfDeadHTTP2: an HTTP/2 connection by which nothing comes any more costs one attempt, and not all of them for 45 seconds; one on which others are answered is kept.
func TestHalfDeadHTTP2(t *testing.T) {
	t.Parallel() // it waits most of the time
	hang := make(chan struct{})
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hangs" {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}
		fmt.Fprint(w, "ok")
	}))
	onlyHTTP2(o)
	o.StartTLS()
	defer o.Close()
	defer close(hang)
	f := newFalter(t, o.Listener.Addr().String())
	config := "defaults: {timeout: {attempt: %s}, retry: {attempts: %d}, breaker: off, upstream: {ca: " + originCA(t, o) + "}}"
	url := "https://" + f.Addr().String()
	ask := func(b *box, path string) answer {
		c := b.dialProxy()
		defer c.Close()
		c.send("GET " + url + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
		return c.answer(http.MethodGet)
	}

	b := start(t, fmt.Sprintf(config, "5s", 2))
	if a := ask(b, "/"); a.body != "ok" {
		t.Fatal(a.Status, a.body)
	}
	made := f.made.Load() // one of them to be told that HTTP/1.1 is not spoken
	f.silence()
	var tries [2][]any
	for i := range tries {
		b.records(i + 1)
		if a := ask(b, "/"); a.body != "ok" {
			t.Error(a.Status, a.body)
		}
		tries[i], _ = b.records(i + 2)[i+1]["attempts"].([]any)
	}
	attempts, third := tries[0], tries[1]
	if len(attempts) != 2 {
		t.Fatalf("the second request took %v", attempts)
	}
	first, second := attempts[0].(map[string]any), attempts[1].(map[string]any)
	if first["reused"] != true || first["error"] != "upstream_timeout" || second["reused"] == true || second["status"] != float64(200) {
		t.Errorf("the second request's attempts: %v", attempts)
	}
	if len(third) != 1 || third[0].(map[string]any)["reused"] != true || f.made.Load() != made+1 {
		t.Errorf("the third request's attempts: %v; connections: %d", third, f.made.Load()-made)
	}

	b = start(t, fmt.Sprintf(config, "3s", 1))
	if a := ask(b, "/"); a.body != "ok" {
		t.Fatal(a.Status, a.body)
	}
	made = f.made.Load()
	done := make(chan string)
	go func() { done <- ask(b, "/hangs").Header.Get("Httpowerd-Error") }()
	for waiting := true; waiting; {
		select {
		case code := <-done:
			if waiting = false; code != "upstream_timeout" {
				t.Errorf("what hangs ended as %q", code)
			}
		default:
			if a := ask(b, "/"); a.body != "ok" {
				t.Error(a.Status, a.body)
			}
		}
	}
	if a := ask(b, "/"); a.body != "ok" || f.made.Load() != made {
		t.Errorf("%s %s; connections: %d", a.Status, a.body, f.made.Load()-made)
	}
}

// TestChokedHTTP2: an HTTP/2 connection from which the upstream takes nothing any more, while it talks on, is not what everybody goes on to wait for.
func TestChokedHTTP2(t *testing.T) {
	t.Parallel() // it waits most of the time
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/talks" {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, "ok")
			return
		}
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("."))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	}))
	onlyHTTP2(o)
	o.Config.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 29, MaxReceiveBufferPerStream: 1 << 29}
	o.StartTLS()
	defer o.Close()
	f := newFalter(t, o.Listener.Addr().String())
	defer f.silence()
	b := start(t, "defaults: {timeout: {attempt: 2s, total: 5s}, retry: off, breaker: off, upstream: {ca: "+originCA(t, o)+"}}")
	url := "https://" + f.Addr().String()
	talk := b.dialProxy()
	defer talk.Close()
	talk.send("GET " + url + "/talks HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(talk.r, nil); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	made := f.made.Load()
	f.choke()
	upload := b.dialProxy()
	defer upload.Close()
	go func() {
		_, _ = io.WriteString(upload, "POST "+url+"/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
		for part := make([]byte, 1<<20); ; {
			if _, err := upload.Write(part); err != nil {
				return
			}
		}
	}()
	const most = 8
	asked, last := 0, ""
	for f.made.Load() == made && asked < most { // one may have gone before
		c := b.dialProxy()
		c.send("GET " + url + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		last = c.answer(http.MethodGet).body
		c.Close()
		asked++
	}
	if last != "ok" || f.made.Load() != made+1 {
		t.Errorf("asked %d times, at last %q; %d connections more", asked, last, f.made.Load()-made)
	}
	upload.Close()
	for _, r := range b.records(asked + 1) {
		attempt := r["attempts"].([]any)[0].(map[string]any)
		timedOut := attempt["error"] == "upstream_timeout" && attempt["reused"] == true && r["status"] == 504.0 && r["outcome"] == "upstream_timeout"
		if r["method"] == "GET" && !timedOut && r["outcome"] != "ok" {
			t.Errorf("the record is %v", r)
		}
	}
}
