package memory

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// perSecond is a bucket of one token that comes back once a second.
var perSecond = Rate{Requests: 1, Per: time.Second, Burst: 1}

// journal notes who got a turn and when.
type journal struct {
	mu    sync.Mutex
	start time.Time
	turns []turn
}

type turn struct {
	who int
	at  time.Duration
}

func (j *journal) add(who int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.turns = append(j.turns, turn{who, time.Since(j.start)})
}

func (j *journal) want(t *testing.T, turns ...turn) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.turns, turns) {
		t.Errorf("turns: %v; want %v", j.turns, turns)
	}
}

// crowd sends n requests to the limiter, one after the other.
func (j *journal) crowd(l *Limiter, n int, b Bounds) {
	j.start = time.Now()
	for i := range n {
		go func() {
			if _, err := l.Take(context.Background(), 1, b); err == nil {
				j.add(i)
			}
		}()
		synctest.Wait()
	}
}

func TestLimiterKeepsOrderAndRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		j.crowd(NewLimiter(perSecond, 0), 4, Bounds{Wait: time.Minute, Queue: 9})
		time.Sleep(time.Minute)
		j.want(t, turn{0, 0}, turn{1, time.Second}, turn{2, 2 * time.Second}, turn{3, 3 * time.Second})
	})
}

func TestLimiterBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		j.crowd(NewLimiter(Rate{Requests: 10, Per: time.Second, Burst: 3}, 0), 5, Bounds{Wait: time.Minute, Queue: 9})
		time.Sleep(time.Second)
		j.want(t, turn{0, 0}, turn{1, 0}, turn{2, 0}, turn{3, 100 * time.Millisecond}, turn{4, 200 * time.Millisecond})
	})
}

func TestLimiterRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(perSecond, 0)
		start := time.Now()
		take := func(ctx context.Context, b Bounds) *Refused {
			t.Helper()
			_, err := l.Take(ctx, 1, b)
			var refused *Refused
			if err != nil && !errors.As(err, &refused) {
				t.Fatalf("%v", err)
			}
			return refused
		}
		ctx := context.Background()
		if r := take(ctx, Bounds{}); r != nil {
			t.Fatalf("a full bucket refused: %v", r)
		}
		if r := take(ctx, Bounds{Wait: 900 * time.Millisecond, Queue: 9}); r == nil || r.Full || r.After != time.Second {
			t.Errorf("a wait of 1s within 900ms: %+v", r)
		}
		if r := take(ctx, Bounds{Wait: time.Minute}); r == nil || !r.Full || r.After != time.Second {
			t.Errorf("a queue of none: %+v", r)
		}
		soon, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		if r := take(soon, Bounds{Wait: time.Minute, Queue: 9}); r == nil || r.Full || r.After != time.Second {
			t.Errorf("a wait of 1s before a deadline in 500ms: %+v", r)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("refusing took %v", d)
		}
	})
}

func TestLimiterCancelGivesThePlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(perSecond, 0)
		var j journal
		b := Bounds{Wait: time.Minute, Queue: 9}
		j.crowd(l, 2, b)
		ctx, cancel := context.WithCancelCause(t.Context())
		left := errors.New("left")
		go func() {
			waited, err := l.Take(ctx, 1, b)
			if !errors.Is(err, left) || waited != 500*time.Millisecond {
				t.Errorf("who left: %v after %v", err, waited)
			}
		}()
		synctest.Wait()
		go func() {
			if _, err := l.Take(t.Context(), 1, b); err == nil {
				j.add(3)
			}
		}()
		synctest.Wait()
		time.Sleep(500 * time.Millisecond)
		cancel(left)
		time.Sleep(time.Minute)
		j.want(t, turn{0, 0}, turn{1, time.Second}, turn{3, 2 * time.Second})
	})
}

