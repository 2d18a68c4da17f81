package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"httpowerd/internal/exchange"
)

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestKeptConnections(t *testing.T) {
	var conns atomic.Int32
	addr := upstream(t, func(n int, c *net.TCPConn, r *bufio.Reader) {
		conns.Add(1)
		says(ok)(n, c, r)
	})
	tr, w := transport(t), &seen{}
	for range 3 {
		if body, err := fetch(t, tr, get(t, addr), w); body != "ok" || err != nil {
			t.Fatal(body, err)
		}
	}
	if conns.Load() != 1 || len(w.reused) != 3 || w.reused[0] || !w.reused[2] || w.written != 3 {
		t.Errorf("%d connections, %+v", conns.Load(), w)
	}
}

// TestDeadConnection: one that its upstream has closed, or that has something unasked on it, costs no request, a write neither.
func TestDeadConnection(t *testing.T) {
	const timedOut = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
	for name, row := range map[string]struct {
		parting string
		change  []func(*Transport)
	}{
		"closed":             {},
		"unasked":            {timedOut, nil},
		"closed below TLS":   {"", []func(*Transport){underSecretive}},
		"unasked within TLS": {timedOut, []func(*Transport){underSecretive}},
	} {
		parting := row.parting
		t.Run(name, func(t *testing.T) {
			read := make(chan struct{}, 1)
			defer close(read)
			var heads atomic.Int32
			addr := upstream(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
				if head(r) == "" {
					return
				}
				heads.Add(1)
				_, _ = io.WriteString(c, ok)
				<-read // apart from the answer
				_, _ = io.WriteString(c, parting)
				if parting != "" {
					_, _ = io.Copy(io.Discard, r)
				}
			})
			tr := transport(t, row.change...)
			for range 3 {
				r, err := http.NewRequest(http.MethodPost, "http://"+addr+"/", strings.NewReader("once"))
				if err != nil {
					t.Fatal(err)
				}
				r.Body = here{r.Body}
				var w seen
				if body, err := fetch(t, tr, r, &w); body != "ok" || err != nil {
					t.Fatal(body, err)
				}
				read <- struct{}{}
				w.comes(t)
			}
			if heads.Load() != 3 {
				t.Errorf("%d requests arrived", heads.Load())
			}
		})
	}
}

// TestStale: a kept connection that dies under a request is told apart.
func TestStale(t *testing.T) {
	addr := upstream(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		head(r)
		_, _ = io.WriteString(c, ok)
		head(r)
	})
	tr := transport(t)
	if _, err := fetch(t, tr, get(t, addr), &seen{}); err != nil {
		t.Fatal(err)
	}
	_, err := fetch(t, tr, get(t, addr), &seen{})
	var e *Error
	if !errors.As(err, &e) || !e.Stale || !e.Sent || e.Client {
		t.Errorf("%+v", e)
	}
}

