package daemon

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestHedgeAndFailureWhen: an answer that failure_when rejects does not win against a slower one that it does not.
func TestHedgeAndFailureWhen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan struct{}, 1)
	o := serveRaw(t, l, func(n int, _ string) string {
		body := `{"ok":false}`
		if n == 0 {
			select {
			case <-second:
				time.Sleep(300 * time.Millisecond) // its answer comes first
			case <-time.After(10 * time.Second):
			}
			body = `{"ok":true}`
		} else {
			second <- struct{}{}
		}
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	})
	b := start(t, `defaults: {hedge: {after: 50ms}, retry: {attempts: 1, failure_when: "response.json.ok == false"}}`+"\n")
	c := b.dialProxy()
	defer c.Close()
	c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := c.answer(http.MethodGet).body; got != `{"ok":true}` || len(o.requests()) != 2 {
		t.Errorf("got %s of %d answers", got, len(o.requests()))
	}
}
