package exchange

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"time"
)

// Trace is an exchange's place in a distributed trace. The front sets it before the chain runs; the zero value is no trace, and costs nothing.
type Trace struct {
	ID      [16]byte
	Parent  [8]byte // the client's span; zero: the trace begins here
	Span    [8]byte // the exchange's own
	First   [8]byte // the first attempt's: the request carries it from the front on
	Flags   byte    // as they are passed on
	Sampled bool    // the spans will be read
	Carried bool    // requests to the upstream carry the trace
	Field   string  // the first attempt's traceparent, where it is carried
}

// NewSpan makes the id of a span; it is never zero.
func NewSpan() (id [8]byte) {
	for n := uint64(0); n == 0; {
		n = rand.Uint64()
		binary.BigEndian.PutUint64(id[:], n)
	}
	return id
}

// traceparentLength is that of a traceparent field of version 00.
const traceparentLength = 55

// Traceparent is the field that names span as the parent, and the trace with it (W3C Trace Context).
func (t *Trace) Traceparent(span [8]byte) string {
	var b [traceparentLength]byte
	copy(b[:], "00-")
	hex.Encode(b[3:], t.ID[:])
	b[35] = '-'
	hex.Encode(b[36:], span[:])
	b[52] = '-'
	hex.Encode(b[53:], []byte{t.Flags})
	return string(b[:])
}

// spanOf is the span of the attempt that is about to be the n-th.
func (t *Trace) spanOf(n int) [8]byte {
	switch {
	case !t.Sampled:
		return [8]byte{}
	case n == 1:
		return t.First
	}
	return NewSpan()
}

// Traceparent is what the request of the attempt of that index must carry in the place of what it carries already; "": nothing. The first attempt's span is
// in the request from the front on, and where nobody will read the spans all attempts carry that one.
func (x *Exchange) Traceparent(index int) string {
	if index == 0 || !x.Trace.Sampled || !x.Trace.Carried {
		return ""
	}
	x.mu.Lock()
	span := x.story.Attempts[index].Span
	x.mu.Unlock()
	return x.Trace.Traceparent(span)
}

// SwapSpans gives the attempt of index b the span of a, and the other way round: the transport has sent a's request once more by itself, and what the
// upstream saw belongs to the sending that may have reached it.
func (x *Exchange) SwapSpans(a, b int) {
	if !x.Trace.Sampled {
		return
	}
	x.mu.Lock()
	s := x.story.Attempts
	s[a].Span, s[b].Span = s[b].Span, s[a].Span
	x.mu.Unlock()
}

// SpeaksHTTP2 notes that the attempt of that index does.
func (x *Exchange) SpeaksHTTP2(index int) {
	x.mu.Lock()
	if a := &x.story.Attempts[index]; !a.ended {
		a.HTTP2 = true
	}
	x.mu.Unlock()
}

// Wait is a wait for one of the proxy's own limits.
type Wait struct {
	End  time.Time
	Took time.Duration
}

// maxWaits bounds the waits that are kept one by one.
const maxWaits = 64

// Began is when the attempt did.
func (a *Attempt) Began() time.Time { return a.begin }