// TestMaxOpen: more requests than connections wait their turn; one that leaves gives it up.
func TestMaxOpen(t *testing.T) {
	var open, most atomic.Int32
	gate := make(chan struct{})
	addr := upstream(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		most.Store(max(most.Load(), open.Add(1)))
		defer open.Add(-1)
		for head(r) != "" {
			<-gate
			_, _ = io.WriteString(c, ok)
		}
	})
	tr := transport(t, func(tr *Transport) { tr.MaxOpen = 2 })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if body, err := fetch(t, tr, get(t, addr), &seen{}); body != "ok" || err != nil {
				t.Error(body, err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	eventually(t, "all but two wait", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return tr.places[addr] != nil && len(tr.places[addr].waiting) == 6
	})
	if _, err := fetch(t, tr, get(t, addr).WithContext(ctx), &seen{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(gate)
	wg.Wait()
	if most.Load() != 2 {
		t.Errorf("%d connections at once", most.Load())
	}
}

func TestSweep(t *testing.T) {
	addr := upstream(t, says(ok))
	tr := transport(t, func(tr *Transport) { tr.Idle = 200 * time.Millisecond })
	if _, err := fetch(t, tr, get(t, addr), &seen{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is let go, and its place forgotten", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.places) == 0 && tr.sweeper == nil
	})
}

func TestCancel(t *testing.T) {
	arrived, ended := make(chan struct{}), make(chan struct{})
	addr := upstream(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
		head(r)
		close(arrived)
		_, _ = io.Copy(io.Discard, r)
		close(ended)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the reason")
	go func() { <-arrived; cancel(why) }()
	_, err := fetch(t, transport(t), get(t, addr).WithContext(ctx), &seen{})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, why) || !e.Sent || e.Stale {
		t.Errorf("%v", err)
	}
	<-ended
}

// TestUploads: bodies of all kinds, and answers that come before their end.
func TestUploads(t *testing.T) {
	for name, c := range map[string]struct {
		length  int64
		body    string
		expect  bool
		trailer http.Header
		want    string
	}{
		"length":      {5, "hello", false, nil, "Content-Length: 5\r\n\r\nhello"},
		"chunks":      {-1, "hello", false, nil, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"trailer":     {-1, "hello", false, http.Header{"X-Sum": {"1"}}, "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"},
		"expectation": {5, "hello", true, nil, "Content-Length: 5\r\n\r\nhello"},
		"long":        {100_000, strings.Repeat("a", 100_000), false, nil, "Content-Length: 100000\r\n\r\n" + strings.Repeat("a", 100_000)},
	} {
		t.Run(name, func(t *testing.T) {
			received := make(chan string, 1)
			addr := upstream(t, func(_ int, conn *net.TCPConn, r *bufio.Reader) {
				var got strings.Builder
				got.WriteString(head(r))
				if c.expect {
					_, _ = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
				}
				_, body, _ := strings.Cut(c.want, "\r\n\r\n")
				_, _ = io.CopyN(&got, r, int64(len(body)))
				received <- got.String()
				_, _ = io.WriteString(conn, ok)
			})
			r, err := http.NewRequest(http.MethodPut, "http://"+addr+"/", struct{ io.Reader }{strings.NewReader(c.body)})
			if err != nil {
				t.Fatal(err)
			}
			r.ContentLength, r.Trailer = c.length, c.trailer
			if c.expect {
				r.Header.Set("Expect", "100-continue")
			}
			w := &seen{}
			body, err := fetch(t, transport(t), r, w)
			if body != "ok" || err != nil || w.written != 1 {
				t.Errorf("%q %v, written %d", body, err, w.written)
			}
			if got := <-received; !strings.HasSuffix(got, c.want) {
				t.Errorf("the upstream received %q", got)
			}
		})
	}
}

// TestEarlyAnswer: all of an answer that came before the request's body had been sent is given at once; only its end waits a moment, for the connection may be kept where
// the rest comes by then.
func TestEarlyAnswer(t *testing.T) {
	for name, answer := range map[string]string{"a length": "Content-Length: 5\r\n\r\nearly", "nothing": "Content-Length: 0\r\n\r\n"} {
		for _, comes := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the rest comes: %t", name, comes), func(t *testing.T) {
				addr := upstream(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
					head(r)
					_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\n"+answer)
					_, _ = io.Copy(io.Discard, r)
				})
				rest, send := io.Pipe()
				defer send.Close()
				r, err := http.NewRequest(http.MethodPut, "http://"+addr+"/", rest)
				if err != nil {
					t.Fatal(err)
				}
				r.ContentLength = 10
				tr := transport(t)
				resp, err := tr.Send(r, addr, &seen{}, new(Room))
				if err != nil {
					t.Fatal(err)
				}
				_, want, _ := strings.Cut(answer, "\r\n\r\n")
				got := make([]byte, 10)
				if want != "" {
					n, err := resp.Body.Read(got)
					if string(got[:n]) != want || err != nil {
						t.Errorf("%q, %v", got[:n], err)
					}
				}
				if comes {
					_, _ = send.Write(make([]byte, 10))
					_ = send.Close()
				}
				if n, err := resp.Body.Read(got); n != 0 || err != io.EOF {
					t.Errorf("%d more bytes, %v", n, err)
				}
				tr.mu.Lock()
				kept := len(tr.place(addr).idle) == 1
				tr.mu.Unlock()
				if kept != comes {
					t.Errorf("kept: %t", kept)
				}
				_ = resp.Body.Close()
			})
		}
	}
}