func TestLimiterCancelAtTheTurnLosesNoToken(t *testing.T) {
	for range 50 { // which of the two a request sees first is chance
		synctest.Test(t, func(t *testing.T) {
			l := NewLimiter(perSecond, 0)
			b := Bounds{Wait: time.Minute, Queue: 9}
			_, _ = l.Take(t.Context(), 1, b)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := l.Take(ctx, 1, b)
				done <- err
			}()
			synctest.Wait()
			time.AfterFunc(time.Second, cancel)
			time.Sleep(time.Second)
			synctest.Wait()
			want := 0.0
			if <-done != nil {
				want = 1
			}
			if s := l.Status(); s.Tokens != want || s.Waiting != 0 {
				t.Errorf("%+v; want %v tokens and nobody waiting", s, want)
			}
		})
	}
}

func TestLimiterReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(perSecond, 0)
		var j journal
		j.crowd(l, 2, Bounds{Wait: time.Minute, Queue: 9})
		l.Charge(-1)
		synctest.Wait()
		j.want(t, turn{0, 0}, turn{1, 0})
		l.Charge(-1)
		l.Charge(-1)
		if tokens := l.Status().Tokens; tokens > 1 {
			t.Errorf("a bucket of one holds %v tokens", tokens)
		}
	})
}

func TestSetRateReachesThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Rate{Requests: 1, Per: time.Hour, Burst: 1}, 0)
		var j journal
		j.crowd(l, 4, Bounds{Wait: 24 * time.Hour, Queue: 9})
		time.Sleep(time.Minute)
		l.SetRate(Rate{Requests: 1, Per: time.Second, Burst: 1})
		time.Sleep(time.Minute)
		j.mu.Lock()
		defer j.mu.Unlock()
		if len(j.turns) != 4 || j.turns[3].at > 63*time.Second {
			t.Errorf("a raised rate let go %v", j.turns)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(perSecond, 0)
		var mu sync.Mutex
		var refusals []time.Duration
		b := Bounds{Wait: 10 * time.Second, Queue: 9}
		for range 4 {
			go func() {
				start := time.Now()
				_, err := l.Take(t.Context(), 1, b)
				var refused *Refused
				if errors.As(err, &refused) {
					mu.Lock()
					refusals = append(refusals, time.Since(start), refused.After)
					mu.Unlock()
				}
			}()
			synctest.Wait()
		}
		time.Sleep(100 * time.Millisecond)
		l.SetRate(Rate{Requests: 1, Per: time.Minute, Burst: 1})
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(refusals) != 6 || refusals[0] != 100*time.Millisecond || refusals[1] < 30*time.Second {
			t.Errorf("a lowered rate refused %v; want three at once, after 100ms", refusals)
		}
	})
}

func TestLoweredBurstStrandsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Rate{Requests: 10, Per: time.Second, Burst: 10}, 0)
		_, _ = l.Take(t.Context(), 10, Bounds{})
		done := make(chan error, 1)
		go func() {
			_, err := l.Take(t.Context(), 8, Bounds{Wait: time.Minute, Queue: 1})
			done <- err
		}()
		synctest.Wait()
		l.SetRate(Rate{Requests: 10, Per: time.Second, Burst: 2})
		time.Sleep(time.Second)
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("a request waits for more tokens than the bucket can hold")
		}
	})
}

func TestPretend(t *testing.T) {
	type want struct {
		wait time.Duration
		ok   bool
	}
	for name, c := range map[string]struct {
		b    Bounds
		want []want
	}{
		"the wait is bounded":  {Bounds{Wait: 2 * time.Second, Queue: 9}, []want{{0, true}, {time.Second, true}, {2 * time.Second, true}, {3 * time.Second, false}, {3 * time.Second, false}}},
		"the queue is bounded": {Bounds{Wait: time.Minute, Queue: 1}, []want{{0, true}, {time.Second, true}, {2 * time.Second, false}, {2 * time.Second, false}}},
		"nobody may wait":      {Bounds{Wait: time.Minute}, []want{{0, true}, {time.Second, false}, {time.Second, false}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimiter(perSecond, 0)
			for i, want := range c.want {
				if wait, ok := l.Pretend(1, c.b); wait != want.wait || ok != want.ok {
					t.Errorf("%s: request %d: %v, %v; want %v, %v", name, i, wait, ok, want.wait, want.ok)
				}
			}
			time.Sleep(time.Minute)
			if wait, ok := l.Pretend(1, c.b); wait != 0 || !ok {
				t.Errorf("%s: after a minute: %v, %v", name, wait, ok)
			}
		})
	}
}

