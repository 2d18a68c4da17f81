package quota

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// crowd is who passes a gate, when, and who is refused.
type crowd struct {
	mu      sync.Mutex
	begin   time.Time
	passed  []turn
	refused []turn
}

type turn struct {
	who int
	at  time.Duration
}

// join sends one more to the gate.
func (c *crowd) join(ctx context.Context, g *Gate, who int, path string, wait time.Duration, queue int) {
	go func() {
		_, err := g.Pass(ctx, get(path), wait, queue)
		c.mu.Lock()
		defer c.mu.Unlock()
		at := turn{who, time.Since(c.begin)}
		switch {
		case err == nil:
			c.passed = append(c.passed, at)
		case errors.As(err, new(*Exhausted)):
			c.refused = append(c.refused, at)
		}
	}()
	synctest.Wait()
}

func (c *crowd) want(t *testing.T, what string, got *[]turn, want ...turn) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(*got, want) {
		t.Errorf("%s: %v; want %v", what, *got, want)
	}
}

func TestThoseWhoWaitedGoOneAfterTheOther(t *testing.T) {
	s, ms := time.Second, time.Millisecond
	for name, c := range map[string]struct {
		lines []string
		pace  time.Duration
	}{
		"nothing known":       {[]string{"Retry-After: 10"}, usualPace},
		"the upstream's rate": {[]string{"Retry-After: 10", `RateLimit: "a";r=0;t=10`, `RateLimit-Policy: "a";q=20;w=1`}, 50 * ms},
		"a slow rate":         {[]string{"Retry-After: 10", `RateLimit: "a";r=0;t=10`, `RateLimit-Policy: "a";q=60;w=60`}, slowestPace},
		"a fast rate":         {[]string{"Retry-After: 10", `RateLimit: "a";r=0;t=10`, `RateLimit-Policy: "a";q=60000;w=60`}, usualPace},
	} {
		synctest.Test(t, func(t *testing.T) {
			var g Gate
			g.answer("/", 429, c.lines...)
			crowd := crowd{begin: time.Now()}
			for i := range 4 {
				crowd.join(t.Context(), &g, i, "/", time.Minute, 9)
			}
			time.Sleep(10*s + c.pace/2)
			crowd.join(t.Context(), &g, 4, "/", time.Minute, 9) // the gate is open, and three are before it
			time.Sleep(time.Minute)
			crowd.want(t, name, &crowd.passed, turn{0, 10 * s}, turn{1, 10*s + c.pace}, turn{2, 10*s + 2*c.pace}, turn{3, 10*s + 3*c.pace}, turn{4, 10*s + 4*c.pace})
			if !g.open() || g.waiting != 0 {
				t.Errorf("%s: nobody waits, and the gate still costs a lock", name)
			}
		})
	}
}

func TestAnAnswerStopsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		g.answer("/", 429, "Retry-After: 10")
		crowd := crowd{begin: time.Now()}
		for i, wait := range []time.Duration{time.Minute, time.Minute, 11 * time.Second, time.Minute} {
			crowd.join(t.Context(), &g, i, "/", wait, 9)
		}
		time.Sleep(10*time.Second + usualPace/2) // the first one has gone, and is refused
		g.answer("/", 429, "Retry-After: 5")
		synctest.Wait()
		crowd.want(t, "too late now", &crowd.refused, turn{2, 10*time.Second + usualPace/2})
		time.Sleep(time.Minute)
		again := 15*time.Second + usualPace/2
		crowd.want(t, "the others", &crowd.passed, turn{0, 10 * time.Second}, turn{1, again}, turn{3, again + usualPace})
	})
}

func TestAPlaceInTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		g.answer("/", 429, "Retry-After: 10")
		crowd := crowd{begin: time.Now()}
		ctx, leave := context.WithCancel(t.Context())
		crowd.join(ctx, &g, 0, "/", time.Minute, 3)
		crowd.join(t.Context(), &g, 1, "/", time.Minute, 3)
		crowd.join(t.Context(), &g, 2, "/", 10*time.Second+usualPace, 3) // fits behind one, not behind two
		crowd.join(t.Context(), &g, 3, "/", 10*time.Second+3*usualPace, 3)
		crowd.join(t.Context(), &g, 4, "/", time.Minute, 3) // the queue is full
		leave()
		synctest.Wait()
		crowd.join(t.Context(), &g, 5, "/", time.Minute, 3) // there is a place again
		crowd.want(t, "refused", &crowd.refused, turn{2, 0}, turn{4, 0})
		time.Sleep(time.Minute)
		at := 10 * time.Second
		crowd.want(t, "passed", &crowd.passed, turn{1, at}, turn{3, at + usualPace}, turn{5, at + 2*usualPace})
	})
}

// A line holds up nobody but its own group.
func TestLinesOfGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		resource := func(path, name, remaining, reset string) {
			g.answer(path, 200, "X-RateLimit-Remaining: "+remaining, "X-RateLimit-Reset: "+reset, "X-RateLimit-Resource: "+name)
		}
		resource("/search/a", "search", "0", "30")
		resource("/repos/a", "core", "0", "25")
		resource("/user", "other", "9", "10")
		crowd := crowd{begin: time.Now()}
		crowd.join(t.Context(), &g, 0, "/search/a", time.Minute, 9)
		crowd.join(t.Context(), &g, 1, "/repos/a", time.Minute, 9)
		crowd.join(t.Context(), &g, 2, "/user", time.Minute, 9)
		time.Sleep(5 * time.Second)
		g.answer("/user", 403, "Retry-After: 15") // everybody
		crowd.join(t.Context(), &g, 3, "/user", time.Minute, 9)
		time.Sleep(time.Minute)
		crowd.want(t, "passed", &crowd.passed, turn{2, 0}, turn{3, 20 * time.Second}, turn{1, 25 * time.Second}, turn{0, 30 * time.Second})
	})
}

