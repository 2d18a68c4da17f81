package proxy

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/pipe"
)

// writer is the ResponseWriter that goproxy gets: it notes the status, copies bodies with pooled buffers, flushes streams as they come and takes
// the connection over when the upstream switches protocols.
type writer struct {
	http.ResponseWriter
	v         *visit
	bytes     int64         // of the body
	limited   time.Duration // when the write deadline was set, after the exchange's start; 0: it was not
	writeErr  error         // the client's side failed
	bodyErr   error         // the upstream's body failed after the head was sent
	wrote     bool
	upgraded  bool
	stream    bool // flush after each read
	tunnelled bool // CONNECT: the connection was taken over

	mute    bool // nobody is there to be answered
	parting bool // the answer is a last word: whether the client got it has to be seen

	late bool       // the head may no longer be sent ahead of the body
	mu   sync.Mutex // held while the head or a part of the body is written
}

// setHeader makes h the answer's header: a copy where the server below does not take a whole one.
func (w *writer) setHeader(h http.Header) {
	if s, ok := w.ResponseWriter.(interface{ SetHeader(http.Header) }); ok {
		s.SetHeader(h)
		return
	}
	maps.Copy(w.Header(), h)
}

// WriteHeader sends the answer's head. 101 hands the connection to the relay and returns when that ends.
func (w *writer) WriteHeader(status int) {
	w.wrote = true
	if w.mute {
		return
	}
	if status == http.StatusSwitchingProtocols {
		w.upgraded = true
		w.v.relayUpgrade()
		return
	}
	if w.v.lastAnswer() {
		w.Header()["Connection"] = []string{"close"}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	if w.upgraded || w.mute {
		return len(p), nil
	}
	w.mu.Lock()
	n, err := w.ResponseWriter.Write(p)
	return w.sent(n, err)
}

// splice is a Write of what s holds, where the server below can do that.
func (w *writer) splice(s *pipe.Splicer) (int, error) {
	w.mu.Lock()
	n, err := w.ResponseWriter.(splicing).Splice(s)
	return w.sent(n, err)
}

// splicing is a server's writer on a plain socket.
type splicing interface {
	Spliceable() bool
	Splice(s *pipe.Splicer) (int, error)
}

// sent counts what was written, and unlocks.
func (w *writer) sent(n int, err error) (int, error) {
	w.bytes += int64(n)
	w.mu.Unlock()
	if err != nil && w.writeErr == nil {
		w.writeErr = err
	}
	return n, err
}

// limit gives a client that does not read as long as a tunnel without a byte has. next is how many bytes it is about to be written.
func (w *writer) limit(next int) {
	two := w.v.raw.ProtoMajor == 2
	if w.bytes+int64(next) <= w.unnoticed(two) {
		return
	}
	idle := w.v.server.limits.tunnelIdle
	if two && w.v.policy != nil {
		idle = max(idle, w.v.policy.Timeout.BodyIdle.D()) // a stream's deadline counts while the upstream is silent, too
	}
	now := time.Now()
	if at := now.Sub(w.v.Start); w.limited == 0 || at-w.limited > idle/8 {
		w.limited = at
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(now.Add(idle + idle/4))
	}
}

// unnoticed is how much of a body needs no timer, because writing it does not wait: what goes into buffers of the kernel, or into net/http's own of a stream of HTTP/2,
// whose client grants as little room as it likes.
func (w *writer) unnoticed(two bool) int64 {
	switch {
	case !two:
		return 64 << 10
	case w.stream: // each read is flushed
		return -1
	}
	return 4 << 10
}

// Flush sends what is buffered.
func (w *writer) Flush() {
	if !w.upgraded && !w.mute {
		if w.bytes == 0 {
			w.v.conn.hurry()
		}
		_ = http.NewResponseController(w.ResponseWriter).Flush() // an error shows at the next write
	}
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var errUpgraded = errors.New("the connection was taken over already")

// Hijack takes the client's connection over together with what was read ahead, so that no early byte is lost.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.upgraded {
		return nil, nil, errUpgraded
	}
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.tunnelled = true
	return takeOver(w.v.conn, c, rw), rw, nil
}

