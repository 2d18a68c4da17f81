package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunk    = 64 << 10
	patience = time.Minute // with one request
)

// zeros is what all bodies are made of.
var zeros [chunk]byte

// origin answers /N with N bytes, and uploads to it with nothing, where N bytes have come.
type origin struct {
	*httptest.Server
	address string
}

func newOrigin() *origin {
	o := &origin{Server: httptest.NewServer(http.HandlerFunc(serveSize))}
	o.address = o.Listener.Addr().String()
	return o
}

func serveSize(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/"), 10, 64)
	if err != nil {
		http.Error(w, "no size", http.StatusNotFound)
		return
	}
	if r.Method == http.MethodPost {
		if n := drain(r.Body); n != size {
			http.Error(w, fmt.Sprintf("%d bytes came", n), http.StatusBadRequest)
		}
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_ = writeZeros(w, size)
}

// drain counts what comes, by reads as large as a chunk: io.Copy's are smaller, and would hold up who sends.
func drain(body io.Reader) (n int64) {
	buffer := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buffer)
	for {
		m, err := body.Read(buffer[:])
		n += int64(m)
		if err != nil {
			return n
		}
	}
}

var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

func writeZeros(w io.Writer, n int64) error {
	for n > 0 {
		m, err := w.Write(zeros[:min(n, chunk)])
		n -= int64(m)
		if err != nil {
			return err
		}
	}
	return nil
}

// request is one message, and how long the answer's body must be.
type request struct {
	head   []byte // and the beginning of the body, which clients send with it
	rest   int64  // of the body
	answer int64
}

func get(host string, size int64) request {
	return request{head: fmt.Appendf(nil, "GET http://%s/%d HTTP/1.1\r\nHost: %[1]s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", host, size), answer: size}
}

func post(host string, size int64) request {
	head := fmt.Appendf(nil, "POST http://%s/%d HTTP/1.1\r\nHost: %[1]s\r\nUser-Agent: bench\r\nAccept: */*\r\n"+
		"Content-Type: application/octet-stream\r\nContent-Length: %[2]d\r\n\r\n", host, size)
	with := min(size, 4<<10)
	return request{head: append(head, zeros[:with]...), rest: size - with}
}

// ring is connections that take turns, and requests that do. Connections have no goroutine: a sender for each of the few requests in flight goes round
// those that are its own.
type ring struct {
	conns    []net.Conn
	senders  []*sender
	requests []request
}

func newRing(proxy string, connections int, requests []request) (*ring, error) {
	r := &ring{requests: requests}
	for i := range min(connections, inFlight) {
		r.senders = append(r.senders, &sender{ring: r, next: i})
	}
	for i := range connections {
		c, err := net.DialTimeout("tcp", proxy, patience)
		if err != nil {
			r.close()
			return nil, fmt.Errorf("connection %d: %w", i+1, err)
		}
		r.conns = append(r.conns, c)
		s := r.senders[i%len(r.senders)]
		s.conns = append(s.conns, c)
	}
	return r, nil
}

func (r *ring) close() {
	for _, c := range r.conns {
		_ = c.Close()
	}
}

// send sends for a time, and at least so many requests. It returns how many were answered as they should be, which is all where there is no error.
func (r *ring) send(ctx context.Context, d time.Duration, least int) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	until, each := time.Now().Add(d), (least+len(r.senders)-1)/len(r.senders)
	var n atomic.Int64
	var wg sync.WaitGroup
	for _, s := range r.senders {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil && (i < each || time.Now().Before(until)); i++ {
				if err := s.one(); err != nil {
					cancel(err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return n.Load(), context.Cause(ctx)
}

// sender has one request in flight.
type sender struct {
	ring   *ring
	conns  []net.Conn
	turn   int // of its connections
	next   int // of the ring's requests
	buffer [chunk]byte
}

// one sends the next request by the next connection, and reads the answer.
func (s *sender) one() error {
	c, r := s.conns[s.turn%len(s.conns)], &s.ring.requests[s.next%len(s.ring.requests)]
	s.turn++
	s.next += len(s.ring.senders)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write(r.head); err != nil {
		return err
	}
	if err := writeZeros(c, r.rest); err != nil {
		return err
	}
	return s.read(c, r.answer)
}

// read takes one answer and wants it to be a 200 with a body of so many bytes.
func (s *sender) read(c net.Conn, want int64) error {
	n, end := 0, -1
	for end < 0 {
		if n == len(s.buffer) {
			return errors.New("the answer's head does not end")
		}
		m, err := c.Read(s.buffer[n:])
		if err != nil {
			return fmt.Errorf("no answer: %w", err)
		}
		n += m
		end = bytes.Index(s.buffer[:n], []byte("\r\n\r\n"))
	}
	head := s.buffer[:end]
	length, err := contentLength(head)
	if err != nil {
		return err
	}
	if length != want || !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("a body of %d bytes was to come, not %q", want, s.buffer[:min(n, 1<<10)])
	}
	left := want - int64(n-end-len("\r\n\r\n"))
	for left > 0 {
		m, err := c.Read(s.buffer[:])
		if left -= int64(m); err != nil && left > 0 {
			return fmt.Errorf("%d bytes are missing: %w", left, err)
		}
	}
	if left < 0 {
		return fmt.Errorf("%d bytes came that nobody announced", -left)
	}
	return nil
}

func contentLength(head []byte) (int64, error) {
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			return strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return 0, fmt.Errorf("no length is in the answer %q", head)
}
