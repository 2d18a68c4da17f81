package proxy

import (
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

// stream is the client's side of a CONNECT over HTTP/2 as a connection: a request's body that is read and an answer's body that is written. The handler waits
// until it is closed. The side towards the client cannot be closed alone: HTTP/2 ends it when the handler returns, and with it the client's own.
type stream struct {
	below   *conn // the client's connection, which other streams use too
	w       http.ResponseWriter
	control *http.ResponseController
	body    io.ReadCloser
	in, fed net.Conn // a pipe between the body and whoever reads: a deadline that passes on the body itself would end it for good
	addrs   [2]address
	done    chan struct{}
	read    chan struct{} // closed when the body is not read any more

	writing sync.Mutex // held while the client is written to
	mu      sync.Mutex
	closed  bool
	ended   bool  // by CloseWrite: nothing is expected of the client any more
	err     error // of the body; io.EOF: its end
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// connectStream takes a CONNECT over HTTP/2 over, and returns when its tunnel has ended.
func (v *visit) connectStream(w http.ResponseWriter, r *http.Request) {
	s := &stream{below: v.conn, w: w, control: http.NewResponseController(w), body: r.Body, done: make(chan struct{}), read: make(chan struct{})}
	s.in, s.fed = net.Pipe()
	s.addrs = [2]address{address(v.conn.LocalAddr().String()), address(r.RemoteAddr)}
	go s.feed()
	v.w.tunnelled = true
	v.connect(s)
	<-s.done
	s.writing.Lock() // whoever still writes must not meet a response that is gone
	defer s.writing.Unlock()
	<-s.read
}

// feed passes the body on to whoever reads.
func (s *stream) feed() {
	defer close(s.read)
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	for {
		n, err := s.body.Read(buf[:])
		if n > 0 {
			if _, failed := s.fed.Write(buf[:n]); failed != nil {
				return
			}
		}
		if err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			_ = s.fed.Close()
			return
		}
	}
}

// Read reads what the client sends.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if err == nil || os.IsTimeout(err) {
		return n, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil && !s.ended {
		err = s.err
	} else if s.ended {
		err = io.EOF
	}
	return n, err
}

// Write sends to the client at once.
func (s *stream) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	n, err := s.w.Write(p)
	if err == nil {
		err = s.control.Flush()
	}
	return n, err
}

// answer sends the head of the answer to CONNECT, and a body where it is a refusal.
func (s *stream) answer(status int, header http.Header, body []byte) (n int, err error) {
	h := s.w.Header()
	for name, values := range header {
		h[name] = values
	}
	delete(h, "Connection") // the others on this connection have nothing to do with it
	if body != nil {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	s.writing.Lock()
	s.w.WriteHeader(status)
	s.below.hurry()
	err = s.control.Flush()
	s.writing.Unlock()
	if err == nil && len(body) > 0 {
		n, err = s.Write(body)
	}
	return n, err
}

// established answers a CONNECT whose tunnel is open.
func (s *stream) established(id string) {
	_, _ = s.answer(http.StatusOK, http.Header{"Httpowerd-Request-Id": {id}, "Content-Type": nil}, nil) // an error shows at the next write
}

// refuse answers a CONNECT that gets no tunnel.
func (s *stream) refuse(v *visit, d verdict) {
	header, body := v.problem(d)
	header["Httpowerd-Request-Id"] = []string{v.ID}
	v.toldRaw(s.answer(d.status, header, body))
}

// CloseWrite ends the stream: see there.
func (s *stream) CloseWrite() error {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	return s.Close()
}

// Close ends the stream and lets the handler return.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if s.writing.TryLock() {
		s.writing.Unlock()
	} else { // nobody waits for what the client does not take
		_ = s.control.SetWriteDeadline(time.Unix(1, 0))
	}
	s.closed = true
	close(s.done)
	_ = s.in.Close()
	return s.body.Close()
}

// LocalAddr is the listener's side of the connection.
func (s *stream) LocalAddr() net.Addr { return s.addrs[0] }

// RemoteAddr is the client's.
func (s *stream) RemoteAddr() net.Addr { return s.addrs[1] }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (s *stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline bounds reads; the stream outlives one that passes.
func (s *stream) SetReadDeadline(t time.Time) error { return s.in.SetReadDeadline(t) }

// SetWriteDeadline bounds writes; one that passes resets the stream.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return s.control.SetWriteDeadline(t)
}

// connectRefusal is why a CONNECT over HTTP/2 is none that opens a tunnel.
func (s *Server) connectRefusal(r *http.Request) error {
	if _, ok := r.Header[":protocol"]; ok { // RFC 8441; nobody offered it
		return &exchange.Refusal{Code: exchange.Unsupported, Detail: "CONNECT opens tunnels to a host and port, and nothing else"}
	}
	return s.unguarded(r)
}
