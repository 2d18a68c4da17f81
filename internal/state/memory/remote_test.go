package memory

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// store is a bucket that several limiters share, as far away as a round trip.
type store struct {
	mu     sync.Mutex
	bucket bucket
	rtt    time.Duration
	broken error
	hangs  bool
	answer func(want int) (int, time.Duration) // instead
	asked  int
}

func newStore(r Rate, rtt time.Duration) *store {
	return &store{bucket: newBucket(r, time.Now()), rtt: rtt}
}

func (s *store) ask(ctx context.Context, _ Rate, want int) (int, time.Duration, error) {
	select {
	case <-time.After(s.rtt):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.hangs {
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return 0, 0, ctx.Err()
	}
	if s.broken != nil {
		return 0, 0, s.broken
	}
	if s.answer != nil {
		n, wait := s.answer(want)
		return n, wait, nil
	}
	s.bucket.fill(time.Now())
	granted := min(want, int(s.bucket.tokens+hair))
	s.bucket.take(float64(granted))
	wait := time.Duration(0)
	if granted < want {
		wait = s.bucket.wait(1)
	}
	return granted, wait, nil
}

// questions is how many there were.
func (s *store) questions() (n int) {
	s.change(func() { n = s.asked })
	return n
}

// busy tells whether somebody asks on behalf of others, or whether anybody is there.
func (l *Limiter) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remote.running || l.remote.probing
}

func (s *store) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// outages notes what limiters said of the store.
type outages struct {
	mu  sync.Mutex
	all []error
}

func (o *outages) changed(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, err)
}

func (o *outages) count() (failed, back int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, err := range o.all {
		if err != nil {
			failed++
		} else {
			back++
		}
	}
	return failed, back
}

func shared(r Rate, s *store, edit func(*Remote)) (*Limiter, *outages) {
	o := &outages{}
	remote := Remote{Ask: s.ask, Timeout: 500 * time.Millisecond, Pause: 5 * time.Second, Share: 2, Changed: o.changed}
	if edit != nil {
		edit(&remote)
	}
	return NewShared(r, Spread, remote), o
}

// Two daemons with one store keep the rate together, at 1, 2 and 8 clients each, and one question serves many.
func TestSharedRateIsKept(t *testing.T) {
	for _, r := range []Rate{{Requests: 50, Per: time.Second, Burst: 50}, {Requests: 100, Per: time.Second, Burst: 5}, {Requests: 600, Per: time.Minute, Burst: 2}} {
		for _, n := range []int{1, 2, 8} {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(r, 500*time.Microsecond)
				a, _ := shared(r, s, nil)
				b, _ := shared(r, s, nil)
				var seen admissions
				d := time.Duration(1000 / r.perSecond() * float64(time.Second))
				var wg sync.WaitGroup
				wg.Go(func() { clients(a, n, d, &seen) })
				wg.Go(func() { clients(b, n, d, &seen) })
				wg.Wait()
				all := float64(len(seen.at))
				if most := float64(r.Burst) + 1000; all > most+1 || all < most*0.99-2 {
					t.Errorf("%+v, %d clients each: %v admitted; want %v", r, n, all, most)
				}
				if asked := s.questions(); asked > 3*len(seen.at) {
					t.Errorf("%+v, %d clients: %d questions for %v", r, n, asked, all)
				}
			})
		}
	}
}

// One round trip serves all who came meanwhile, in order.
func TestSharedIsPipelined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := Rate{Requests: 100, Per: time.Second, Burst: 100}
		s := newStore(r, 10*time.Millisecond)
		l, _ := shared(r, s, nil)
		var j journal
		j.start = time.Now()
		for i := range 50 {
			go func() {
				if waited, err := l.Take(t.Context(), 1, Bounds{}); err == nil && waited == 0 {
					j.add(i)
				}
			}()
			synctest.Wait()
		}
		time.Sleep(time.Second)
		j.mu.Lock()
		defer j.mu.Unlock()
		if asked := s.questions(); asked > 2 || len(j.turns) != 50 {
			t.Errorf("%d questions, %d of 50 went", asked, len(j.turns))
		}
	})
}

