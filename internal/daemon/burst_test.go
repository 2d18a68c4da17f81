package daemon

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// TestBurstOverHTTP2: an upstream that takes few requests at once by one connection takes many by several: none is refused, none counts as a failure, and no write is in doubt.
func TestBurstOverHTTP2(t *testing.T) {
	const requests = 60
	var mu sync.Mutex
	received := map[string]int{}
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		received[r.Method+" "+r.URL.Path+" "+string(body)]++
		mu.Unlock()
		time.Sleep(50 * time.Millisecond) // so that they are at work together
		fmt.Fprint(w, "ok")
	}))
	onlyHTTP2(o)
	o.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 10}
	o.StartTLS()
	defer o.Close()
	b := start(t, "defaults: {tls: intercept, upstream: {ca: "+originCA(t, o)+"}}")
	var all sync.WaitGroup
	for i := range requests {
		method, body := http.MethodGet, ""
		if i%2 == 1 {
			method, body = http.MethodPost, fmt.Sprint("write ", i)
		}
		all.Go(func() {
			c := b.dialProxy()
			defer c.Close()
			c.send(fmt.Sprintf("%s https://%s/%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, o.Listener.Addr(), i, len(body), body))
			if a := c.answer(method); a.StatusCode != http.StatusOK || a.body != "ok" {
				t.Errorf("%s %d: %s %q", method, i, a.Status, a.body)
			}
		})
	}
	all.Wait()
	for _, r := range b.records(requests) {
		attempts, _ := r["attempts"].([]any)
		r.want(t, map[string]any{"status": 200, "outcome": "ok"})
		if len(attempts) != 1 {
			t.Errorf("the record of %v has the attempts %v", r["url"], attempts)
		}
	}
	if len(received) != requests {
		t.Errorf("the upstream received %d requests", len(received))
	}
	for what, n := range received {
		if n != 1 {
			t.Errorf("the upstream received %q %d times", what, n)
		}
	}
}
