package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

const (
	smallBody   = 16 << 10              // a request body of at most this is sent in one write with the head
	expectation = time.Second           // how long an upstream may take to say 100 before the body is sent all the same
	settling    = 50 * time.Millisecond // how long the sender of a body has to end after the answer did
)

// sending is one request on its way.
type sending struct {
	t     *Transport
	r     *http.Request
	watch Watch
	room  *Room

	out    *buffer // the head, and a small body
	length int64   // of the body; -1: chunked, 0: none
	stream bool    // the body is sent by a goroutine
	expect bool    // and only when the upstream asks for it
}

// prepare writes the head, and the body where it is short.
func (s *sending) prepare() error {
	r := s.r
	switch {
	case r.Body == nil || r.Body == http.NoBody:
	case r.ContentLength > 0:
		s.length = r.ContentLength
	default:
		s.length = -1
	}
	s.out = getBuffer()
	var err error
	if s.out.b, err = appendRequest(s.out.b[:0], r, s.length, s.t.Extra); err != nil {
		s.release()
		return &Error{Err: &exchange.Refusal{Code: exchange.BadRequest, Detail: "the request's fields or length cannot be sent on", Close: true, Cause: err}}
	}
	if s.length == 0 {
		return nil
	}
	s.expect = len(r.Header["Expect"]) > 0
	s.stream = s.expect || s.length < 0 || s.length > smallBody || !exchange.Ready(r.Body)
	if s.stream {
		return nil
	}
	if err := s.small(); err != nil {
		s.release()
		return &Error{Err: err, Client: true}
	}
	return nil
}

