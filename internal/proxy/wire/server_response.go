package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/proxy/pipe"
)

// responseWriter writes the answer to one request: head and small body in one write.
type responseWriter struct {
	c        *serverConn
	e        *served
	old      bool // HTTP/1.0
	head     bool // the request's method was HEAD
	refusing bool // the request was none
	last     bool // the connection ends with this answer
	mayLeave bool // the request asks for what Hijack is for

	mu       sync.Mutex // a 1xx answer may come from another goroutine
	header   http.Header
	status   int // 0: not decided
	out      *buffer
	started  bool // the head is in out, or on its way
	sent     bool // something of the answer was written
	chunked  bool
	noBody   bool
	length   int64 // what Content-Length says; -1: nothing
	written  int64
	held     []byte          // of a body whose length may become known
	trailer  map[string]bool // names that Trailer announced
	hijacked bool
	err      error // the client's side failed

	boundedReads, boundedWrites atomic.Bool // the handler set deadlines, which end with its answer
}

// Header is the answer's header.
func (w *responseWriter) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

// SetHeader makes h the answer's header, instead of fields that would be copied from it one by one. It is the writer's from now on.
func (w *responseWriter) SetHeader(h http.Header) { w.header = h }

// WriteHeader decides the status. A 1xx status but 101 is sent at once, with the header's fields, and others may follow.
func (w *responseWriter) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic("invalid WriteHeader code " + strconv.Itoa(status))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status != 0 || w.hijacked {
		return
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		if !w.old {
			b := appendStatus(w.buffer(), status)
			b, _ = w.appendHeader(b, true)
			w.out.b = append(b, "\r\n"...)
			w.push()
		}
		return
	}
	w.status = status
}

// proceed tells the client to send the body it announced, unless it has its answer.
func (w *responseWriter) proceed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started || w.hijacked {
		return nil
	}
	w.out.b = append(w.buffer(), "HTTP/1.1 100 Continue\r\n\r\n"...)
	w.push()
	return w.err
}

// buffer is what is not written yet. w.mu is held.
func (w *responseWriter) buffer() []byte {
	if w.out == nil {
		w.out = getBuffer()
		w.out.b = w.out.b[:0]
	}
	return w.out.b
}

// push writes what is buffered. w.mu is held.
func (w *responseWriter) push() {
	if w.out == nil || len(w.out.b) == 0 {
		return
	}
	if w.err == nil {
		if !w.sent {
			writes.giveWay()
		}
		w.sent = true
		_, w.err = w.c.write(w.out.b)
	}
	w.out.b = w.out.b[:0]
}

// begin writes the head into the buffer. size is the body's where all of it is known; -1: it is not. w.mu is held.
func (w *responseWriter) begin(size int64) {
	if w.started {
		return
	}
	w.started = true
	if w.status == 0 {
		w.status = http.StatusOK
	}
	h := w.Header()
	w.length = -1
	w.noBody = w.bodiless() && !w.head
	if lines := h["Content-Length"]; len(lines) > 0 {
		n, err := length(lines[0])
		if len(lines) > 1 {
			h["Content-Length"] = lines[:1] // two may never stand there, whatever they say
		}
		switch {
		case err != nil || w.noBody && w.status != http.StatusNotModified:
			delete(h, "Content-Length")
		default:
			w.length = n
		}
	}
	announce := false
	if !w.noBody && !w.head && w.length < 0 {
		switch {
		case size >= 0 && len(h["Trailer"]) == 0 && !w.old:
			w.length, announce = size, true
		case w.old:
			w.last = true
			if size >= 0 {
				w.length, announce = size, true
			}
		default:
			w.chunked = true
			w.announced()
		}
	}
	if lines := h["Connection"]; len(lines) > 0 {
		for _, line := range lines {
			w.last = w.last || HasMember(line, "close")
		}
	}
	w.last = w.last || w.c.server.draining.Load()
	b := appendStatus(w.buffer(), w.status)
	b, dated := w.appendHeader(b, false)
	if !dated {
		b = append(append(append(b, "Date: "...), now()...), "\r\n"...)
	}
	switch {
	case announce:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), size, 10), "\r\n"...)
	case w.chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if w.last && w.status != http.StatusSwitchingProtocols {
		b = append(b, "Connection: close\r\n"...)
	}
	w.out.b = append(b, "\r\n"...)
}

// appendStatus writes the status line.
func appendStatus(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10)
	return append(append(append(b, ' '), http.StatusText(status)...), "\r\n"...)
}

