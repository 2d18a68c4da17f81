package dedup

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

// shared is the body of an answer while it comes for several. A goroutine reads it at the upstream's speed; the leader reads along, and whoever
// follows gets it when it is complete: until then nothing is lost where it breaks off or grows too large.
type shared struct {
	turn    *turn
	source  *http.Response // as it came from below; only the goroutine touches it, until the leader takes over
	lead    *http.Response // the leader's
	head    http.Response  // for the others
	linger  bool
	endless bool // no length was announced

	mu      sync.Mutex
	more    sync.Cond
	buf     buffer
	off     int     // how far the leader is
	rest    []byte  // what did not fit
	restErr error   // what came with it
	end     error   // how the source ended
	direct  bool    // the goroutine is gone: the leader reads the source itself
	left    bool    // the leader's client
	closed  bool    // the leader's body
	answer  *answer // complete; the leader holds it
	trailer http.Header
}

// share begins it. shard.mu is held.
func (t *turn) share(resp *http.Response, linger bool) *http.Response {
	g := t.flight.group
	lead := *resp
	s := &shared{turn: t, source: resp, lead: &lead, head: headOf(resp), linger: linger, endless: resp.ContentLength < 0,
		buf: buffer{budget: g.memory, max: g.maxBody, expect: int(min(resp.ContentLength, int64(g.maxBody)))}}
	s.more.L = &s.mu
	lead.Trailer, lead.Body = resp.Trailer.Clone(), (*sharedBody)(s)
	t.shared = s
	t.Heirs() // or the leader would not hear of its client
	go s.pump()
	return &lead
}

const chunkSize = 32 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// pump reads the source to its end, or for as long as anybody but the leader wants it and there is room.
func (s *shared) pump() {
	handed := false
	defer func() {
		if p := recover(); p != nil && !handed { // nobody else is on this goroutine to catch it
			s.finish(&exchange.Failure{Code: exchange.Internal, Sent: true, Detail: "the answer could not be read", Err: fmt.Errorf("panic: %v", p)})
		}
	}()
	chunk := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(chunk)
	for {
		n, err := s.source.Body.Read(chunk[:])
		if why := s.add(chunk[:n]); why != "" {
			handed = true
			s.handOver(chunk[:n], err, why)
			return
		}
		if err != nil {
			s.finish(err)
			return
		}
		if s.unwanted() {
			handed = true
			s.handOver(nil, nil, "")
			return
		}
	}
}

// add keeps what was read, or says why it cannot be kept.
func (s *shared) add(p []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buf.add(p) {
		s.more.Broadcast()
		return ""
	}
	if len(s.buf.data)+len(p) > s.buf.max {
		return whyTooLarge
	}
	return whyMemory
}

// unwanted tells whether nobody but the leader is left.
func (s *shared) unwanted() bool {
	f := s.turn.flight
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	return !s.linger && len(f.waiters) == 0
}

// handOver leaves the rest to the leader, with what was read and not kept. Those who follow send for themselves.
func (s *shared) handOver(p []byte, err error, why string) {
	f := s.turn.flight
	f.shard.mu.Lock()
	if why == whyTooLarge && len(f.waiters) > 0 {
		f.refuse()
	}
	f.tell(verdict{why: why})
	f.shard.mu.Unlock()
	s.mu.Lock()
	s.rest, s.restErr, s.direct = bytes.Clone(p), err, true
	closed := s.closed
	s.more.Broadcast()
	s.mu.Unlock()
	if closed {
		s.dismiss()
	}
}

// dismiss frees everything where the leader was the last to want the source.
func (s *shared) dismiss() {
	s.mu.Lock()
	s.buf.free()
	s.rest = nil
	s.mu.Unlock()
	_ = s.source.Body.Close() // nobody is left who could act on it
	s.turn.loose()
}

// finish takes the source's end. Where it broke off, one of those who follow is the next to try.
func (s *shared) finish(err error) {
	trailer := s.source.Trailer.Clone()
	_ = s.source.Body.Close() // it has ended
	s.turn.loose()
	var a *answer
	s.mu.Lock()
	s.end, s.trailer = err, trailer
	switch {
	case err == io.EOF:
		a = &answer{head: s.head, body: s.buf.data, complete: time.Now(), free: s.buf.free}
		a.head.Trailer = trailer
		a.holders.Store(1) // until everybody has been told
		if !s.closed {
			a.holders.Add(1)
			s.answer = a
		}
	case s.closed:
		s.buf.free()
	}
	s.more.Broadcast()
	s.mu.Unlock()

	f := s.turn.flight
	f.shard.mu.Lock()
	s.turn.shared = nil
	if a != nil {
		f.answered(a, s.linger)
	} else {
		f.promote()
	}
	f.shard.mu.Unlock()
	if a != nil {
		a.drop()
	}
}

// leaderLeft wakes the leader: its client is gone.
func (s *shared) leaderLeft() {
	s.mu.Lock()
	s.left = true
	s.more.Broadcast()
	s.mu.Unlock()
}

// sharedBody is the leader's view.
type sharedBody shared

func (b *sharedBody) Read(p []byte) (int, error) {
	s := (*shared)(b)
	if len(p) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	for {
		n, done, err := s.known(p)
		if done {
			s.mu.Unlock()
			return n, err
		}
		if s.direct {
			break
		}
		if s.left {
			s.mu.Unlock()
			return 0, context.Cause(s.turn.parent)
		}
		s.more.Wait()
	}
	s.mu.Unlock()
	n, err := s.source.Body.Read(p)
	if err == io.EOF {
		s.lead.Trailer = s.source.Trailer
	}
	return n, err
}

// known serves what is there. mu is held.
func (s *shared) known(p []byte) (n int, done bool, err error) {
	switch {
	case s.closed:
		return 0, true, http.ErrBodyReadAfterClose
	case s.off < len(s.buf.data):
		n = copy(p, s.buf.data[s.off:])
		s.off += n
		return n, true, nil
	case len(s.rest) > 0:
		n = copy(p, s.rest)
		s.rest = s.rest[n:]
		return n, true, nil
	case s.direct && s.restErr != nil:
		if s.restErr == io.EOF {
			s.lead.Trailer = s.source.Trailer
		}
		return 0, true, s.restErr
	case s.end == io.EOF:
		s.lead.Trailer = s.trailer.Clone()
		return 0, true, io.EOF
	case s.end != nil:
		return 0, true, s.end
	}
	if s.direct && s.buf.data != nil { // read to its end, and nobody else's
		s.buf.free()
		s.off = 0
	}
	return 0, false, nil
}

// Close ends the leader's part. The source is read on where somebody else waits for it.
func (b *sharedBody) Close() error {
	s := (*shared)(b)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed, s.left = true, true
	a, end, direct := s.answer, s.end, s.direct
	if end != nil && a == nil {
		s.buf.free()
	}
	s.more.Broadcast()
	s.mu.Unlock()
	switch {
	case a != nil:
		a.drop()
	case direct:
		s.dismiss()
	case end == nil:
		s.abandon()
	}
	return nil
}

// abandon cancels the turn where nobody waits for its answer.
func (s *shared) abandon() {
	t, f := s.turn, s.turn.flight
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	t.gone = true
	if f.leader == t && len(f.waiters) == 0 {
		t.cancel(errNobody)
	}
}