// takeOver strips a hijacked connection of guard and deadlines, and puts what was read ahead in front of it.
func takeOver(c *conn, hijacked net.Conn, rw *bufio.ReadWriter) net.Conn {
	_ = hijacked.SetDeadline(noDeadline)
	var ahead []byte
	if n := rw.Reader.Buffered(); n > 0 {
		ahead, _ = rw.Reader.Peek(n)
		ahead = append([]byte(nil), ahead...)
		_, _ = rw.Reader.Discard(n)
	}
	ahead = append(ahead, c.opaque()...)
	if len(ahead) == 0 {
		return c
	}
	return &prefixed{Conn: c, ahead: ahead}
}

const copyBuffer = 32 << 10

var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// longBuffer is for a body that fits into it and not into copyBuffer: one write in place of two or three. For longer ones it is no gain: a small buffer stays in the processor's cache.
const longBuffer = 64 << 10

var longBuffers = sync.Pool{New: func() any { return new([longBuffer]byte) }}

// lastAnswer tells whether no other request may follow on the connection: bytes of a WebSocket or of a body may be on their way, and HTTP/1.0 keeps no
// connection with a proxy (RFC 9112 section 9.3).
func (v *visit) lastAnswer() bool {
	uploading := v.pending() && !v.rest()
	if uploading {
		v.bodyBy(noDeadline) // it goes on beside the answer, for as long as somebody reads it
		if resp := v.out.resp; resp != nil && resp.ContentLength < spliceAfter {
			v.w.stream = true // its end may wait for the body's
		}
	}
	switch {
	case v.websocket:
		return true
	case v.raw.ProtoMajor != 1:
		return v.conn.worn()
	case uploading:
		// By itself the server would hold the answer back until the body came, however long a client takes.
		_ = http.NewResponseController(v.w.ResponseWriter).EnableFullDuplex() // an HTTP/1 server can
		return true
	}
	return v.raw.ProtoMinor == 0
}

// pending tells whether the client's body has not been read to its end.
func (v *visit) pending() bool {
	return v.raw.ContentLength != 0 && !v.drained && v.in.ended() == nil
}

// rest reads what is left of a body that nobody wants, where it is short and has come already, so that the connection can be used again.
func (v *visit) rest() bool {
	if v.out.resp != nil || v.raw.Header["Expect"] != nil || v.raw.ProtoMajor != 1 {
		return false
	}
	if !exchange.Ready(v.raw.Body) {
		v.bodyBy(time.Now().Add(v.server.limits.refusalTime))
		defer v.bodyBy(noDeadline)
	}
	_, err := io.CopyN(io.Discard, v.raw.Body, restBytes)
	v.drained = err == io.EOF
	return v.drained
}

// restBytes is how much of an unwanted body is read.
const restBytes = 64 << 10

// responseBody is the body that goproxy copies to the client. It copies itself (io.WriterTo), so that no buffer is allocated for an answer.
type responseBody struct {
	io.ReadCloser
	v    *visit
	resp *http.Response // nil: the answer is our own
}

