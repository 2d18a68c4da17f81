package retry

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
	"httpowerd/internal/state"
)

// client is a request's body that comes in pieces, when the test sends them.
type client struct {
	pieces chan string
	rest   string
	err    error // instead of the end
	closed atomic.Int32
	asked  atomic.Int32 // reads begun
}

func newClient() *client { return &client{pieces: make(chan string, 100)} }

func (c *client) Read(p []byte) (int, error) {
	c.asked.Add(1)
	for c.rest == "" {
		piece, ok := <-c.pieces
		if !ok {
			if c.err != nil {
				return 0, c.err
			}
			return 0, io.EOF
		}
		c.rest = piece
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *client) Close() error { c.closed.Add(1); return nil }

// upload sends a PUT with a body through the stage.
func upload(t *testing.T, body io.ReadCloser, length int64, change func(*Config), next func(n int, r *http.Request) (*http.Response, error)) (*http.Response, exchange.Story, error) {
	t.Helper()
	c := Default()
	if change != nil {
		change(&c)
	}
	var keeper state.Keeper
	x := newExchange("PUT")
	n := 0
	stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, c).Wrap(exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
		n++
		if r.ContentLength != length {
			t.Errorf("attempt %d announces %d bytes; want %d", n, r.ContentLength, length)
		}
		return next(n, r)
	}))
	r := request(t.Context(), x, nil)
	r.Body, r.ContentLength = body, length
	resp, err := stage.RoundTrip(r)
	return resp, x.Story(), err
}

// trailing is a body that brings its request's trailers with its end, as a server's does.
type trailing struct {
	*client
	trailer http.Header
}

func (b trailing) Read(p []byte) (int, error) {
	n, err := b.client.Read(p)
	if err == io.EOF {
		b.trailer["X-Sum"] = []string{"42"}
		delete(b.trailer, "X-Unsaid")
	}
	return n, err
}

// TestTrailersOfEachAttempt: an upload that goes on when its attempt has failed may come to the trailers while the next one's head is written. Each attempt has its own.
func TestTrailersOfEachAttempt(t *testing.T) {
	for name, first := range map[string]bool{"the first upload reads the end": true, "the second does": false} {
		t.Run(name, func(t *testing.T) {
			body := trailing{newClient(), http.Header{"X-Sum": nil, "X-Unsaid": nil}}
			body.pieces <- "hello"
			r := request(t.Context(), newExchange("PUT"), nil)
			r.Body, r.ContentLength, r.Trailer = body, -1, body.trailer
			var keeper state.Keeper
			uploaded := make(chan struct{})
			attempts := 0
			stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, Default()).Wrap(exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
				attempts++
				if attempts == 1 {
					asked := body.asked.Load()
					go func() {
						defer close(uploaded)
						_, _ = io.Copy(io.Discard, r.Body)
					}()
					for first && body.asked.Load() < asked+2 { // it waits for more than there is
						time.Sleep(time.Millisecond)
					}
					if !first {
						_ = r.Body.Close()
					}
					return status(http.StatusServiceUnavailable), nil
				}
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					close(body.pieces)
					<-uploaded
				}()
				for range 1000 { // as a head is written
					for name, values := range r.Trailer {
						if values != nil || name != "X-Sum" && name != "X-Unsaid" {
							t.Errorf("before the body's end: %v", r.Trailer)
						}
					}
				}
				<-ended
				if len(r.Trailer) != 2 || r.Trailer["X-Sum"] != nil {
					t.Errorf("before the body's end: %v", r.Trailer)
				}
				if text, err := io.ReadAll(r.Body); string(text) != "hello" || err != nil {
					t.Errorf("%q, %v", text, err)
				}
				if len(r.Trailer) != 1 || r.Trailer.Get("X-Sum") != "42" {
					t.Errorf("behind the body: %v", r.Trailer)
				}
				return status(http.StatusOK), nil
			}))
			if resp, err := stage.RoundTrip(r); err != nil || resp.StatusCode != http.StatusOK || attempts != 2 {
				t.Errorf("%v, %v after %d attempts", resp, err, attempts)
			}
		})
	}
}