// Bounds hold: a request that may not wait is refused as soon as the answer says so, a full queue refuses, a deadline too.
func TestSharedBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(perSecond, 10*time.Millisecond)
		l, _ := shared(perSecond, s, func(r *Remote) {})
		take := func(ctx context.Context, b Bounds) (time.Duration, *Refused, error) {
			begin := time.Now()
			_, err := l.Take(ctx, 1, b)
			var refused *Refused
			errors.As(err, &refused)
			return time.Since(begin), refused, err
		}
		if d, r, _ := take(t.Context(), Bounds{}); r != nil || d != 10*time.Millisecond {
			t.Errorf("the first: %v after %v", r, d)
		}
		if d, r, _ := take(t.Context(), Bounds{Queue: 9}); r == nil || r.Full || d != 0 || r.After < 900*time.Millisecond {
			t.Errorf("no wait: %+v after %v", r, d)
		}
		if d, r, _ := take(t.Context(), Bounds{Wait: time.Minute}); r == nil || !r.Full || d != 0 {
			t.Errorf("no queue: %+v after %v", r, d)
		}
		if d, r, _ := take(t.Context(), Bounds{Wait: time.Minute, Queue: 1}); r != nil || d < 900*time.Millisecond || d > 1300*time.Millisecond {
			t.Errorf("one waits: %+v after %v", r, d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if d, r, _ := take(ctx, Bounds{Wait: time.Minute, Queue: 1}); r == nil || d != 0 {
			t.Errorf("a deadline before the turn: %+v after %v", r, d)
		}
		// Another daemon took what was there: who may not wait hears it with the answer.
		time.Sleep(5 * time.Second)
		s.change(func() { s.bucket.fill(time.Now()); s.bucket.put(0) })
		if d, r, _ := take(t.Context(), Bounds{Queue: 9}); r == nil || d != 10*time.Millisecond {
			t.Errorf("taken by another: %+v after %v", r, d)
		}
	})
}

// Nobody answers: the share holds, in order, for those too who wait; then the store is used again, of itself.
func TestSharedFallsBack(t *testing.T) {
	for name, breaks := range map[string]func(*store){
		"an error": func(s *store) { s.broken = errors.New("away") },
		"silence":  func(s *store) { s.hangs = true },
		"nonsense": func(s *store) { s.answer = func(want int) (int, time.Duration) { return want + 1, 0 } },
		"less":     func(s *store) { s.answer = func(int) (int, time.Duration) { return -1, 0 } },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := Rate{Requests: 20, Per: time.Second, Burst: 4}
			s := newStore(r, time.Millisecond)
			l, o := shared(r, s, nil)
			var up, down, again admissions
			clients(l, 3, 10*time.Second, &up)
			s.change(func() { breaks(s) })
			clients(l, 3, 60*time.Second, &down)
			s.change(func() { s.broken, s.hangs, s.answer = nil, false, nil })
			clients(l, 3, 20*time.Second, &again)
			if n := len(up.at); n < 198 || n > 205 {
				t.Errorf("%s: %d before it", name, n)
			}
			if n := len(down.at); n < 570 || n > 620 {
				t.Errorf("%s: %d meanwhile; the share is 600", name, n)
			}
			if n := len(again.at); n < 300 || n > 410 {
				t.Errorf("%s: %d afterwards", name, n)
			}
			failed, back := o.count()
			if failed < 5 || failed > 15 || back != 1 {
				t.Errorf("%s: failed %d times, back %d times", name, failed, back)
			}
			if st := l.Status(); st.Away || st.Waiting != 0 {
				t.Errorf("%s: %+v", name, st)
			}
		})
	}
}

func TestSharedRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(perSecond, time.Millisecond)
		s.broken = errors.New("away")
		l, _ := shared(perSecond, s, func(r *Remote) { r.Refuse = true })
		var refused *Refused
		if _, err := l.Take(t.Context(), 1, Bounds{Wait: time.Minute, Queue: 9}); !errors.As(err, &refused) || !refused.Away || refused.After <= 0 {
			t.Errorf("%+v", err)
		}
		if !l.Status().Away {
			t.Error("it is said to be there")
		}
		s.change(func() { s.broken = nil })
		time.Sleep(6 * time.Second)
		_, _ = l.Take(t.Context(), 1, Bounds{}) // finds out
		time.Sleep(time.Second)
		if _, err := l.Take(t.Context(), 1, Bounds{Wait: time.Minute, Queue: 9}); err != nil {
			t.Errorf("when it is back: %v", err)
		}
	})
}

// What was charged after the fact is paid before the next goes, and what was given back is used first.
func TestSharedDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := Rate{Requests: 10, Per: time.Second, Burst: 10}
		s := newStore(r, time.Millisecond)
		l, _ := shared(r, s, nil)
		b := Bounds{Wait: time.Minute, Queue: 9}
		_, _ = l.Take(t.Context(), 1, b)
		l.Charge(39)
		time.Sleep(10 * time.Millisecond)
		got := 0.0
		if s.change(func() { got = s.bucket.tokens }); got >= 1 {
			t.Errorf("%v tokens are left; a debt is paid at once as far as it can be", got)
		}
		begin := time.Now()
		if _, err := l.Take(t.Context(), 1, b); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d < 2900*time.Millisecond || d > 3400*time.Millisecond {
			t.Errorf("with thirty owed it took %v", d)
		}
		asked := s.questions()
		l.Charge(-1)
		if _, err := l.Take(t.Context(), 1, Bounds{}); err != nil || s.questions() != asked {
			t.Errorf("%v, asked %d times more", err, s.questions()-asked)
		}
		l.Charge(-1)
		time.Sleep(2 * time.Second)
		l.mu.Lock()
		defer l.mu.Unlock()
		if got := l.owed(); got != 0 {
			t.Errorf("%v are kept for too long", got)
		}
	})
}

// What one daemon took and does not use goes back: of an estimate that was too high, and of what was too little for a dear request.
func TestSharedGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := Rate{Requests: 1, Per: time.Hour, Burst: 100}
		s := newStore(r, time.Millisecond)
		left := func() (n int) {
			time.Sleep(2 * time.Second)
			s.change(func() { n = int(s.bucket.tokens + hair) })
			return n
		}
		a, _ := shared(r, s, nil)
		b, _ := shared(r, s, nil)
		if _, err := a.Take(t.Context(), 40, Bounds{Wait: time.Second, Queue: 1}); err != nil {
			t.Error(err)
		}
		a.Charge(-30.5)
		if n := left(); n != 90 {
			t.Errorf("%d are left after an estimate was corrected", n)
		}
		if _, err := b.Take(t.Context(), 95, Bounds{Wait: time.Second, Queue: 1}); err == nil {
			t.Error("more went than there is")
		}
		if n := left(); n != 90 {
			t.Errorf("%d are left after a request that was too dear", n)
		}
		if _, err := a.Take(t.Context(), 90, Bounds{Wait: time.Second, Queue: 1}); err != nil {
			t.Error(err)
		}
	})
}

// However dear requests are, and however many daemons there are, little of the rate is lost.
func TestSharedDearRequests(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Second, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r := Rate{Requests: 1000, Per: time.Second, Burst: 8000}
			s := newStore(r, time.Millisecond)
			const cost, span = 4000, 5 * time.Minute
			var went atomic.Int64
			var all sync.WaitGroup
			for i := range uint64(3) {
				l, _ := shared(r, s, nil)
				random := rand.New(rand.NewPCG(i, 7))
				all.Go(func() {
					for begin := time.Now(); time.Since(begin) < span; {
						time.Sleep(time.Duration(random.ExpFloat64() * float64(6*time.Second)))
						all.Go(func() {
							if _, err := l.Take(t.Context(), cost, Bounds{Wait: wait, Queue: 100}); err == nil {
								went.Add(1)
							}
						})
					}
				})
			}
			all.Wait()
			if got, most := went.Load()*cost, int64(8000+1000*span.Seconds()); got < most*8/10 || got > most+5*1000 {
				t.Errorf("waiting for up to %v: %d tokens of %d", wait, got, most)
			}
		})
	}
}

