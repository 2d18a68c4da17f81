package breaker

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
)

// patience is how long a body may go on before its answer counts as a success: a stream would keep the breaker waiting for hours.
const patience = 5 * time.Second

// report is one attempt's word to the breaker: given exactly once, on whichever way the attempt ends, and for a good head only when its body
// has ended too, or has gone on for a while.
type report struct {
	circuit *circuit
	done    func(error)
	probe   bool
	flying  bool
	given   atomic.Bool
	headed  atomic.Bool // the head came, and was good
	timer   *time.Timer // of probes
	body    io.ReadCloser
	ctx     context.Context
	since   int64 // when a part of the body had come that was not all; 0: not yet
}

// Spare is memory for a report; see exchange.Borrow.
type Spare struct{ report report }

// give is gobreaker's done, once.
func (p *report) give(v *verdict) {
	if p.given.Swap(true) {
		return
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.conclude(v)
}

func (p *report) conclude(v *verdict) {
	if p.flying {
		p.circuit.flying.Add(-1)
	}
	if v == success {
		p.done(nil)
	} else {
		p.done(v)
	}
	p.circuit.tell()
}

// expire is a probe's timer: nobody may keep one of few places for long.
func (p *report) expire() {
	if p.given.Swap(true) {
		return
	}
	if p.headed.Load() {
		p.conclude(success)
		return
	}
	p.conclude(&verdict{kind: hard, code: exchange.UpstreamTimeout})
}

// send makes the attempt.
func (p *report) send(next http.RoundTripper, r *http.Request) (*http.Response, error) {
	c := p.circuit
	returned := false
	defer func() {
		if !returned {
			p.give(neutral) // a panic is no fault of the upstream
		}
	}()
	if p.probe {
		p.timer = time.AfterFunc(c.config().probeDeadline(), p.expire)
	}
	sent := r
	var watch *exchange.Stopwatch
	if c.config().Slow.On && r.Method != http.MethodConnect {
		watch = new(exchange.Stopwatch)
		sent = watch.Start(r)
	}
	began := c.now()
	resp, err := next.RoundTrip(sent)
	returned = true
	if err != nil {
		p.give(c.ofError(r.Context(), err, began))
		return nil, err
	}
	c.answered()
	took := time.Duration(0)
	if watch != nil {
		took, _ = watch.Took()
	}
	v := c.config().ofAnswer(resp, took)
	if v != success || r.Method == http.MethodConnect || resp.StatusCode == http.StatusSwitchingProtocols ||
		resp.Body == nil || resp.Body == http.NoBody || resp.ContentLength == 0 {
		p.give(v)
		return resp, nil
	}
	p.follow(r.Context(), resp)
	return resp, nil
}

// follow waits for what becomes of the body.
func (p *report) follow(ctx context.Context, resp *http.Response) {
	p.body, p.ctx = resp.Body, ctx
	resp.Body = p
	if p.timer != nil {
		p.headed.Store(true)
		p.timer.Reset(patience)
	}
}

// Read reads the answer's body.
func (p *report) Read(b []byte) (int, error) { return p.came(p.body.Read(b)) }

// Unseen and Take make it an exchange.Direct.
func (p *report) Unseen() int64 { return exchange.Unseen(p.body) }

// Take is a Read by m.
func (p *report) Take(m exchange.Mover) (int, error) { return p.came(exchange.Take(p.body, m)) }

// came judges what a read brought.
func (p *report) came(n int, err error) (int, error) {
	switch {
	case p.given.Load():
	case err != nil:
		p.give(ofBody(p.ctx, err))
	case p.since == 0:
		p.since = p.circuit.now()
	case p.circuit.now()-p.since > int64(patience):
		p.give(success)
	}
	return n, err
}

// Close closes the answer's body. Whoever has read enough says nothing against the upstream.
func (p *report) Close() error {
	p.give(ofBody(p.ctx, io.EOF))
	return p.body.Close()
}