// A request for next to nothing finds a full queue full, however small its part is.
func TestPretendOfNextToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(perSecond, 0)
		l.Pretend(1, Bounds{Wait: time.Hour, Queue: 9})
		l.Pretend(1, Bounds{Wait: time.Hour, Queue: 9})
		for _, n := range []float64{1e-6, 1e-15, 1e-18, 1e-300} {
			if wait, ok := l.Pretend(n, Bounds{Wait: time.Hour, Queue: 5}); ok {
				t.Errorf("%g: waits for %v", n, wait)
			}
		}
	})
}

func TestSemaphore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSemaphore(2)
		j := journal{start: time.Now()}
		for i := range 6 {
			go func() {
				_, err := s.Acquire(t.Context(), Bounds{Wait: 1500 * time.Millisecond, Queue: 3})
				var refused *Refused
				if errors.As(err, &refused) {
					if refused.Full {
						i += 100
					} else {
						i += 200
					}
					j.add(i)
					return
				}
				j.add(i)
				time.Sleep(time.Second)
				s.Release()
			}()
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		second := time.Second
		j.want(t, turn{0, 0}, turn{1, time.Millisecond}, turn{105, 5 * time.Millisecond}, turn{2, second}, turn{3, second + time.Millisecond},
			turn{204, 1504 * time.Millisecond})
		if held, _, waiting := s.Held(); held != 0 || waiting != 0 {
			t.Errorf("%d held, %d waiting at the end", held, waiting)
		}
	})
}

func TestSemaphoreCancelAndMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSemaphore(1)
		b := Bounds{Wait: time.Minute, Queue: 9}
		_, _ = s.Acquire(t.Context(), b)
		ctx, cancel := context.WithCancel(t.Context())
		var got journal
		got.start = time.Now()
		wait := func(ctx context.Context, who int) {
			go func() {
				if _, err := s.Acquire(ctx, b); err == nil {
					got.add(who)
				}
			}()
			synctest.Wait()
		}
		wait(ctx, 1)
		wait(t.Context(), 2)
		wait(t.Context(), 3)
		cancel()
		synctest.Wait()
		time.Sleep(time.Second)
		s.SetMax(2)
		synctest.Wait()
		s.SetMax(1)
		s.Release()
		s.Release()
		synctest.Wait()
		got.want(t, turn{2, time.Second}, turn{3, time.Second})
		if s.Enter() {
			t.Error("a place was free beyond max")
		}
	})
}

func TestSemaphoreAfterItsHolders(t *testing.T) {
	s := NewSemaphore(3)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			if _, err := s.Acquire(ctx, Bounds{Wait: time.Second, Queue: 1000}); err == nil {
				s.Release()
			}
		})
	}
	wg.Wait()
	if held, _, waiting := s.Held(); held != 0 || waiting != 0 {
		t.Errorf("%d held, %d waiting at the end", held, waiting)
	}
}

func BenchmarkLimiterTake(b *testing.B) {
	l := NewLimiter(Rate{Requests: 1_000_000_000, Per: time.Second, Burst: 1_000_000_000}, 0)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = l.Take(context.Background(), 1, Bounds{Wait: time.Second, Queue: 100})
	}
}

func BenchmarkSemaphore(b *testing.B) {
	s := NewSemaphore(10)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.Acquire(context.Background(), Bounds{})
		s.Release()
	}
}
