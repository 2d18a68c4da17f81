package retry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

// Bounds of what is read of a failed answer's body, so that its connection can be used again.
const (
	spareBytes = 64 << 10
	spareTime  = time.Second
)

// spare is the failed answer before an attempt that has not been admitted yet. A short body is read meanwhile, so that its connection and its
// place among the answers in flight are free for that attempt; a longer one stays open. Either way the client can still get all of it.
type spare struct {
	resp *http.Response
	from *http.Response // that it is a copy of, where its body is read
	err  error
	body io.ReadCloser
	once sync.Once
	done chan struct{} // closed when read and end are there; nil: nothing is read
	read []byte
	end  error // how the reading ended; nil: there may be more

	mu    sync.Mutex
	timer *time.Timer
	fate  fate
}

// fate is what has become of a failed answer.
type fate uint8

const (
	waiting  fate = iota // for the next attempt to begin
	dropped              // there is another answer
	restored             // the client gets it
)

func keep(method string, resp *http.Response, err error) *spare {
	s := &spare{resp: resp, err: err}
	if resp == nil {
		return s
	}
	s.body = resp.Body
	switch {
	case resp.ContentLength == 0 || resp.Body == http.NoBody || method == http.MethodHead:
		s.close()
		resp.Body = http.NoBody
	case resp.ContentLength <= spareBytes:
		s.done = make(chan struct{})
		s.resp, s.from = apart(resp), resp //nolint:bodyclose // as the spare is closed
		go s.fill()
	}
	return s
}

func (s *spare) fill() {
	defer close(s.done)
	s.read, s.end = io.ReadAll(io.LimitReader(s.body, spareBytes+1))
	if s.end == nil && len(s.read) <= spareBytes {
		s.end = io.EOF
		s.close()
	}
}

func (s *spare) close() { s.once.Do(func() { _ = s.body.Close() }) }

// drop gives the answer up, because there is another one. What is still being read of it has the moment that watch gives it.
func (s *spare) drop() {
	if s.resp == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fate = dropped
	if !s.reading() {
		s.halt()
		s.close()
	}
}

// abandon gives the answer up, because nobody waits for one any more.
func (s *spare) abandon() {
	if s.resp != nil {
		s.close()
	}
}

func (s *spare) reading() bool {
	if s.done == nil {
		return false
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// watch closes the answer while the next attempt runs, if it has been read too slowly or not at all: what it holds would be held for as long as that
// attempt takes. It is never closed before that attempt has begun, for until then the client may have to get it.
func (s *spare) watch(ctx context.Context, x *exchange.Exchange) {
	if s.resp == nil || s.resp.Body == http.NoBody {
		return
	}
	before := begun(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(spareTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.fate == restored:
		case s.fate == dropped || begun(x) > before || ctx.Err() != nil:
			s.close()
		default:
			s.timer.Reset(spareTime)
		}
	})
}

// begun is how many attempts have begun so far.
func begun(x *exchange.Exchange) (n int) {
	x.Read(func(s *exchange.Story) { n = len(s.Attempts) })
	return n
}

// halt stops the watch. s.mu is held.
func (s *spare) halt() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// restore is the answer as it came.
func (s *spare) restore() (*http.Response, error) {
	s.mu.Lock()
	s.fate = restored
	s.halt()
	s.mu.Unlock()
	if s.done != nil {
		s.resp.Body = &whole{spare: s}
	}
	return s.resp, s.err
}

// whole is what has been read of a body, then the rest of it.
type whole struct {
	spare *spare
	from  io.Reader
}

func (r *whole) Read(p []byte) (int, error) {
	if r.from == nil {
		s := r.spare
		<-s.done
		rest := io.Reader(s.body)
		if s.end != nil {
			rest = ended{s.end}
		}
		r.from = io.MultiReader(bytes.NewReader(s.read), rest)
	}
	n, err := r.from.Read(p)
	if err == io.EOF {
		trail(r.spare.resp, r.spare.from)
	}
	return n, err
}

func (r *whole) Close() error {
	r.spare.close()
	return nil
}

// ended is a reader that has come to its end, good or bad.
type ended struct{ err error }

func (e ended) Read([]byte) (int, error) { return 0, e.err }
