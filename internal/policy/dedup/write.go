package dedup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

const (
	// lease is how long a running write's claim outlives a daemon that does not renew it.
	lease = time.Minute
	// storeTime is how long a store may take where no client waits for it.
	storeTime = 5 * time.Second
	// again is when a client should come back whose key is in use.
	again = time.Second
)

// write sends a keyed write, unless one with its key runs or has been answered.
func (s *stage) write(r *http.Request, x *exchange.Exchange, values []string) (*http.Response, error) {
	switch {
	case r.Header[skipField] != nil:
		return s.alone(r, x, whyAsked)
	case r.Trailer != nil:
		return s.alone(r, x, whyTrailer)
	case r.ContentLength > int64(s.config.MaxBody):
		return s.alone(r, x, whyTooLarge)
	}
	key, err := parseKey(values, s.key.Quoted)
	if err != nil {
		if s.observe {
			return s.pass(r, x, string(exchange.BadRequest))
		}
		return s.refuse(r, x, err)
	}
	if s.observe {
		return s.watchWrite(r, x, key)
	}
	body := buffer{budget: &s.room.memory, max: int(s.config.MaxBody), expect: int(r.ContentLength)}
	r, why, err := body.read(r)
	if err != nil {
		return s.refuse(r, x, err)
	}
	if why != "" {
		if why == whyMemory {
			return s.refuse(r, x, errMemory)
		}
		return s.alone(r, x, why)
	}
	return s.begin(r, x, key, body)
}

// refuse answers a keyed write that is not sent.
func (s *stage) refuse(r *http.Request, x *exchange.Exchange, err error) (*http.Response, error) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
	s.note(x, roleRefused)
	return nil, err
}

// errMemory: a write whose repeats could not be told is not sent, so that nothing runs twice; the client may send it again.
var errMemory = &exchange.Refusal{Code: exchange.Overloaded, RetryAfter: again,
	Detail: "writes in flight take all the memory that there is for them; this one was not sent"}

// read takes the request's body in. Where it does not fit, the request that is returned has it all the same.
func (b *buffer) read(r *http.Request) (whole *http.Request, why string, err error) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, "", nil
	}
	chunk := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(chunk)
	for {
		n, err := r.Body.Read(chunk[:])
		if !b.add(chunk[:n]) {
			why = whyMemory
			if len(b.data)+n > b.max {
				why = whyTooLarge
			}
			return b.restore(r, bytes.Clone(chunk[:n]), err), why, nil
		}
		if err == io.EOF {
			_ = r.Body.Close() // read to its end
			full := *r
			full.Body = io.NopCloser(bytes.NewReader(b.data))
			return &full, "", nil
		}
		if err != nil {
			b.free()
			return r, "", broken(r, err)
		}
	}
}

