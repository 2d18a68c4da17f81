package daemon

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestLargeThenSmall: the time that a client had to read a large answer does not end a later one.
func TestLargeThenSmall(t *testing.T) {
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := 2
		if r.URL.Path == "/large" {
			size = 300 << 10
		}
		_, _ = w.Write([]byte(strings.Repeat("x", size)))
	}))
	defer o.Close()
	b := start(t, "proxy: {limits: {tunnel_idle: 1s}}")
	c := b.dialProxy()
	for i, path := range []string{"/large", "/small"} {
		if i > 0 {
			time.Sleep(1500 * time.Millisecond) // longer than an answer may lie unread
		}
		c.send("GET " + o.URL + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
		if a := c.answer(http.MethodGet); a.StatusCode != 200 {
			t.Errorf("%s: %s", path, a.Status)
		}
	}
}

// TestClientGoneBehindUpload: a client that leaves directly behind its upload is noted, and the upstream is let go.
func TestClientGoneBehindUpload(t *testing.T) {
	const tries = 30
	left := make(chan struct{}, tries)
	o := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(4 * time.Second):
			left <- struct{}{}
		}
	}))
	defer o.Close()
	b := start(t, "")
	for range tries {
		c := b.dialProxy()
		c.send("POST " + o.URL + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + strings.Repeat("a", 60_000))
		c.Close()
	}
	b.records(tries)
	if n := len(left); n > 0 {
		t.Errorf("%d of %d clients that left were not missed", n, tries)
	}
}