func status(code int) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: http.NoBody}
}

// Every attempt gets the body byte for byte, however much of it the one before had read.
func TestBodyIsReplayed(t *testing.T) {
	text := strings.Repeat("0123456789", 20_000)
	for _, length := range []int64{int64(len(text)), -1} {
		for _, read := range []int64{0, 1, 65_537, int64(len(text)) - 1, int64(len(text)), int64(len(text)) + 1} {
			synctest.Test(t, func(t *testing.T) {
				body := newClient()
				body.pieces <- text[:70_000]
				body.pieces <- text[70_000:]
				close(body.pieces)
				resp, story, err := upload(t, body, length, nil, func(n int, r *http.Request) (*http.Response, error) {
					if n == 3 {
						got, err := io.ReadAll(r.Body)
						if string(got) != text || err != nil {
							t.Errorf("the last attempt read %d bytes, %v", len(got), err)
						}
						return status(200), r.Body.Close()
					}
					got, err := io.ReadAll(io.LimitReader(r.Body, read))
					if string(got) != text[:min(read, int64(len(text)))] || err != nil {
						t.Errorf("attempt %d read %d bytes, %v", n, len(got), err)
					}
					return status(503), r.Body.Close()
				})
				if err != nil || resp.StatusCode != 200 || story.NotRetried != "" {
					t.Errorf("%v, not retried because of %q", err, story.NotRetried)
				}
				if body.closed.Load() != 1 {
					t.Errorf("the client's body was closed %d times", body.closed.Load())
				}
			})
		}
	}
}

func TestBodyBeyondTheBuffer(t *testing.T) {
	small := func(c *Config) { c.Buffer = 100 }
	for name, c := range map[string]struct {
		length     int64
		size, read int
		notRetried string
	}{
		"fits": {-1, 100, 100, ""}, "too long, announced": {101, 101, 1, "body"}, "too long, announced, untouched": {101, 101, 0, ""},
		"too long, streamed": {-1, 101, 101, "body"}, "too long, but not so far": {-1, 101, 100, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				text := strings.Repeat("x", c.size)
				resp, story, err := upload(t, io.NopCloser(oneByte{strings.NewReader(text)}), c.length, small, func(n int, r *http.Request) (*http.Response, error) {
					defer r.Body.Close()
					if n == 1 {
						if _, err := io.ReadFull(r.Body, make([]byte, c.read)); err != nil {
							t.Error(err)
						}
						return nil, failure(exchange.UpstreamReset, true)
					}
					got, err := io.ReadAll(r.Body)
					if string(got) != text || err != nil {
						t.Errorf("attempt %d read %q, %v", n, got, err)
					}
					return status(200), nil
				})
				if story.NotRetried != c.notRetried || (err == nil) != (c.notRetried == "") {
					t.Errorf("%v, %v, not retried because of %q", resp, err, story.NotRetried)
				}
			})
		})
	}
}

// oneByte reads a byte at a time, so that counts are exact.
type oneByte struct{ io.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:1]) }

// Nothing is read before the transport asks: a client that expects 100 (Continue) must not be told to send what the upstream does not want.
func TestNoReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newClient()
		resp, _, err := upload(t, body, 10, nil, func(n int, r *http.Request) (*http.Response, error) {
			return status(417), r.Body.Close()
		})
		if err != nil || resp.StatusCode != 417 || body.asked.Load() != 0 || body.closed.Load() != 1 {
			t.Errorf("%v, the body was read %d times, closed %d times", err, body.asked.Load(), body.closed.Load())
		}
	})
}

