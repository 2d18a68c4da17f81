//go:build linux

package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// echoes is an upstream that says hello where it is to, and then what it hears, until its client ends.
func echoes(t *testing.T, hello string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.WriteString(c, hello)
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func oneWaits(s *Server) { s.wakeful.restless = 1 }

// rest waits until all tunnels but one rest.
func (r *rig) rest() {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		r.wakeful.mu.Lock()
		awake := len(r.wakeful.links)
		r.wakeful.mu.Unlock()
		if awake <= 1 {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d tunnels do not rest", awake)
		}
	}
}

func (r *rig) tunnelsTo(addr string, n int) (peers []*peer) {
	r.t.Helper()
	for range n {
		peers = append(peers, r.connect(addr))
	}
	r.rest()
	return peers
}

func (p *peer) hears(want string) {
	p.t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(p.r, b); err != nil || string(b) != want {
		p.t.Fatalf("%q, %v; want %q", b, err, want)
	}
}

// TestRest: tunnels that rest go on when either side speaks, however much, and rest again, until one side ends.
func TestRest(t *testing.T) {
	r := newRig(t, "", ends{}, standardLimits(), oneWaits)
	long := strings.Repeat("0123456789", 60_000) // enough to be spliced
	peers := r.tunnelsTo(echoes(t, ""), 5)
	for range 2 {
		for i, p := range peers {
			p.send(fmt.Sprintf("\x00%d", i))
			p.hears(fmt.Sprintf("\x00%d", i))
			go func() { _, _ = io.WriteString(p.Conn, long) }()
			p.hears(long)
		}
		r.rest()
	}
	for _, p := range peers {
		p.send("bye")
		if err := closeWrite(p.Conn); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(p.r); err != nil || string(b) != "bye" {
			t.Errorf("%q, %v", b, err)
		}
	}
	for _, record := range r.records(5) {
		if n := float64(2*(2+len(long)) + 3); record["outcome"] != "ok" || record["request_bytes"] != n || record["response_bytes"] != n {
			t.Errorf("the record is %v; want %v bytes", record, n)
		}
	}
}

// TestRestServerFirst: where the upstream has spoken first, the client's first bytes are looked at all the same.
func TestRestServerFirst(t *testing.T) {
	r := newRig(t, "defaults: {tls: tunnel, sni: require}", ends{}, standardLimits(), oneWaits)
	for _, p := range r.tunnelsTo(echoes(t, "220 hello\r\n"), 3) {
		p.hears("220 hello\r\n")
		p.send("EHLO\r\n")
		if b, err := io.ReadAll(p.r); len(b) > 0 {
			t.Errorf("%q, %v", b, err)
		}
	}
	for _, record := range r.records(3) {
		if record["outcome"] != "sni_mismatch" {
			t.Errorf("the record is %v", record)
		}
	}
}

// TestRestPieces: a beginning that is not whole yet is waited for with a goroutine.
func TestRestPieces(t *testing.T) {
	r := newRig(t, "", ends{}, standardLimits(), oneWaits)
	hello := string(clientHello(t, "127.0.0.1"))
	for _, p := range r.tunnelsTo(echoes(t, ""), 3) {
		p.send(hello[:7])
		time.Sleep(3 * restAfter) // what is tested is a client that takes its time
		p.send(hello[7:])
		p.hears(hello)
		p.send("\x17\x03\x03")
		p.hears("\x17\x03\x03")
	}
}

// TestRestPlaintext: plain HTTP in a tunnel that has rested is governed, on the connection that was dialled.
func TestRestPlaintext(t *testing.T) {
	o, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{}, 10)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				accepted <- struct{}{}
			}
		}}
	go func() { _ = server.Serve(o) }()
	defer server.Close()
	r := newRig(t, "", ends{}, standardLimits(), oneWaits)
	addr := o.Addr().String()
	for _, p := range r.tunnelsTo(addr, 3) {
		for _, path := range []string{"/one", "/two"} {
			p.send("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")
			if _, body := p.answer(http.MethodGet); body != path {
				t.Errorf("%q", body)
			}
		}
	}
	if n := len(accepted); n != 3 {
		t.Errorf("%d connections to the upstream", n)
	}
}

// TestRestEnds: tunnels that rest are cut when nothing moves for too long, and by a drain.
func TestRestEnds(t *testing.T) {
	limits := standardLimits()
	limits.TunnelIdle = 2 * time.Second
	for outcome, end := range map[string]func(*rig){"ok": func(*rig) {}, "draining": func(r *rig) { r.tunnels.cut() }} {
		r := newRig(t, "", ends{}, limits, oneWaits)
		peers := r.tunnelsTo(echoes(t, ""), 4)
		end(r)
		for _, p := range peers {
			if b, _ := io.ReadAll(p.r); len(b) > 0 {
				t.Errorf("%q", b)
			}
		}
		for _, record := range r.records(4) {
			if record["outcome"] != outcome {
				t.Errorf("the record is %v; want %s", record, outcome)
			}
		}
	}
}

// TestRestMemory: tunnels that wait have no goroutines.
func TestRestMemory(t *testing.T) {
	const n = 200
	r := newRig(t, "", ends{}, standardLimits(), oneWaits)
	l, err := net.Listen("tcp", "127.0.0.1:0") // whose backlog is all the upstream that is needed
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r.tunnelsTo(l.Addr().String(), 2)
	before := runtime.NumGoroutine()
	r.tunnelsTo(l.Addr().String(), n)
	if more := runtime.NumGoroutine() - before; more > n/4 {
		t.Errorf("%d goroutines more for %d tunnels", more, n)
	}
}
