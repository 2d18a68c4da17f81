package sanitize

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
)

// content is a message's body with what is known of it.
type content struct {
	header  http.Header
	source  io.ReadCloser
	length  int64 // negative: unknown
	trailer func() http.Header
}

// prepared is a body as it may go on.
type prepared struct {
	body    io.ReadCloser
	changed bool  // it is, or may become, another one
	decoded bool  // its content coding was taken off
	length  int64 // of a changed one; negative: unknown
	open    *screened
}

// flow says how soon what has come is passed on.
type flow uint8

const (
	byLine flow = iota // up to the last line break
	atOnce             // all of it: what comes are frames, and the other side waits for each
)

func flowOf(h http.Header) flow {
	media := strings.ToLower(h.Get("Content-Type"))
	if strings.HasPrefix(media, "application/grpc") || strings.HasPrefix(media, "application/vnd.amazon.eventstream") || strings.HasPrefix(media, "multipart/x-mixed-replace") {
		return atOnce
	}
	return byLine
}

// body looks at a body: all of it, where that is short and no stream, else as it goes.
func (m *message) body(c content) (prepared, error) {
	s := &screened{message: m, content: c, flow: flowOf(c.header), share: share{room: m.room}}
	s.in = arriving{s}
	coding, ok := codingOf(c.header)
	if !ok { // it is looked at as it is: who reads it may not go by what it says it were
		if err := s.unread(); err != nil {
			return prepared{}, err
		}
	}
	if coding != "" {
		s.coded = &decoder{coding: coding, tap: tap{src: s.in}}
		s.coded.window.used = &m.room.windows
		s.in, s.decoder = s.coded, s.coded
	}
	s.sieve = m.screen.NewSieve(c.header.Get("Content-Type"), m.x.Target.Host, m.mask)
	if !m.acts() {
		if s.decoder != nil {
			s.decoder.tap.keep = true
		}
		return prepared{body: s}, nil
	}
	known := c.length >= 0 && c.length <= int64(m.maxBody)
	if m.room.roomy() && !exchange.Streams(c.header) && (m.blocks || known || coding != "") {
		if p, done, err := s.whole(); done {
			return p, err
		}
	}
	decoded := s.decoder != nil
	return prepared{body: s, changed: m.masks() || decoded, decoded: decoded, length: -1, open: s}, nil
}

// unread notes, once, a body that cannot be looked at.
func (s *screened) unread() error {
	if s.unseen {
		return nil
	}
	s.unseen = true
	action := actionPassed
	switch {
	case s.unreadable && s.observe:
		action = actionObserved
	case s.unreadable:
		action = actionBlocked
	}
	return s.found("body", kindUnreadable, action, 1)
}

// firstHeld bounds what is set aside for a body because of the length that it announces.
const firstHeld = 64 << 10

// decodedMost is how many times a body's held part may be what is held of it as it came.
const decodedMost = 4

// whole holds back a body's beginning. Where that is all of it, or where it is refused, it is done.
func (s *screened) whole() (p prepared, done bool, err error) {
	most := s.maxBody
	s.holding = true
	if s.decoder != nil {
		s.decoder.tap.keep = true
		most *= decodedMost
	} else if n := s.content.length; n > 0 && n <= firstHeld {
		s.out = make([]byte, 0, n+n/16+64) // what is masked may be longer
	}
	for s.err == nil && len(s.out)+s.sieve.Held() <= most && len(s.raw()) <= s.maxBody && s.hold(cap(s.out)+cap(s.raw())) {
		s.fill()
	}
	s.holding = false
	if s.direction == directionResponse {
		s.x.Awaited(s.waited)
	}
	s.waited = 0
	if s.err != nil {
		s.unwindow()
	}
	raw := s.raw()
	if s.decoder != nil {
		s.decoder.tap.keep, s.decoder.tap.raw = false, nil
	}
	switch refusal := s.refused(); {
	case refusal != nil:
		s.let()
		return p, true, refusal
	case errors.Is(s.err, errCoding):
		if err := s.uncoded(raw); err != nil {
			s.let()
			return p, true, err
		}
		return s.whole()
	case s.err != nil && s.err != io.EOF && s.direction == directionRequest: // nobody is asked half a question
		s.let()
		return p, true, s.broken(s.err)
	case s.err != io.EOF:
		return p, false, nil
	case !s.masked && s.decoder != nil:
		return prepared{body: s.settle(raw)}, true, nil
	}
	p = prepared{body: s.settle(s.out)}
	if s.masked {
		p.changed, p.decoded, p.length = true, s.decoder != nil, int64(len(s.out))
	}
	return p, true, nil
}