// A stricter rate that holds elsewhere, and waits beyond reason, keep nobody for ever, and are not asked about without end.
func TestSharedOddAnswers(t *testing.T) {
	for name, answer := range map[string]func(int) (int, time.Duration){
		"a wait of a year":  func(int) (int, time.Duration) { return 0, 365 * 24 * time.Hour },
		"nothing, at once":  func(int) (int, time.Duration) { return 0, 0 },
		"one, and a minute": func(int) (int, time.Duration) { return 1, time.Minute },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore(perSecond, time.Millisecond)
			s.answer = answer
			l, _ := shared(perSecond, s, nil)
			begin := time.Now()
			for range 3 {
				_, _ = l.Take(t.Context(), 1, Bounds{Wait: 20 * time.Second, Queue: 9})
			}
			if d := time.Since(begin); d > 62*time.Second || s.questions() > 70_000 {
				t.Errorf("%s: three took %v, and %d questions", name, d, s.questions())
			}
			time.Sleep(time.Hour)
			if l.busy() {
				t.Errorf("%s: somebody asks for nobody", name)
			}
		})
	}
}

// A changed rate reaches those who wait.
func TestSharedSetRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Rate{Requests: 1, Per: time.Hour, Burst: 1}
		s := newStore(slow, time.Millisecond)
		l, _ := shared(slow, s, nil)
		_, _ = l.Take(t.Context(), 1, Bounds{})
		done := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := l.Take(t.Context(), 1, Bounds{Wait: 3 * time.Hour, Queue: 9})
				done <- err
			}()
		}
		time.Sleep(time.Second)
		s.change(func() { s.bucket.set(perSecond, time.Now()) })
		if !l.SetRate(perSecond) || l.SetRate(perSecond) {
			t.Error("what changed is not told")
		}
		time.Sleep(4 * time.Second)
		if len(done) != 2 {
			t.Errorf("%d of 2 went", len(done))
		}
	})
}

// Clients come and go, the store too: nobody is forgotten, and no goroutine stays.
func TestSharedCrowd(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 9))
			r := Rate{Requests: 30, Per: time.Second, Burst: 1 + random.IntN(20)}
			s := newStore(r, time.Duration(random.IntN(20))*time.Millisecond)
			l, _ := shared(r, s, func(m *Remote) { m.Pause, m.Refuse = time.Second, seed%5 == 0 })
			var wg sync.WaitGroup
			for range 200 {
				time.Sleep(time.Duration(random.Int64N(int64(50 * time.Millisecond))))
				switch random.IntN(25) {
				case 0:
					s.change(func() { s.broken = errors.New("away") })
				case 1, 2:
					s.change(func() { s.broken, s.hangs = nil, false })
				case 3:
					s.change(func() { s.hangs = true })
				case 4:
					l.Charge(float64(random.IntN(10)) - 3)
				}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Duration(random.Int64N(int64(3*time.Second))), cancel)
				n, b := 1+random.IntN(3), Bounds{Wait: time.Duration(random.Int64N(int64(2 * time.Second))), Queue: random.IntN(9)}
				if random.IntN(2) == 0 {
					b.Tenant = string(rune('a' + random.IntN(3)))
				}
				wg.Go(func() {
					defer cancel()
					begin := time.Now()
					if _, err := l.Take(ctx, float64(n), b); err == nil && time.Since(begin) > b.Wait+time.Second {
						t.Errorf("seed %d: %v for a wait of %v", seed, time.Since(begin), b.Wait)
					}
				})
			}
			wg.Wait()
			time.Sleep(time.Minute)
			if st := l.Status(); st.Waiting != 0 || l.busy() {
				t.Errorf("seed %d: %+v, somebody asks: %v", seed, st, l.busy())
			}
		})
	}
}
