package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo tells what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%s %s %s %d %q", r.Method, r.RequestURI, r.Host, r.ContentLength, body)
	for _, name := range slices.Sorted(maps.Keys(r.Trailer)) {
		fmt.Fprintf(w, " %s=%s", name, r.Trailer[name])
	}
}

const at = "Host: a.example.com\r\n"

// TestRequests: what is read, one behind the other on one connection, whole and in pieces.
func TestRequests(t *testing.T) {
	table := []struct{ in, want string }{
		{"GET /a?b HTTP/1.1\r\n" + at + "\r\n", `GET /a?b a.example.com 0 ""`},
		{"POST http://b.example.com/ HTTP/1.1\r\n" + at + "Content-Length: 5\r\n\r\nhello", `POST http://b.example.com/ b.example.com 5 "hello"`},
		{"POST / HTTP/1.1\r\n" + at + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3;x=\"y\"\r\nhel\r\n2 \r\nlo\r\n0\r\nX-Sum: 1\r\nAuthorization: x\r\n\r\n",
			`POST / a.example.com -1 "hello" X-Sum=[1]`},
		{"PUT /%2f HTTP/1.1\r\n" + at + "Content-Length: 0\r\n\r\n", `PUT /%2f a.example.com 0 ""`},
	}
	_, addr := serve(t, echo)
	c := dial(t, addr)
	all := ""
	for _, row := range table {
		all += row.in
	}
	c.send(all)
	for _, row := range table {
		if resp, body := c.answer(http.MethodGet); resp.StatusCode != 200 || body != row.want || resp.ContentLength != int64(len(body)) || resp.Header.Get("Date") == "" {
			t.Errorf("%v %q, want %q", resp.Header, body, row.want)
		}
	}
	for i := range all {
		c.send(all[i : i+1])
		if i%16 == 0 {
			time.Sleep(time.Millisecond) // so that it comes in pieces
		}
	}
	for _, row := range table {
		if _, body := c.answer(http.MethodGet); body != row.want {
			t.Errorf("in pieces: %q, want %q", body, row.want)
		}
	}
}

// TestRefusals: the table itself is guard's; here that a refused head is answered in its turn, and ends the connection.
func TestRefusals(t *testing.T) {
	for in, status := range map[string]int{
		"GET / HTTP/1.1\r\n" + at + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
		"GET / HTTP/1.1\n" + at + "\n":                                     400,
		"GET / HTTP/1.1\r\n" + at + "X: " + strings.Repeat("a", 9<<10):     431,
		"GET /" + strings.Repeat("a", 9<<10):                               414,
		"GET / HTTP/2.0\r\n" + at + "\r\n":                                 505,
		"\x16\x03\x01\x00":                                                 400,
		"GET / HTTP/1.1\r\n" + at + "X: a\r\n b\r\n\r\n":                   400,
		"GET / HTTP/1.1\r\n" + at + "Expect: something\r\n\r\n":            417,
		"GET / HTTP/1.1\r\n" + at + "Transfer-Encoding: gzip\r\n\r\n":      501,
		"GET / HTTP/1.1\r\n" + at + "Content_Length: 3\r\n\r\nGET / HTTP/": 400,
	} {
		_, addr := serve(t, echo)
		c := dial(t, addr)
		c.send("GET /first HTTP/1.1\r\n" + at + "\r\n" + in + "GET /smuggled HTTP/1.1\r\n" + at + "\r\n")
		if _, body := c.answer(http.MethodGet); !strings.Contains(body, "/first") {
			t.Errorf("%q: the first answer is %q", in, body)
		}
		if resp, _ := c.answer(http.MethodGet); resp.StatusCode != status || !resp.Close {
			t.Errorf("%q: %s", in, resp.Status)
		}
		if more := c.rest(); more != "" {
			t.Errorf("%q: then %q", in, more)
		}
	}
}

// TestBrokenChunks: a body that loses its framing is an error for the handler, and nothing behind it is served.
func TestBrokenChunks(t *testing.T) {
	for _, body := range []string{"5\nhello\r\n0\r\n\r\n", "5\r\nhelloo\r\n0\r\n\r\n", "-5\r\n", "+5\r\n", "0x5\r\n", "fffffffffffffffff\r\n", "\r\n", "5 x\x00\r\n",
		"1;" + strings.Repeat("a", 5000) + "\r\nx\r\n0\r\n\r\n", "0\r\nno colon\r\n\r\n", "0\r\nX : 1\r\n\r\n"} {
		got := make(chan error, 1)
		_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			got <- err
			echo(w, r)
		})
		c := dial(t, addr)
		c.send("POST / HTTP/1.1\r\n" + at + "Transfer-Encoding: chunked\r\n\r\n" + body + "GET /smuggled HTTP/1.1\r\n" + at + "\r\n")
		if err := <-got; !errors.Is(err, ErrFraming) {
			t.Errorf("%q: %v", body, err)
		}
		if resp, _ := c.answer(http.MethodPost); resp.StatusCode != 400 {
			t.Errorf("%q: %s", body, resp.Status)
		}
		if more := c.rest(); more != "" {
			t.Errorf("%q: then %q", body, more)
		}
	}
}

