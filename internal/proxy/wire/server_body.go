package wire

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ErrFraming is a request body whose chunks lost their framing: nothing behind it can be trusted.
var ErrFraming = errors.New("the chunked request body lost its framing")

// requestBody is a request's body. It may be read by another goroutine than the handler's.
type requestBody struct {
	c       *serverConn
	e       *served
	chunked bool
	expect  bool // the client waits for 100 (Continue)

	mu      sync.Mutex // held by whoever reads
	closed  atomic.Bool
	over    bool // all of it was read
	place   uint8
	left    int64 // of the body, or of the chunk
	excess  int64 // bytes of chunk lines beyond what chunks of a sensible size need
	trailed int
	err     error
}

// Read reads the body. It returns io.EOF with the last byte where the end is known.
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed.Load():
		return 0, http.ErrBodyReadAfterClose
	case b.err != nil:
		return 0, b.err
	case len(p) == 0:
		return 0, nil
	}
	if b.expect {
		b.expect = false
		if err := b.e.w.proceed(); err != nil {
			b.err = err
			return 0, err
		}
	}
	n, err := b.read(p)
	if err != nil {
		b.err = err
		if b.over = err == io.EOF; b.over {
			b.c.drained()
		}
	}
	return n, err
}

func (b *requestBody) read(p []byte) (int, error) {
	if b.chunked {
		return b.chunks(p)
	}
	n, err := b.data(p)
	if err == nil && b.left == 0 {
		err = io.EOF
	}
	return n, err
}

// data reads of the b.left bytes that are to come.
func (b *requestBody) data(p []byte) (int, error) {
	c := b.c
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	var n int
	var err error
	switch {
	case c.r < c.w:
		n = copy(p, c.in.b[c.r:c.w])
		c.r += n
	case len(p) >= bufferSize/2:
		n, err = c.readConn(p)
	default:
		if err = c.fill(); err == nil {
			n = copy(p, c.in.b[c.r:c.w])
			c.r += n
		}
	}
	b.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunks reads a chunked body (RFC 9112 section 7.1), strictly.
func (b *requestBody) chunks(p []byte) (total int, err error) {
	c := b.c
	for {
		if b.place == inData {
			if total == len(p) || total > 0 && c.r == c.w {
				return total, nil
			}
			n, err := b.data(p[total:])
			total += n
			if err != nil {
				return total, err
			}
			if b.left == 0 {
				b.place = afterData
			}
			continue
		}
		if total > 0 && bytes.IndexByte(c.in.b[c.r:c.w], '\n') < 0 {
			return total, nil
		}
		line, err := b.line()
		if err != nil {
			return total, err
		}
		if done, err := b.chunkLine(line); done || err != nil {
			if done {
				err = io.EOF
			}
			return total, err
		}
	}
}

// line reads a line without its end.
func (b *requestBody) line() ([]byte, error) {
	c := b.c
	from := 0
	for {
		if i := bytes.IndexByte(c.in.b[c.r+from:c.w], '\n'); i >= 0 {
			line := c.in.b[c.r : c.r+from+i]
			c.r += from + i + 1
			if n := len(line); n > 0 && n <= maxChunkLine && line[n-1] == '\r' {
				return line[:n-1], nil
			}
			return nil, ErrFraming
		}
		if from = c.w - c.r; from > maxChunkLine || from > 0 && b.hopeless(c.in.b[c.r:c.w]) {
			return nil, ErrFraming
		}
		if err := c.fill(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// hopeless tells whether the beginning of a line can never become one that is due, so that its end is not waited for.
func (b *requestBody) hopeless(p []byte) bool {
	switch b.place {
	case atSize:
		return hexDigit(p[0]) < 0
	case afterData:
		return p[0] != '\r'
	}
	return !isToken(p[0]) && p[0] != '\r'
}

func (b *requestBody) chunkLine(line []byte) (done bool, err error) {
	switch b.place {
	case afterData:
		if len(line) > 0 {
			return false, ErrFraming
		}
		b.place = atSize
	case atSize:
		n, err := requestChunk(line)
		if err != nil {
			return false, err
		}
		b.excess = max(0, b.excess+int64(len(line))+2-16-2*n)
		if b.excess > maxExcess {
			return false, ErrFraming
		}
		b.left, b.place = n, inData
		if n == 0 {
			b.place = inTrailers
		}
	default:
		if len(line) == 0 {
			return true, nil
		}
		return false, b.trailer(line)
	}
	return false, nil
}

// maxExcess bounds what extensions may add to a body (RFC 9112 section 7.1.1). net/http draws the line at the same place.
const maxExcess = 16 << 10

// requestChunk reads a chunk's size, strictly: white space and extensions may follow it.
func requestChunk(line []byte) (int64, error) {
	var n int64
	i := 0
	for ; i < len(line); i++ {
		digit := hexDigit(line[i])
		if digit < 0 {
			break
		}
		if i == 15 { // 15 digits cannot overflow
			return 0, ErrFraming
		}
		n = n<<4 | int64(digit)
	}
	if i == 0 {
		return 0, ErrFraming
	}
	rest := bytes.TrimLeft(line[i:], " \t")
	if len(rest) > 0 && rest[0] != ';' {
		return 0, ErrFraming
	}
	if !validValue(rest) {
		return 0, ErrFraming
	}
	return n, nil
}

// trailer keeps a trailer field where it may be one.
func (b *requestBody) trailer(line []byte) error {
	name, value, ok := parseTrailer(line)
	if b.trailed += len(line); !ok || b.trailed > b.c.server.MaxHead {
		return ErrFraming
	}
	if !MayTrail(name) {
		return nil
	}
	r := &b.e.req
	if r.Trailer == nil {
		r.Trailer = http.Header{}
	}
	if r.Trailer[name] = append(r.Trailer[name], value); len(r.Trailer) > MaxTrailers {
		return ErrFraming
	}
	return nil
}

// Ready tells whether the rest of the body is here already.
func (b *requestBody) Ready() bool {
	if b.chunked || b.expect || !b.mu.TryLock() {
		return false
	}
	defer b.mu.Unlock()
	return b.err == nil && b.c.here(b.left)
}

// Close ends the reading. It does not wait for a read that runs.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// Bounds for what is read of a body that the handler left, so that the connection can be used again.
const (
	restBytes = 256 << 10
	restTime  = 100 * time.Millisecond
)

// rest reads what the handler left, where that is little and comes soon. It is false where the connection cannot be used again.
func (b *requestBody) rest() bool {
	b.closed.Store(true)
	if !b.mu.TryLock() {
		return false
	}
	defer b.mu.Unlock()
	if b.over {
		return true
	}
	if b.expect || b.err != nil || !b.chunked && b.left > restBytes {
		return false
	}
	c := b.c
	c.setDeadline(time.Now().Add(restTime))
	var skipped [4 << 10]byte
	for total := 0; total <= restBytes; {
		n, err := b.read(skipped[:])
		total += n
		if err != nil {
			b.over = err == io.EOF
			return b.over
		}
	}
	return false
}

// stop ends a read that runs, and waits for it. It is false where the body did not end: the client may still be sending.
func (b *requestBody) stop() bool {
	b.closed.Store(true)
	if !b.mu.TryLock() {
		_ = b.c.SetReadDeadline(longAgo)
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	return b.over
}