// small reads a short body in behind the head.
func (s *sending) small() error {
	head := len(s.out.b)
	want := head + int(s.length)
	b := s.out.b
	if cap(b) < want+1 {
		b = append(make([]byte, 0, want+1), b...)
	}
	b = b[:want+1] // one more than there may be
	n := head
	for n <= want {
		m, err := s.r.Body.Read(b[n:])
		n += m
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if n != want {
		return fmt.Errorf("http: ContentLength=%d with Body length %d", s.length, n-head)
	}
	s.out.b = b[:want]
	return nil
}

func (s *sending) closeBody() {
	if s.r.Body != nil {
		_ = s.r.Body.Close()
	}
}

// release gives back what the sending alone needs.
func (s *sending) release() {
	if s.out != nil {
		putBuffer(s.out)
		s.out = nil
	}
}

// over sends the request over c. again: c was dead and nothing was written.
func (s *sending) over(ctx context.Context, c *upConn) (resp *http.Response, again bool, err error) {
	writes.giveWay()
	reused := c.reused
	if reused && (time.Since(c.since) > s.t.Idle || !c.trades(s.stream) && !c.lives()) {
		c.close()
		return nil, true, nil
	}
	c.begin()
	a := s.room.take()
	a.c, a.head = c, s.r.Method == http.MethodHead
	a.watched = a.watch.Follow(ctx, c)
	s.watch.Connected(c.Conn, reused)
	if !s.stream {
		s.watch.Written() // as good as: and the write may go straight on to the answer
	}
	wrote, err := c.write(s.out.b, s.stream)
	if err != nil && !wrote {
		a.drop()
		if reused && ctx.Err() == nil {
			return nil, true, nil
		}
		s.closeBody()
		return nil, false, s.failed(ctx, a, err, false, reused)
	}
	if s.stream && err == nil {
		a.up = newUpload(s, c)
	} else {
		s.closeBody()
	} // where the write failed there may still be an answer to read
	resp, err = s.await(a)
	if err != nil {
		failed := s.failed(ctx, a, err, true, reused)
		a.drop()
		if a.up != nil {
			a.up.leave(s)
		}
		return nil, false, failed
	}
	resp.Request = s.r
	return resp, false, nil
}

// await reads answers up to the final one.
func (s *sending) await(a *answer) (*http.Response, error) {
	for {
		if err := a.readHead(s.t.MaxHead); err != nil {
			return nil, err
		}
		status := a.resp.StatusCode
		if status >= 200 || status == http.StatusSwitchingProtocols {
			break
		}
		if status == http.StatusContinue && a.up != nil {
			a.up.proceed()
		}
		if err := s.watch.Informational(status, a.resp.Header); err != nil {
			return nil, err
		}
		a.reset()
	}
	if a.up != nil {
		a.up.answered()
	}
	return &a.resp, a.frame()
}

// failed says what an error means that came before the head of an answer.
func (s *sending) failed(ctx context.Context, a *answer, err error, sent, reused bool) error {
	e := &Error{Err: err, Sent: sent}
	if a.up != nil {
		if broken := a.up.clientError(); broken != nil {
			e.Err, e.Client = broken, true
			return e
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		e.Err = cause
		return e
	}
	e.Stale = reused && !a.begun && !timedOut(err)
	return e
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// upload sends a body beside the wait for the answer.
type upload struct {
	c    *upConn
	gate chan struct{} // nil: no expectation; closed when the body may go
	once sync.Once
	done chan struct{}

	mu     sync.Mutex
	denied bool  // the answer came before the expectation was met
	whole  bool  // all was written
	broken error // the client's body could not be read
}

func newUpload(s *sending, c *upConn) *upload {
	u := &upload{c: c, done: make(chan struct{})}
	if s.expect {
		u.gate = make(chan struct{})
	}
	body, r, length, watch := s.r.Body, s.r, s.length, s.watch
	go u.run(body, r, length, watch)
	return u
}

func (u *upload) proceed() {
	if u.gate != nil {
		u.once.Do(func() { close(u.gate) })
	}
}

// answered: the final answer is here. A body that waits for leave is not sent any more.
func (u *upload) answered() {
	if u.gate == nil {
		return
	}
	u.mu.Lock()
	u.denied = true
	u.mu.Unlock()
	u.proceed()
}

// leave ends the upload where no answer comes. A read of the body that runs is not waited for, as that may last as long as the client likes: the body's owner bears with it, as with one
// that goes on beside an early answer.
func (u *upload) leave(s *sending) {
	u.answered()
	s.closeBody()
}

func (u *upload) run(body io.ReadCloser, r *http.Request, length int64, watch Watch) {
	defer close(u.done)
	defer func() { _ = body.Close() }()
	defer func() {
		if p := recover(); p != nil { // a stage's wrapper; nobody else's recover reaches here
			u.fail(fmt.Errorf("the request's body panicked: %v", p))
		}
	}()
	if u.gate != nil {
		timer := time.NewTimer(expectation)
		select {
		case <-u.gate:
		case <-timer.C:
		}
		timer.Stop()
		u.mu.Lock()
		denied := u.denied
		u.mu.Unlock()
		if denied {
			return
		}
	}
	sent, clientErr := u.copy(body, r, length)
	switch {
	case clientErr != nil:
		u.fail(clientErr)
	case sent:
		u.mu.Lock()
		u.whole = true
		u.mu.Unlock()
		watch.Written()
	}
}

// fail ends the connection: its upstream must not take what came of the body for all of it.
func (u *upload) fail(err error) {
	u.mu.Lock()
	u.broken = err
	u.mu.Unlock()
	u.c.abort()
}

// copy writes the body. It tells apart what the client did wrong; an upstream that reads no more may still have answered.
func (u *upload) copy(body io.Reader, r *http.Request, length int64) (sent bool, clientErr error) {
	buf := copyBuffers.Get().(*[copySize]byte)
	defer copyBuffers.Put(buf)
	const room = 10 // for a chunk's size line; two more bytes follow its data
	var total int64
	for {
		n, err := body.Read(buf[room : copySize-2])
		total += int64(n)
		if length >= 0 && total > length {
			return false, fmt.Errorf("http: ContentLength=%d with Body length %d", length, total)
		}
		if n > 0 {
			out := buf[room : room+n]
			if length < 0 {
				out = chunk(buf[:], room, n)
			}
			if _, werr := u.c.Write(out); werr != nil {
				return false, nil
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	if length >= 0 {
		if total != length {
			return false, fmt.Errorf("http: ContentLength=%d with Body length %d", length, total)
		}
		return true, nil
	}
	end, err := appendTrailer(append(buf[:0], "0\r\n"...), r.Trailer)
	if err != nil {
		return false, err
	}
	_, werr := u.c.Write(append(end, "\r\n"...))
	return werr == nil, nil
}

// chunk frames the n bytes that stand at room in buf.
func chunk(buf []byte, room, n int) []byte {
	const digits = "0123456789abcdef"
	i := room - 1
	buf[i] = '\n'
	i--
	buf[i] = '\r'
	for v := n; v > 0; v >>= 4 {
		i--
		buf[i] = digits[v&15]
	}
	buf[room+n], buf[room+n+1] = '\r', '\n'
	return buf[i : room+n+2]
}

func (u *upload) clientError() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.broken
}

// running tells whether the body is still being sent; nil: there is none.
func (u *upload) running() bool {
	if u == nil {
		return false
	}
	select {
	case <-u.done:
		return false
	default:
		return true
	}
}

// settled tells whether the whole body was written; the sender gets a moment to say so.
func (u *upload) settled() bool {
	if u.running() {
		timer := time.NewTimer(settling)
		defer timer.Stop()
		select {
		case <-u.done:
		case <-timer.C:
			return false
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.whole
}