// TestAnswersToClients: how an answer is framed.
func TestAnswersToClients(t *testing.T) {
	long := strings.Repeat("a", 100_000)
	for name, row := range map[string]struct {
		method, version, want string
		handler               http.HandlerFunc
	}{
		"length":  {"GET", "1.1", "Content-Length: 2\r\n\r\nok", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }},
		"nothing": {"GET", "1.1", "Content-Length: 0\r\n\r\n", func(http.ResponseWriter, *http.Request) {}},
		"long":    {"GET", "1.1", "Transfer-Encoding: chunked\r\n\r\n186a0\r\n" + long + "\r\n0\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, long) }},
		"flushed": {"GET", "1.1", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n", flushed},
		"old":     {"GET", "1.0", "Connection: close\r\n\r\nab", flushed},
		"head": {"HEAD", "1.1", "Content-Length: 2\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			io.WriteString(w, "ok")
		}},
		"204": {"GET", "1.1", "\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }},
		"304": {"GET", "1.1", "Content-Length: 9\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			w.WriteHeader(304)
		}},
		"injection": {"GET", "1.1", "X: a  b\r\nContent-Length: 0\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", "a\r\nb") }},
		"trailers": {"GET", "1.1", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "a")
			w.Header().Set("X-Sum", "1")
			w.Header().Set(http.TrailerPrefix+"X-More", "2")
		}},
		"103": {"GET", "1.1", "Content-Length: 0\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "<a>")
			w.WriteHeader(103)
			w.Header().Del("Link")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header()["Date"] = nil
				row.handler(w, r)
			})
			c := dial(t, addr)
			c.send(row.method + " / HTTP/" + row.version + "\r\n" + at + "\r\n")
			_ = c.CloseWrite()
			got := c.rest()
			if !strings.HasSuffix(got, row.want) || !strings.HasPrefix(got, "HTTP/1.1 ") || strings.Contains(got, "Date:") {
				t.Errorf("%q, want %q", got, row.want)
			}
			if interim := strings.HasPrefix(got, "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200"); interim != (name == "103") {
				t.Errorf("%q", got)
			}
		})
	}
}

func flushed(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "a")
	_ = http.NewResponseController(w).Flush()
	_, _ = io.WriteString(w, "b")
}

// TestOneWrite: a head and a small body reach the client in one piece.
func TestOneWrite(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, strings.Repeat("a", 1000))
	})
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil || !strings.HasSuffix(string(b[:n]), "\r\n\r\n"+strings.Repeat("a", 1000)) {
		t.Errorf("%q %v", b[:n], err)
	}
}

// TestBrokenAnswers: an answer that is shorter than its length, or aborted, does not look whole.
func TestBrokenAnswers(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "abc")
		},
		"abort": func(w http.ResponseWriter, r *http.Request) { flushed(w, r); panic(http.ErrAbortHandler) },
		"panic": func(w http.ResponseWriter, r *http.Request) { flushed(w, r); panic("a defect") },
	} {
		_, addr := serve(t, handler)
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\n" + at + "\r\nGET / HTTP/1.1\r\n" + at + "\r\n")
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(name, err)
		}
		if b, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) && !isReset(err) {
			t.Errorf("%s: %q %v", name, b, err)
		}
	}
}

func isReset(err error) bool { return err != nil && strings.Contains(err.Error(), "reset") }

// TestExpectation: 100 is sent when the body is wanted, and never behind the answer.
func TestExpectation(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(403)
			return
		}
		echo(w, r)
	})
	c := dial(t, addr)
	c.send("PUT / HTTP/1.1\r\n" + at + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if resp, _ := c.answer(http.MethodPut); resp.StatusCode != 100 {
		t.Fatal(resp.Status)
	}
	c.send("ok")
	if _, body := c.answer(http.MethodPut); !strings.HasSuffix(body, `"ok"`) {
		t.Error(body)
	}
	c.send("PUT /no HTTP/1.1\r\n" + at + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if resp, _ := c.answer(http.MethodPut); resp.StatusCode != 403 {
		t.Error(resp.Status)
	}
	if more := c.rest(); more != "" {
		t.Errorf("then %q", more)
	}
}

// TestLeaving: a client that leaves cancels its request, by FIN and by RST; one that waits does not.
func TestLeaving(t *testing.T) {
	for name, leave := range map[string]func(*client){
		"close": func(c *client) { _ = c.Close() },
		"reset": func(c *client) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		began, ended := make(chan struct{}), make(chan error, 1)
		_, addr := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			select {
			case <-r.Context().Done():
				ended <- context.Cause(r.Context())
			case <-time.After(patience):
				ended <- nil
			}
		})
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
		<-began
		leave(c)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHijack: the connection comes with what was read ahead.
func TestHijack(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		ahead, _ := rw.Reader.Peek(rw.Reader.Buffered())
		_, _ = c.Write([]byte("early " + string(ahead) + " "))
		_, _ = io.Copy(c, c)
	})
	c := dial(t, addr)
	c.send("CONNECT a.example.com:443 HTTP/1.1\r\n" + at + "\r\nbird")
	b := make([]byte, 11)
	if _, err := io.ReadFull(c.r, b); err != nil || string(b) != "early bird " {
		t.Fatalf("%q %v", b, err)
	}
	c.send("worm")
	_ = c.CloseWrite()
	if got := c.rest(); got != "worm" {
		t.Errorf("%q", got)
	}
}

