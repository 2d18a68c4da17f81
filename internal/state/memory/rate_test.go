package memory

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// admissions notes when n tokens were let through.
type admissions struct {
	mu sync.Mutex
	at []time.Duration
	n  []float64
}

func (a *admissions) add(at time.Duration, n float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at, a.n = append(a.at, at), append(a.n, n)
}

// within checks every span between two admissions: never more than burst + rate × t.
func (a *admissions) within(t *testing.T, r Rate) {
	t.Helper()
	for i := range a.at {
		sum := 0.0
		for j := i; j < len(a.at); j++ {
			sum += a.n[j]
			if most := float64(r.Burst) + (a.at[j]-a.at[i]).Seconds()*r.perSecond() + 1e-3; sum > most {
				t.Fatalf("%+v: %v tokens in %v", r, sum, a.at[j]-a.at[i])
			}
		}
	}
}

// clients keep a limiter busy for d, each sending its next request when the one before it went.
func clients(l *Limiter, n int, d time.Duration, seen *admissions) {
	begin := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for {
				if _, err := l.Take(ctx, 1, Bounds{Wait: time.Hour, Queue: 1000}); err != nil {
					return
				}
				seen.add(time.Since(begin), 1)
			}
		})
	}
	time.Sleep(d)
	cancel()
	wg.Wait()
}

// The rate is kept, with spread wake-ups too: never more than burst + rate × t, and after the burst within 1 % of the rate.
func TestRateIsKept(t *testing.T) {
	for _, r := range []Rate{
		{Requests: 10, Per: time.Second, Burst: 1}, {Requests: 10, Per: time.Second, Burst: 2}, {Requests: 100, Per: time.Minute, Burst: 7},
		{Requests: 50, Per: time.Second, Burst: 50}, {Requests: 1, Per: 7 * time.Second, Burst: 1},
	} {
		for _, n := range []int{1, 2, 8} {
			synctest.Test(t, func(t *testing.T) {
				var seen admissions
				d := time.Duration(600 / r.perSecond() * float64(time.Second))
				clients(NewLimiter(r, Spread), n, d, &seen)
				seen.within(t, r)
				got, want := float64(len(seen.at)-r.Burst), 600.0
				if got < want*0.99 || got > want*1.01 {
					t.Errorf("%+v, %d clients: %v after the burst; want %v", r, n, got, want)
				}
			})
		}
	}
}

// Whatever comes, the limit holds, and nobody who waits goes too early, or much too late.
func TestSpreadKeepsTheLimit(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			r := Rate{Requests: 1 + random.IntN(50), Per: time.Duration(1+random.IntN(3000)) * time.Millisecond, Burst: 1 + random.IntN(9)}
			l, begin := NewLimiter(r, Spread), time.Now()
			var seen admissions
			var wg sync.WaitGroup
			for range 150 {
				time.Sleep(time.Duration(random.Int64N(int64(2 * float64(time.Second) / r.perSecond()))))
				n, wait := 1+random.IntN(min(3, r.Burst)), time.Duration(random.Int64N(int64(5*time.Second)))
				wg.Go(func() {
					waited, err := l.Take(t.Context(), float64(n), Bounds{Wait: wait, Queue: 20})
					if err == nil {
						seen.add(time.Since(begin), float64(n))
						if waited > wait+time.Microsecond {
							t.Errorf("seed %d: waited %v of %v", seed, waited, wait)
						}
					}
				})
			}
			wg.Wait()
			seen.within(t, r)
		})
	}
}

// What costs more than there is leaves the bucket in debt, and those who come next pay; a debt has an end.
func TestDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Rate{Requests: 10, Per: time.Second, Burst: 10}, 0)
		b := Bounds{Wait: time.Minute, Queue: 9}
		take := func(n float64) time.Duration {
			waited, err := l.Take(t.Context(), n, b)
			if err != nil {
				t.Error(err)
			}
			return waited
		}
		if got := take(30); got != 0 {
			t.Errorf("a full bucket kept a dear request for %v", got)
		}
		if got := take(1); got != 2100*time.Millisecond {
			t.Errorf("after 30 of 10 tokens: %v", got)
		}
		l.Charge(5)
		if got := take(1); got != 600*time.Millisecond {
			t.Errorf("after 5 more: %v", got)
		}
		l.Charge(1e300)
		if got := l.Status().Tokens; got != -36000 {
			t.Errorf("the most that is owed is an hour's: %v", got)
		}
		l.Charge(-1e300)
		if got := l.Status().Tokens; got != 10 {
			t.Errorf("given back: %v", got)
		}
		if got := take(0); got != 0 || l.Status().Tokens != 10 {
			t.Errorf("nothing costs nothing: %v", got)
		}
	})
}

// A debt refuses those at once whose turn would come too late now.
func TestDebtReachesThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(perSecond, 0)
		var j journal
		j.crowd(l, 3, Bounds{Wait: 5 * time.Second, Queue: 9})
		l.Charge(2)
		time.Sleep(time.Minute)
		j.want(t, turn{0, 0}, turn{1, 3 * time.Second}, turn{2, 4 * time.Second})
		j = journal{}
		l = NewLimiter(perSecond, 0)
		j.crowd(l, 3, Bounds{Wait: 5 * time.Second, Queue: 9})
		l.Charge(4)
		synctest.Wait()
		if got := l.Status().Waiting; got != 1 {
			t.Errorf("%d wait still; the last would have 6s to wait", got)
		}
		time.Sleep(time.Minute)
		j.want(t, turn{0, 0}, turn{1, 5 * time.Second})
	})
}

// sequence is who went in which order.
type sequence struct {
	mu  sync.Mutex
	who []string
}

