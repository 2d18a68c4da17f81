package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/audit"
	"httpowerd/internal/proxy/trace"
)

// finish ends a visit: it decides the outcome, writes the record and the metrics, and aborts the answer where the upstream broke off, so that no
// client takes a part for the whole.
func (v *visit) finish() {
	if p := recover(); p != nil {
		v.panicked(p)
	}
	if v.w.tunnelled {
		return // the tunnel finishes by itself
	}
	if v.w.parting && !v.w.mute {
		v.part()
	}
	v.record()
	if v.w.mute {
		panic(http.ErrAbortHandler)
	}
	if v.raw.ProtoMajor == 1 && v.pending() { // the server reads on for a while, so that the answer reaches the client
		v.conn.endBy(time.Now().Add(v.server.limits.headerTimeout))
	}
	if v.w.bodyErr != nil && v.w.wrote {
		v.w.Flush() // a client that gets nothing at all may take its connection for a stale one, and send a write again by itself
		panic(http.ErrAbortHandler)
	}
}

// part sends a last word, and takes it out of the story where it could not be sent.
func (v *visit) part() {
	if err := http.NewResponseController(v.w.ResponseWriter).Flush(); err == nil && v.w.writeErr == nil {
		return
	}
	v.w.bytes = 0
	v.Update(func(s *exchange.Story) { s.Status, s.StatusBy = 0, "" })
}

// panicked answers where nothing was sent yet; else the answer is aborted.
func (v *visit) panicked(p any) {
	if p != http.ErrAbortHandler {
		v.server.log.Error("the door panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "id", v.ID)
		v.Update(func(s *exchange.Story) { s.Outcome = exchange.Internal })
	}
	if v.w.wrote || v.w.tunnelled {
		v.w.bodyErr = http.ErrAbortHandler
		return
	}
	v.noMore1xx()
	clear(v.w.Header())
	v.answer(errLogged)
}

// record closes the story and tells everybody who reads it.
func (v *visit) record() {
	if v.leave != nil {
		v.leave()
	}
	end := time.Now()
	v.Update(func(s *exchange.Story) {
		s.BytesOut += v.w.bytes
		if v.in.v != nil {
			s.BytesIn += v.in.count()
		}
		if s.Outcome == "" {
			s.Outcome = v.outcome(s)
		}
	})
	v.server.metrics.observe(&v.Exchange, v.server.labels.For(&v.Exchange), end)
	v.traced(end)
	if v.server.audit == nil {
		return
	}
	e := audit.Extra{End: end, Refused: v.unrecorded}
	if p := v.policy; p != nil {
		e.Redactor, e.OnFull = p.Redactor, p.Audit.OnFull
		if !p.Audit.Sampled() {
			return
		}
		e.MaxBody = int(p.Audit.MaxBody)
	}
	if v.content != nil {
		v.contentInto(&e)
	}
	v.server.audit.Exchange(&v.Exchange, &e)
}

// contentInto adds what is recorded of the messages themselves.
func (v *visit) contentInto(e *audit.Extra) {
	e.RequestHeader, e.ResponseHeader = v.content.requestHeader, v.content.responseHeader
	if c := v.content.in; c != nil {
		v.in.mu.Lock() // the transport may still be reading an upload that was answered early
		e.RequestBody, e.RequestTruncated, e.RequestType = append([]byte(nil), c.buf...), c.truncated, v.raw.Header.Get("Content-Type")
		e.RequestEncoding = encodingOf(v.raw.Header)
		v.in.mu.Unlock()
	}
	if c := v.content.out; c != nil {
		e.ResponseBody, e.ResponseTruncated, e.ResponseType = c.buf, c.truncated, v.w.Header().Get("Content-Type")
		e.ResponseEncoding = encodingOf(v.w.Header())
	}
	if e.RequestHeader != nil || e.ResponseHeader != nil || e.RequestBody != nil || e.ResponseBody != nil {
		e.Sent = v.raw.Header
	}
}

// traced makes the spans of a visit that is sampled.
func (v *visit) traced(end time.Time) {
	if !v.Trace.Sampled {
		return
	}
	e := trace.End{Time: end}
	if v.Kind != exchange.KindTunnel { // whose request is made anew
		e.Protocol = protocolOf(v.raw)
	}
	if v.policy != nil {
		e.Redactor = v.policy.Redactor
	}
	v.server.tracer.End(&v.Exchange, e)
}

// protocolOf is the version that the client speaks, as spans name it.
func protocolOf(r *http.Request) string {
	switch {
	case r.ProtoMajor == 2:
		return "2"
	case r.ProtoMajor == 1 && r.ProtoMinor == 0:
		return "1.0"
	}
	return "1.1"
}

// outcome is for exchanges that no refusal ended.
func (v *visit) outcome(s *exchange.Story) exchange.Code {
	switch {
	case v.w.bodyErr != nil:
		return v.brokenOff(v.w.bodyErr)
	case v.w.writeErr != nil:
		return v.left()
	case s.StatusBy == "upstream" && s.Status >= 500:
		return exchange.UpstreamError
	}
	return exchange.OK
}

// brokenOff is the outcome where the rest of an answer failed.
func (v *visit) brokenOff(err error) exchange.Code {
	var failure *exchange.Failure
	var refusal *exchange.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal.Code
	case errors.As(err, &failure):
		return failure.Code
	case v.raw.Context().Err() != nil, errors.Is(err, context.Canceled):
		return v.left()
	}
	return exchange.UpstreamReset
}

// left is the outcome where the client's side ended first.
func (v *visit) left() exchange.Code {
	if v.cutOff() {
		return exchange.Draining
	}
	return exchange.ClientGone
}

func encodingOf(h http.Header) string { return strings.Join(h["Content-Encoding"], ",") }
