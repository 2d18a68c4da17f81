package dedup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"httpowerd/internal/exchange"
)

// collapse gives a safe request the answer of an identical one that runs, or makes it the one that runs.
func (s *stage) collapse(r *http.Request, x *exchange.Exchange) (*http.Response, error) {
	k, why := s.wantOf(r, x)
	if why != "" {
		return s.alone(r, x, why)
	}
	if s.observe {
		return s.watch(r, x, &k)
	}
	if a := s.group.lingeringAnswer(&k); a != nil {
		s.note(x, roleReplayed)
		resp := a.response(r)
		aged(resp, a.complete)
		return resp, nil
	}
	f, w, why := s.group.join(&k)
	switch {
	case why != "":
		return s.alone(r, x, why)
	case w == nil:
		return s.lead(f, &f.first, r, x)
	}
	return s.follow(f, w, r, x)
}

// watch is collapse in observe mode.
func (s *stage) watch(r *http.Request, x *exchange.Exchange, k *want) (*http.Response, error) {
	f := s.group.enter(k)
	if f == nil {
		return s.pass(r, x, observedFollower)
	}
	defer f.exit()
	s.note(x, roleLeader)
	return s.next.RoundTrip(r)
}

// enter lists a flight that nobody can follow; nil where one is there.
func (g *group) enter(k *want) *flight {
	s := g.of(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[k.hash]; f != nil && f.want.equal(k) {
		return nil
	}
	f := &flight{group: g, shard: s, want: *k}
	if g.flights.Load() < maxFlights {
		f.list()
	}
	return f
}

func (f *flight) exit() {
	f.shard.mu.Lock()
	f.unlist()
	f.shard.mu.Unlock()
}

// turn is one leader's time: one request to the stages below, on a leash. When its client leaves, it goes on for those who follow.
type turn struct {
	leash
	flight *flight
	sent   http.Request // here, so that all of it is made at once
	gone   bool         // its client does not want the answer any more; shard.mu guards it
	shared *shared      // its answer, while that comes for several; shard.mu guards it
	body   soloBody
}

var errNobody = fmt.Errorf("nobody waits for the answer any more: %w", context.Canceled)

// lead sends the request, for itself and for all who follow.
func (s *stage) lead(f *flight, t *turn, r *http.Request, x *exchange.Exchange) (*http.Response, error) {
	t.flight = f
	x.Update(func(story *exchange.Story) { story.Dedup = roleLeader })
	t.hold(r.Context(), t)
	t.sent = *r.WithContext(&t.leash)
	returned := false
	defer func() {
		if !returned {
			t.fail(nil) // a panic goes on to whoever called
		}
		s.room.metrics.count(x.Label(), roleLeader)
	}()
	resp, err := s.next.RoundTrip(&t.sent)
	returned = true
	if err != nil || resp == nil || resp.Body == nil {
		t.fail(err)
		return resp, err
	}
	t.headed.Store(true)
	resp = t.head(resp, x, method(r) == http.MethodHead)
	if r.Context().Err() != nil { // its client left: the answer is for those who follow
		_ = resp.Body.Close()
		return nil, context.Cause(r.Context())
	}
	return resp, nil
}

// clientLeft tells whether the turn goes on.
func (t *turn) clientLeft() bool {
	f := t.flight
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	t.gone = true
	if t.shared != nil {
		t.shared.leaderLeft()
	}
	if f.leader != t || len(f.waiters) > 0 {
		return f.leader == t
	}
	f.unlist() // before it is cancelled: whoever comes now begins anew
	return false
}

func (t *turn) value(key any) any { return t.parent.Value(key) }

// fail ends a turn without an answer. What any other leader would meet again is for everybody; else the next one tries, and the others wait for it.
func (t *turn) fail(err error) {
	t.loose()
	var refusal *exchange.Refusal
	var failure *exchange.Failure
	f := t.flight
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	if errors.As(err, &refusal) || errors.As(err, &failure) && failure.Permanent {
		f.tell(verdict{err: err})
		return
	}
	f.promote()
}

// head ends the time in which others may follow, and decides who gets the answer.
func (t *turn) head(resp *http.Response, x *exchange.Exchange, bare bool) *http.Response {
	f, g := t.flight, t.flight.group
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	f.unlist()
	if len(f.waiters) == 0 && g.linger <= 0 {
		return t.solo(resp)
	}
	why := unshared(resp)
	if why == "" && !bare && resp.ContentLength > int64(g.maxBody) {
		why = whyTooLarge
	}
	if why != "" {
		if len(f.waiters) > 0 {
			f.refuse()
			f.tell(verdict{why: why})
		}
		return t.solo(resp)
	}
	linger := g.linger > 0 && lingers(resp, x)
	switch {
	case len(f.waiters) == 0 && !linger:
		return t.solo(resp)
	case resp.Body == http.NoBody:
		a := &answer{head: headOf(resp), complete: time.Now(), free: func() {}}
		a.head.Trailer = resp.Trailer.Clone()
		f.answered(a, linger)
		return t.solo(resp)
	}
	return t.share(resp, linger)
}

// answered gives an answer to all who follow. shard.mu is held.
func (f *flight) answered(a *answer, linger bool) {
	a.holders.Add(int32(len(f.waiters)))
	if linger {
		f.keep(a)
	}
	f.tell(verdict{answer: a})
}

// solo is an answer that nobody else gets.
func (t *turn) solo(resp *http.Response) *http.Response {
	if resp.Body == http.NoBody {
		t.loose()
		return resp
	}
	t.body.ReadCloser, t.body.leash = resp.Body, &t.leash
	resp.Body = t.body.able()
	return resp
}

// soloBody is a body that frees the leash with its Close.
type soloBody struct {
	io.ReadCloser
	leash *leash
}

// Unseen and Take make it an exchange.Direct.
func (b *soloBody) Unseen() int64 { return exchange.Unseen(b.ReadCloser) }

// Take is a Read by m.
func (b *soloBody) Take(m exchange.Mover) (int, error) { return exchange.Take(b.ReadCloser, m) }

// Close frees the leash.
func (b *soloBody) Close() error {
	defer b.leash.loose()
	return b.ReadCloser.Close()
}

// able keeps the body's ability to be written to (101) or to write itself.
func (b *soloBody) able() io.ReadCloser {
	if w, ok := b.ReadCloser.(io.Writer); ok {
		return &duplex{b, w}
	}
	if _, ok := b.ReadCloser.(io.WriterTo); ok {
		return (*soloWriterTo)(b)
	}
	return b
}

// soloWriterTo is a soloBody that writes itself.
type soloWriterTo soloBody

func (b *soloWriterTo) WriteTo(w io.Writer) (int64, error) {
	return b.ReadCloser.(io.WriterTo).WriteTo(w)
}

func (b *soloWriterTo) Close() error { return (*soloBody)(b).Close() }

type duplex struct {
	io.ReadCloser
	io.Writer
}

// follow waits for the answer of the flight.
func (s *stage) follow(f *flight, w *waiter, r *http.Request, x *exchange.Exchange) (*http.Response, error) {
	ctx, begin := r.Context(), time.Now()
	timer := time.NewTimer(s.config.Wait.D())
	defer timer.Stop()
	var v verdict
	var left error
	select {
	case v = <-w.told:
	case <-timer.C:
		left = s.lateBy(f, w, &v)
	case <-ctx.Done():
		left = s.goneBy(ctx, f, w, &v)
	}
	x.Update(func(story *exchange.Story) { story.Upstream += time.Since(begin) })
	switch {
	case left == nil && v.lead:
		t := &turn{}
		f.shard.mu.Lock()
		f.leader, f.since = t, f.group.room.changes.last.Load()
		f.shard.mu.Unlock()
		return s.lead(f, t, r, x)
	case left == nil && v.why != "":
		return s.alone(r, x, v.why)
	}
	s.note(x, roleFollower)
	switch {
	case left != nil:
		return nil, left
	case v.err != nil:
		return nil, v.err
	}
	return v.answer.response(r), nil
}

// lateBy ends a follower's wait, unless it has just been told something. An answer without a length whose head is here is a stream, as it turns out.
func (s *stage) lateBy(f *flight, w *waiter, v *verdict) error {
	if !f.leave(w) {
		*v = <-w.told
		return nil
	}
	f.shard.mu.Lock()
	growing := f.leader != nil && f.leader.shared != nil && f.leader.shared.endless
	f.shard.mu.Unlock()
	if growing {
		v.why = whyStream
		return nil
	}
	return exchange.Refuse(exchange.DedupTimeout, "the answer to an identical request, meant for this one too, did not come within %s", s.config.Wait)
}

// goneBy ends the wait of a follower whose client left or whose time is over. What it was told goes on to the next.
func (s *stage) goneBy(ctx context.Context, f *flight, w *waiter, v *verdict) error {
	if !f.leave(w) {
		*v = <-w.told
		if v.answer != nil {
			v.answer.drop()
		}
		if v.lead {
			f.pass()
		}
	}
	if cause := context.Cause(ctx); !timeIsOver(cause) {
		return cause
	}
	return exchange.Refuse(exchange.DedupTimeout, "the answer to an identical request, meant for this one too, did not come before its deadline")
}