// unwindow gives back what the decoder took, which is read no more.
func (s *screened) unwindow() {
	if s.coded != nil {
		s.coded.window.give()
	}
}

// raw is what is held of a coded body as it came.
func (s *screened) raw() []byte {
	if s.decoder == nil {
		return nil
	}
	return s.decoder.tap.raw
}

// uncoded goes back to the beginning of a body that is not coded as it says: raw, and then the rest, are looked at as they came. Where something was masked
// in what could be decoded there is no going back: whoever reads it less strictly would find that.
func (s *screened) uncoded(raw []byte) error {
	if s.masked {
		_ = s.found("body", kindUnreadable, actionBlocked, 1)
		return s.message.refuse("body", kindUnreadable)
	}
	if err := s.unread(); err != nil {
		return err
	}
	s.sieve.Close()
	s.sieve = s.screen.NewSieve(s.content.header.Get("Content-Type"), s.x.Target.Host, s.mask)
	s.in = io.MultiReader(bytes.NewReader(raw), s.content.source)
	s.decoder, s.out, s.off, s.err, s.noted = nil, nil, 0, nil, nil
	return nil
}

// broken says what it means that a request's body could not be read.
func (m *message) broken(err error) error {
	if errors.As(err, new(*exchange.Refusal)) {
		return err
	}
	if cause := context.Cause(m.ctx); cause != nil {
		return cause
	}
	if errors.As(err, new(*http.MaxBytesError)) {
		return &exchange.Refusal{Code: exchange.TooLarge, Detail: "the request's body is too large", Close: true, Cause: err}
	}
	return &exchange.Refusal{Code: exchange.BadRequest, Detail: "the request's body is malformed or broke off", Close: true, Cause: err}
}

// held is a body that was looked at as a whole.
type held struct {
	bytes.Reader
	source io.Closer
	share
}

// settle makes a body of what was held back.
func (s *screened) settle(data []byte) *held {
	s.hold(cap(data))
	h := &held{Reader: *bytes.NewReader(data), source: s.content.source}
	h.share.room = s.share.room
	h.share.n.Store(s.share.n.Swap(0))
	return h
}

// Close closes what it was read from.
func (h *held) Close() error {
	h.let()
	return h.source.Close()
}

// Ready tells that all of it is here.
func (h *held) Ready() bool { return true }

const chunkSize = 16 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// screened is a body that is looked at as it is read.
type screened struct {
	*message
	share
	content content
	in      io.Reader // the content, decoded
	decoder *decoder  // nil: it is not coded
	coded   *decoder  // the same, also where it turned out not to be
	sieve   *redact.Sieve
	flow    flow           // of what is passed on
	holding bool           // nothing is passed on yet
	waited  time.Duration  // for the source meanwhile
	masked  bool           // something was
	unseen  bool           // it was noted that it cannot be looked at
	noted   map[string]int // by kind: how many finds
	refusal atomic.Pointer[exchange.Refusal]

	mu  sync.Mutex // held while somebody reads
	out []byte     // decided
	off int        // how much of it was read
	err error      // what follows out
}

// arriving is the source of a body.
type arriving struct{ of *screened }

// Read implements io.Reader.
func (a arriving) Read(p []byte) (int, error) {
	if !a.of.holding {
		return a.of.content.source.Read(p)
	}
	begin := time.Now()
	n, err := a.of.content.source.Read(p)
	a.of.waited += time.Since(begin)
	return n, err
}

// refused is the refusal that ended the body, if one did.
func (s *screened) refused() error {
	if r := s.refusal.Load(); r != nil {
		return r
	}
	return nil
}

// Ready tells whether the rest has come already.
func (s *screened) Ready() bool { return exchange.Ready(s.content.source) }

// Close closes the source. Whoever still reads leaves its memory to the collector.
func (s *screened) Close() error {
	err := s.content.source.Close()
	s.let()
	s.unwindow()
	if s.mu.TryLock() {
		s.sieve.Close()
		s.mu.Unlock()
	}
	return err
}