// A transport may go on reading after it has answered: what it takes from the client is not lost to the next attempt.
func TestTwoReaders(t *testing.T) {
	for _, chunk := range []int{3, 300 << 10} { // in all: within the buffer, and past it while the second attempt replays
		synctest.Test(t, func(t *testing.T) {
			pieces := []string{strings.Repeat("a", chunk), strings.Repeat("b", chunk), strings.Repeat("c", chunk), strings.Repeat("d", chunk)}
			body := newClient()
			body.pieces <- pieces[0]
			var first io.ReadCloser
			resp, _, err := upload(t, body, -1, nil, func(n int, r *http.Request) (*http.Response, error) {
				if n == 1 {
					first = r.Body
					if _, err := io.ReadFull(r.Body, make([]byte, chunk)); err != nil {
						t.Error(err)
					}
					go func() { // and waits for more
						if _, err := r.Body.Read(make([]byte, 32<<10)); err == nil {
							t.Error("a view that is over read on")
						}
						r.Body.Close()
					}()
					synctest.Wait()
					return status(503), nil
				}
				go func() {
					for _, p := range pieces[1:] {
						time.Sleep(time.Second)
						body.pieces <- p
					}
					close(body.pieces)
				}()
				got, err := io.ReadAll(r.Body)
				if want := strings.Join(pieces, ""); string(got) != want || err != nil {
					t.Errorf("the second attempt read %d bytes; want %d, %v", len(got), len(want), err)
				}
				return status(200), r.Body.Close()
			})
			if err != nil || resp.StatusCode != 200 {
				t.Fatal(err)
			}
			if _, err := first.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
				t.Error("the first view reads on:", err)
			}
			if body.closed.Load() != 1 {
				t.Errorf("the client's body was closed %d times", body.closed.Load())
			}
		})
	}
}

// An upload that still runs when its attempt has failed cannot spoil what the next attempt gets, however much comes while that one waits.
func TestUploadDuringTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newClient()
		slow := func(c *Config) {
			c.Buffer, c.Backoff.Base = 100, setting.Duration(time.Hour)
			c.Backoff.Max = c.Backoff.Base
		}
		resp, _, err := upload(t, body, -1, slow, func(n int, r *http.Request) (*http.Response, error) {
			if n == 1 {
				body.pieces <- strings.Repeat("a", 90)
				go func() { _, _ = io.Copy(io.Discard, r.Body) }()
				synctest.Wait()
				go func() {
					time.Sleep(time.Nanosecond)
					body.pieces <- strings.Repeat("b", 90)
					body.pieces <- strings.Repeat("c", 90)
					close(body.pieces)
				}()
				return status(500), nil
			}
			got, err := io.ReadAll(r.Body)
			if want := strings.Repeat("a", 90) + strings.Repeat("b", 90) + strings.Repeat("c", 90); string(got) != want || err != nil {
				t.Errorf("the second attempt read %d bytes of %d, %v", len(got), len(want), err)
			}
			return status(200), r.Body.Close()
		})
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(err)
		}
	})
}

// An answer may come before the upload has ended; the upload goes on, and the body is closed when it ends.
func TestUploadOutlivesTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newClient()
		body.pieces <- "begin"
		var rest []byte
		resp, _, err := upload(t, body, -1, nil, func(n int, r *http.Request) (*http.Response, error) {
			if _, err := io.ReadFull(r.Body, make([]byte, 5)); err != nil {
				t.Error(err)
			}
			go func() {
				rest, _ = io.ReadAll(r.Body)
				r.Body.Close()
			}()
			return status(200), nil
		})
		if err != nil || resp.StatusCode != 200 || body.closed.Load() != 0 {
			t.Fatalf("%v, closed %d times", err, body.closed.Load())
		}
		body.pieces <- ", end"
		close(body.pieces)
		synctest.Wait()
		if string(rest) != ", end" || body.closed.Load() != 1 {
			t.Errorf("the rest is %q, closed %d times", rest, body.closed.Load())
		}
	})
}

// Closing a view never waits for a client that sends nothing.
func TestCloseDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newClient()
		_, _, err := upload(t, body, -1, nil, func(n int, r *http.Request) (*http.Response, error) {
			go func() { _, _ = r.Body.Read(make([]byte, 1)) }()
			synctest.Wait()
			_ = r.Body.Close()
			return nil, exchange.Refuse(exchange.Denied, "no")
		})
		if err == nil || body.closed.Load() != 0 {
			t.Errorf("%v, closed %d times under a read", err, body.closed.Load())
		}
		close(body.pieces)
		synctest.Wait()
		if body.closed.Load() != 1 {
			t.Errorf("closed %d times", body.closed.Load())
		}
	})
}

