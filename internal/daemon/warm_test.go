package daemon

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// TestWarm: a host that is written out has its connections before the first request, which goes over one of them, as its record says.
func TestWarm(t *testing.T) {
	if onStandard() {
		t.Skip("net/http makes connections when they are needed")
	}
	var conns atomic.Int32
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	o.Config.ErrorLog = log.New(io.Discard, "", 0)
	o.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	o.StartTLS()
	t.Cleanup(o.Close)
	b := start(t, "hosts: {\""+o.Listener.Addr().String()+"\": {tls: intercept, upstream: {warm: 2, http2: false, ca: "+originCA(t, o)+"}}}\n")
	b.waitFor(t, "httpowerd_upstream_warmed_total", 2)
	if n := conns.Load(); n != 2 {
		t.Errorf("%d connections before the first request", n)
	}
	if a := get(t, b.client(o), o.URL+"/"); a.StatusCode != 200 || a.body != "ok" {
		t.Errorf("%s %s", a.Status, a.body)
	}
	r := b.records(1)[0]
	attempts, _ := r["attempts"].([]any)
	if len(attempts) != 1 || attempts[0].(map[string]any)["reused"] != true {
		t.Errorf("the record says %v", r["attempts"])
	}
	time.Sleep(50 * time.Millisecond)
	if n := conns.Load(); n > 3 {
		t.Errorf("%d connections for one request", n)
	}
}
