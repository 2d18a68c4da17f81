package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"httpowerd/internal/state/memory"
)

// However many ask at once, from however many daemons, burst + rate × time go: never more, and not a hundredth less.
func TestTakesExactly(t *testing.T) {
	s := startServer(t)
	const burst = 5000 // ten seconds' worth: nothing is lost while a busy machine keeps everybody from asking
	rate := memory.Rate{Requests: 500, Per: time.Second, Burst: burst}
	clients := []*Client{s.open(), s.open()}
	var admitted atomic.Int64
	ctx, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer stop()
	before := time.Now()
	if n, _, err := clients[0].Limits.Take(t.Context(), "k", rate, 1, burst); err != nil || n != burst {
		t.Fatal(n, err)
	}
	first := time.Now()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				n, wait, err := clients[i%2].Limits.Take(t.Context(), "k", rate, 1, 1+i%3)
				if err != nil {
					t.Error(err)
					return
				}
				admitted.Add(int64(n))
				if n == 0 {
					time.Sleep(min(wait, 20*time.Millisecond))
				}
			}
		})
	}
	wg.Wait()
	last := time.Now()
	n, _, err := clients[1].Limits.Take(t.Context(), "k", rate, 1, burst) // what is left
	if err != nil {
		t.Fatal(err)
	}
	total := float64(admitted.Load() + int64(n))
	most := 500 * time.Since(before).Seconds()
	least := 500 * last.Sub(first).Seconds()
	if total > most || total < 0.99*least-1 {
		t.Errorf("%v went; want from %v to %v", total, least, most)
	}
	t.Logf("%v of %.1f to %.1f", total, least, most)
}

func TestTake(t *testing.T) {
	s := startServer(t)
	c := s.open()
	slow := memory.Rate{Requests: 10, Per: time.Hour, Burst: 10}
	const next = 6 * time.Minute
	for name, k := range map[string]struct {
		rate       memory.Rate
		cost, want int
		times      int
		granted    int
		wait       time.Duration // about
	}{
		"the first":                {slow, 1, 1, 1, 1, 0},
		"all there are":            {slow, 1, 25, 1, 10, next},
		"more than are left":       {slow, 1, 7, 2, 3, next},
		"none left":                {slow, 1, 10, 2, 0, next},
		"dear ones":                {slow, 3, 5, 1, 3, 2 * next},
		"dearer than the burst":    {slow, 99, 2, 1, 1, 10 * next},
		"costs nothing":            {slow, 0, 20, 1, 10, next},
		"wants nothing":            {slow, 1, 0, 1, 1, 0},
		"gives back to a full one": {slow, 1, -5, 1, -5, 0},
		"an absurd rate":           {memory.Rate{Requests: 1e9, Per: time.Millisecond, Burst: 1e9}, 1e9, 1, 1, 1, 0},
		"the slowest":              {memory.Rate{Requests: 1, Per: 31 * 24 * time.Hour, Burst: 1}, 1, 1, 2, 0, 31 * 24 * time.Hour},
		"no rate":                  {memory.Rate{}, 1, 2, 1, 1, time.Microsecond},
		"less than a microsecond":  {memory.Rate{Requests: 1, Per: time.Nanosecond, Burst: 1}, 1, 1, 1, 1, 0},
		"a burst beyond the bound": {memory.Rate{Requests: 1, Per: time.Hour, Burst: 1 << 40}, 1, 1 << 40, 1, maxWant, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var granted int
			var wait time.Duration
			var err error
			for range k.times {
				if granted, wait, err = c.Limits.Take(t.Context(), name, k.rate, k.cost, k.want); err != nil {
					t.Fatal(err)
				}
			}
			if granted != k.granted || wait > k.wait || wait < k.wait-time.Minute {
				t.Errorf("%d granted, the next in %v; want %d and %v", granted, wait, k.granted, k.wait)
			}
		})
	}
	if keys := s.raw.Keys(t.Context(), "*").Val(); len(keys) < 10 {
		t.Errorf("keys: %v", keys)
	} else {
		for _, key := range keys {
			ttl := s.raw.PTTL(t.Context(), key).Val()
			if !strings.HasPrefix(key, "test:v1:") || strings.Contains(key, "burst") || ttl <= 0 {
				t.Errorf("%s is kept for %v", key, ttl)
			}
		}
	}
}

// What is given back can be taken by another daemon, up to the burst.
func TestGiveBack(t *testing.T) {
	s := startServer(t)
	a, b := s.open(), s.open()
	slow := memory.Rate{Requests: 1, Per: 24 * time.Hour, Burst: 10}
	for i, step := range []struct {
		c             *Client
		want, granted int
	}{{a, 8, 8}, {a, -5, -5}, {b, 9, 7}, {b, -99, -99}, {a, 99, 10}} {
		if granted, _, err := step.c.Limits.Take(t.Context(), "k", slow, 1, step.want); err != nil || granted != step.granted {
			t.Errorf("step %d: %d granted, %v; want %d", i, granted, err, step.granted)
		}
	}
}

// A charge of millions of tokens, as of bytes, goes at once where they are there, and takes what it costs.
func TestDearCharge(t *testing.T) {
	s := startServer(t)
	c := s.open()
	rate := memory.Rate{Requests: 1e8, Per: time.Hour, Burst: 1e8}
	l := memory.NewShared(rate, 0, memory.Remote{Timeout: ample, Ask: func(ctx context.Context, rate memory.Rate, want int) (int, time.Duration, error) {
		return c.Limits.Take(ctx, "k", rate, 1, want)
	}})
	for range 3 {
		if _, err := l.Take(t.Context(), 5e6, memory.Bounds{Wait: patience, Queue: 9}); err != nil {
			t.Error(err)
		}
	}
	text := s.raw.Get(t.Context(), c.bucketKey("k")).Val()
	left, _, _ := strings.Cut(text, " ")
	tokens, err := strconv.ParseFloat(left, 64)
	if came := rate.Requests / 3600 * int(patience.Seconds()); err != nil || tokens < 85e6 || tokens > 85e6+float64(came) {
		t.Errorf("the bucket is %q, %v", text, err)
	}
}

