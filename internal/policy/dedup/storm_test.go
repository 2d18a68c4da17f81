package dedup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
)

// TestPromotedFollowerLeaves: who is to lead and has left hands that on; an answer that comes for somebody who left is dropped.
func TestPromotedFollowerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		g, s := r.group(), r.chain.(*stage)
		k := &want{url: &url.URL{}}
		f, _, _ := g.join(k)
		_, first, _ := g.join(k)
		_, second, _ := g.join(k)
		f.pass() // the leader has failed
		gone, leave := context.WithCancel(t.Context())
		leave()
		var v verdict
		if err := s.goneBy(gone, f, first, &v); !errors.Is(err, context.Canceled) || !v.lead {
			t.Errorf("%v, %+v", err, v)
		}
		select {
		case v := <-second.told:
			if !v.lead || r.flights() != 1 {
				t.Errorf("%+v, %d flights", v, r.flights())
			}
		default:
			t.Error("nobody leads")
		}
		f.pass() // and the second leaves too
		if r.flights() != 0 {
			t.Error("an entry without anybody is left")
		}

		f, _, _ = g.join(k)
		_, late, _ := g.join(k)
		dropped := false
		f.shard.mu.Lock()
		f.answered(&answer{free: func() { dropped = true }}, false)
		f.shard.mu.Unlock()
		if err := s.goneBy(gone, f, late, &v); !errors.Is(err, context.Canceled) || !dropped {
			t.Errorf("%v, dropped: %t", err, dropped)
		}
	})
}

// TestAnswerBeatsTheClock: what has been told when the wait is over counts.
func TestAnswerBeatsTheClock(t *testing.T) {
	r := newRig(t, nil)
	k := &want{url: &url.URL{}}
	f, _, _ := r.group().join(k)
	_, w, _ := r.group().join(k)
	f.pass()
	var v verdict
	if err := r.chain.(*stage).lateBy(f, w, &v); err != nil || !v.lead {
		t.Errorf("%v, %+v", err, v)
	}
	f.pass()
}

func TestRefusingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		g := r.group()
		for i := range 2 * maxRefusing {
			if i == maxRefusing {
				time.Sleep(refusing)
			}
			k := want{hash: uint64(i) * shards}
			f := &flight{group: g, shard: g.of(&k), want: k}
			f.shard.mu.Lock()
			f.refuse()
			f.shard.mu.Unlock()
		}
		if n := len(g.shard[0].refusing); n > maxRefusing/shards || n == 0 {
			t.Errorf("%d keys are remembered", n)
		}
	})
}

// TestStorm: clients that come and leave as they like, an upstream that answers, breaks off, refuses, panics and streams as it likes. Whoever stays
// gets a whole answer or an error, and nothing is left behind.
func TestStorm(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(c *Config) {
					writes(c)
					c.Wait, c.MaxBody = seconds(3), 50_000
					if seed%2 == 1 {
						c.Linger = seconds(1)
					}
				})
				if seed%3 == 0 {
					r.room.memory.limit = 200_000
				}
				r.next = func(req *http.Request) (*http.Response, error) { return r.whim(req) }
				random := rand.New(rand.NewPCG(seed, 1))
				var all sync.WaitGroup
				for range 300 {
					time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
					kind, patience := random.IntN(6), time.Duration(random.IntN(8000))*time.Millisecond
					all.Go(func() { r.client(kind, patience) })
				}
				all.Wait()
				time.Sleep(time.Hour) // what goes on without its clients ends too
				if n := r.flights(); n != 0 {
					t.Errorf("%d entries are left", n)
				}
				for i := range r.group().shard {
					s := &r.group().shard[i]
					s.mu.Lock()
					if n := len(s.lingering); n != 0 {
						t.Errorf("%d answers linger", n)
					}
					s.mu.Unlock()
				}
			})
		})
	}
}

// whim is an upstream that does anything.
func (r *rig) whim(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	select {
	case <-time.After(time.Duration(rand.IntN(1500)) * time.Millisecond):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	size := 1 + rand.IntN(30)
	switch rand.IntN(10) {
	case 0:
		return nil, &exchange.Failure{Code: exchange.UpstreamReset, Sent: true}
	case 1:
		return nil, exchange.Refuse(exchange.BreakerOpen, "")
	case 2:
		panic("a defect")
	case 3:
		return r.answer(200, "x", "Cache-Control", "no-store"), nil
	case 4:
		size = 100 // more than is shared
	case 5:
		return &http.Response{StatusCode: 204, Header: http.Header{}, Body: http.NoBody}, nil
	}
	in, out := io.Pipe()
	breaks := rand.IntN(6) == 0
	pause := time.Duration(rand.IntN(200)) * time.Millisecond
	go func() {
		for range size {
			time.Sleep(pause)
			if _, err := out.Write([]byte(strings.Repeat("x", 1000))); err != nil {
				return
			}
		}
		if breaks {
			_ = out.CloseWithError(io.ErrUnexpectedEOF)
			return
		}
		_, _ = out.Write([]byte("."))
		_ = out.Close()
	}()
	return r.stream(200, until(ctx, in)), nil
}

// client asks, and leaves when its patience is over.
func (r *rig) client(kind int, patience time.Duration) {
	defer func() { _ = recover() }() // as the front does
	ctx, leave := context.WithTimeoutCause(r.Context(), time.Minute, errLate)
	defer leave()
	if kind%2 == 0 {
		time.AfterFunc(patience, leave)
	}
	req, _ := ask(ctx, "GET", "")
	if kind > 3 {
		req, _ = ask(ctx, "POST", "b", "Idempotency-Key", fmt.Sprint(rand.IntN(10)))
	}
	resp, err := r.chain.RoundTrip(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if kind == 3 {
		time.Sleep(patience) // it does not read
	}
	b, err := io.ReadAll(resp.Body)
	if err == nil && len(b) > 1 && (b[len(b)-1] != '.' || len(b)%1000 != 1) {
		r.Errorf("an answer of %d bytes passes for a whole one", len(b))
	}
}
