package egress

import (
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"httpowerd/internal/exchange"
)

// TestHTTP2NotTaken: an upstream that takes nothing from its HTTP/2 connection any more, and talks on, is given up as soon as a silent one: whoever has to write to it waits
// for the one write that is under way, also to grant room for an answer that nobody wants.
func TestHTTP2NotTaken(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	certificates := s.TLS.Certificates
	s.Close()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			defer far.Close()
			c := tls.Server(far, &tls.Config{Certificates: certificates, NextProtos: []string{"h2"}})
			if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
				t.Error(err)
				return
			}
			f := http2.NewFramer(c, c)
			_ = f.WriteSettings()
			for range 4 { // the client's SETTINGS and WINDOW_UPDATE, its word on these SETTINGS, and the request's head
				if _, err := f.ReadFrame(); err != nil {
					t.Error(err)
					return
				}
			}
			talk := time.NewTicker(10 * time.Second)
			defer talk.Stop()
			for range 60 {
				<-talk.C
				if f.WriteWindowUpdate(0, 1) != nil {
					return
				}
			}
		}()
		p, end := poolOf(t, "")
		r, x := request(t, "POST", "https://upstream.example.com:443/", "")
		r.ProtoMajor, r.ContentLength = 2, -1
		var body *io.PipeWriter
		r.Body, body = io.Pipe()
		below := p.track(r.Context(), near)
		below.http2 = true
		k := p.two.of(r.URL.Host)
		k.set(true)
		k.leave(tls.Client(below, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}))
		began := time.Now()
		go func() {
			synctest.Wait()
			_, _ = body.Write(make([]byte, 60_000))
		}()
		want(t, get(exchange.RoundTripperFunc(p.roundTrip), r), "failure upstream_timeout sent")
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		if a := x.Story().Attempts; len(a) != 1 || a[0].Address != "pipe" {
			t.Errorf("attempts %+v", a)
		}
		<-gone
		end()
	})
}