// TestDeadlines: a head that drips, and a connection without a request, are let go.
func TestDeadlines(t *testing.T) {
	for name, beginning := range map[string]string{"silence": "", "half a head": "GET / HTT", "idle": "GET / HTTP/1.1\r\n" + at + "\r\n"} {
		_, addr := serve(t, echo, func(s *Server) { s.HeaderTimeout, s.Idle = 100*time.Millisecond, 200*time.Millisecond })
		c := dial(t, addr)
		c.send(beginning)
		if got := c.rest(); strings.Contains(got, "HTTP/1.1 200") != (name == "idle") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestShutdown: requests under way are answered, with the word that they are the last; idle connections end at once.
func TestShutdown(t *testing.T) {
	began, gate := make(chan struct{}), make(chan struct{})
	s, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(began)
			<-gate
		}
		echo(w, r)
	})
	idle, busy := dial(t, addr), dial(t, addr)
	idle.send("GET / HTTP/1.1\r\n" + at + "\r\n")
	idle.answer(http.MethodGet)
	busy.send("GET /slow HTTP/1.1\r\n" + at + "\r\n")
	<-began
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if more := idle.rest(); more != "" {
		t.Error(more)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		_ = c.Close()
		t.Error("a new client is let in")
	}
	close(gate)
	if resp, body := busy.answer(http.MethodGet); !resp.Close || !strings.Contains(body, "/slow") {
		t.Errorf("%v %s", resp.Close, body)
	}
	wg.Wait()
}

// TestUnwantedBody: what is left of a body is skipped where it is short; else the answer still arrives, and the connection ends.
func TestUnwantedBody(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "no") })
	c := dial(t, addr)
	c.send("PUT / HTTP/1.1\r\n" + at + "Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n" + at + "\r\n")
	c.answer(http.MethodPut)
	if _, body := c.answer(http.MethodGet); body != "no" {
		t.Error(body)
	}
	c.send("PUT / HTTP/1.1\r\n" + at + "Content-Length: 10000000\r\n\r\n" + strings.Repeat("a", 1000))
	if _, body := c.answer(http.MethodPut); body != "no" {
		t.Error(body)
	}
	if more := c.rest(); more != "" {
		t.Errorf("then %q", more)
	}
}

// A name that Trailer announces again and again has its value behind the body once, and takes no more memory for that.
func TestTrailerAnnouncedAgain(t *testing.T) {
	value := strings.Repeat("v", 1<<10)
	_, addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Trailer"] = []string{strings.Repeat("x-a, X-A,", 1<<10), "X-A"}
		w.Header().Set("X-A", value)
		w.(http.Flusher).Flush()
	})
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	got := c.rest()
	if n := strings.Count(got, value); n != 1 || !strings.HasSuffix(got, "0\r\nX-A: "+value+"\r\n\r\n") {
		t.Errorf("the value is there %d times in %d bytes", n, len(got))
	}
}

// Nobody has so many trailers.
func TestTooManyTrailers(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		announced := len(r.Trailer)
		_, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, announced, " ", len(r.Trailer), " ", err != nil)
	}, func(s *Server) { s.MaxHead = 64 << 10 })
	for n, want := range map[int]string{MaxTrailers: "500 500 false", MaxTrailers + 1: "500 501 true"} {
		var names, fields strings.Builder
		for i := range n {
			fmt.Fprintf(&names, "X-%d,", i)
			fmt.Fprintf(&fields, "X-%d: v\r\n", i)
		}
		c := dial(t, addr)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: " + names.String() + "\r\n\r\n0\r\n" + fields.String() + "\r\n")
		if _, got := c.answer(http.MethodPost); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
		chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
		for name, answer := range map[string]string{
			"announced": chunked + "Trailer: " + names.String() + "\r\n\r\n0\r\n\r\n",
			"sent":      chunked + "\r\n0\r\n" + fields.String() + "\r\n",
		} {
			up := upstream(t, says(answer))
			if _, err := fetch(t, transport(t), get(t, up), &seen{}); (err != nil) != (n > MaxTrailers) {
				t.Errorf("%d %s: %v", n, name, err)
			}
		}
	}
}
