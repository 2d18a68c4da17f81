package proxy

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// taking is an upstream that reads what comes and never answers. taken is how much came: the bytes of bodies, and one for each head.
func taking(t *testing.T) (o *httptest.Server, taken *atomic.Int64) {
	taken = new(atomic.Int64)
	o = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		taken.Add(1)
		for piece := make([]byte, 64<<10); ; {
			n, err := r.Body.Read(piece)
			taken.Add(int64(n))
			if err != nil {
				break
			}
		}
		<-r.Context().Done()
	}))
	t.Cleanup(func() { o.CloseClientConnections(); o.Close() })
	return o, taken
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// TestClientGoneUnanswered: a client that has closed its side before its answer began counts as gone, and is written nothing: there is no answer for that.
func TestClientGoneUnanswered(t *testing.T) {
	o, taken := taking(t)
	r := newRig(t, "", ends{}, standardLimits())
	p := r.dial()
	p.send("GET " + o.URL + "/hang HTTP/1.1\r\nHost: " + o.Listener.Addr().String() + "\r\n\r\n")
	eventually(t, "it is on its way", func() bool { return taken.Load() == 1 })
	_ = p.Conn.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
		t.Errorf("the client got %q, %v", rest, err)
	}
	record := r.records(1)[0]
	if record["outcome"] != "client_gone" || record["status"] != nil || record["status_by"] != nil || record["response_bytes"] != 0.0 {
		t.Errorf("the record is %v", record)
	}
}

// TestRefusalsAreCounted: what the proxy says to a client whose CONNECT it refuses, or whom it has no room for, stands in the record, which is written when it has been said.
func TestRefusalsAreCounted(t *testing.T) {
	limits := standardLimits()
	limits.Connections = 1
	r := newRig(t, "defaults: {access: deny}", ends{}, limits)
	p := r.dial()
	p.send("CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n")
	_, denied := p.answer(http.MethodGet)
	_, overloaded := r.dial().answer(http.MethodGet)
	said := map[any]string{"denied": denied, "overloaded": overloaded}
	for _, record := range r.records(2) {
		if want := said[record["outcome"]]; !strings.Contains(want, "urn:httpowerd:error") || record["response_bytes"] != float64(len(want)) {
			t.Errorf("%q was said; the record is %v", want, record)
		}
		if took := record["duration_ms"].(float64); took > 400 { // of the time that a client has to see it
			t.Errorf("it took %v ms", took)
		}
	}
}

// TestClientGoneUploading: a client that leaves in the middle of its body counts as gone, as it does over HTTP/2. One that has only closed its side is told what is wrong,
// unless it is missed first.
func TestClientGoneUploading(t *testing.T) {
	o, taken := taking(t)
	at := o.Listener.Addr().String()
	sized, chunked := "Content-Length: 1000000\r\n\r\n"+strings.Repeat("a", 1000), "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
	reset := func(c *net.TCPConn) {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	half := func(c *net.TCPConn) { _ = c.CloseWrite() }
	for name, c := range map[string]struct {
		body    string
		inside  bool // an intercepted connection
		leave   func(*net.TCPConn)
		status  any
		outcome string
	}{
		"closes its side":                    {sized, false, half, 400.0, "client_gone"},
		"closes its side, 2 MB":              {"Content-Length: 9000000\r\n\r\n" + strings.Repeat("a", 2<<20), false, half, 400.0, "client_gone"},
		"closes its side, chunks":            {chunked, false, half, 400.0, "client_gone"},
		"closes its side, intercepted":       {sized, true, half, 400.0, "client_gone"},
		"resets":                             {sized, false, reset, nil, "client_gone"},
		"resets, chunks":                     {chunked, false, reset, nil, "client_gone"},
		"resets, intercepted":                {sized, true, reset, nil, "client_gone"},
		"sends what is no chunk":             {chunked + "ZZ\r\n", false, func(*net.TCPConn) {}, 400.0, "bad_request"},
		"sends what is no chunk, and closes": {chunked + "ZZ\r\n", false, half, 400.0, "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "hosts: {int.test: {tls: intercept, upgrade: off}}\ndefaults: {upstream: {resolve: {int.test: \""+at+"\"}}}", ends{}, standardLimits())
			p, target := r.dial(), "http://"+at+"/hang"
			socket := p.Conn.(*net.TCPConn)
			if c.inside {
				p.send("CONNECT int.test:80 HTTP/1.1\r\nHost: int.test:80\r\n\r\n")
				p.answer(http.MethodConnect)
				target = "/hang"
			}
			host := at
			if c.inside {
				host = "int.test:80"
			}
			before := taken.Load()
			p.send("POST " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + c.body)
			if c.outcome == "client_gone" {
				_, body, _ := strings.Cut(c.body, "\r\n\r\n")
				sent := int64(len(body))
				if c.body == chunked {
					sent = 5
				}
				eventually(t, "all of it is on its way", func() bool { return taken.Load() == before+1+sent })
			} else if _, err := p.r.Peek(1); err != nil { // it is answered at once
				t.Fatal(err)
			}
			c.leave(socket)
			status, said := c.status, ""
			if _, err := p.r.Peek(1); err == io.EOF && c.outcome == "client_gone" { // missed before the end of its body was read: it is written nothing
				status = nil
			} else if status != nil {
				resp, body := p.answer(http.MethodPost)
				if said = body; resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Httpowerd-Error") != "bad_request" || !resp.Close {
					t.Errorf("the client got %s %v", resp.Status, resp.Header)
				}
			}
			record := r.records(1)[0]
			if record["outcome"] != c.outcome || record["status"] != status || record["response_bytes"] != float64(len(said)) {
				t.Errorf("%q was said; the record is %v", said, record)
			}
			if attempt := record["attempts"].([]any)[0].(map[string]any); attempt["error"] != c.outcome && !standardWire { // whose server takes lost framing for a client that left
				t.Errorf("the attempt is %v", attempt)
			}
		})
	}
}