// bucketKey is where a key's bucket is.
func (c *Client) bucketKey(key string) string { return c.key("limit", c.name("limit", key)) }

func TestStricterLimitHolds(t *testing.T) {
	s := startServer(t)
	a, b := s.open(), s.open()
	strict, loose := memory.Rate{Requests: 1, Per: time.Hour, Burst: 3}, memory.Rate{Requests: 1000, Per: time.Hour, Burst: 100}
	take := func(c *Client, r memory.Rate, want int) (int, time.Duration) {
		t.Helper()
		n, wait, err := c.Limits.Take(t.Context(), "k", r, 1, want)
		if err != nil {
			t.Fatal(err)
		}
		return n, wait
	}
	conflicts := func(c *Client) int { return counted(c.metrics.conflicts) }
	if n, _ := take(b, loose, 10); n != 10 {
		t.Fatalf("%d granted", n)
	}
	if n, _ := take(a, strict, 10); n != 3 {
		t.Errorf("the stricter one got %d", n)
	}
	if n, wait := take(b, loose, 10); n != 0 || wait < 59*time.Minute || conflicts(b) != 1 || conflicts(a) != 0 {
		t.Errorf("the looser one got %d, the next in %v; %d and %d conflicts", n, wait, conflicts(a), conflicts(b))
	}
	// A minute after the stricter one was last asked for, it is forgotten.
	key := a.bucketKey("k")
	n := strings.Fields(s.raw.Get(t.Context(), key).Val())
	for _, i := range []int{1, 4, 6} {
		at, err := strconv.ParseInt(n[i], 10, 64)
		if err != nil {
			t.Fatal(n)
		}
		n[i] = strconv.FormatInt(at-61_000_000, 10)
	}
	s.raw.Set(t.Context(), key, strings.Join(n, " "), time.Hour)
	if n, wait := take(b, loose, 1); n != 0 || wait > 4*time.Second || conflicts(b) != 1 {
		t.Errorf("the looser one got %d, the next in %v; %d conflicts", n, wait, conflicts(b))
	}
}

// What somebody else wrote into a key is an error of that key, never a grant, a panic or a stall, and the server is not away for it.
func TestDamagedBuckets(t *testing.T) {
	s := startServer(t)
	c := s.open()
	ctx, rate := t.Context(), memory.Rate{Requests: 10, Per: time.Second, Burst: 10}
	for i, value := range []string{"x", "1 2 3", "nan nan nan nan nan nan nan", "inf 1 1 1 1 1 1", "1 1 1e300 1 1 1 1", "-1e300 1 1 1 1 1 1",
		"1 1 0 1 1 1 1", "1 1 1 0 1 1 1", "1 1 1 1 1 0 1", "1 1 1 1 1 1 1 1", "1 1 1 1 1 1", strings.Repeat("1 ", 300), strings.Repeat("9", 1<<20),
		"\x00\xff", "1 1 1 1 1 1 {}"} {
		key := fmt.Sprint("damaged", i)
		s.raw.Set(ctx, c.bucketKey(key), value, 0)
		n, _, err := c.Limits.Take(ctx, key, memory.Rate{Requests: 1, Per: time.Hour, Burst: 10}, 1, 5)
		if n != 0 || class(err) != Value || c.errorsOf(opTake) != i+1 {
			t.Errorf("%.40q: %d granted, %v, %d errors", value, n, err, c.errorsOf(opTake))
		}
		// From then on it is a bucket that was empty.
		if n, wait, err := c.Limits.Take(ctx, key, memory.Rate{Requests: 1, Per: time.Hour, Burst: 10}, 1, 5); err != nil || n != 0 || wait <= 0 || wait > time.Hour {
			t.Errorf("%.40q: afterwards %d granted, the next in %v, %v", value, n, wait, err)
		}
	}
	s.raw.RPush(ctx, c.bucketKey("list"), "x")
	if n, _, err := c.Limits.Take(ctx, "list", rate, 1, 1); n != 0 || class(err) != Value {
		t.Errorf("a list: %d granted, %v", n, err)
	}
	if !c.Up() || c.Status().LastError != Value {
		t.Errorf("%+v", c.Status())
	}
	for name, value := range map[string]string{
		"a clock that went back": "0 9000000000000000 10 1000000 9000000000000000 10 9000000000000000",
		"deep in debt":           "-9e15 1 10 1000000 1 10 1",
		"far too full":           "9e15 1 10 1000000 1 10 1",
	} {
		s.raw.Set(ctx, c.bucketKey(name), value, 0)
		n, wait, err := c.Limits.Take(ctx, name, rate, 1, 20)
		if err != nil || n > 10 || wait < 0 {
			t.Errorf("%s: %d granted, the next in %v, %v", name, n, wait, err)
		}
	}
	if n, wait, err := c.Limits.Take(ctx, "a clock that went back", rate, 1, 1); err != nil || n == 0 && wait > time.Second {
		t.Errorf("after the clock went back: %d granted, the next in %v, %v", n, wait, err)
	}
}

func BenchmarkTake(b *testing.B) {
	s := startServer(b)
	c := s.open()
	rate := memory.Rate{Requests: 1e9, Per: time.Second, Burst: 1e9}
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, _, err := c.Limits.Take(b.Context(), "k", rate, 1, 1); err != nil {
				b.Error(err)
			}
		}
	})
}
