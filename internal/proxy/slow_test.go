package proxy

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestSlowHandshake: a client that was told yes by CONNECT and then takes its time is cut off, however it drips (A29, G9).
func TestSlowHandshake(t *testing.T) {
	r := newRig(t, "defaults: {tls: intercept}", ends{}, standardLimits(), func(s *Server) { s.limits.handshake = 300 * time.Millisecond })
	hello := string(clientHello(t, "api.example.com"))
	for name, beginning := range map[string]string{"nothing": "", "a byte": "\x16", "half a ClientHello": hello[:len(hello)/2], "a ClientHello": hello, "half a method": "GE"} {
		p := r.connect("api.example.com:443")
		p.send(beginning)
		_ = p.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, p.r); err != nil {
			if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	p := r.connect("api.example.com:443")
	for _, b := range []byte(hello + strings.Repeat("x", 10_000)) {
		if _, err := p.Conn.Write([]byte{b}); err != nil {
			break // cut in the middle
		}
		time.Sleep(10 * time.Millisecond) // what is tested is a client that takes its time
	}
	for _, record := range r.records(6) {
		if record["outcome"] != "client_gone" || record["kind"] != "tunnel" || record["mode"] != "intercept" {
			t.Errorf("the record is %v", record)
		}
	}
}

// TestCutHandshake: a drain does not wait for clients that take their time over a handshake.
func TestCutHandshake(t *testing.T) {
	r := newRig(t, "defaults: {tls: intercept}", ends{}, standardLimits(), func(s *Server) { s.limits.handshake = time.Hour })
	hello := string(clientHello(t, "api.example.com"))
	beginnings := []string{"", "\x16", hello[:len(hello)/2], hello, "GE"}
	var peers []*peer
	for _, beginning := range beginnings {
		p := r.connect("api.example.com:443")
		p.send(beginning)
		peers = append(peers, p)
	}
	r.tunnels.cut()
	for i, p := range peers {
		_ = p.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, p.r); err != nil {
			if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
				t.Errorf("%.5q: %v", beginnings[i], err)
			}
		}
	}
	for _, record := range r.records(len(peers)) {
		if record["outcome"] != "draining" || record["kind"] != "tunnel" || record["mode"] != "intercept" {
			t.Errorf("the record is %v", record)
		}
	}
}

// TestHalfOpen: a tunnel that one side has closed does not rest as long as a whole one, but goes on while something moves.
func TestHalfOpen(t *testing.T) {
	o, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got := make(chan int64, 2)
	go func() {
		for {
			c, err := o.Accept()
			if err != nil {
				return
			}
			_ = c.(*net.TCPConn).CloseWrite()
			go func() {
				n, _ := io.Copy(io.Discard, c)
				got <- n
				_ = c.Close()
			}()
		}
	}()
	r := newRig(t, "", ends{}, standardLimits(), func(s *Server) { s.limits.halfOpen = 2 * time.Second })
	p := r.connect(o.Addr().String())
	for range 12 {
		p.send("\x00")
		time.Sleep(200 * time.Millisecond) // longer in all than a silence may be
	}
	select {
	case n := <-got: // nobody closes but the proxy
		if n != 12 {
			t.Errorf("the upstream received %d bytes", n)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the tunnel is still open")
	}
	if last := r.records(1)[0]; last["outcome"] != "ok" || last["request_bytes"] != float64(12) {
		t.Errorf("the record is %v", last)
	}
}
