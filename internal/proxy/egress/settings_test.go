package egress

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"net/http/httptrace"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"httpowerd/internal/exchange"
)

// tlsPipe is both ends of a connection to an upstream that speaks HTTP/2.
func tlsPipe(t *testing.T) (dial func() (near net.Conn, far *tls.Conn)) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	certificates := s.TLS.Certificates
	s.Close()
	return func() (net.Conn, *tls.Conn) {
		near, far := net.Pipe()
		return near, tls.Server(far, &tls.Config{Certificates: certificates, NextProtos: []string{"h2"}})
	}
}

// TestHTTP2LateSettings: an upstream that has not said yet how many streams it takes gets one request, and the others when it has. It might refuse them.
func TestHTTP2LateSettings(t *testing.T) {
	const requests = 6
	near, far := tlsPipe(t)()
	early, served := 0, 0
	begun, told, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		defer far.Close()
		if _, err := io.ReadFull(far, make([]byte, len(http2.ClientPreface))); err != nil {
			t.Error(err)
			return
		}
		f := http2.NewFramer(far, far)
		heads := make(chan uint32, requests)
		go func() {
			defer close(heads)
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				if frame, ok := frame.(*http2.HeadersFrame); ok {
					heads <- frame.StreamID
				}
			}
		}()
		id, ok := <-heads
		close(begun)
		<-told
		early = 1 + len(heads)
		if err := f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: requests}); err != nil {
			t.Error(err)
		}
		for ; ok; id, ok = <-heads {
			var head bytes.Buffer
			_ = hpack.NewEncoder(&head).WriteField(hpack.HeaderField{Name: ":status", Value: "204"})
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
				t.Error(err)
			}
			served++
		}
	}()
	p, end := poolOf(t, "")
	first, _ := request(t, "POST", "https://upstream.example.com:443/", "")
	below := p.track(first.Context(), near)
	below.http2 = true
	k := p.two.of(first.URL.Host)
	k.set(true)
	k.leave(tls.Client(below, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}))
	connected := make(chan struct{}, requests)
	var asked sync.WaitGroup
	ask := func() {
		r, x := request(t, "POST", "https://upstream.example.com:443/", "")
		r.ProtoMajor = 2
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected <- struct{}{} }}))
		want(t, get(exchange.RoundTripperFunc(p.roundTrip), r), "204 ")
		if a := x.Story().Attempts; len(a) != 1 || a[0].Status != 204 {
			t.Errorf("attempts %+v", a)
		}
	}
	asked.Go(ask)
	<-begun
	for range requests - 1 {
		asked.Go(ask)
	}
	for range requests {
		<-connected
	}
	time.Sleep(100 * time.Millisecond) // by then they would be there
	close(told)
	asked.Wait()
	end()
	<-gone
	if early != 1 || served != requests {
		t.Errorf("%d requests came before the upstream's SETTINGS, %d in all", early, served)
	}
}

// TestHTTP2NoSettings: who waits for them does not wait for good.
func TestHTTP2NoSettings(t *testing.T) {
	dial := tlsPipe(t)
	synctest.Test(t, func(t *testing.T) {
		near, far := dial()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, far)
		}()
		o := newObjecting(tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}))
		go func() { _, _ = o.Read(make([]byte, 64)) }()
		head := func(id byte) string { return "\x00\x00\x01\x01\x05\x00\x00\x00" + string(id) + "\x88" }
		if _, err := io.WriteString(o, http2.ClientPreface+head(1)); err != nil {
			t.Fatal(err)
		}
		written := make(chan error, 1)
		go func() {
			_, err := io.WriteString(o, head(3))
			written <- err
		}()
		synctest.Wait()
		select {
		case err := <-written:
			t.Fatalf("the second request did not wait: %v", err)
		default:
		}
		_ = near.Close()
		if err := <-written; err == nil {
			t.Error("it was written to a connection that is closed")
		}
		<-ended
	})
}
