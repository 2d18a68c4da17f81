package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLeavingBehindABody: a client that sends its body and leaves before anybody reads it is missed too, whichever way the body is framed.
func TestLeavingBehindABody(t *testing.T) {
	for name, text := range map[string]string{"length": "Content-Length: 5\r\n\r\nhello", "chunks": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		head, body, _ := strings.Cut(text, "\r\n\r\n")
		began, left, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		_, addr := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-left
			if got, err := io.ReadAll(r.Body); string(got) != "hello" {
				t.Errorf("%s: %q %v", name, got, err)
			}
			select {
			case <-r.Context().Done():
				ended <- context.Cause(r.Context())
			case <-time.After(3 * time.Second):
				ended <- nil
			}
		})
		c := dial(t, addr)
		c.send("POST / HTTP/1.1\r\n" + at + head + "\r\n\r\n")
		<-began
		c.send(body)
		_ = c.Close()
		time.Sleep(50 * time.Millisecond) // the end must be there before the body is read
		close(left)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWriteDeadlineEndsWithItsAnswer: the deadline that one handler sets is not the next one's.
func TestWriteDeadlineEndsWithItsAnswer(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/first" {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		}
		echo(w, r)
	})
	c := dial(t, addr)
	c.send("GET /first HTTP/1.1\r\n" + at + "\r\n")
	c.answer(http.MethodGet)
	time.Sleep(600 * time.Millisecond) // longer than the first one's deadline
	c.send("GET /second HTTP/1.1\r\n" + at + "\r\n")
	if resp, body := c.answer(http.MethodGet); resp.StatusCode != 200 || !strings.Contains(body, "/second") {
		t.Errorf("%s %q", resp.Status, body)
	}
}

// TestReadDeadlineEndsWithItsRequest: nor is the one that it sets for reading.
func TestReadDeadlineEndsWithItsRequest(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		echo(w, r)
	})
	c := dial(t, addr)
	c.send("GET /first HTTP/1.1\r\n" + at + "\r\n")
	c.answer(http.MethodGet)
	c.send("GET /second HTTP/1.1\r\n" + at + "\r\n")
	c.answer(http.MethodGet)
	time.Sleep(200 * time.Millisecond)
	c.send("GET /third HTTP/1.1\r\n" + at + "\r\n")
	if resp, body := c.answer(http.MethodGet); resp.StatusCode != 200 || !strings.Contains(body, "/third") {
		t.Errorf("%s %q", resp.Status, body)
	}
}

// TestChunkOverhead: chunks that are nearly nothing but extensions are not read for ever (RFC 9112 section 7.1.1); small chunks without are.
func TestChunkOverhead(t *testing.T) {
	for name, row := range map[string]struct {
		chunk  string
		broken bool
	}{"extensions": {"1;" + strings.Repeat("a", 4000) + "\r\nx\r\n", true}, "small": {"1\r\nx\r\n", false}} {
		got := make(chan error, 1)
		_, addr := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			got <- err
		})
		c := dial(t, addr)
		var wg sync.WaitGroup
		wg.Go(func() { // the server may hang up in the middle
			_, _ = io.WriteString(c.TCPConn, "POST / HTTP/1.1\r\n"+at+"Transfer-Encoding: chunked\r\n\r\n"+strings.Repeat(row.chunk, 1000)+"0\r\n\r\n")
		})
		if err := <-got; errors.Is(err, ErrFraming) != row.broken {
			t.Errorf("%s: %v", name, err)
		}
		_ = c.Close()
		wg.Wait()
	}
}

// TestTrailerOfAnInterimAnswer: what a 1xx answer says of trailers is not said of the final one.
func TestTrailerOfAnInterimAnswer(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Once, X-Head")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Once")
		w.Header().Set("X-Head", "1")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Once", "1")
	})
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\n" + at + "\r\n")
	c.answer(http.MethodGet)
	if resp, _ := c.answer(http.MethodGet); len(resp.Trailer["X-Once"]) != 1 || resp.Trailer["X-Head"] != nil {
		t.Errorf("%v %v", resp.Header, resp.Trailer)
	}
}

// TestTrailersThatFrame: no trailer frames a message, whatever a handler announces.
func TestTrailersThatFrame(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Content-Length, Transfer-Encoding, X-Sum")
		_, _ = io.WriteString(w, "body")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("Content-Length", "5")
		w.Header().Set("Transfer-Encoding", "gzip")
		w.Header().Set("X-Sum", "1")
	})
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\n" + at + "Connection: close\r\n\r\n")
	got := c.rest()
	if _, trailers, _ := strings.Cut(got, "\r\n0\r\n"); trailers != "X-Sum: 1\r\n\r\n" {
		t.Errorf("%q", got)
	}
}

// TestBrokenOldAnswer: an answer to HTTP/1.0 that ends with the connection does not look whole when it broke off.
func TestBrokenOldAnswer(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, r *http.Request) { flushed(w, r); panic(http.ErrAbortHandler) })
	c := dial(t, addr)
	c.send("GET / HTTP/1.0\r\n\r\n")
	if b, err := io.ReadAll(c.r); err == nil {
		t.Errorf("%q looks whole", b)
	}
}

// TestEarlyAnswerToALargeUpload: a client that writes on reads its answer, and is not reset while it is about to.
func TestEarlyAnswerToALargeUpload(t *testing.T) {
	_, addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusForbidden)
	})
	for range 3 {
		c := dial(t, addr)
		c.send("PUT / HTTP/1.1\r\n" + at + "Content-Length: 100000000\r\n\r\n")
		piece := make([]byte, 64<<10)
		var sent int
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		for {
			n, err := c.Write(piece)
			sent += n
			if err != nil {
				if isReset(err) || strings.Contains(err.Error(), "broken pipe") {
					t.Fatalf("reset after %d bytes: %v", sent, err)
				}
				break
			}
		}
		if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 403 {
			t.Fatalf("after %d bytes: %v %v", sent, resp, err)
		}
	}
}

// TestTakenIsKnown: Shutdown waits for a connection from when it was taken, not from when its goroutine runs.
func TestTakenIsKnown(t *testing.T) {
	s := &Server{Handler: http.HandlerFunc(echo), MaxHead: 8 << 10, HeaderTimeout: time.Minute, Idle: time.Minute}
	client, server := net.Pipe()
	s.Take(server)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v while a client had not been served yet", err)
	}
	_ = client.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOneLength: whatever a handler says of its answer's length, a client reads one.
func TestOneLength(t *testing.T) {
	for name, lengths := range map[string][]string{"equal": {"2", "2"}, "different": {"2", "3"}} {
		_, addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Length"] = lengths
			_, _ = io.WriteString(w, "ok")
		})
		c := dial(t, addr)
		c.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if raw := c.rest(); strings.Count(raw, "Content-Length: 2\r\n") != 1 || strings.Count(raw, "Content-Length") != 1 {
			t.Errorf("%s: %q", name, raw)
		}
	}
}