// appendHeader writes the fields. dated: Date is among them, or was switched off by an empty one. w.mu is held.
func (w *responseWriter) appendHeader(b []byte, informational bool) (_ []byte, dated bool) {
	for name, values := range w.header {
		switch name {
		case "Transfer-Encoding":
			continue
		case "Content-Length":
			if informational {
				continue
			}
		case "Connection":
			if w.status != http.StatusSwitchingProtocols {
				continue
			}
		case "Date":
			dated = true
		case "Trailer":
			if informational || !w.chunked {
				continue
			}
		}
		if strings.HasPrefix(name, http.TrailerPrefix) || len(w.trailer) > 0 && w.trailer[http.CanonicalHeaderKey(name)] {
			continue
		}
		for _, value := range values {
			b = appendSafe(b, name, value)
		}
	}
	return b, dated
}

// announced notes the names that Trailer announces: their values come behind the body.
func (w *responseWriter) announced() {
	for _, line := range w.header["Trailer"] {
		for key := range strings.SplitSeq(line, ",") {
			if w.trailer == nil {
				w.trailer = map[string]bool{}
			}
			w.trailer[http.CanonicalHeaderKey(trim(key))] = true
		}
	}
}

// appendSafe writes a field; what would end it early becomes a space, and a name that is none is left out.
func appendSafe(b []byte, name, value string) []byte {
	if !isTokens(name) {
		return b
	}
	b = append(append(b, name...), ": "...)
	from := len(b)
	b = append(b, trim(value)...)
	if !validValue(b[from:]) {
		for i := from; i < len(b); i++ {
			if c := b[i]; c == '\r' || c == '\n' || c == 0 {
				b[i] = ' '
			}
		}
	}
	return append(b, "\r\n"...)
}

// Write writes of the body.
func (w *responseWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.hijacked:
		return 0, http.ErrHijacked
	case len(p) == 0:
		return 0, nil
	}
	if !w.started {
		if w.header["Content-Length"] == nil && len(w.held)+len(p) <= holdBytes && !w.bodiless() {
			w.held = append(w.held, p...)
			return len(p), w.err
		}
		if err := w.open(); err != nil {
			return 0, err
		}
	}
	return w.body(p)
}

// holdBytes is how much of a body of unknown length is held back: if it is all, its length goes into the head.
const holdBytes = 2 << 10

// open begins the answer with what was held back. w.mu is held.
func (w *responseWriter) open() error {
	w.begin(-1)
	held := w.held
	w.held = nil
	if len(held) == 0 {
		return nil
	}
	_, err := w.body(held)
	return err
}

func (w *responseWriter) bodiless() bool {
	return w.head || w.status == http.StatusNoContent || w.status == http.StatusNotModified || w.status == http.StatusSwitchingProtocols
}

