package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state/quota"
)

const (
	maxQueue = 256
	settle   = time.Second      // how long an event waits for another of its subject
	maxWait  = 10 * time.Minute // the longest Retry-After that is waited for
)

// waits are those between the tries of one notification, five minutes in all.
var waits = [...]time.Duration{5 * time.Second, 20 * time.Second, 75 * time.Second, 200 * time.Second}

// target is a target with what waits for it.
type target struct {
	sender  *Sender
	name    string
	wake    chan struct{}
	leaving chan struct{} // closed: post what is there, once, and end

	mu        sync.Mutex
	config    Target
	transport http.RoundTripper
	queue     []*message // the oldest first
	lossy     bool       // it was told that events are dropped, since the last one was delivered
}

type message struct {
	id    string
	event Event
	due   time.Time // until then another event may become one with it
}

func newTarget(s *Sender, name string) *target {
	return &target{sender: s, name: name, wake: make(chan struct{}, 1), leaving: make(chan struct{})}
}

func (t *target) use(c Target, transport http.RoundTripper) {
	t.mu.Lock()
	t.config, t.transport = c, transport
	t.mu.Unlock()
}

// leave is called once.
func (t *target) leave() { close(t.leaving) }

func (t *target) left() bool {
	select {
	case <-t.leaving:
		return true
	default:
		return false
	}
}

// add queues an event that the target wants.
func (t *target) add(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.config.wants(e.Type) {
		return
	}
	now := time.Now()
	if t.coalesce(&e, now) {
		return
	}
	if len(t.queue) >= maxQueue {
		t.queue = slices.Delete(t.queue, 0, 1)
		t.count(resultDropped, 1)
		if !t.lossy {
			t.lossy = true
			t.sender.log.Warn("notifications are lost: more come than the target takes", "target", t.name, "url", t.config.URL.String())
		}
	}
	t.queue = append(t.queue, &message{id: newID(), event: e, due: now.Add(settle)})
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// coalesce makes an event one with an earlier one of its subject that still settles. Where the state is then what it was before, neither is news.
func (t *target) coalesce(e *Event, now time.Time) bool {
	for i := len(t.queue) - 1; i >= 0 && t.queue[i].due.After(now); i-- {
		m := t.queue[i]
		if m.event.subject() != e.subject() {
			continue
		}
		from := m.event.From
		m.event = *e
		m.event.From = from
		t.count(resultCoalesced, 1)
		if from != "" && from == e.To {
			t.queue = slices.Delete(t.queue, i, i+1)
			t.count(resultCoalesced, 1)
		}
		return true
	}
	return false
}

func (t *target) count(result string, n int) { t.sender.metrics.count(t.name, result, n) }

// run posts until it is told to leave and nothing is left.
func (t *target) run() {
	for {
		m, wait := t.next()
		switch {
		case m != nil:
			t.deliver(m)
		case wait == 0 && t.left():
			return
		default:
			t.rest(wait)
		}
	}
}

// next takes the oldest event that has settled, or tells how long it will take until there is one; 0: nothing waits.
func (t *target) next() (*message, time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		return nil, 0
	}
	m := t.queue[0]
	if wait := time.Until(m.due); wait > 0 && !t.left() {
		return nil, wait
	}
	t.queue = slices.Delete(t.queue, 0, 1)
	return m, 0
}

// rest waits for an event (wait is 0), for one to settle, or for the end.
func (t *target) rest(wait time.Duration) {
	if wait == 0 {
		select {
		case <-t.wake:
		case <-t.leaving:
		}
		return
	}
	t.sleep(wait)
}

// sleep ends early when the target has to leave.
func (t *target) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.leaving:
	}
}

// deliver posts one event, with several tries. The state of the target is read anew for each: a reload may have mended it.
func (t *target) deliver(m *message) {
	for try := 0; ; try++ {
		last := try == len(waits) || t.left()
		if t.sender.ctx.Err() != nil {
			t.count(resultDropped, 1)
			return
		}
		p := t.post(m)
		switch {
		case p.err == nil:
			t.delivered()
			return
		case last && t.sender.ctx.Err() != nil:
			t.count(resultDropped, 1)
			return
		case last || p.final:
			t.count(resultFailed, 1)
			t.log(slog.LevelError, "a notification was given up", m, p.err)
			return
		}
		t.count(resultRetried, 1)
		if try == 0 {
			t.log(slog.LevelWarn, "a notification was not taken and is tried again", m, p.err)
		}
		t.sleep(backoff(try, p.after))
	}
}

// backoff is the wait after a try: five minutes over all of them, give or take a fifth, and never shorter than what the receiver asked for.
func backoff(try int, asked time.Duration) time.Duration {
	wait := time.Duration(float64(waits[try]) * (0.8 + 0.4*rand.Float64()))
	return min(max(wait, asked), maxWait)
}

func (t *target) delivered() {
	t.count(resultDelivered, 1)
	t.mu.Lock()
	t.lossy = false
	t.mu.Unlock()
}

func (t *target) log(level slog.Level, message string, m *message, err error) {
	t.mu.Lock()
	url := t.config.URL.String()
	t.mu.Unlock()
	t.sender.log.Log(context.Background(), level, message, "target", t.name, "url", url, "type", m.event.Type, "id", m.id, "error", err.Error())
}

// posted is how a try ended. Its error shows nothing of the URL.
type posted struct {
	err   error
	final bool
	after time.Duration // what the receiver asked for
}

// post tries once.
func (t *target) post(m *message) (p posted) {
	defer func() {
		if v := recover(); v != nil { // a defect must not end the process: nobody else is on this goroutine to catch it
			p = posted{err: fmt.Errorf("panic: %v", v), final: true}
		}
	}()
	t.mu.Lock()
	config, transport := t.config, t.transport
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.sender.ctx, config.Timeout.D())
	defer cancel()
	r, err := config.request(ctx, m)
	if err != nil {
		return posted{err: errors.New("no request can be made for the target"), final: true}
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return posted{err: reason(err), final: errors.As(err, new(*exchange.Refusal))}
	}
	_ = resp.Body.Close() // what it says is of no interest
	if resp.StatusCode/100 == 2 {
		return posted{}
	}
	p.err = errors.New("the receiver answered " + strconv.Itoa(resp.StatusCode))
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
	default:
		p.final = resp.StatusCode < 500
	}
	p.after, _ = quota.RetryAfter(resp.Header, time.Now(), "s")
	return p
}

// request is one try of a message.
func (c *Target) request(ctx context.Context, m *message) (*http.Request, error) {
	body := m.event.body(c.Format)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL.text.Reveal(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "httpowerd")
	if c.Secret.IsZero() {
		return r, nil
	}
	key, err := signingKey(c.Secret)
	if err != nil {
		return nil, err
	}
	timestamp, signature := sign(key, m.id, time.Now(), body)
	r.Header.Set("Webhook-Id", m.id)
	r.Header.Set("Webhook-Timestamp", timestamp)
	r.Header.Set("Webhook-Signature", signature)
	return r, nil
}

// reason is an error of the transport without what it may quote.
func reason(err error) error {
	var refusal *exchange.Refusal
	var failure *exchange.Failure
	switch {
	case errors.As(err, &refusal):
		return fmt.Errorf("%s: %s", refusal.Code, refusal.Detail)
	case errors.As(err, &failure):
		return fmt.Errorf("%s: %s", failure.Code, failure.Detail)
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("the receiver did not answer in time")
	case errors.Is(err, context.Canceled):
		return errors.New("there was no more time")
	}
	return errors.New("the receiver could not be reached, or broke off")
}
