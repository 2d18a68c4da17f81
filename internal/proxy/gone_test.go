package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestClientGoneUnanswered: a client that has closed its side before its answer began counts as gone, and is written nothing: there is no answer for that.
func TestClientGoneUnanswered(t *testing.T) {
	o := hanging(t, false)
	r := newRig(t, "", ends{}, standardLimits())
	p := r.dial()
	p.send("GET " + o.URL + "/hang HTTP/1.1\r\nHost: " + o.Listener.Addr().String() + "\r\n\r\n")
	time.Sleep(50 * time.Millisecond) // it is on its way
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
