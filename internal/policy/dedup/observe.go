package dedup

import (
	"context"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"sync"

	"httpowerd/internal/exchange"
)

// observed is a keyed write that is only watched. It is sent as it comes; its key is looked up when its body has been read to the end.
type observed struct {
	stage  *stage
	ctx    context.Context
	claim  Claim
	body   io.ReadCloser
	length int64 // of the body; -1: not announced

	mu       sync.Mutex
	sum      hash.Hash
	read     int64
	deaf     bool // what is read now changes nothing any more
	tooLarge bool
	asked    chan struct{} // is closed when the store has answered; nil: it was not asked
	standing Standing
	err      error
}

// watchWrite is write in observe mode.
func (s *stage) watchWrite(r *http.Request, x *exchange.Exchange, key string) (resp *http.Response, err error) {
	o := &observed{stage: s, ctx: r.Context(), claim: s.claim(r, x, key), length: r.ContentLength, sum: s.printOf(r, x)}
	if r.Body == nil || r.Body == http.NoBody {
		o.ask()
	} else {
		full := *r
		o.body, full.Body = r.Body, o
		r = &full
	}
	defer func() { o.end(x, resp, err) }()
	return s.send(r)
}

func (o *observed) Read(p []byte) (int, error) {
	n, err := o.body.Read(p)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.deaf {
		return n, err
	}
	_, _ = o.sum.Write(p[:n])
	o.read += int64(n)
	switch {
	case o.read > int64(o.stage.config.MaxBody):
		o.deaf, o.tooLarge = true, true
	case err == io.EOF, o.read == o.length:
		o.ask()
	case err != nil:
		o.deaf = true
	}
	return n, err
}

func (o *observed) Close() error { return o.body.Close() }

// ask asks the store how the key stands, and holds nobody up.
func (o *observed) ask() {
	o.deaf = true
	o.claim.Fingerprint = hex.EncodeToString(o.sum.Sum(nil))
	o.asked = make(chan struct{})
	go func() {
		defer close(o.asked)
		o.standing, o.err = o.stage.store.Begin(o.ctx, o.claim, lease)
	}()
}

// end notes what would have become of the write. What is remembered of it is only that there was an answer.
func (o *observed) end(x *exchange.Exchange, resp *http.Response, err error) {
	s := o.stage
	o.mu.Lock()
	o.deaf = true
	asked, why := o.asked, whyUnread
	if o.tooLarge {
		why = whyTooLarge
	}
	o.mu.Unlock()
	if asked == nil {
		s.bypass(x, why)
		return
	}
	<-asked
	switch {
	case o.err != nil:
		s.room.metrics.storeErrors.Inc()
		if !errors.Is(o.err, ErrUnclaimed) {
			go s.withdraw(context.WithoutCancel(o.ctx), o.claim)
		}
		s.bypass(x, whyStore)
		return
	case o.standing.State == Finished:
		s.found(x, observedReplayed)
		return
	case o.standing.State != Claimed:
		s.found(x, string(exchange.IdempotencyConflict))
		return
	}
	s.note(x, roleLeader)
	w := &write{stage: s, claim: o.claim, leash: leash{parent: o.ctx}}
	switch {
	case resp == nil && acted(x, err):
		w.end(nil)
	case resp == nil, outcomeOf(resp, x) == repeats:
		w.release()
	case outcomeOf(resp, x) == stands:
		w.end(appendRecord(nil, &http.Response{StatusCode: resp.StatusCode}, nil, nil))
	default:
		w.end(nil)
	}
}
