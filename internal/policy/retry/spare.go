package retry

import (
	"bytes"
	"io"
	"net/http"
	"sync"
)

// spareBytes is how much of a failed answer's body is read while the next attempt is prepared.
const spareBytes = 64 << 10

// spare is the failed answer before an attempt that has not been admitted yet. A short body is read meanwhile, so that its connection and its
// place among the answers in flight are free for that attempt; a longer one stays open. Either way the client can still get all of it.
type spare struct {
	resp *http.Response
	err  error
	body io.ReadCloser
	once sync.Once
	done chan struct{} // closed when read and end are there; nil: nothing is read
	read []byte
	end  error // how the reading ended; nil: there may be more
}

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

// drop gives the answer up, because there is another one.
func (s *spare) drop() {
	if s.resp != nil {
		s.close()
	}
}

// restore is the answer as it came.
func (s *spare) restore() (*http.Response, error) {
	if s.done != nil {
		s.resp.Body = &restored{spare: s}
	}
	return s.resp, s.err
}

// restored is what has been read of a body, then the rest of it.
type restored struct {
	spare *spare
	from  io.Reader
}

func (r *restored) Read(p []byte) (int, error) {
	if r.from == nil {
		s := r.spare
		<-s.done
		rest := io.Reader(s.body)
		if s.end != nil {
			rest = ended{s.end}
		}
		r.from = io.MultiReader(bytes.NewReader(s.read), rest)
	}
	return r.from.Read(p)
}

func (r *restored) Close() error {
	r.spare.close()
	return nil
}

// ended is a reader that has come to its end, good or bad.
type ended struct{ err error }

func (e ended) Read([]byte) (int, error) { return 0, e.err }