func (s *screened) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for s.off == len(s.out) && s.err == nil {
		if !s.acts() {
			return s.watch(p)
		}
		s.out, s.off = s.out[:0], 0
		if cap(s.out) > 4*chunkSize { // of the part that was held back
			s.out = nil
		}
		s.let()
		s.fill()
	}
	if s.off < len(s.out) {
		n := copy(p, s.out[s.off:])
		s.off += n
		return n, nil
	}
	return 0, s.err
}

// fill reads a piece and decides what can be passed on.
func (s *screened) fill() {
	chunk := chunks.Get().(*[chunkSize]byte)
	n, err := s.in.Read(chunk[:])
	s.out = s.sieve.Append(s.out, chunk[:n])
	clear(chunk[:n])
	chunks.Put(chunk)
	switch {
	case err != nil:
		s.out = s.sieve.End(s.out)
	case s.holding:
	case s.flow == atOnce:
		s.out = s.sieve.Release(s.out)
	default:
		s.out = s.sieve.Flush(s.out)
	}
	if why := s.note(); why != nil {
		s.refuse(why)
		return
	}
	switch err {
	case nil:
		return
	case io.EOF:
		if why := s.trailers(s.content.trailer()); why != nil {
			s.refuse(why)
			return
		}
	case errCoding:
		if !s.holding { // its beginning went on decoded
			_ = s.found("body", kindUnreadable, actionBlocked, 1)
			s.refuse(s.message.refuse("body", kindUnreadable))
			return
		}
	}
	s.err = err
}

// refuse ends the body: nothing more of it is passed on, and its other end sees that it is not whole.
func (s *screened) refuse(why error) {
	s.out, s.off, s.err = nil, 0, why
	var r *exchange.Refusal
	if errors.As(why, &r) {
		s.refusal.Store(r)
	}
}

// note notes what was found since it was last called.
func (s *screened) note() (err error) {
	if s.sieve.Wide() { // no charset said so
		err = s.unread()
	}
	s.sieve.Counts().Each(func(k redact.Kind, n int) {
		if s.noted == nil {
			s.noted = map[string]int{}
		}
		more := n - s.noted[string(k)]
		if more == 0 {
			return
		}
		s.noted[string(k)] = n
		action := s.action(k)
		s.masked = s.masked || action == actionMasked
		if e := s.found("body", string(k), action, more); err == nil {
			err = e
		}
	})
	return err
}

// watch passes on what comes as it is, and looks at it. What was decoded of a coded body is looked at alone.
func (s *screened) watch(p []byte) (n int, err error) {
	if s.decoder != nil {
		return s.watchDecoded(p)
	}
	n, err = s.in.Read(p)
	s.see(p[:n], err)
	if err == io.EOF {
		if why := s.trailers(s.content.trailer()); why != nil {
			s.refuse(why)
			err = why
		}
	}
	if err != nil {
		s.err = err
	}
	return n, err
}

// see looks at a piece that is passed on anyway.
func (s *screened) see(p []byte, err error) {
	s.out, s.off = s.sieve.Append(s.out[:0], p), 0
	switch {
	case err != nil:
		s.out = s.sieve.End(s.out)
	default:
		s.out = s.sieve.Flush(s.out)
	}
	s.out = s.out[:0]
	_ = s.note() // nothing is blocked here
}

// watchDecoded decodes until something came of the body as it is.
func (s *screened) watchDecoded(p []byte) (int, error) {
	t := &s.decoder.tap
	for len(t.raw) == 0 {
		chunk := chunks.Get().(*[chunkSize]byte)
		n, err := s.decoder.Read(chunk[:])
		s.see(chunk[:n], err)
		clear(chunk[:n])
		chunks.Put(chunk)
		switch {
		case err == errCoding:
			_ = s.uncoded(t.raw) // passes
			return s.watch(p)
		case err != nil && len(t.raw) == 0:
			if err == io.EOF {
				_ = s.trailers(s.content.trailer())
			}
			s.err = err
			return 0, err
		}
	}
	n := copy(p, t.raw)
	t.raw = t.raw[:copy(t.raw, t.raw[n:])]
	return n, nil
}
