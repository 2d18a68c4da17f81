// Package timeout bounds how long an exchange may take: all of it up to the head of the answer, each attempt, and the silence within a body.
package timeout

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// Room makes the stages. It keeps nothing.
type Room struct{ alarms alarms }

// New makes a Room.
func New() *Room { return &Room{} }

// Total bounds everything below it, waits included, up to the head of the answer; then the body's silences. Of a CONNECT only the first.
func (room *Room) Total(c Config) exchange.Stage {
	return exchange.Stage{Name: "timeout", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if c.Total <= 0 {
			return next
		}
		return &total{config: c, alarms: &room.alarms, next: next}
	}}
}

type total struct {
	config Config
	alarms *alarms
	next   http.RoundTripper
}

func (t *total) RoundTrip(r *http.Request) (*http.Response, error) {
	now := exchange.Now()
	s := &span{at: now.Add(t.config.Total.D()), idle: t.config.BodyIdle.D()}
	s.From(r.Context())
	s.alarm = t.alarms.set(s.next(now), s)
	s.request = *r.WithContext(s)
	resp, err := t.next.RoundTrip(&s.request)
	if err != nil {
		return nil, s.failed(err)
	}
	if r.Method == http.MethodConnect {
		if s.phase.CompareAndSwap(toHead, over) {
			s.alarm.stop()
			return resp, nil // whoever relays a tunnel watches it too
		}
	} else if s.guard(resp) {
		return resp, nil
	}
	_ = resp.Body.Close() // the head came just too late
	return nil, context.Cause(&s.Branch)
}

// Phases of a span.
const (
	toHead int32 = iota
	inBody
	over
	expired
)

// span is the time of one exchange, and the context of what is below. One alarm serves all of it.
type span struct {
	exchange.Branch
	request http.Request // as the stages below get it
	alarm   *alarm
	at      time.Time // when the head must be there
	idle    time.Duration
	first   attempt     // room for the first one, in the same allocation
	begun   atomic.Bool // it is in use
	phase   atomic.Int32
	body    body
}

// Deadline is what stages below plan their waits by. It is lifted with the head: net/http ties a body's life to its request's context.
func (s *span) Deadline() (time.Time, bool) {
	at, ok := s.Branch.Deadline()
	if s.phase.Load() == toHead && (!ok || s.at.Before(at)) {
		return s.at, true
	}
	return at, ok
}

// next is when the alarm rings before the head is there. It does so often enough for a body's silence to be noticed, whenever the head may come.
func (s *span) next(now time.Time) time.Time {
	if at := now.Add(s.idle); at.Before(s.at) {
		return at
	}
	return s.at
}

// ring implements ringer.
func (s *span) ring(a *alarm) {
	now := exchange.Now()
	if s.phase.Load() == toHead {
		due := s.first.look(now)
		if now.Before(s.at) {
			next := s.next(now)
			if !due.IsZero() && due.Before(next) {
				next = due
			}
			a.sooner(next)
			return
		}
		if s.phase.CompareAndSwap(toHead, expired) {
			s.Cancel(errOver)
		}
	}
	if s.phase.Load() == inBody { // or has come to be just now
		silent := s.body.silence()
		if silent < s.body.limit {
			a.sooner(now.Add(s.body.limit - silent))
			return
		}
		if s.phase.CompareAndSwap(inBody, expired) {
			s.Cancel(errSilent)
			if s.body.switched { // no context reaches a connection that left HTTP
				_ = s.body.ReadCloser.Close()
			}
		}
	}
}

// failed ends a span without an answer, and tells its own deadline from the caller's leaving and from what went wrong below.
func (s *span) failed(err error) error {
	s.alarm.stop()
	inTime := s.phase.CompareAndSwap(toHead, over)
	cause := context.Cause(&s.Branch)
	s.Cancel(nil)
	var refusal *exchange.Refusal
	var failure *exchange.Failure
	if inTime || errors.As(err, &refusal) || errors.As(err, &failure) {
		return err
	}
	return cause
}

// guard bounds the silences of an answer's body, and frees the span with it. It is false where the head came too late.
func (s *span) guard(resp *http.Response) bool {
	b := &s.body
	b.ReadCloser, b.span, b.limit = resp.Body, s, s.idle
	b.switched = resp.StatusCode == http.StatusSwitchingProtocols
	if b.switched || exchange.Streams(resp.Header) {
		b.limit = max(s.idle, StreamIdle)
	}
	if !s.phase.CompareAndSwap(toHead, inBody) {
		return false
	}
	resp.Body = b
	if w, ok := b.ReadCloser.(io.Writer); ok && b.switched {
		resp.Body = &duplex{b, w}
	}
	return true
}

// body is an answer's body. Only a read that waits can be late: a client that takes its time is not the upstream's fault.
type body struct {
	io.ReadCloser
	span     *span
	limit    time.Duration
	switched bool
	since    atomic.Int64 // when the waiting read began, in nanoseconds after span.at; 0: none waits
}

// now is never 0.
func (b *body) now() int64 { return int64(time.Since(b.span.at)) | 1 }

func (b *body) silence() time.Duration {
	since := b.since.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(b.now() - since)
}

func (b *body) Read(p []byte) (int, error) {
	b.since.Store(b.now())
	return b.came(b.ReadCloser.Read(p))
}

// Unseen and Take make it an exchange.Direct.
func (b *body) Unseen() int64 { return exchange.Unseen(b.ReadCloser) }

// Take is a Read by m.
func (b *body) Take(m exchange.Mover) (int, error) {
	b.since.Store(b.now())
	return b.came(exchange.Take(b.ReadCloser, m))
}

// came ends the waiting of a read.
func (b *body) came(n int, err error) (int, error) {
	b.since.Store(0)
	if err != nil && !b.end() && err != io.EOF {
		err = errSilent
	}
	return n, err
}

// end stops the watch. It is false where the watch had ended the body.
func (b *body) end() bool {
	if b.span.phase.CompareAndSwap(inBody, over) {
		b.span.alarm.stop()
	}
	return b.span.phase.Load() == over
}

// Close frees what the exchange holds.
func (b *body) Close() error {
	b.end()
	err := b.ReadCloser.Close()
	b.span.Cancel(nil)
	return err
}

// duplex is the body of a 101: it can be written to, and a byte in either direction ends a silence.
type duplex struct {
	*body
	w io.Writer
}

func (d *duplex) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	if waiting := d.since.Load(); waiting != 0 {
		d.since.CompareAndSwap(waiting, d.now())
	}
	return n, err
}

func timedOut(detail string) *exchange.Failure {
	return &exchange.Failure{Code: exchange.UpstreamTimeout, Detail: detail, Sent: true}
}

var errOver = &exchange.Failure{Code: exchange.UpstreamTimeout, Detail: "no answer came within the time that all attempts have together", Sent: true, Overall: true}

var errSilent = timedOut("the answer's body stopped coming")
