package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"httpowerd/internal/proxy/h2"
)

// TestWastedConnect: a CONNECT that was answered is recorded and counted once, whatever becomes of its connection: as a tunnel where no request came of it, and else by
// its requests.
func TestWastedConnect(t *testing.T) {
	o, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	go func() {
		for {
			c, err := o.Accept()
			if err != nil {
				return
			}
			go func() { // whose answer to anything is the same
				defer c.Close()
				if _, err := c.Read(make([]byte, 1<<10)); err == nil {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
				}
			}()
		}
	}()
	const intercepted = "api.example.com:443"
	type result struct{ kind, mode, outcome string }
	wasted, spent := result{"tunnel", "intercept", "client_gone"}, result{"request", "intercept", "denied"}
	for name, c := range map[string]struct {
		authority, protocol, send string
		answers                   int
		want                      result
	}{
		"half a head":                         {o.Addr().String(), "", "GET / HTTP/1.1\r\n", 0, result{"tunnel", "tunnel", "client_gone"}},
		"a request":                           {o.Addr().String(), "", "GET / HTTP/1.1\r\nHost: " + o.Addr().String() + "\r\n\r\n", 1, result{"request", "plain", "ok"}},
		"a head that is refused":              {o.Addr().String(), "", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 1, result{"request", "plain", "bad_request"}},
		"nothing inside TLS":                  {intercepted, "http/1.1", "", 0, wasted},
		"half a head inside TLS":              {intercepted, "http/1.1", "GET / HT", 0, wasted},
		"a request inside TLS":                {intercepted, "http/1.1", "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 1, spent},
		"nothing of HTTP/2":                   {intercepted, "h2", "", 0, wasted},
		"a preface that is none":              {intercepted, "h2", "garbage garbage garbage garbage\r\n", 0, wasted},
		"a preface alone":                     {intercepted, "h2", h2.Preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", 0, wasted},
		"half a head, in plaintext":           {intercepted, "", "GET / HTTP/1.1\r\nHo", 0, wasted},
		"a request in plaintext, intercepted": {intercepted, "", "GET / HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n", 1, result{"request", "plain", "denied"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "hosts: {api.example.com: {tls: intercept, access: deny, routes: [{match: {path: /**}, access: deny}]}}", ends{}, standardLimits())
			p := r.connect(c.authority)
			if c.protocol != "" {
				p = p.secure(c.protocol)
			}
			if c.send != "" {
				p.send(c.send)
			}
			for range c.answers {
				p.answer(http.MethodGet)
			}
			time.Sleep(50 * time.Millisecond) // what was sent has been read
			_ = p.Close()
			record := r.records(1)[0]
			if got := (result{record["kind"].(string), record["mode"].(string), record["outcome"].(string)}); got != c.want {
				t.Errorf("%v; want %v: %v", got, c.want, record)
			}
			if c.want.kind == "tunnel" && (record["status"] != 200.0 || record["method"] != "CONNECT" || record["request_bytes"] != 0.0 || record["response_bytes"] != 0.0) {
				t.Errorf("the record is %v", record)
			}
			time.Sleep(50 * time.Millisecond) // another one would be there
			r.records(1)
			requests, tunnels := countOf(t, r.metrics.requests, c.want.outcome), countOf(t, r.metrics.tunnels, c.want.outcome)
			if requests+tunnels != 1 || (c.want.kind == "tunnel") != (tunnels == 1) {
				t.Errorf("%d requests and %d tunnels are counted", requests, tunnels)
			}
		})
	}
}

// TestWastedConnectDrain: so it is where a drain ends the connection.
func TestWastedConnectDrain(t *testing.T) {
	r := newRig(t, "defaults: {tls: intercept}", ends{}, standardLimits())
	r.connect("api.example.com:443").secure("http/1.1")
	r.connect("api.example.com:443").secure("h2")
	r.connect("api.example.com:443").send("GET / HT")
	time.Sleep(50 * time.Millisecond) // all are with the inner server
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = r.Shutdown(ctx)
	for _, record := range r.records(3) {
		if record["outcome"] != "draining" || record["kind"] != "tunnel" || record["mode"] != "intercept" {
			t.Errorf("the record is %v", record)
		}
	}
}
