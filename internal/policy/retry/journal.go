package retry

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"

	"httpowerd/internal/exchange"
)

// journal keeps what attempts read of a request's body, up to a limit, so that another attempt can read it again. Nothing is read before an attempt
// asks for it: the first byte goes upstream as soon as the client sends it, and a client that expects 100 (Continue) gets it when the upstream agrees.
type journal struct {
	source  io.ReadCloser
	trailer http.Header // of the request, which whoever reads the source writes to; nil: nothing comes behind the body
	names   []string    // that it announced
	limit   int
	length  int64 // announced; negative: unknown
	account *account

	mu      sync.Mutex
	turn    sync.Cond // to read the source, and whatever else a waiting view wants to know
	data    []byte
	held    int       // taken from the account for data
	read    int64     // of the source
	sum     hash.Hash // of what was read; nil: nobody wants to know, or it is too long
	whole   func([sha256.Size]byte)
	err     error // how the source ended
	over    bool  // it could not be kept: data is not all of it
	crowded bool  // because the account had nothing left
	stopped bool  // no attempt follows: what is read now need not be kept
	started bool  // something was read
	reading bool  // somebody reads the source
	closed  bool  // the source
	view    *view // of the attempt that runs; nil between attempts
	first   view  // most exchanges need no other
}

// view is one attempt's reading of the body. The transport may go on reading it after its attempt has ended; that disturbs no other view.
type view struct {
	journal *journal
	trailer http.Header // of its attempt alone: another one's upload may come to the trailers while this one's head is written
	off     int         // in data
	closed  bool
}

func newJournal(r *http.Request, c *Config, a *account) *journal {
	j := &journal{source: r.Body, trailer: r.Trailer, limit: int(c.Buffer), length: -1, account: a}
	if len(r.Trailer) > 0 {
		j.names = slices.Collect(maps.Keys(r.Trailer))
	}
	if r.ContentLength > 0 {
		j.length = r.ContentLength
	}
	j.over = j.length > int64(j.limit)
	j.turn.L = &j.mu
	return j
}

// digest calls f once with the hash of the body, as soon as all of it has been read; never for one that could not be kept. It must be called before
// anything is read, and f must not call the journal.
func (j *journal) digest(f func([sha256.Size]byte)) {
	if !j.over {
		j.sum, j.whole = sha256.New(), f
	}
}

// ahead reads the whole body before any of it is sent. It is false where the body cannot be kept, or broke off; what was read of it is kept all the
// same. The error is the context's.
func (j *journal) ahead(ctx context.Context) (bool, error) {
	size := j.limit
	if j.length >= 0 {
		size = int(min(j.length, int64(j.limit)))
	}
	if j.over || !j.reserve(size) {
		return false, nil
	}
	v, done := j.open(), make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyN(io.Discard, v, int64(size)) // the journal knows how it ended
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	_ = v.Close()
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ended(), nil
}

// ended tells whether all of the body was read. j.mu is held.
func (j *journal) ended() bool { return j.err == io.EOF || j.length >= 0 && j.read == j.length }

// partial tells whether there is more of the body than was read.
func (j *journal) partial() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.over && !j.ended()
}

// reserve makes sure that size bytes can be kept.
func (j *journal) reserve(size int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.have(size)
}

// have is reserve with j.mu held.
func (j *journal) have(size int) bool {
	if size <= j.held {
		return true
	}
	if !j.account.take(size - j.held) {
		return false
	}
	j.held = size
	return true
}

// open begins an attempt's view.
func (j *journal) open() *view {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.view = &j.first
	if j.first.journal != nil {
		j.view = &view{}
	}
	j.view.journal = j
	if j.trailer != nil {
		j.view.trailer = make(http.Header, len(j.names))
		for _, name := range j.names {
			j.view.trailer[name] = nil
		}
	}
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

// stop ends the keeping, and says why the body could not be kept ("": it could). The source is closed with the last view.
func (j *journal) stop() (unkept string) {
	j.mu.Lock()
	switch {
	case j.crowded:
		unkept = unkeptMemory
	case j.over:
		unkept = unkeptSize
	}
	j.stopped = true
	j.forget()
	last := j.last()
	j.mu.Unlock()
	if last {
		_ = j.source.Close()
	}
	return unkept
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
		j.drop()
	}
}

// drop gives the memory back. The view, if there is one, has read everything. j.mu is held.
func (j *journal) drop() {
	j.account.give(j.held)
	j.data, j.held = nil, 0
	if j.view != nil {
		j.view.off = 0
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
	if !closed {
		v.trail(err)
	}
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

// Ready tells whether what the view has not read yet is here already.
func (v *view) Ready() bool {
	j := v.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.reading && (j.err != nil || exchange.Ready(j.source))
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
		v.trail(j.err)
		return 0, true, j.err
	}
	return 0, false, nil
}

// trail gives the attempt its trailers with the body's end, behind which nobody writes to the request's any more. j.mu is held.
func (v *view) trail(err error) {
	if err == io.EOF && v.trailer != nil {
		clear(v.trailer)
		maps.Copy(v.trailer, v.journal.trailer)
	}
}

// note records what reader read of the source. j.mu is held.
func (j *journal) note(reader *view, p []byte, err error) {
	j.err, j.read = err, j.read+int64(len(p))
	if len(j.data)+len(p) > j.limit {
		j.over = true
	}
	j.hash(p)
	if j.view == nil && j.stopped {
		return
	}
	mine := reader == j.view
	lone := mine && (j.over || j.stopped) // it has read everything, and nobody else will
	if !lone && !j.room(len(p)) {
		j.over, j.crowded, lone = true, true, mine
		if !mine { // an attempt that is over took it from the one that runs
			j.force(len(p))
		}
	}
	if lone {
		j.drop()
		return
	}
	j.data = append(j.data, p...)
	if mine {
		reader.off += len(p)
	}
}

// hash adds to the digest, and tells it when there is no more. j.mu is held.
func (j *journal) hash(p []byte) {
	if j.sum == nil {
		return
	}
	if j.read > int64(j.limit) {
		j.sum = nil
		return
	}
	_, _ = j.sum.Write(p) // never fails
	if j.ended() {
		var sum [sha256.Size]byte
		j.whole(([sha256.Size]byte)(j.sum.Sum(sum[:0])))
		j.sum = nil
	}
}

// room makes room for n more bytes, where the account has that much. j.mu is held.
func (j *journal) room(n int) bool {
	need := len(j.data) + n
	if need <= cap(j.data) {
		return true
	}
	size := max(need, 2*cap(j.data), 512)
	switch {
	case j.length >= 0 && j.length <= 64<<10:
		size = max(need, int(j.length)) // a little at once; of what is announced beyond that, only what comes
	case need <= j.limit:
		size = min(size, j.limit)
	}
	if !j.have(size) {
		return false
	}
	j.grow(size)
	return true
}

// force makes room for n bytes that are there already, whatever the account says. j.mu is held.
func (j *journal) force(n int) {
	size := len(j.data) + n
	if size > j.held {
		j.account.force(size - j.held)
		j.held = size
	}
	j.grow(size)
}

// grow gives data a capacity. j.mu is held.
func (j *journal) grow(size int) {
	grown := make([]byte, len(j.data), size)
	copy(grown, j.data)
	j.data = grown
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