// WriteTo copies to dst, flushing where the length is unknown or the type is a stream. A failure of the upstream is kept for the end of the exchange:
// goproxy drops it, and the client must see a broken answer, not a short one.
func (b *responseBody) WriteTo(dst io.Writer) (total int64, err error) {
	w := &b.v.w
	if w.upgraded {
		return 0, nil
	}
	if w.stream {
		timer := time.AfterFunc(patience, w.head)
		defer w.noHead(timer)
	}
	var buf []byte
	if b.resp != nil && b.resp.ContentLength > copyBuffer && b.resp.ContentLength <= longBuffer {
		long := longBuffers.Get().(*[longBuffer]byte)
		defer longBuffers.Put(long)
		buf = long[:]
	} else {
		short := buffers.Get().(*[copyBuffer]byte)
		defer buffers.Put(short)
		buf = short[:]
	}
	var s *pipe.Splicer // nil: bytes are copied
	for decided := false; ; {
		if !decided && total >= spliceAfter {
			decided = true
			if s = b.splicer(); s != nil {
				defer s.Close()
			}
		}
		n, err := b.take(buf, s)
		if n > 0 {
			w.limit(n)
			wn, werr := b.give(buf, n, s)
			total += int64(wn)
			if werr != nil {
				return total, werr
			}
			if w.stream && err == nil {
				w.Flush()
			}
		}
		if err == io.EOF {
			w.limit(0) // the server still has the end to write
			if b.resp != nil {
				stripTrailers(b.resp.Trailer) // which came just now
			}
			return total, nil
		}
		if err != nil {
			w.bodyErr = err
			return total, err
		}
	}
}

// captured is what the record shows of the body; nil: nothing.
func (b *responseBody) captured() *capture {
	if c := b.v.content; c != nil {
		return c.out
	}
	return nil
}

// splicer is what the rest of a long body is moved by; nil: it has to be copied.
func (b *responseBody) splicer() *pipe.Splicer {
	w := &b.v.w
	if b.captured() != nil || w.stream || exchange.Unseen(b.ReadCloser) < spliceAfter {
		return nil
	}
	if to, ok := w.ResponseWriter.(splicing); !ok || !to.Spliceable() {
		return nil
	}
	return pipe.Lasting()
}

// take gets some of the body into buf, or into the pipe.
func (b *responseBody) take(buf []byte, s *pipe.Splicer) (int, error) {
	if s != nil {
		return exchange.Take(b.ReadCloser, s)
	}
	n, err := b.Read(buf)
	b.captured().add(buf[:n])
	return n, err
}

// give writes the n bytes that take got.
func (b *responseBody) give(buf []byte, n int, s *pipe.Splicer) (int, error) {
	if s != nil {
		return b.v.w.splice(s)
	}
	return b.v.w.Write(buf[:n])
}

// patience is how long the head of an answer of unknown length waits for the first of its body, so that both go in one packet.
const patience = 2 * time.Millisecond

// head sends the head by itself: a client may want to know it before the upstream says more.
func (w *writer) head() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.late && w.bytes == 0 {
		w.Flush()
	}
}

func (w *writer) noHead(timer *time.Timer) {
	timer.Stop()
	w.mu.Lock()
	w.late = true
	w.mu.Unlock()
}

// streams tells whether an answer's bytes must reach the client as they come.
func streams(resp *http.Response) bool {
	if resp.ContentLength < 0 {
		return true
	}
	return exchange.Streams(resp.Header)
}

// Inform writes an informational answer (RFC 9110 section 15.2) while the final one is still awaited. The transport calls it from another goroutine.
func (v *visit) Inform(status int, header http.Header) {
	v.informational.Lock()
	defer v.informational.Unlock()
	if v.answered || v.raw.ProtoMajor == 1 && v.raw.ProtoMinor == 0 {
		return
	}
	h := v.w.Header()
	for name, values := range header {
		h[name] = values
	}
	stripForeign(h)
	if v.raw.ProtoMajor == 2 {
		h["Transfer-Encoding"] = nil // it never goes out, but has net/http code a copy: where the client resets the stream meanwhile, WriteHeader does not wait for the goroutine that does
	}
	v.conn.hurry()
	v.w.ResponseWriter.WriteHeader(status)
	clear(h)
}

// noMore1xx ends Inform: the final answer is here.
func (v *visit) noMore1xx() {
	v.informational.Lock()
	v.answered = true
	v.informational.Unlock()
}