func (s *sequence) join(l *Limiter, tenant, who string, b Bounds) {
	b.Tenant = tenant
	go func() {
		_, err := l.Take(context.Background(), 1, b)
		s.mu.Lock()
		defer s.mu.Unlock()
		var refused *Refused
		switch {
		case errors.As(err, &refused) && refused.Full:
			who += "!"
		case err != nil:
			who += "?"
		}
		s.who = append(s.who, who)
	}()
	synctest.Wait()
}

func (s *sequence) want(t *testing.T, want string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := strings.Join(s.who, " "); got != want {
		t.Errorf("%s; want %s", got, want)
	}
}

func TestTenantsTakeTurns(t *testing.T) {
	b := Bounds{Wait: time.Minute, Queue: 100}
	synctest.Test(t, func(t *testing.T) {
		var s sequence
		l := NewLimiter(perSecond, 0)
		s.join(l, "a", "a0", b)
		for i := 1; i < 5; i++ {
			s.join(l, "a", "a"+strconv.Itoa(i), b)
		}
		s.join(l, "b", "b1", b)
		s.join(l, "c", "c1", b)
		s.join(l, "b", "b2", b)
		time.Sleep(time.Minute)
		s.want(t, "a0 a1 b1 c1 a2 b2 a3 a4")
		if got := l.Status().Waiting; got != 0 {
			t.Errorf("%d wait", got)
		}
	})
	// A newcomer of another tenant is told a wait by turns, not by the length of the queue; a flood does not keep it out of a full one.
	synctest.Test(t, func(t *testing.T) {
		var s sequence
		l := NewLimiter(perSecond, 0)
		b := Bounds{Wait: 10 * time.Second, Queue: 4}
		for i := range 7 {
			s.join(l, "a", "a"+strconv.Itoa(i), b)
		}
		s.join(l, "b", "b1", Bounds{Wait: 3 * time.Second, Queue: 4})
		s.join(l, "b", "b2", b)
		s.join(l, "b", "b3", b)
		time.Sleep(time.Minute)
		s.want(t, "a0 a5! a6! a4! a3! b3! a1 b1 a2 b2")
	})
	// Where others come in between, nobody waits longer than it may.
	synctest.Test(t, func(t *testing.T) {
		var s sequence
		l := NewLimiter(perSecond, 0)
		s.join(l, "a", "a0", b)
		s.join(l, "a", "a1", b)
		s.join(l, "a", "a2", Bounds{Wait: 2500 * time.Millisecond, Queue: 100})
		for _, tenant := range []string{"b", "c", "d"} {
			s.join(l, tenant, tenant, b)
		}
		time.Sleep(time.Minute)
		s.want(t, "a0 a1 b a2? c d")
	})
}

// A random crowd of tenants: everybody's fate is told, in the order of its tenant, and the limit holds.
func TestTenantsInACrowd(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 5))
			r := Rate{Requests: 20, Per: time.Second, Burst: 3}
			l, begin := NewLimiter(r, Spread), time.Now()
			var seen admissions
			var wg sync.WaitGroup
			var mu sync.Mutex
			last := map[string]int{}
			for i := range 300 {
				time.Sleep(time.Duration(random.Int64N(int64(40 * time.Millisecond))))
				tenant := string(rune('a' + random.IntN(5)))
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(4) == 0 {
					time.AfterFunc(time.Duration(random.Int64N(int64(time.Second))), cancel)
				}
				wg.Go(func() {
					defer cancel()
					if _, err := l.Take(ctx, 1, Bounds{Wait: 2 * time.Second, Queue: 15, Tenant: tenant}); err != nil {
						return
					}
					seen.add(time.Since(begin), 1)
					mu.Lock()
					defer mu.Unlock()
					if last[tenant] > i {
						t.Errorf("seed %d: request %d went after %d of the same tenant", seed, i, last[tenant])
					}
					last[tenant] = i
				})
				synctest.Wait()
			}
			wg.Wait()
			seen.within(t, r)
			if s := l.Status(); s.Waiting != 0 || l.queue.cost != 0 || len(l.queue.lanes) != 0 {
				t.Errorf("seed %d: %+v, %+v are left", seed, s, l.queue)
			}
		})
	}
}

// TestTenThousandWait: they cost less than 50 MiB, their goroutines among them, and go in order.
func TestTenThousandWait(t *testing.T) {
	const many = 10_000
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Rate{Requests: 1000, Per: time.Second, Burst: 1000}, Spread)
		_, _ = l.Take(t.Context(), 1000, Bounds{})
		var mu sync.Mutex
		order := make([]int, 0, many)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range many {
			go func() {
				if _, err := l.Take(t.Context(), 1, Bounds{Wait: time.Minute, Queue: many}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
			}()
			synctest.Wait()
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if waiting := l.Status().Waiting; waiting != many {
			t.Fatalf("%d wait", waiting)
		}
		used := after.HeapAlloc - before.HeapAlloc + after.StackInuse - before.StackInuse
		t.Logf("%d waiters take %.1f MiB", many, float64(used)/(1<<20))
		if used > 50<<20 {
			t.Errorf("they take %d MiB", used>>20)
		}
		begin := time.Now()
		for l.Status().Waiting > 0 {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		if d := time.Since(begin); d < 9900*time.Millisecond || d > 10100*time.Millisecond {
			t.Errorf("they went within %v", d)
		}
		mu.Lock()
		defer mu.Unlock()
		early := 0
		for i, who := range order {
			early = max(early, who-i, i-who)
		}
		if len(order) != many || early > 20 { // those of one moment may come to note it in any order
			t.Errorf("%d went, one of them %d places off", len(order), early)
		}
	})
}