// body writes of the body behind the head. w.mu is held.
func (w *responseWriter) body(p []byte) (int, error) {
	switch {
	case w.noBody:
		return 0, http.ErrBodyNotAllowed
	case w.head:
		return len(p), nil
	case w.length >= 0 && w.written+int64(len(p)) > w.length:
		return 0, http.ErrContentLength
	case w.err != nil:
		return 0, w.err
	}
	w.written += int64(len(p))
	b := w.buffer()
	if w.chunked {
		b = append(strconv.AppendInt(b, int64(len(p)), 16), "\r\n"...)
	}
	if len(b)+len(p)+2 <= bufferSize {
		b = append(b, p...)
		if w.chunked {
			b = append(b, "\r\n"...)
		}
		w.out.b = b
		if w.length >= 0 && w.written == w.length {
			if w.push(); w.err != nil { // nothing follows
				return 0, w.err
			}
		}
		return len(p), nil
	}
	w.out.b = b
	w.sent = true
	if len(b) == 0 {
		_, w.err = w.c.write(p)
	} else {
		parts := net.Buffers{b, p}
		if w.chunked {
			parts = append(parts, crlf)
		}
		_, w.err = w.c.writeAll(parts)
		w.out.b = w.out.b[:0]
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

var crlf = []byte("\r\n")

func (c *serverConn) write(p []byte) (int, error) {
	if c.bare {
		return c.out.Write(p)
	}
	return c.Conn.Write(p)
}

// writeAll writes several pieces, in one call where the connection is a plain socket.
func (c *serverConn) writeAll(parts net.Buffers) (int64, error) {
	if c.bare {
		if socket, _ := socketOf(c.Conn); socket != nil {
			return parts.WriteTo(socket)
		}
	}
	var total int64
	for _, p := range parts {
		n, err := c.Conn.Write(p)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Spliceable tells whether the rest of the body can be moved to the client: nothing may stand between it and the socket, and its length has to be known.
func (w *responseWriter) Spliceable() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.c.bare && w.started && !w.hijacked && w.length >= 0 && !w.bodiless()
}

// Splice writes of the body what s holds.
func (w *responseWriter) Splice(s *pipe.Splicer) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.push(); w.err != nil {
		return 0, w.err
	}
	if w.written+int64(s.Held()) > w.length {
		return 0, http.ErrContentLength
	}
	var n int
	n, w.err = s.Drain(w.c.raw)
	w.written += int64(n)
	return n, w.err
}

// FlushError sends what is buffered; the head too, whether or not a body has begun.
func (w *responseWriter) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hijacked {
		return http.ErrHijacked
	}
	if !w.started {
		_ = w.open()
	}
	w.push()
	return w.err
}

// Flush is FlushError for those who do not ask.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// SetReadDeadline bounds the reading of the request's body.
func (w *responseWriter) SetReadDeadline(t time.Time) error {
	w.boundedReads.Store(true)
	return w.c.SetReadDeadline(t)
}

// SetWriteDeadline bounds the writing of the answer.
func (w *responseWriter) SetWriteDeadline(t time.Time) error {
	w.boundedWrites.Store(true)
	return w.c.SetWriteDeadline(t)
}

// EnableFullDuplex changes nothing: an answer never waits for the rest of its request.
func (w *responseWriter) EnableFullDuplex() error { return nil }

// Hijack hands the connection over, with what was read ahead in the reader.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	if !w.mayLeave {
		return nil, nil, fmt.Errorf("%w: neither CONNECT nor Upgrade", http.ErrNotSupported)
	}
	w.push()
	w.hijacked = true
	c := w.c
	c.server.watch.remove(c.id)
	_ = c.SetReadDeadline(time.Time{})
	ahead := append([]byte(nil), c.in.b[c.r:c.w]...)
	c.free()
	w.release()
	br := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(ahead), c.Conn), max(len(ahead), 512))
	_, _ = br.Peek(len(ahead))
	return c.Conn, bufio.NewReadWriter(br, bufio.NewWriterSize(c.Conn, 512)), nil
}

var errShort = errors.New("the handler wrote less than Content-Length says")

// finish ends the answer: whatever is missing of it is written, or its client is told that something is.
func (w *responseWriter) finish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.release()
	if !w.started {
		w.begin(int64(len(w.held)))
		if len(w.held) > 0 {
			_, _ = w.body(w.held)
		}
	}
	switch {
	case w.chunked:
		w.out.b = w.appendTrailers(append(w.buffer(), "0\r\n"...))
		w.out.b = append(w.out.b, "\r\n"...)
	case !w.noBody && !w.head && w.length >= 0 && w.written != w.length:
		w.push()
		return errShort
	}
	w.push()
	return w.err
}

// appendTrailers writes the fields that were announced, and those that http.TrailerPrefix marks.
func (w *responseWriter) appendTrailers(b []byte) []byte {
	for name := range w.trailer {
		b = appendLate(b, name, w.header[name])
	}
	for name, values := range w.header {
		if key, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			b = appendLate(b, key, values)
		}
	}
	return b
}

// appendLate writes a trailer field, unless it would frame the message (RFC 9110 section 6.5.1).
func appendLate(b []byte, name string, values []string) []byte {
	switch http.CanonicalHeaderKey(name) {
	case "Transfer-Encoding", "Content-Length", "Trailer":
		return b
	}
	for _, value := range values {
		b = appendSafe(b, name, value)
	}
	return b
}

// abort ends the answer where it is. It is true where what was sent would look whole.
func (w *responseWriter) abort() (looksWhole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = http.ErrAbortHandler
	w.release()
	return w.started && w.sent && w.length < 0 && !w.chunked && !w.noBody && !w.head
}

func (w *responseWriter) release() {
	if w.out != nil {
		w.out.b = w.out.b[:cap(w.out.b)]
		putBuffer(w.out)
		w.out = nil
	}
}

// now is the current second as Date says it.
func now() []byte {
	t := time.Now().Unix()
	d := date.Load()
	if d == nil || d.second != t {
		d = &stamp{second: t, text: time.Unix(t, 0).UTC().AppendFormat(nil, http.TimeFormat)}
		date.Store(d)
	}
	return d.text
}

var date atomic.Pointer[stamp]

type stamp struct {
	second int64
	text   []byte
}
