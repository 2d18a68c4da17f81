package audit

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
)

func TestSubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s subscribers
		want(t, "any", s.any(), false)
		ctx, cancel := context.WithCancel(t.Context())
		one, two := s.add(ctx), s.add(t.Context())
		line := []byte("a")
		s.send(line)
		line[0] = 'x' // the writer goes on with its buffer
		want(t, "one", string(<-one), "a")
		want(t, "two", string(<-two), "a")
		cancel()
		synctest.Wait()
		if _, open := <-one; open {
			t.Error("still open after its context ended")
		}
		s.send([]byte("b"))
		want(t, "two", string(<-two), "b")
		s.close()
		if _, open := <-two; open {
			t.Error("still open after the close")
		}
		if _, open := <-s.add(t.Context()); open {
			t.Error("open after the close")
		}
		want(t, "any", s.any(), false)
	})
}

// TestSlowSubscriber: it misses records, and nobody waits for it.
func TestSlowSubscriber(t *testing.T) {
	var s subscribers
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	slow := s.add(ctx)
	for i := range backlog + 10 {
		s.send(fmt.Append(nil, i))
	}
	for i := range backlog {
		want(t, "line", string(<-slow), fmt.Sprint(i))
	}
	s.send([]byte("again"))
	want(t, "line", string(<-slow), "again")
	s.close()
}
