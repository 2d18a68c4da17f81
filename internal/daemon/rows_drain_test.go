package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// descriptors is how many files and sockets this process has open; 0 where nobody can tell.
func descriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// TestDrainUnderLoad: a daemon that is told to stop answers whatever is in flight, on every way, half sent or half uploaded; refuses what is new; cuts what does not end
// when drain.timeout is over and not before; and leaves neither goroutine nor file descriptor behind (A70).
func TestDrainUnderLoad(t *testing.T) {
	const timeout = 1500 * time.Millisecond
	var inside atomic.Int64
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inside.Add(1)
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = fmt.Fprintf(w, "second %d %v", n, err)
	})
	plainOrigin, secureOrigin := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	secureOrigin.EnableHTTP2 = true
	secureOrigin.StartTLS()
	defer plainOrigin.Close()
	defer secureOrigin.Close()
	defer free()
	addr := tcpOrigin(t, echo)
	goroutines, files := runtime.NumGoroutine(), descriptors()

	addresses := func(o *httptest.Server) string { return o.Listener.Addr().String() }
	b := start(t, fmt.Sprintf("drain: {timeout: %s}\ndefaults: {upstream: {ca: %s, resolve: {tunnelled.example.com: %q, intercepted.example.com: %[3]q}}}\n"+
		"hosts: {127.0.0.1: {tls: intercept}}\n", timeout, originCA(t, secureOrigin), addresses(secureOrigin)))
	h1, over2 := b.client(secureOrigin), h2(b.client(secureOrigin))
	over2.Transport.(*http.Transport).MaxConnsPerHost = 1 // or it makes one for each request, and leaves all but one unused
	_, port, _ := strings.Cut(addresses(secureOrigin), ":")
	var wg sync.WaitGroup
	var answered atomic.Int64
	const each = 8
	sent := 0
	for name, way := range map[string]struct {
		client *http.Client
		url    string
	}{
		"plain": {h1, plainOrigin.URL}, "intercepted": {h1, secureOrigin.URL}, "HTTP/2": {over2, secureOrigin.URL}, "tunnel": {h1, "https://tunnelled.example.com:" + port},
	} {
		for i := range each {
			sent++
			r := request(t, http.MethodGet, way.url, "")
			want := "first second 0 <nil>"
			if i%2 == 1 && name != "HTTP/2" { // an upload of which one half waits for the release
				half, rest := strings.Repeat("a", 1000), io.Reader(strings.NewReader(strings.Repeat("b", 1000)))
				r = request(t, http.MethodPost, way.url, half)
				r.Body, r.ContentLength, r.GetBody = io.NopCloser(io.MultiReader(strings.NewReader(half), after(release, rest))), -1, nil
				want = "first second 2000 <nil>"
			}
			wg.Go(func() {
				resp, err := way.client.Do(r)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				defer resp.Body.Close()
				if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(body) != want {
					t.Errorf("%s: %s %q %v", name, resp.Status, body, err)
					return
				}
				answered.Add(1)
			})
		}
	}
	idle := b.dialProxy()
	if a := idle.connect(addr); a.StatusCode != http.StatusOK {
		t.Fatal(a.Status)
	}
	for end := time.Now().Add(10 * time.Second); inside.Load() < int64(sent); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d requests are at the upstream", inside.Load(), sent)
		}
	}
	began, ended := time.Now(), make(chan error, 1)
	go func() { ended <- b.Shutdown(context.Background()) }()
	for !b.Draining() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	free()
	wg.Wait()
	if n := answered.Load(); n != int64(sent) {
		t.Errorf("%d of %d requests were answered", n, sent)
	}
	h1.CloseIdleConnections()
	over2.CloseIdleConnections()
	err := <-ended
	if took := time.Since(began); err == nil || took < timeout || took > timeout+2*time.Second {
		t.Errorf("a tunnel that does not end was cut after %v with %v; drain.timeout is %v", took, err, timeout)
	}
	b.stopped.Do(func() {})
	idle.rest()
	idle.Close()
	for _, r := range b.records(3*each + each + 1) {
		if outcome := r.text("outcome"); outcome != "ok" && (r.text("kind") != "tunnel" || outcome != "draining") {
			t.Errorf("%v", r)
		}
	}
	var left int
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if left = runtime.NumGoroutine(); left <= goroutines && descriptors() <= files {
			return
		}
	}
	var stacks bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
	t.Errorf("%d goroutines and %d descriptors before, %d and %d behind:\n%s", goroutines, files, left, descriptors(), &stacks)
}

// TestDrainWrites: writes with a key go on without their clients, and a drain has them in mind: it waits for an answer that is read on for the client's repeat, and a
// write that it cuts has its record like every exchange.
func TestDrainWrites(t *testing.T) {
	const size = 1 << 20
	atUpstream, left, more, over := make(chan string, 2), make(chan struct{}), make(chan struct{}), make(chan struct{})
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		atUpstream <- r.URL.Path
		if r.URL.Path == "/silent" {
			<-over
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for _, next := range []chan struct{}{left, more} { // with what comes behind the first the proxy finds that nobody reads
			_, _ = w.Write(make([]byte, size/4))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-over:
			}
		}
		_, _ = w.Write(make([]byte, size/2))
	}))
	defer o.Close()
	defer close(over)
	send := func(b *box, path string) *rawClient {
		c := b.dialProxy()
		c.send("POST " + o.URL + path + " HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nb")
		<-atUpstream
		return c
	}
	const config = "defaults: {dedup: {methods: [POST]}}\ndrain: {timeout: "

	b := start(t, config+"30s}")
	c := send(b, "/long")
	if _, err := c.r.Peek(1); err != nil {
		t.Fatal(err)
	}
	c.Close()
	close(left)
	b.records(1)[0].want(t, map[string]any{"status": 200, "outcome": "client_gone", "dedup": "leader"})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.stopped.Do(func() {
			if err := b.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			running.Add(-1)
		})
	}()
	select {
	case <-stopped:
		t.Error("the daemon did not wait for the answer")
	case <-time.After(300 * time.Millisecond): // it is not to end, however long that takes
	}
	close(more)
	<-stopped

	b = start(t, config+"500ms}")
	send(b, "/silent").Close()
	b.stop()
	r := b.records(1)[0]
	r.want(t, map[string]any{"outcome": "draining", "dedup": "leader"})
	if attempts, _ := r["attempts"].([]any); len(attempts) != 1 {
		t.Errorf("the record has the attempts %v", attempts)
	}
}

// after is a reader that begins when the channel closes.
func after(c <-chan struct{}, r io.Reader) io.Reader { return &waiting{c, r} }

type waiting struct {
	until <-chan struct{}
	io.Reader
}

func (w *waiting) Read(p []byte) (int, error) {
	<-w.until
	return w.Reader.Read(p)
}