// A client that broke its upload off is not worth another attempt.
func TestBrokenUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := newClient()
		body.err = io.ErrUnexpectedEOF
		body.pieces <- "half"
		close(body.pieces)
		attempts := 0
		_, story, err := upload(t, body, -1, nil, func(n int, r *http.Request) (*http.Response, error) {
			attempts = n
			if _, err := io.ReadAll(r.Body); err != io.ErrUnexpectedEOF {
				t.Errorf("the attempt read %v", err)
			}
			return nil, failure(exchange.UpstreamReset, true)
		})
		if err == nil || attempts != 1 || story.NotRetried != "body" {
			t.Errorf("%v after %d attempts, %q", err, attempts, story.NotRetried)
		}
	})
}

// What there is no memory for is not kept.
func TestUnkeptBodyIsNotHeld(t *testing.T) {
	r := request(t.Context(), newExchange("PUT"), strings.NewReader("body"))
	c, a := Default(), &account{limit: 3}
	j := newJournal(r, &c, a)
	v := j.open()
	p := make([]byte, 10)
	if n, err := v.Read(p); string(p[:n]) != "body" || err != nil {
		t.Errorf("%q, %v", p[:n], err)
	}
	if j.data != nil || a.used.Load() != 0 || j.complete() || j.stop() != unkeptMemory {
		t.Errorf("%d bytes are held, %d are taken", len(j.data), a.used.Load())
	}
}

// Whoever refuses an attempt, or panics in it, need not close the body: what was kept of it is given back all the same.
func TestUnclosedViews(t *testing.T) {
	for name, last := range map[string]func() (*http.Response, error){
		"refused":  func() (*http.Response, error) { return nil, exchange.Refuse(exchange.BreakerOpen, "no") },
		"panicked": func() (*http.Response, error) { panic("a defect") },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStand(t, nil, step{status: 503, read: -1})
			linked := *s.stage.(*plan)
			n := 0
			linked.next = exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
				if n++; n == 1 {
					return s.upstream.RoundTrip(r)
				}
				return last()
			})
			func() {
				defer func() { _ = recover() }()
				r := request(t.Context(), newExchange("PUT"), strings.NewReader("body"))
				if resp, err := linked.RoundTrip(r); err != nil || resp.StatusCode != 503 {
					t.Errorf("%s: %v", name, err)
				}
			}()
			if used := s.room.account.used.Load(); used != 0 || n != 2 {
				t.Errorf("%s: %d bytes are still taken after %d attempts", name, used, n)
			}
		})
	}
}

// Over real connections: an upstream that answers 503 before it has read a large upload, then takes it.
func TestUploadOverHTTP(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
	var n atomic.Int32
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got, err := io.ReadAll(r.Body)
		if !bytes.Equal(got, want) || err != nil {
			t.Errorf("the upstream got %d bytes of %d, %v", len(got), len(want), err)
		}
	}))
	defer origin.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := Default()
	c.Backoff = Backoff{}
	var keeper state.Keeper
	stage := New(nil).Stage(state.Scope{Generation: keeper.Begin(), Policy: "p"}, c).Wrap(exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
		resp, err := transport.RoundTrip(r)
		if err != nil {
			err = &exchange.Failure{Code: exchange.UpstreamReset, Sent: true, Err: err}
		}
		return resp, err
	}))
	x := newExchange("PUT")
	r := request(t.Context(), x, nil)
	r.URL.Scheme, r.URL.Host = "http", origin.Listener.Addr().String()
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(want)), int64(len(want))
	resp, err := stage.RoundTrip(r)
	if err != nil || resp.StatusCode != 200 || n.Load() != 2 {
		t.Fatalf("%v, %v after %d attempts", resp, err, n.Load())
	}
	resp.Body.Close()
}
