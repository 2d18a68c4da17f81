package egress

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// poolOf makes a pool that trusts ca, which end closes.
func poolOf(t *testing.T, ca string) (p *pool, end func()) {
	t.Helper()
	up := upstream.Default()
	up.CA = ca
	rules, err := destination.Compile(destination.Default(), true)
	if err != nil {
		t.Fatal(err)
	}
	keeper := new(state.Keeper)
	g := keeper.Begin()
	p, err = New(Options{Registerer: newRegistry(), Standard: onStandard}).pool(state.Scope{Generation: g, Policy: "test"}, up,
		timeout.Config{Connect: setting.Duration(5 * time.Second), TLS: setting.Duration(5 * time.Second)}, rules)
	if err != nil {
		t.Fatal(err)
	}
	g.Commit()
	end = func() { keeper.Begin().Commit() }
	t.Cleanup(end)
	return p, end
}

// TestHTTP2Retired: a connection that is in use when its pool ends, ends with its last exchange and does not lie there for upstream.idle.
func TestHTTP2Retired(t *testing.T) {
	closed, rest := make(chan struct{}), make(chan struct{})
	s, ca := tlsOrigin(t, true, func(s *httptest.Server) {
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-rest
			io.WriteString(w, "the rest")
		})
		s.Config.ConnState = func(_ net.Conn, now http.ConnState) {
			if now == http.StateClosed {
				close(closed)
			}
		}
	})
	p, end := poolOf(t, ca)
	r, _ := request(t, "GET", "https://"+s.Listener.Addr().String()+"/", "")
	r.ProtoMajor = 2
	resp, err := p.roundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	end()
	close(rest)
	if b, err := io.ReadAll(resp.Body); string(b) != "the rest" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_ = resp.Body.Close()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("the connection is kept")
	}
}

// TestHTTP2Believed: nobody is asked again whose connection says what it speaks, so that no connection is made that nobody takes and that is dead when somebody does. Who
// stops to speak HTTP/2 is spoken to otherwise.
func TestHTTP2Believed(t *testing.T) {
	var opened atomic.Int32
	var one atomic.Bool
	s, ca := tlsOrigin(t, true, func(s *httptest.Server) {
		s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			opened.Add(1)
			config := s.TLS.Clone()
			if one.Load() {
				config.NextProtos = []string{"http/1.1"}
			}
			return config, nil
		}}
	})
	target := s.Listener.Addr().String()
	p, _ := poolOf(t, ca)
	send := func(method, body string) string {
		r, _ := request(t, method, "https://"+target+"/", body)
		r.ProtoMajor = 2
		return get(exchange.RoundTripperFunc(p.roundTrip), r)
	}
	later := func() {
		k := p.two.of(target)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.until = time.Now().Add(-speaking)
	}
	want(t, send("POST", "data"), "200 HTTP/2.0 /")
	later()
	want(t, send("POST", "data"), "200 HTTP/2.0 /")
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
	one.Store(true)
	later()
	s.CloseClientConnections()
	for end := time.Now().Add(20 * time.Second); send("GET", "") != "200 HTTP/1.1 /" && time.Now().Before(end); { // until it is noticed
	}
	if two, known := p.two.of(target).get(); two || !known {
		t.Error("it is still believed to speak HTTP/2")
	}
	want(t, send("POST", "data"), "200 HTTP/1.1 /")
}

// TestLeftConnection: what was made for a request that takes another one, or none, is closed.
func TestLeftConnection(t *testing.T) {
	ours, theirs := net.Pipe()
	k := &speaker{}
	k.leave(ours)
	_ = theirs.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	if k.take() != nil {
		t.Error("it can still be taken")
	}
}