// restore puts what was read in front of the rest.
func (b *buffer) restore(r *http.Request, p []byte, err error) *http.Request {
	parts := []io.Reader{bytes.NewReader(b.data), bytes.NewReader(p)}
	if err == nil {
		parts = append(parts, r.Body)
	} else if err != io.EOF {
		parts = append(parts, failing{err})
	}
	full := *r
	full.Body = &restored{Reader: io.MultiReader(parts...), body: r.Body, free: sync.OnceFunc(b.free)}
	return &full
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// restored is a request's body of which a part was read ahead. The transport may still read it while it is closed, so its memory is only counted free.
type restored struct {
	io.Reader
	body io.Closer
	free func()
}

func (r *restored) Close() error {
	r.free()
	return r.body.Close()
}

// broken says what it means that a request's body could not be read.
func broken(r *http.Request, err error) error {
	if errors.As(err, new(*exchange.Refusal)) {
		return err
	}
	if cause := context.Cause(r.Context()); cause != nil {
		return cause
	}
	return &exchange.Refusal{Code: exchange.BadRequest, Detail: "the request's body is malformed or broke off", Close: true, Cause: err}
}

// begin asks the store how the key stands.
func (s *stage) begin(r *http.Request, x *exchange.Exchange, key string, body buffer) (*http.Response, error) {
	claim, sum := s.claim(r, x, key), s.printOf(r, x)
	_, _ = sum.Write(body.data) // a hash does not fail
	claim.Fingerprint = hex.EncodeToString(sum.Sum(nil))
	standing, err := s.store.Begin(r.Context(), claim, lease)
	if err == nil && standing.State == Claimed {
		return (&write{stage: s, claim: claim, body: body}).run(r, x)
	}
	if err != nil && !errors.Is(err, ErrUnclaimed) {
		go s.withdraw(context.WithoutCancel(r.Context()), claim)
	}
	body.free()
	switch {
	case err != nil && r.Context().Err() != nil:
		return s.refuse(r, x, context.Cause(r.Context()))
	case err != nil:
		s.room.metrics.storeErrors.Inc()
		return s.refuse(r, x, &exchange.Refusal{Code: exchange.Overloaded, RetryAfter: again, Cause: err,
			Detail: "it cannot be told whether a write with this idempotency key was sent before; this one was not sent"})
	case standing.State == Finished:
		return s.replay(r, x, standing.Record)
	}
	s.note(x, roleConflict)
	if standing.State == Running {
		return nil, &exchange.Refusal{Code: exchange.IdempotencyConflict, Status: http.StatusConflict, RetryAfter: again,
			Detail: "a write with this idempotency key is running"}
	}
	return nil, &exchange.Refusal{Code: exchange.IdempotencyConflict, Status: http.StatusUnprocessableEntity,
		Detail: "this idempotency key was used for a different write"}
}

// withdraw takes a claim back that the store may have taken although it did not say so in time: else it would hold up the client's repeats until the lease
// ends. It does so twice: the claim may still be on its way, and come behind the first.
func (s *stage) withdraw(ctx context.Context, claim Claim) {
	for i := range 2 {
		time.Sleep(time.Duration(i) * again)
		s.tell(ctx, func(ctx context.Context) error { return s.store.Release(ctx, claim, s.config.Writes.Keep.D()) })
	}
}

// tell tells the store something that no client waits for.
func (s *stage) tell(ctx context.Context, step func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if err := step(ctx); err != nil {
		s.room.metrics.storeErrors.Inc()
	}
}

// replayedField marks a stored answer.
const replayedField = "Idempotency-Replayed"

// replay answers with what the first write was answered with.
func (s *stage) replay(r *http.Request, x *exchange.Exchange, record []byte) (*http.Response, error) {
	resp, err := parseRecord(record)
	if err != nil {
		s.room.metrics.storeErrors.Inc()
		return s.refuse(r, x, &exchange.Refusal{Code: exchange.Internal, Cause: err,
			Detail: "the stored answer to the write with this idempotency key cannot be read"})
	}
	resp.Header[replayedField] = []string{"true"}
	resp.Request = r
	s.note(x, roleReplayed)
	return resp, nil
}

// write is a keyed write that is sent. It goes on when its client leaves: that one will come back, with the same key, for the answer.
type write struct {
	leash
	values context.Context
	stage  *stage
	claim  Claim
	body   buffer // the request's

	mu      sync.Mutex
	timer   *time.Timer
	ended   bool
	settled chan struct{} // closed when the store knows how the claim ended
}

// run sends it.
func (w *write) run(r *http.Request, x *exchange.Exchange) (*http.Response, error) {
	s := w.stage
	x.Update(func(story *exchange.Story) { story.Dedup = roleLeader })
	own := x.Detach() // nobody writes to the client's once that has ended
	w.values = exchange.NewContext(r.Context(), own)
	w.hold(r.Context(), w)
	w.settled = make(chan struct{})
	s.room.running.Store(w, nil)
	w.mu.Lock()
	w.timer = time.AfterFunc(lease/3, w.renew)
	w.mu.Unlock()
	returned := false
	defer func() {
		if !returned { // a panic goes on to whoever called
			w.end(nil)
			w.loose()
		}
		s.room.metrics.count(x.Label(), roleLeader)
	}()
	resp, err := s.send(r.WithContext(&w.leash))
	returned = true
	x.Join(own)
	if err != nil || resp == nil || resp.Body == nil {
		if acted(own, err) {
			w.end(nil)
		} else {
			w.release()
		}
		w.loose()
		return resp, err
	}
	w.headed.Store(true)
	return w.answered(resp, own), nil
}

// clientLeft lets the write go on.
func (w *write) clientLeft() bool { return true }

func (w *write) value(key any) any { return w.values.Value(key) }

// renew keeps the claim while the write runs.
func (w *write) renew() {
	w.mu.Lock() // held throughout: nothing may end the claim and then find it renewed
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.parent), storeTime)
	defer cancel()
	standing, err := w.stage.store.Begin(ctx, w.claim, lease)
	if err != nil {
		w.stage.room.metrics.storeErrors.Inc()
	}
	if err != nil || standing.State == Claimed {
		w.timer.Reset(lease / 3)
	}
}

// end remembers the answer, or with nil that there is none although the upstream may have acted.
func (w *write) end(record []byte) {
	w.settle(func(ctx context.Context) error {
		return w.stage.store.Finish(ctx, w.claim, record, w.stage.config.Writes.Keep.D())
	})
}

// release lets a repeat run as if this one had never been.
func (w *write) release() {
	w.settle(func(ctx context.Context) error {
		return w.stage.store.Release(ctx, w.claim, w.stage.config.Writes.Keep.D())
	})
}

// settle ends the claim, once. Where the store fails, the lease does.
func (w *write) settle(step func(context.Context) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.body.free()
	s, ctx := w.stage, context.WithoutCancel(w.parent)
	if w.settled != nil { // else it is only watched
		defer func() {
			s.room.running.Delete(w)
			close(w.settled)
		}()
	}
	if s.observe && s.room.store != nil { // which others keep: no answer is held up until it has heard
		go s.tell(ctx, step)
		return
	}
	s.tell(ctx, step)
}
