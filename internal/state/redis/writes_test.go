package redis

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"httpowerd/internal/redact"
)

func TestWrites(t *testing.T) {
	s := startServer(t)
	a, b := s.open(), s.open()
	ctx := t.Context()
	begin := func(c *Client, fingerprint, owner string) string {
		t.Helper()
		got, err := c.Writes.Begin(ctx, Claim{"k", fingerprint, owner}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s %s", []string{"", "claimed", "running", "finished", "mismatch"}[got.State], got.Record)
	}
	finish := func(c *Client, owner string, record []byte) {
		t.Helper()
		if err := c.Writes.Finish(ctx, Claim{"k", "f", owner}, record, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	release := func(c *Client, owner string) {
		t.Helper()
		if err := c.Writes.Release(ctx, Claim{"k", "f", owner}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(got, want string) {
		t.Helper()
		if got != want {
			t.Fatalf("%s; want %s", got, want)
		}
	}
	expect(begin(a, "f", "1"), "claimed ")
	expect(begin(a, "f", "1"), "claimed ") // renewed
	expect(begin(b, "f", "2"), "running ")
	expect(begin(b, "other", "2"), "mismatch ")
	finish(b, "2", []byte("not his"))
	release(b, "2")
	expect(begin(b, "f", "2"), "running ")
	release(a, "1")
	expect(begin(b, "f", "2"), "claimed ")
	finish(b, "2", nil) // what came of it is not known
	expect(begin(a, "other", "3"), "mismatch ")
	expect(begin(a, "f", "3"), "claimed ")
	expect(begin(a, "f", "3"), "claimed ")
	expect(begin(b, "f", "4"), "running ")
	release(a, "3")
	expect(begin(b, "other", "4"), "mismatch ") // what came of the one before is as unknown as it was
	if ttl := s.raw.PTTL(ctx, a.Writes.key(Claim{Key: "k"})).Val(); ttl < 59*time.Minute {
		t.Errorf("a write that was sent is known for %v", ttl)
	}
	expect(begin(a, "f", "3"), "claimed ")
	finish(a, "3", []byte("HTTP 200: planted answer\x00"))
	finish(a, "3", []byte("late"))
	release(a, "3")
	release(a, "")
	expect(begin(b, "f", "5"), "finished HTTP 200: planted answer\x00")
	expect(begin(a, "f", "5"), "finished HTTP 200: planted answer\x00")
	expect(begin(a, "other", "5"), "mismatch ")

	key := a.Writes.key(Claim{Key: "k"})
	if all := fmt.Sprint(s.raw.HGetAll(ctx, key).Val(), s.raw.Keys(ctx, "*").Val()); strings.Contains(all, "planted") {
		t.Errorf("the answer can be read in the server: %q", all)
	}
	if ttl := s.raw.PTTL(ctx, key).Val(); ttl < 59*time.Minute || ttl > time.Hour {
		t.Errorf("it is kept for %v", ttl)
	}
	other := s.open(func(c *Config) { c.Secret = redact.NewSecret("another " + "secret of daemons") })
	expect(begin(other, "f", "6"), "claimed ")
}

// An answer that takes longer to come than a call may take is repeated all the same: it is given time by its size, as it was when it was stored.
func TestLargeAnswersThroughANarrowNetwork(t *testing.T) {
	s := startServer(t)
	r := startRelay(t, s.address())
	claim, record := Claim{"k", "f", "1"}, bytes.Repeat([]byte("answer"), 20<<20/6)
	direct := s.open()
	if _, err := direct.Writes.Begin(t.Context(), claim, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := direct.Writes.Finish(t.Context(), claim, record, time.Hour); err != nil {
		t.Fatal(err)
	}
	r.narrow.Store(int64(1500 * time.Microsecond)) // half a second in all
	c := openAt(t, r.url(), func(c *Config) { c.Timeout = 400 * time.Millisecond })
	eventually(t, "the answer comes", func() bool {
		got, err := c.Writes.Begin(t.Context(), Claim{"k", "f", "2"}, time.Minute)
		return err == nil && got.State == Finished && bytes.Equal(got.Record, record)
	})
}

func TestLeaseEnds(t *testing.T) {
	s := startServer(t)
	c := s.open()
	claim := Claim{"k", "f", "1"}
	if _, err := c.Writes.Begin(t.Context(), claim, 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the claim of one that died is over", func() bool {
		got, err := c.Writes.Begin(t.Context(), Claim{"k", "g", "2"}, time.Minute)
		return err == nil && got.State == Claimed
	})
	if err := c.Writes.Finish(t.Context(), claim, []byte("late"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Writes.Begin(t.Context(), Claim{"k", "g", "3"}, time.Minute); err != nil || got.State != Running {
		t.Errorf("%+v, %v", got, err)
	}
}

// Of two hundred that come at once to two daemons, one is the first.
func TestOneClaim(t *testing.T) {
	s := startServer(t)
	clients := []*Client{s.open(), s.open()}
	var claimed, running atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			got, err := clients[i%2].Writes.Begin(t.Context(), Claim{"k", "f", fmt.Sprint(i)}, time.Minute)
			switch {
			case err != nil:
				t.Error(err)
			case got.State == Claimed:
				claimed.Add(1)
			case got.State == Running:
				running.Add(1)
			}
		})
	}
	wg.Wait()
	if claimed.Load() != 1 || running.Load() != 199 {
		t.Errorf("%d claimed it, %d found it running", claimed.Load(), running.Load())
	}
}

func TestDamagedWrites(t *testing.T) {
	s := startServer(t)
	c := s.open()
	ctx := t.Context()
	fields := map[string][]any{
		"foreign":     {"x", "y"},
		"half":        {"f", "f"},
		"no record":   {"f", "f", "o", "", "a", "0", "r", "short"},
		"not sealed":  {"f", "f", "o", "", "a", "0", "r", strings.Repeat("x", 100)},
		"not a count": {"f", "f", "o", "o", "a", "nan"},
	}
	for name, values := range fields {
		s.raw.HSet(ctx, c.Writes.key(Claim{Key: name}), values...)
		got, err := c.Writes.Begin(ctx, Claim{name, "f", "new"}, time.Minute)
		if name == "not a count" {
			if err != nil || got.State != Running {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
			continue
		}
		if class(err) != Value || got.State != 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	s.raw.Set(ctx, c.Writes.key(Claim{Key: "text"}), "x", 0)
	if got, err := c.Writes.Begin(ctx, Claim{"text", "f", "o"}, time.Minute); class(err) != Value {
		t.Errorf("a text: %+v, %v", got, err)
	}
	if err := c.Writes.Finish(ctx, Claim{"text", "f", "o"}, []byte("x"), time.Minute); class(err) != Value {
		t.Errorf("a text: %v", err)
	}
	for _, key := range []string{"not a count", "text", "foreign", "half"} {
		if ttl := s.raw.PTTL(ctx, c.Writes.key(Claim{Key: key})).Val(); ttl <= 0 {
			t.Errorf("%s was left without an end", key)
		}
	}
	// The answer to one write is none to another.
	claim := Claim{"k", "f", "o"}
	if _, err := c.Writes.Begin(ctx, claim, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := c.Writes.Finish(ctx, claim, []byte("answer"), time.Minute); err != nil {
		t.Fatal(err)
	}
	moved := s.raw.HGetAll(ctx, c.Writes.key(claim)).Val()
	s.raw.HSet(ctx, c.Writes.key(Claim{Key: "elsewhere"}), moved)
	if got, err := c.Writes.Begin(ctx, Claim{"elsewhere", "f", "p"}, time.Minute); class(err) != Value {
		t.Errorf("an answer that was moved: %+v, %v", got, err)
	}
}

// The end of a write is told to a server that was away when it ended.
func TestFinishInsists(t *testing.T) {
	s := startServer(t)
	r := startRelay(t, s.address())
	c := openAt(t, r.url(), func(c *Config) { c.Timeout = 100 * time.Millisecond })
	claim := Claim{"k", "f", "o"}
	eventually(t, "it is claimed", func() bool {
		got, err := c.Writes.Begin(t.Context(), claim, time.Minute)
		return err == nil && got.State == Claimed
	})
	r.held.Store(true)
	done := make(chan error, 1)
	record := bytes.Repeat([]byte("large answer "), 50_000)
	go func() { done <- c.Writes.Finish(t.Context(), claim, record, time.Minute) }()
	eventually(t, "the server is known to be away", func() bool { return !c.Up() })
	r.held.Store(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the answer is there", func() bool {
		got, err := c.Writes.Begin(t.Context(), Claim{"k", "f", "p"}, time.Minute)
		return err == nil && got.State == Finished && bytes.Equal(got.Record, record)
	})
}
