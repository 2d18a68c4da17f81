package dedup

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
)

// TestDrain: a daemon that stops waits for what is read on for a client's repeat, and not for longer than it may; what it cuts is known to the store as a write that was sent.
func TestDrain(t *testing.T) {
	for name, c := range map[string]struct {
		head, body, drain time.Duration // until the head, and from there to the end; how long the drain may take
		took              time.Duration
		repeat            string // what becomes of it
	}{
		"in the body":            {time.Second, 3 * time.Second, 10 * time.Second, 3 * time.Second, roleReplayed},
		"cut in the body":        {time.Second, time.Hour, 2 * time.Second, 2 * time.Second, roleLeader},
		"cut before the head":    {time.Hour, time.Second, 2 * time.Second, 2 * time.Second, roleLeader},
		"no time from the begin": {time.Hour, time.Second, 0, 0, roleLeader},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, writes)
				r.next = func(req *http.Request) (*http.Response, error) {
					if r.sent.Load() > 1 {
						return r.answer(200, "second"), nil
					}
					index := exchange.From(req.Context()).BeginAttempt(time.Now())
					end := func(status int, code exchange.Code) {
						exchange.From(req.Context()).EndAttempt(index, time.Now(), status, code)
					}
					select {
					case <-time.After(c.head):
					case <-req.Context().Done():
						end(0, code(context.Cause(req.Context())))
						return nil, context.Cause(req.Context())
					}
					end(200, "")
					in, out := io.Pipe()
					go func() {
						select {
						case <-time.After(c.body):
							_, _ = out.Write([]byte("first"))
							_ = out.Close()
						case <-req.Context().Done():
						}
					}()
					return r.stream(200, until(req.Context(), in)), nil
				}
				client, leave := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() {
					req, _ := ask(client, "POST", "b", "Idempotency-Key", "k")
					resp, err := r.chain.RoundTrip(req)
					if err == nil {
						err = resp.Body.Close() // as the door does when writing fails
					}
					ended <- err
				}()
				time.AfterFunc(500*time.Millisecond, leave)
				time.Sleep(time.Second + time.Millisecond)

				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), c.drain)
				defer cancel()
				context.AfterFunc(ctx, r.room.Cut)
				r.room.Drain(ctx)
				if took := time.Since(begin); took < c.took-time.Millisecond || took > c.took+time.Millisecond {
					t.Errorf("it took %s; want %s", took, c.took)
				}
				if err := <-ended; c.head == time.Hour && code(err) != exchange.Draining || c.head < time.Hour && err != nil {
					t.Errorf("the write ended with %v", err)
				}
				if got := r.post("other", "k"); !is422(got.err) {
					t.Errorf("another body: %+v", got)
				}
				if got := r.post("b", "k"); got.dedup != c.repeat {
					t.Errorf("the repeat: %+v; want %s", got, c.repeat)
				}
			})
		})
	}
}
