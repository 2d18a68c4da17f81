package wire

import (
	"bytes"
	"io"
	"net/http"

	"httpowerd/internal/exchange"
)

// A body's states: who may touch its connection.
const (
	resting int32 = iota
	reading
	over // the body's end was read, and the connection is given up
	closed
)

// frame makes the body of an answer whose head has been read.
func (a *answer) frame() error {
	switch {
	case a.resp.StatusCode == http.StatusSwitchingProtocols:
		a.unwatch()
		a.resp.Body = &upgradedBody{answer: a}
	case a.framing == noBody && !a.up.running():
		a.release()
		a.resp.Body = http.NoBody
	default:
		a.resp.Body = a
	}
	return nil
}

// unwatch ends the watch of the context. It is false where that has ended the connection.
func (a *answer) unwatch() bool {
	if !a.watched {
		return !a.c.aborted.Load()
	}
	a.watched = false
	return a.watch.Leave() && !a.c.aborted.Load()
}

// release gives the connection up at the end of the answer: to be kept where nothing speaks against it.
func (a *answer) release() {
	c := a.c
	if a.finished {
		return
	}
	a.finished = true
	whole := a.up == nil || a.up.settled()
	alone := c.r == c.w && c.failed == nil
	alive := a.unwatch()
	c.free()
	if a.keep && whole && alone && alive {
		c.reused, c.proven = true, true
		c.t.put(c)
		return
	}
	c.close()
}

// drop gives the connection up where the answer did not end.
func (a *answer) drop() {
	if a.finished {
		return
	}
	a.finished = true
	a.unwatch()
	a.c.close()
	a.c.free()
}

// Read reads the body. It returns io.EOF with the last byte where the end is known.
func (a *answer) Read(p []byte) (int, error) {
	return a.use(func() (int, error) { return a.read(p) })
}