// Who leaves, who is let go and who is refused in the same moment: nobody is lost, nobody stays.
func TestLineUnderChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		var done sync.WaitGroup
		for i := range 300 {
			done.Go(func() {
				time.Sleep(time.Duration(i%50) * 7 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%7)*50*time.Millisecond)
				defer cancel()
				_, _ = g.Pass(ctx, get("/"+strconv.Itoa(i%3)), 200*time.Millisecond, 20)
				if i%5 == 0 {
					g.answer("/"+strconv.Itoa(i%3), 429, "retry-after-ms: "+strconv.Itoa(i%11*10))
				}
			})
		}
		done.Wait()
		time.Sleep(time.Minute)
		for name, in := range g.groups {
			if in.line.len() != 0 {
				t.Errorf("%d wait for %q", in.line.len(), name)
			}
		}
		if g.waiting != 0 || !g.open() {
			t.Errorf("%d wait; open: %v", g.waiting, g.open())
		}
	})
}

func TestWhatAGateRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // Retry-After opens it before all is restored; what comes late does not close it again
		var g Gate
		g.answer("/", 429, "Retry-After: 5", "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60")
		time.Sleep(5 * time.Second)
		g.answer("/", 200, "X-RateLimit-Remaining: 3", "X-RateLimit-Reset: 55")
		if d := g.Closed(get("/")); d != 0 {
			t.Errorf("closed for %v", d)
		}
		g.answer("/", 200, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 55")
		if d := g.Closed(get("/")); d != 55*time.Second {
			t.Errorf("used up again: closed for %v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) { // what an answer leaves out did not change
		var g Gate
		g.answer("/", 200, `RateLimit: "a";r=0;t=60`, `RateLimit-Policy: "a";q=5;w=60;qu="concurrent-requests"`)
		g.answer("/", 200, `RateLimit: "a";r=0;t=60`)
		if d := g.Closed(get("/")); d != 0 {
			t.Errorf("places in flight closed the gate for %v", d)
		}
		g.answer("/b", 200, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 60", "X-RateLimit-Limit: 9")
		g.answer("/b", 200, "X-RateLimit-Remaining: 0")
		if d := g.Closed(get("/b")); d != time.Minute {
			t.Errorf("a reset that was said once: closed for %v", d)
		}
		n := 0
		g.Each(func(l Learnt, _ string, _ time.Duration) {
			if n++; l.Limit != map[string]int64{Concurrency: 5, Requests: 9}[l.Unit] {
				t.Errorf("%+v", l)
			}
		})
		if n != 2 {
			t.Errorf("%d quotas are known", n)
		}
	})
	synctest.Test(t, func(t *testing.T) { // the quotas of partitions are apart
		var g Gate
		g.answer("/a", 200, `RateLimit: "u";r=0;t=60;pk=:YQ==:`)
		g.answer("/b", 200, `RateLimit: "u";r=9;t=60;pk=:Yg==:`)
		if g.Closed(get("/a")) == 0 || g.Closed(get("/b")) != 0 {
			t.Error("two partitions of one policy are taken for one")
		}
	})
	synctest.Test(t, func(t *testing.T) { // names that never come again make room
		var g Gate
		for i := range 100 {
			g.answer("/", 200, "Sforce-Limit-Info: n"+strconv.Itoa(i)+"=1/5")
			time.Sleep(time.Second)
		}
		long := "Sforce-Limit-Info: " + strings.Repeat("a=1/2;", 1000)
		if a, ok := Read(fields(long), noon, Options{}); !ok || len(a.Quotas) > maxMembers {
			t.Errorf("%d quotas of one answer", len(a.Quotas))
		}
		last := ""
		n := 0
		g.Each(func(l Learnt, _ string, _ time.Duration) {
			if n++; l.Name == "n99" {
				last = l.Name
			}
		})
		if n > maxQuotas || last == "" {
			t.Errorf("%d quotas are known; the newest: %q", n, last)
		}
	})
}

// A group that others wait for is not the one to be forgotten, although its gate is open.
func TestGroupsWithALineAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		g.answer("/a", 200, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 10", "X-RateLimit-Resource: a")
		crowd := crowd{begin: time.Now()}
		for i := range 3 {
			crowd.join(t.Context(), &g, i, "/a", time.Minute, 9)
		}
		time.Sleep(10*time.Second + usualPace/2)
		for i := range 2 * maxGroups {
			n := strconv.Itoa(i)
			g.answer("/b"+n, 200, "X-RateLimit-Remaining: 0", "X-RateLimit-Reset: "+n, "X-RateLimit-Resource: b"+n)
		}
		if g.groups["a"] == nil || len(g.groups) > maxGroups {
			t.Errorf("%d groups; a is among them: %v", len(g.groups), g.groups["a"] != nil)
		}
		time.Sleep(time.Second)
		crowd.want(t, "passed", &crowd.passed, turn{0, 10 * time.Second}, turn{1, 10*time.Second + usualPace}, turn{2, 10*time.Second + 2*usualPace})
	})
}
