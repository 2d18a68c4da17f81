package dedup

import (
	"errors"
	"io"
	"net/http"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state/quota"
)

// outcome is what an answer means for the next request with the same key.
type outcome uint8

const (
	stands  outcome = iota // it gets the same answer
	repeats                // it runs: this one came to nothing
	unknown                // it runs: the upstream may have acted, and only the upstream can tell
)

// outcomeOf looks at an answer to a write. One that asks for another attempt must not be what each attempt gets.
func outcomeOf(resp *http.Response, x *exchange.Exchange) outcome {
	switch s := resp.StatusCode; s {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly,
		http.StatusTooManyRequests, http.StatusServiceUnavailable, 529:
		return repeats
	case http.StatusBadGateway, http.StatusGatewayTimeout, 520, 521, 522, 523, 524:
		return unknown
	default:
		if s < 200 || exchange.Streams(resp.Header) {
			return unknown
		}
		if asks(resp, x) {
			return repeats
		}
	}
	return stands
}

// asks tells whether an answer asks for another attempt: as a stage below has judged, which knows more and may have changed the field, or else by its
// fields.
func asks(resp *http.Response, x *exchange.Exchange) bool {
	v, failed := x.Verdict(), resp.StatusCode >= 400
	if v == exchange.Unsaid && failed {
		v = exchange.ShouldRetry(resp.Header["X-Should-Retry"])
	}
	if v == exchange.Again || !failed {
		return v == exchange.Again
	}
	return quota.AsksToWait(resp.Header)
}

// acted tells whether the upstream may have acted on a request that ended without an answer. x is the exchange in which it was sent.
func acted(x *exchange.Exchange, err error) bool {
	sent := false
	x.Read(func(s *exchange.Story) {
		for i := range s.Attempts {
			switch a := &s.Attempts[i]; a.Error {
			case exchange.UpstreamDNS, exchange.UpstreamConnect, exchange.UpstreamTLS:
			case "":
				sent = sent || a.Status != 0 && a.Status != http.StatusTooManyRequests && a.Status != http.StatusServiceUnavailable
			default: // a drain ends attempts wherever they are
				sent = sent || a.Error == exchange.UpstreamReset || a.Error == exchange.UpstreamTimeout || a.Error == exchange.UpstreamProtocol || a.Error == exchange.Draining
			}
		}
	})
	var refusal *exchange.Refusal
	var failure *exchange.Failure
	switch {
	case errors.As(err, &refusal):
		return sent
	case errors.As(err, &failure):
		return sent && len(x.Story().Attempts) > 1 || failure.Sent
	}
	return true
}

// recording is the body of a keyed write's answer, kept while it goes to the client. Where that leaves, it is read to its end all the same.
type recording struct {
	io.ReadCloser
	write   *write
	resp    *http.Response
	head    http.Response
	outcome outcome
	buf     buffer
	ended   bool
	closed  bool
}

// answered takes the head of the answer to what was sent as x.
func (w *write) answered(resp *http.Response, x *exchange.Exchange) *http.Response {
	rec := &recording{ReadCloser: resp.Body, write: w, resp: resp, outcome: outcomeOf(resp, x)}
	most := w.stage.config.MaxBody
	if rec.outcome == stands && resp.ContentLength > int64(most) {
		rec.outcome = unknown
	}
	switch rec.outcome {
	case repeats:
		w.release()
	case stands:
		rec.head = headOf(resp)
		rec.buf = buffer{budget: &w.stage.room.memory, max: int(most), expect: int(resp.ContentLength)}
		if resp.Body == http.NoBody {
			rec.end(io.EOF)
		}
	case unknown:
		if resp.StatusCode < 200 || resp.Body == http.NoBody {
			w.end(nil)
		}
	}
	if resp.Body == http.NoBody {
		w.loose()
		return resp
	}
	resp.Body = rec
	if writer, ok := rec.ReadCloser.(io.Writer); ok {
		resp.Body = &duplex{rec, writer}
	}
	return resp
}

func (rec *recording) Read(p []byte) (int, error) {
	n, err := rec.ReadCloser.Read(p)
	if rec.outcome == stands && !rec.ended && !rec.buf.add(p[:n]) {
		rec.outcome = unknown
		rec.buf.free()
	}
	if err == nil && rec.whole() {
		if rec.resp.ProtoMajor == 1 && rec.resp.Trailer == nil {
			rec.end(io.EOF)
		} else if n < len(p) { // trailers may follow
			var more int
			more, err = rec.Read(p[n:])
			return n + more, err
		}
	}
	if err != nil {
		rec.end(err)
	}
	return n, err
}

// whole tells whether all of an announced length is here. What the client has, its repeat must find, so it is remembered before the client gets it.
func (rec *recording) whole() bool {
	return rec.outcome == stands && !rec.ended && int64(len(rec.buf.data)) == rec.resp.ContentLength
}

// end takes the body's end.
func (rec *recording) end(err error) {
	if rec.ended {
		return
	}
	rec.ended = true
	if rec.outcome == stands && err == io.EOF {
		size := headerSize(rec.head.Header) + len(rec.buf.data)
		rec.write.end(appendRecord(make([]byte, 0, size), &rec.head, rec.resp.Trailer, rec.buf.data))
	} else {
		rec.write.end(nil) // without effect where the key was released
	}
	rec.buf.free()
}

// Close frees what the write holds, at once or when the rest has been read.
func (rec *recording) Close() error {
	if rec.closed {
		return nil
	}
	rec.closed = true
	if rec.outcome == stands && !rec.ended {
		go rec.drain()
		return nil
	}
	rec.end(io.ErrUnexpectedEOF)
	defer rec.write.loose()
	return rec.ReadCloser.Close()
}

// drain reads what the client does not want any more: its repeat will.
func (rec *recording) drain() {
	w := rec.write
	timer := time.AfterFunc(w.stage.config.Wait.D(), func() { w.cancel(errLate) })
	defer func() {
		_ = recover() // nobody else is on this goroutine to catch it
		timer.Stop()
		rec.end(io.ErrUnexpectedEOF)
		w.loose()
	}()
	defer rec.ReadCloser.Close()
	chunk := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(chunk)
	for !rec.ended && rec.outcome == stands {
		_, _ = rec.Read(chunk[:]) // its end is noted
	}
}
