package timeout

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

// Attempt bounds the wait from the last byte of a request to the head of its answer. Connecting has limits of its own, and a long upload has none
// but the total.
func (room *Room) Attempt(c Config) exchange.Stage {
	return exchange.Stage{Name: "attempt timeout", Wrap: func(next http.RoundTripper) http.RoundTripper {
		if c.Attempt <= 0 {
			return next
		}
		return &attempts{limit: c.Attempt.D(), alarms: &room.alarms, next: next}
	}}
}

type attempts struct {
	limit  time.Duration
	alarms *alarms
	next   http.RoundTripper
}

func (a *attempts) RoundTrip(r *http.Request) (*http.Response, error) {
	var t *attempt
	if s, ok := r.Context().(*span); ok && !s.begun.Swap(true) {
		t = &s.first
		t.span = s
	} else {
		t = new(attempt)
	}
	t.limit, t.alarms = a.limit, a.alarms
	t.Within(r.Context(), t)
	t.request = *r.WithContext(t)
	resp, err := a.next.RoundTrip(&t.request)
	late := t.stop()
	switch {
	case err == nil && !late:
		resp.Body = t.hold(resp.Body)
		return resp, nil
	case err == nil:
		_ = resp.Body.Close()
		err = errLate
	case late && r.Context().Err() == nil:
		err = asTimeout(err)
	}
	t.Cancel(nil)
	return nil, err
}

// asTimeout names what came of the attempt's context being cancelled. Whoever sent the request knows best whether anything of it was.
func asTimeout(err error) error {
	var refusal *exchange.Refusal
	var failure *exchange.Failure
	if errors.As(err, &refusal) || errors.As(err, &failure) {
		return err
	}
	return errLate
}

var errLate = timedOut("no answer came within the time that an attempt has")

// attempt is one sending. Its clock starts when the request has been written, and again where the transport writes it on another connection.
type attempt struct {
	exchange.WrittenContext
	limit   time.Duration
	alarms  *alarms
	span    *span        // whose alarm serves the attempt too; nil: it has one of its own
	request http.Request // as the stages below get it
	body    held

	mu    sync.Mutex
	due   time.Time // when the head must be there; zero: the request is not written yet
	alarm *alarm
	over  bool // the head is there, or the failure
	late  bool
}

func (t *attempt) Written() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.due = exchange.Now().Add(t.limit)
	switch {
	case t.span != nil:
		t.span.alarm.sooner(t.due)
	case t.alarm == nil:
		t.alarm = t.alarms.set(t.due, t)
	default:
		t.alarm.sooner(t.due)
	}
}

// ring implements ringer.
func (t *attempt) ring(a *alarm) {
	if due := t.look(exchange.Now()); !due.IsZero() {
		a.sooner(due)
	}
}

// look ends the attempt if its time is up, and returns when that will be; zero: it waits for nothing.
func (t *attempt) look(now time.Time) time.Time {
	t.mu.Lock()
	if t.over || t.late || t.due.IsZero() {
		t.mu.Unlock()
		return time.Time{}
	}
	due := t.due
	t.late = !now.Before(due)
	late := t.late
	t.mu.Unlock()
	if !late {
		return due
	}
	t.Cancel(errLate)
	return time.Time{}
}

// stop ends the watch and tells whether it had ended the attempt.
func (t *attempt) stop() (late bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.alarm != nil {
		t.alarm.stop()
		t.alarm = nil
	}
	return t.late
}

// hold keeps the attempt's context until the body is closed.
func (t *attempt) hold(b io.ReadCloser) io.ReadCloser {
	t.body = held{b, t}
	if w, ok := b.(io.Writer); ok {
		return &heldDuplex{&t.body, w}
	}
	return &t.body
}

type held struct {
	io.ReadCloser
	attempt *attempt
}

// Unseen and Take make it an exchange.Direct.
func (h *held) Unseen() int64 { return exchange.Unseen(h.ReadCloser) }

// Take is a Read by m.
func (h *held) Take(m exchange.Mover) (int, error) { return exchange.Take(h.ReadCloser, m) }

// Close frees what the attempt holds.
func (h *held) Close() error {
	err := h.ReadCloser.Close()
	h.attempt.Cancel(nil)
	return err
}

// heldDuplex is the body of a 101.
type heldDuplex struct {
	*held
	io.Writer
}