// TestClientsBody: a body that breaks off, or is of another length, reaches no upstream as a whole one.
func TestClientsBody(t *testing.T) {
	broken := errors.New("it broke")
	for name, body := range map[string]io.Reader{
		"breaks": io.MultiReader(strings.NewReader("hel"), failing{broken}),
		"short":  strings.NewReader("hel"),
		"long":   strings.NewReader("hello, world"),
	} {
		ended := make(chan string, 1)
		addr := upstream(t, func(_ int, _ *net.TCPConn, r *bufio.Reader) {
			head(r)
			b, _ := io.ReadAll(r)
			ended <- string(b)
		})
		r, err := http.NewRequest(http.MethodPost, "http://"+addr+"/", struct{ io.Reader }{body})
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = 5
		_, err = fetch(t, transport(t), r, &seen{})
		var e *Error
		if !errors.As(err, &e) || !e.Client || name == "breaks" && !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		if got := <-ended; len(got) >= 5 {
			t.Errorf("%s: the upstream received %q", name, got)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Folded lines mean what they mean to net/http, but for white space at a value's ends.
func TestUnfold(t *testing.T) {
	const begin, end = "HTTP/1.1 200 OK\r\n", "\r\n"
	for name, fields := range map[string]string{
		"one":            "X: a\r\n b\r\n",
		"many":           "X: a\r\n b\r\n\tc\r\n \t d\r\nY: e\r\n f\r\nZ: g\r\n",
		"white space":    "X:  a \t\r\n \t b \t\r\n  c  \r\n",
		"bare LF":        "X: a\n b\n c\nY: d\r\n e\n",
		"empty ones":     "X: a\r\n \r\n b\r\n \t\r\n\t\r\n c\r\n \r\n",
		"begins with it": "X:\r\n a\r\nY:\r\n \r\n b\r\n",
		"a colon":        "X: a\r\n Y: b\r\n",
		"a mebibyte":     "X: a\r\n" + strings.Repeat(" b\n", 1<<20/3) + "Y: c\r\n d\r\n",
	} {
		head := begin + fields + end
		std, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head)), nil)
		if err != nil {
			t.Fatal(name, err)
		}
		a := &answer{}
		if err := a.parse([]byte(head)); err != nil {
			t.Fatal(name, err)
		}
		for key, values := range std.Header {
			if got, want := a.resp.Header.Get(key), strings.Trim(values[0], " \t"); got != want {
				t.Errorf("%s: %s is %.100q, in net/http %.100q", name, key, got, want)
			}
		}
		if len(a.resp.Header) != len(std.Header) {
			t.Errorf("%s: %d fields, net/http has %d", name, len(a.resp.Header), len(std.Header))
		}
	}
	for name, fields := range map[string]string{
		"of the status line":   " b\r\nX: a\r\n",
		"Content-Length":       "Content-Length: 1\r\n 2\r\n",
		"Transfer-Encoding":    "transfer-encoding:\r\n chunked\r\n",
		"Connection":           "X: a\r\nCONNECTION: a\r\n , close\r\n",
		"no name":              "X: a\r\nb\r\n c\r\n",
		"a name in two":        "X: a\r\nY\r\n Z: c\r\n",
		"bare CR":              "X: a\r \r\n b\r\n",
		"bare CR, last":        "X: a\r\n b\r\r\n",
		"bare CR, and space":   "X: a\r\n b\r \n",
		"bare CR, alone":       "X:\n \r \n",
		"bare CR, and another": "X: a\r\n b\r\r\n c\r\n",
	} {
		if err := (&answer{}).parse([]byte(begin + fields + end)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// What a fold costs does not grow with how many there are.
func BenchmarkUnfold(b *testing.B) {
	for _, first := range []string{"X: a", "no name"} {
		for _, n := range []int{100, 10_000, 1 << 20 / 3} {
			b.Run(first+"/"+strconv.Itoa(n), func(b *testing.B) {
				head := []byte("HTTP/1.1 200 OK\r\n" + first + "\r\n" + strings.Repeat(" b\n", n) + "\r\n")
				b.SetBytes(int64(len(head)))
				for b.Loop() {
					if _, err := unfold(head); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestAnswers: what is read, and whether the connection is kept behind it.
func TestAnswers(t *testing.T) {
	const protocol = "the upstream's answer"
	for name, c := range map[string]struct {
		answer, want string
		kept         bool
	}{
		"length":                {ok, "ok", true},
		"chunks":                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nX-T: 1\r\n\r\n", "ok", true},
		"none":                  {"HTTP/1.1 204 No Content\r\n\r\n", "", true},
		"close":                 {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		"old":                   {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		"old, kept":             {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", "ok", true},
		"more than asked":       {ok + "HTTP/1.1 200 OK\r\n", "ok", false},
		"informational":         {"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + ok, "ok", true},
		"bare LF":               {"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "ok", true},
		"fold":                  {"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", "ok", true},
		"two lengths":           {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", protocol, false},
		"a zero more":           {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\nok", protocol, false},
		"length and chunk":      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", protocol, false},
		"coding":                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", protocol, false},
		"folded length":         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n 3\r\n\r\nok", protocol, false},
		"bare CR before a fold": {"HTTP/1.1 200 OK\r\nX: a\r \n b\r\nContent-Length: 2\r\n\r\nok", protocol, false},
		"NUL":                   {"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", protocol, false},
		"bare CR":               {"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", protocol, false},
		"space":                 {"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "a field name of the upstream's answer", false},
		"HTTP/2":                {"HTTP/2.0 200 OK\r\n\r\n", protocol, false},
		"garbage":               {"SSH-2.0-x\r\n", "the status line of", false},
		"bad chunk":             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "a chunk of", false},
		"framing trailer":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", protocol, false},
	} {
		t.Run(name, func(t *testing.T) {
			addr := upstream(t, says(c.answer))
			tr := transport(t)
			got, err := fetch(t, tr, get(t, addr), &seen{})
			if err != nil {
				got = err.Error()
				if failure, found := errors.AsType[*exchange.Failure](err); found {
					got = failure.Detail
					if failure.Code != exchange.UpstreamProtocol {
						t.Errorf("the code is %s", failure.Code)
					}
				}
			}
			if got != c.want && (c.want == "ok" || c.want == "" || !strings.Contains(got, c.want)) {
				t.Errorf("%q, want %q", got, c.want)
			}
			tr.mu.Lock()
			defer tr.mu.Unlock()
			if kept := tr.places[addr] != nil && len(tr.places[addr].idle) == 1; kept != c.kept {
				t.Errorf("kept: %v", kept)
			}
		})
	}
}

// here is a body that need not be waited for, which goes with the head in one write.
type here struct{ io.ReadCloser }

func (here) Ready() bool { return true }

// secretive stands for TLS over a socket: of what comes it keeps for itself what is for it.
type secretive struct{ net.Conn }

func (s secretive) Read(p []byte) (int, error) {
	for {
		n, err := s.Conn.Read(p)
		if n > 0 && p[0] == '!' {
			n = copy(p, p[1:n])
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (s secretive) NetConn() net.Conn { return s.Conn }

// underSecretive makes a transport's connections such ones.
func underSecretive(tr *Transport) {
	dial := tr.Dial
	tr.Dial = func(ctx context.Context, addr string) (Dialled, error) {
		d, err := dial(ctx, addr)
		if err != nil {
			return d, err
		}
		return Dialled{Conn: secretive{Raw(d.Conn)}, Socket: d.Socket}, nil
	}
}

// TestUnderTLS: a request over a kept connection waits for what TLS has to hear first, and is sent once and whole.
func TestUnderTLS(t *testing.T) {
	long := strings.Repeat("b", smallBody)
	for name, unasked := range map[string]string{"silent": "", "ticket": "!", "ticket, then the end": "!end"} {
		t.Run(name, func(t *testing.T) {
			read, ended := make(chan struct{}, 1), make(chan struct{}, 1)
			defer close(read)
			var conns atomic.Int32
			var mu sync.Mutex
			var bodies []string
			addr := upstream(t, func(_ int, c *net.TCPConn, r *bufio.Reader) {
				conns.Add(1)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					body, _ := io.ReadAll(req.Body)
					mu.Lock()
					bodies = append(bodies, string(body))
					mu.Unlock()
					_, _ = io.WriteString(c, ok)
					if unasked == "" {
						continue
					}
					<-read // apart from the answer
					_, _ = io.WriteString(c, unasked[:1])
					if len(unasked) > 1 {
						_ = c.Close()
						ended <- struct{}{}
						return
					}
				}
			})
			tr := transport(t, underSecretive)
			for i := range 4 {
				r, err := http.NewRequest(http.MethodPost, "http://"+addr+"/", strings.NewReader(long[i:]))
				if err != nil {
					t.Fatal(err)
				}
				r.Body = here{r.Body}
				var w seen
				if body, err := fetch(t, tr, r, &w); body != "ok" || err != nil {
					t.Fatal(i, body, err)
				}
				if unasked == "" {
					continue
				}
				read <- struct{}{}
				if w.comes(t); len(unasked) > 1 {
					<-ended
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if want := []string{long, long[1:], long[2:], long[3:]}; !slices.Equal(bodies, want) {
				t.Errorf("the upstream received %d requests", len(bodies))
			}
			if n := conns.Load(); (n == 1) != (len(unasked) < 2) {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestUnaskedWithinTLS: what TLS has decrypted behind an answer, or holds as a record that came with it, is nobody's answer, however the next request is sent.
func TestUnaskedWithinTLS(t *testing.T) {
	const foreign = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign"
	long := strings.Repeat("b", 12<<10) // its end goes straight to who reads it, and not through the connection's buffer
	server, config := pair(t)
	server.DynamicRecordSizingDisabled = true
	for name, row := range map[string]struct {
		records []string
		body    string
	}{
		"in the answer's record": {[]string{ok + foreign}, "ok"},
		"in one of its own":      {[]string{ok, foreign}, "ok"},
		"behind a long answer":   {[]string{"HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(long)) + "\r\n\r\n" + long + foreign}, long},
	} {
		t.Run(name, func(t *testing.T) {
			addr := upstream(t, func(_ int, c *net.TCPConn, _ *bufio.Reader) {
				together := &gathering{Conn: c}
				secure := tls.Server(together, server)
				r := bufio.NewReader(secure)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					together.held = []byte{}
					for _, record := range row.records {
						_, _ = io.WriteString(secure, record)
					}
					together.release()
				}
			})
			for below, wrap := range map[string]func(net.Conn) net.Conn{"raw": Raw, "net": func(c net.Conn) net.Conn { return c }} {
				tr := transport(t, func(tr *Transport) {
					dial := tr.Dial
					tr.Dial = func(ctx context.Context, addr string) (Dialled, error) {
						d, err := dial(ctx, addr)
						if err != nil {
							return d, err
						}
						d.Conn, d.Bare = tls.Client(wrap(d.Conn), config), false
						return d, nil
					}
				})
				for i := range 6 {
					r, err := http.NewRequest(http.MethodPost, "http://"+addr+"/", strings.NewReader("body"))
					if err != nil {
						t.Fatal(err)
					}
					if i%2 == 0 {
						r.Body = here{r.Body} // else it is sent beside the wait for the answer
					}
					resp, err := tr.Send(r, r.URL.Host, &seen{}, new(Room))
					if err != nil {
						t.Fatal(err)
					}
					body := make([]byte, 32<<10)
					n, err := io.ReadFull(resp.Body, body)
					if string(body[:n]) != row.body || err != io.ErrUnexpectedEOF {
						t.Errorf("over %s, request %d: %.50q, %v", below, i, body[:n], err)
					}
					_ = resp.Body.Close()
				}
			}
		})
	}
}

// gathering writes in one call what was written while it held.
type gathering struct {
	net.Conn
	held []byte // nil: it holds nothing back
}

func (g *gathering) Write(p []byte) (int, error) {
	if g.held == nil {
		return g.Conn.Write(p)
	}
	g.held = append(g.held, p...)
	return len(p), nil
}

func (g *gathering) release() {
	_, _ = g.Conn.Write(g.held)
	g.held = nil
}

// TestCloseAtTheEnd: who closes an answer's body while somebody reads the last of it does not end the exchange that gets the connection.
func TestCloseAtTheEnd(t *testing.T) {
	addr := upstream(t, says(ok))
	tr := transport(t)
	resp, err := tr.Send(get(t, addr), addr, &seen{}, new(Room))
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan *upConn) // has no room, so that who hands the connection on waits
	tr.mu.Lock()
	tr.places[addr].waiting = append(tr.places[addr].waiting, next)
	tr.mu.Unlock()
	read := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, resp.Body)
		close(read)
	}()
	eventually(t, "the connection is handed on", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.places[addr].waiting) == 0
	})
	_ = resp.Body.Close()
	c := <-next
	<-read
	if c.isClosed.Load() {
		t.Error("it was closed")
	}
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != http.ErrBodyReadAfterClose {
		t.Errorf("a read behind Close: %d, %v", n, err)
	}
	tr.put(c)
}
