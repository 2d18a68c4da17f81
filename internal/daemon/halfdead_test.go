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
)

// falter is an upstream's address at which connections can stay open and carry nothing any more.
type falter struct {
	net.Listener
	mu   sync.Mutex
	dead chan struct{} // is closed when those of now fall silent
	made atomic.Int32
}

func newFalter(t *testing.T, upstream string) *falter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &falter{Listener: l, dead: make(chan struct{})}
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
			f.mu.Lock()
			dead := f.dead
			f.mu.Unlock()
			f.made.Add(1)
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}
			pairs.Go(func() { pass(up, silenced{down, dead}) })
			pairs.Go(func() { pass(silenced{down, dead}, up) })
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

// silenced stays open when it is dead.
type silenced struct {
	net.Conn
	dead chan struct{}
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