// use has the connection read from, which Close may end meanwhile.
func (a *answer) use(read func() (int, error)) (int, error) {
	if !a.busy.CompareAndSwap(resting, reading) {
		if a.busy.Load() == over {
			return 0, io.EOF
		}
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := read()
	if err == io.EOF && n > 0 && a.up.running() {
		a.sticky, err = err, nil // what is here does not wait for the rest of the request
	}
	if err != nil {
		if broken := a.uploadError(); broken != nil && err != io.EOF { // which has ended the connection
			err = &Error{Err: broken, Sent: true, Client: true}
		}
		a.sticky = err
		if err == io.EOF && a.busy.CompareAndSwap(reading, over) { // from here on Close ends nothing: another exchange may have the connection at once
			a.release()
			return n, err
		}
		a.drop()
	}
	if !a.busy.CompareAndSwap(reading, resting) { // Close was called meanwhile
		a.drop()
	}
	return n, err
}

// Unseen is how much of the body can be moved from the socket: it has to be bare, and nothing may wait in the buffer.
func (a *answer) Unseen() int64 {
	if a.framing != byLength || a.sticky != nil || !a.busy.CompareAndSwap(resting, reading) {
		return 0
	}
	n := a.left
	if c := a.c; !c.bare || c.failed != nil || c.r < c.w {
		n = 0
	}
	if !a.busy.CompareAndSwap(reading, resting) { // Close was called meanwhile
		a.drop()
		return 0
	}
	return n
}

// Take is a Read by m.
func (a *answer) Take(m exchange.Mover) (int, error) {
	return a.use(func() (int, error) {
		if a.sticky != nil {
			return 0, a.sticky
		}
		n, err := m.Move(a.c.raw, a.left)
		if err == nil && n == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		if a.left -= int64(n); err == nil && a.left == 0 {
			err = io.EOF
		}
		return n, err
	})
}

// uploadError is why the request's own body could not be read, if that was so.
func (a *answer) uploadError() error {
	if a.up == nil {
		return nil
	}
	return a.up.clientError()
}

// Close gives the connection up. A body that was not read to its end takes the connection with it, and a read that waits ends.
func (a *answer) Close() error {
	switch a.busy.Swap(closed) {
	case resting:
		a.drop()
	case reading:
		a.c.close()
	}
	return nil
}

func (a *answer) read(p []byte) (int, error) {
	if a.sticky != nil {
		return 0, a.sticky
	}
	if len(p) == 0 {
		return 0, nil
	}
	switch a.framing {
	case noBody:
		return 0, io.EOF
	case byLength:
		n, err := a.data(p)
		if err == nil && a.left == 0 {
			err = io.EOF
		}
		return n, err
	case byChunks:
		return a.chunks(p)
	}
	n, err := a.some(p)
	return n, err
}

// some reads what is there, or waits.
func (a *answer) some(p []byte) (int, error) {
	c := a.c
	if c.r < c.w {
		n := copy(p, c.in.b[c.r:c.w])
		c.r += n
		if rest := p[n:]; c.bare && c.failed == nil && len(rest) >= bufferSize/2 { // or what came with the head would go on alone
			n += c.more(rest)
		}
		return n, nil
	}
	if c.failed == nil && len(p) >= bufferSize/2 {
		return c.read(p)
	}
	if err := c.fill(); err != nil {
		return 0, err
	}
	n := copy(p, c.in.b[c.r:c.w])
	c.r += n
	return n, nil
}

// data reads of the a.left bytes that are known to come.
func (a *answer) data(p []byte) (int, error) {
	if int64(len(p)) > a.left {
		p = p[:a.left]
	}
	n, err := a.some(p)
	a.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && n > 0 && a.left == 0 {
		err = nil
	}
	return n, err
}

var (
	errChunkSize = malformed("a chunk of the upstream's answer has no size")
	errChunkLong = malformed("a chunk of the upstream's answer is longer than it says")
	errLongLine  = malformed("a line of the upstream's answer is longer than this proxy accepts")
	errBareLF    = malformed("a line of the upstream's chunked answer ends without a carriage return")
	errTrailer   = malformed("a trailer of the upstream's answer is malformed")
)

// maxAnswerLine bounds a chunk's size line with its extensions, and each trailer line.
const maxAnswerLine = 64 << 10

// Places in a chunked body.
const (
	atSize uint8 = iota
	inData
	afterData
	inTrailers
)

// chunks reads a chunked body (RFC 9112 section 7.1). It goes on to all that can be read without waiting, so that the end comes with the last byte.
func (a *answer) chunks(p []byte) (total int, err error) {
	for {
		if a.place == inData {
			if total == len(p) || total > 0 && a.c.r == a.c.w {
				return total, nil
			}
			n, err := a.data(p[total:])
			total += n
			if err != nil {
				return total, err
			}
			if a.left == 0 {
				a.place = afterData
			}
			continue
		}
		if total > 0 && !a.lineWaits() {
			return total, nil
		}
		line, err := a.line()
		if err != nil {
			return total, err
		}
		if done, err := a.chunkLine(line); done || err != nil {
			if done {
				err = io.EOF
			}
			return total, err
		}
	}
}

// lineWaits tells whether a whole line is in the buffer.
func (a *answer) lineWaits() bool {
	return bytes.IndexByte(a.c.in.b[a.c.r:a.c.w], '\n') >= 0
}

// line reads a line without its end. It is valid until the next read.
func (a *answer) line() ([]byte, error) {
	c := a.c
	from := 0
	for {
		if i := bytes.IndexByte(c.in.b[c.r+from:c.w], '\n'); i >= 0 {
			line := c.in.b[c.r : c.r+from+i]
			c.r += from + i + 1
			if n := len(line); n > 0 && line[n-1] == '\r' {
				return line[:n-1], nil
			}
			return nil, errBareLF
		}
		if from = c.w - c.r; from > maxAnswerLine {
			return nil, errLongLine
		}
		if err := c.fill(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// chunkLine takes a line that is not data. done: it was the last.
func (a *answer) chunkLine(line []byte) (done bool, err error) {
	switch a.place {
	case afterData:
		if len(line) > 0 {
			return false, errChunkLong
		}
		a.place = atSize
	case atSize:
		if a.left, err = chunkLength(line); err != nil {
			return false, err
		}
		a.place = inData
		if a.left == 0 {
			a.place = inTrailers
		}
	default:
		if len(line) == 0 {
			return true, nil
		}
		return false, a.trailer(line)
	}
	return false, nil
}

func chunkLength(line []byte) (int64, error) {
	digits, _, _ := bytes.Cut(line, []byte{';'})
	digits = bytes.TrimRight(digits, " \t")
	if len(digits) == 0 || len(digits) > 15 { // 15 digits cannot overflow
		return 0, errChunkSize
	}
	var n int64
	for _, c := range digits {
		digit := hexDigit(c)
		if digit < 0 {
			return 0, errChunkSize
		}
		n = n<<4 | int64(digit)
	}
	return n, nil
}

// trailer keeps a trailer field. What frames messages may not be one (RFC 9110 section 6.5.1).
func (a *answer) trailer(line []byte) error {
	if a.trailered += int32(len(line)); int(a.trailered) > a.maxHead {
		return errTrailer
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return errTrailer
	}
	name, ok := canonical(string(line[:colon]))
	value := string(trim(line[colon+1:]))
	if !ok || !validValue(value) {
		return errTrailer
	}
	switch name {
	case "Transfer-Encoding", "Trailer", "Content-Length":
		return errTrailers
	}
	if a.resp.Trailer == nil {
		a.resp.Trailer = http.Header{}
	}
	if a.resp.Trailer[name] = append(a.resp.Trailer[name], value); len(a.resp.Trailer) > MaxTrailers {
		return errManyTrailers
	}
	return nil
}

// upgradedBody is the body of a 101: the connection, from the first byte behind the head.
type upgradedBody struct{ answer *answer }

func (b *upgradedBody) Read(p []byte) (int, error) {
	a := b.answer
	if !a.busy.CompareAndSwap(resting, reading) {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.read(p)
	if !a.busy.CompareAndSwap(reading, resting) {
		a.drop()
	}
	return n, err
}

// read gives what was read with the head first; then no buffer is needed any more.
func (b *upgradedBody) read(p []byte) (int, error) {
	c := b.answer.c
	if c.in != nil && c.r < c.w {
		n := copy(p, c.in.b[c.r:c.w])
		c.r += n
		return n, nil
	}
	if err := c.failed; err != nil {
		return 0, err
	}
	c.free()
	return c.read(p)
}

func (b *upgradedBody) Write(p []byte) (int, error) { return b.answer.c.Write(p) }

// CloseWrite half-closes where the connection can.
func (b *upgradedBody) CloseWrite() error {
	if half, ok := b.answer.c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return b.Close()
}

// Close ends the connection.
func (b *upgradedBody) Close() error { return b.answer.Close() }
