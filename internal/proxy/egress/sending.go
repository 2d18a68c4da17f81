package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
)

// sending is one attempt by the project's own wire, and what that tells of it.
type sending struct {
	pool          *pool
	x             *exchange.Exchange
	ctx           context.Context
	index         int
	informational uint8
	warms         bool // its lane is one that the warmer fills
	out           sentBody
	room          wire.Room
}

// Spare is memory for a sending; see exchange.Borrow.
type Spare struct{ sending sending }

// send sends the request once. Where a kept connection turned out dead after it had been written to, a safe request without a body is sent once more, as an
// attempt of its own, unless a stage above does that.
func (p *pool) send(ctx context.Context, r *http.Request, x *exchange.Exchange) (*http.Response, error) {
	index := x.BeginAttemptIn(ctx, x.Now())
	t, addr, err := p.laneFor(p.dialContext(ctx, r), r, x)
	if err != nil {
		closeBody(r)
		p.ended(x, index, 0, err)
		return nil, err
	}
	if t == nil {
		return p.standard(ctx, r, x, index, p.http2.Load())
	}
	s := &exchange.Borrow[Spare](x).sending
	s.pool, s.x, s.ctx, s.index, s.warms = p, x, ctx, index, p.warmer != nil && (t == p.lanes.plain || t == p.lanes.secure || t == p.lanes.absolute)
	out := r
	if t == p.lanes.absolute {
		out = r.WithContext(ctx)
		absoluteForm(out)
	} else if p.parent != nil {
		out = r.WithContext(p.dialContext(ctx, r))
	}
	resp, err := t.Send(carrying(x, s.index, out), addr, s, &s.room)
	if err != nil && s.again(err, r) {
		p.ended(x, s.index, 0, &exchange.Failure{Code: exchange.UpstreamReset})
		s.index = x.BeginAgain(exchange.ReasonReset, x.Now())
		resp, err = t.Send(carrying(x, s.index, out), addr, s, &s.room)
	}
	if err != nil {
		err = s.explain(err)
		p.ended(x, s.index, 0, err)
		return nil, err
	}
	p.ended(x, s.index, resp.StatusCode, nil)
	resp.Request = r
	if resp.StatusCode != http.StatusSwitchingProtocols { // whose body must stay writable
		s.out.ReadCloser, s.out.sending = resp.Body, s
		resp.Body = &s.out
	}
	return resp, nil
}

// again tells whether the request may be sent once more without anybody's leave.
func (s *sending) again(err error, r *http.Request) bool {
	var e *wire.Error
	return errors.As(err, &e) && e.Stale && e.Sent && !s.x.Repeats && exchange.SafeMethod(r.Method) && (r.Body == nil || r.Body == http.NoBody) && s.ctx.Err() == nil
}

// Connected notes the connection that is used.
func (s *sending) Connected(c net.Conn, reused bool) {
	if known := tracked(c); known != nil {
		s.x.Connected(s.index, known.address, reused)
	}
	if s.warms {
		s.pool.warmer.reached(s.x)
	}
}

// Written tells the clocks of the stages to begin.
func (s *sending) Written() { exchange.Written(s.ctx) }

// Informational passes a 1xx answer on.
func (s *sending) Informational(status int, header http.Header) error {
	if s.informational++; s.informational > maxInformational {
		return malformed("the upstream sent too many informational answers")
	}
	if pass := s.x.Informational; pass != nil && status != http.StatusContinue {
		pass.Inform(status, header)
	}
	return nil
}

// explain says what an error of the wire means: a Refusal, a Failure, or that the caller went.
func (s *sending) explain(err error) error {
	e := &wire.Error{Err: err}
	errors.As(err, &e)
	if refusal := own[*exchange.Refusal](err); refusal != nil && !e.Client {
		return refusal
	}
	if cause := context.Cause(s.ctx); cause != nil {
		return interrupted(s.ctx, cause, e.Sent)
	}
	if e.Client {
		return brokenBody(e.Err)
	}
	if failure := own[*exchange.Failure](err); failure != nil {
		return failure
	}
	explained := classify(e.Err, e.Sent)
	if failure := own[*exchange.Failure](explained); failure != nil {
		failure.Stale = e.Stale
	}
	return explained
}

// sentBody says what a broken body means.
type sentBody struct {
	io.ReadCloser
	sending *sending
}

func (b *sentBody) Read(p []byte) (int, error) { return b.explained(b.ReadCloser.Read(p)) }

// Unseen and Take make it an exchange.Direct.
func (b *sentBody) Unseen() int64 { return exchange.Unseen(b.ReadCloser) }

// Take is a Read by m.
func (b *sentBody) Take(m exchange.Mover) (int, error) {
	return b.explained(exchange.Take(b.ReadCloser, m))
}

func (b *sentBody) explained(n int, err error) (int, error) {
	if err != nil && err != io.EOF {
		var e *wire.Error
		if !errors.As(err, &e) {
			e = &wire.Error{Err: err, Sent: true}
		}
		err = b.sending.explain(e)
	}
	return n, err
}
