package admin

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory, so that time on them is virtual.
type pipes struct {
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func newPipes() *pipes { return &pipes{incoming: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.incoming:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9128} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.incoming <- theirs
	return ours
}

// watch opens the stream on a server as NewServer makes it.
func (r *rig) watch(p *pipes, query string) (net.Conn, *bufio.Reader, *http.Response) {
	r.Helper()
	c := p.dial()
	if _, err := io.WriteString(c, "GET /api/v1/traffic"+query+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		r.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		r.Fatal(err)
	}
	return c, bufio.NewReader(resp.Body), resp
}

// next is the next line of a stream that is not empty.
func next(t *testing.T, b *bufio.Reader) string {
	t.Helper()
	for {
		line, err := b.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
}

// inServer runs f with a server around the rig's handler, in virtual time.
func inServer(t *testing.T, f func(*testing.T, *rig, *pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "")
		p := newPipes()
		s := NewServer(r.handler, slog.New(slog.DiscardHandler))
		go func() { _ = s.Serve(p) }()
		f(t, r, p)
		_ = s.Close()
		synctest.Wait()
	})
}

// TestTraffic: the stream outlives every deadline of the server, and ends when the daemon drains.
func TestTraffic(t *testing.T) {
	inServer(t, func(t *testing.T, r *rig, p *pipes) {
		c, b, resp := r.watch(p, "")
		defer c.Close()
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%v", resp)
		}
		if got := next(t, b); got != ": httpowerd" {
			t.Errorf("%q", got)
		}
		if all := r.recorded(); len(all) != 1 || all[0]["event"] != "traffic_read" || all[0]["result"] != "ok" || all[0]["client"] == "" {
			t.Errorf("who reads is recorded as %v", all)
		}
		for range 4 * 60 { // an hour of silence
			if got := next(t, b); got != ":" {
				t.Fatalf("%q in place of a heartbeat", got)
			}
		}
		r.lines <- []byte(`{"kind":"request","host":"a.example.com"}`)
		if got := next(t, b); got != `data: {"kind":"request","host":"a.example.com"}` {
			t.Errorf("%q", got)
		}
		close(r.leaving)
		if got := next(t, b); got != "EOF" {
			t.Errorf("after the end: %q", got)
		}
		if ctx := <-r.watching; ctx.Err() == nil {
			t.Error("the subscription goes on")
		}
	})
}

// TestTrafficEnds: with the audit trail, and with the viewer.
func TestTrafficEnds(t *testing.T) {
	inServer(t, func(t *testing.T, r *rig, p *pipes) {
		c, b, _ := r.watch(p, "")
		defer c.Close()
		next(t, b)
		close(r.lines)
		if got := next(t, b); got != "EOF" {
			t.Errorf("after the end: %q", got)
		}
		<-r.watching
	})
	inServer(t, func(t *testing.T, r *rig, p *pipes) {
		c, b, _ := r.watch(p, "")
		next(t, b)
		c.Close()
		synctest.Wait()
		if ctx := <-r.watching; ctx.Err() == nil || len(r.handler.viewers) != 0 {
			t.Error("a viewer that left still watches")
		}
	})
}

// TestTrafficViewerThatDoesNotRead is cut off.
func TestTrafficViewerThatDoesNotRead(t *testing.T) {
	inServer(t, func(t *testing.T, r *rig, p *pipes) {
		c, b, _ := r.watch(p, "")
		defer c.Close()
		next(t, b)
		ctx := <-r.watching
		time.Sleep(heartbeat + patience + time.Second)
		synctest.Wait()
		if ctx.Err() == nil || len(r.handler.viewers) != 0 {
			t.Error("a viewer that does not read holds its place")
		}
	})
}

func TestTrafficViewersAreBounded(t *testing.T) {
	inServer(t, func(t *testing.T, r *rig, p *pipes) {
		for range maxViewers {
			c, b, _ := r.watch(p, "")
			defer c.Close()
			next(t, b)
		}
		c, _, resp := r.watch(p, "")
		c.Close()
		if resp.StatusCode != 503 || resp.Header.Get("Httpowerd-Error") != "overloaded" {
			t.Errorf("%v", resp)
		}
		r.is(r.ask("GET", "/api/v1/limits", ""), 200, "") // viewers take no places of others
	})
}

func TestTrafficFilters(t *testing.T) {
	r := newRig(t, "")
	lines := []string{
		`{"kind":"request","host":"a.example.com","policy":"*.example.com#x","outcome":"ok"}`,
		`{"kind":"request","host":"b.example.com","policy":"*.example.com","outcome":"breaker_open"}`,
		`{"kind":"tunnel","host":"c.example.org","outcome":"ok"}`,
		`{"kind":"lifecycle","event":"started"}`,
		`not JSON`,
	}
	for query, want := range map[string]string{
		"": "01234", "?host=a.example.com": "0", "?host=A.Example.com": "0", "?host=*.example.com": "01", "?outcome=ok": "02",
		"?outcome=ok&host=c.example.org": "2", "?host=a.example.com&host=c.example.org": "02", "?host=": "3", "?outcome=breaker_open&outcome=ok": "012", "?host=d": "",
	} {
		q, err := http.NewRequest(http.MethodGet, "/api/v1/traffic"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		passes, p := wantedRecords(q)
		if p != nil {
			t.Fatal(p.detail)
		}
		got := ""
		for i, line := range lines {
			if passes([]byte(line)) {
				got += string(rune('0' + i))
			}
		}
		if got != want {
			t.Errorf("%s passes %s; want %s", query, got, want)
		}
	}
	r.is(r.ask("GET", "/api/v1/traffic?hst=a.example.com", ""), 400, "bad_request")
}

// TestConnectionsAreBounded: the next one is closed at once, and a place that is given back is one.
func TestConnectionsAreBounded(t *testing.T) {
	hook := bound(2)
	var ends []net.Conn
	open := func() (closed bool) {
		ours, theirs := net.Pipe()
		ends = append(ends, ours, theirs)
		hook(theirs, http.StateNew)
		_ = theirs.SetWriteDeadline(time.Now())
		_, err := theirs.Write([]byte("x"))
		return err == io.ErrClosedPipe
	}
	for range 2 {
		if open() {
			t.Error("closed within the bound")
		}
	}
	if !open() {
		t.Error("open beyond the bound")
	}
	hook(ends[len(ends)-1], http.StateClosed)
	hook(ends[1], http.StateClosed)
	if open() {
		t.Error("a place was not given back")
	}
	for _, c := range ends {
		c.Close()
	}
}

// TestServer: what every client is held to.
func TestServer(t *testing.T) {
	s := NewServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 || s.MaxHeaderBytes > 64<<10 ||
		s.ErrorLog == nil || !s.Protocols.HTTP1() || s.Protocols.HTTP2() || s.Protocols.UnencryptedHTTP2() {
		t.Errorf("%+v", s)
	}
}
