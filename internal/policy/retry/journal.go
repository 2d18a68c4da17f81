package retry

import (
	"io"
	"net/http"
	"sync"
)

// journal keeps what attempts read of a request's body, up to a limit, so that another attempt can read it again. Nothing is read before an attempt
// asks for it: the first byte goes upstream as soon as the client sends it, and a client that expects 100 (Continue) gets it when the upstream agrees.
type journal struct {
	source io.ReadCloser
	limit  int
	length int // announced; negative: unknown

	mu      sync.Mutex
	turn    sync.Cond // to read the source, and whatever else a waiting view wants to know
	data    []byte
	err     error // how the source ended
	over    bool  // it was longer than limit: data is not all of it
	stopped bool  // no attempt follows: what is read now need not be kept
	started bool  // something was read
	reading bool  // somebody reads the source
	closed  bool  // the source
	view    *view // of the attempt that runs; nil between attempts
}

// view is one attempt's reading of the body. The transport may go on reading it after its attempt has ended; that disturbs no other view.
type view struct {
	journal *journal
	off     int // in data
	closed  bool
}

func newJournal(r *http.Request, c Config) *journal {
	j := &journal{source: r.Body, limit: int(c.Buffer), length: -1}
	if r.ContentLength > 0 && r.ContentLength <= int64(j.limit) {
		j.length = int(r.ContentLength)
	}
	j.over = r.ContentLength > int64(j.limit)
	j.turn.L = &j.mu
	return j
}

// open begins an attempt's view.
func (j *journal) open() *view {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.view = &view{journal: j}
	return j.view
}

// seal ends the view of the attempt before, so that no upload that still runs can outgrow the buffer while the next attempt waits. It is false where
// one has done so already.
func (j *journal) seal() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.replayable() {
		return false
	}
	j.view.closed, j.view = true, nil
	j.turn.Broadcast()
	return true
}

// complete tells whether another attempt could have the whole body as things stand.
func (j *journal) complete() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.replayable()
}

// replayable: what is too large to keep can still be sent while nobody has begun to read it. j.mu is held.
func (j *journal) replayable() bool {
	return !j.started || (!j.over && (j.err == nil || j.err == io.EOF))
}

// stop ends the keeping. The source is closed with the last view.
func (j *journal) stop() {
	j.mu.Lock()
	j.stopped = true
	j.forget()
	last := j.last()
	j.mu.Unlock()
	if last {
		_ = j.source.Close()
	}
}

// last tells, once, that nobody will read the source any more. j.mu is held.
func (j *journal) last() bool {
	if !j.stopped || j.closed || j.reading || (j.view != nil && !j.view.closed) {
		return false
	}
	j.closed = true
	return true
}

// forget drops what nobody will read again. j.mu is held.
func (j *journal) forget() {
	if j.stopped && (j.view == nil || j.view.closed || j.view.off >= len(j.data)) {
		j.data = nil
		if j.view != nil {
			j.view.off = 0
		}
	}
}

func (v *view) Read(p []byte) (int, error) {
	j := v.journal
	if len(p) == 0 {
		return 0, nil
	}
	j.mu.Lock()
	for {
		n, done, err := v.known(p)
		if done {
			j.mu.Unlock()
			return n, err
		}
		if !j.reading {
			break
		}
		j.turn.Wait() // what another view is reading is for this one too
	}
	j.reading, j.started = true, true
	j.mu.Unlock()

	n, err := j.source.Read(p)

	j.mu.Lock()
	j.reading = false
	j.note(v, p[:n], err)
	closed, last := v.closed, j.last()
	j.turn.Broadcast()
	j.mu.Unlock()
	if last {
		_ = j.source.Close()
	}
	if closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return n, err
}

// known serves what has been read before. j.mu is held.
func (v *view) known(p []byte) (n int, done bool, err error) {
	j := v.journal
	switch {
	case v.closed:
		return 0, true, http.ErrBodyReadAfterClose
	case v.off < len(j.data):
		n = copy(p, j.data[v.off:])
		v.off += n
		j.forget()
		return n, true, nil
	case j.err != nil:
		return 0, true, j.err
	}
	return 0, false, nil
}

// note records what reader read of the source. j.mu is held.
func (j *journal) note(reader *view, p []byte, err error) {
	j.err = err
	if len(j.data)+len(p) > j.limit {
		j.over = true
	}
	switch {
	case reader == j.view && (j.over || j.stopped):
		j.data, reader.off = nil, 0 // it has read everything, and nobody else will
		return
	case j.view == nil && j.stopped:
		return
	}
	if j.data == nil && j.length >= 0 && j.length <= 64<<10 {
		j.data = make([]byte, 0, j.length)
	}
	j.data = append(j.data, p...)
	if reader == j.view {
		reader.off += len(p)
	}
}

// Close ends the view; it never waits for a read.
func (v *view) Close() error {
	j := v.journal
	j.mu.Lock()
	v.closed = true
	j.turn.Broadcast()
	j.forget()
	last := j.last()
	j.mu.Unlock()
	if last {
		return j.source.Close()
	}
	return nil
}
