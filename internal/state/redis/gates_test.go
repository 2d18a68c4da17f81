package redis

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func (g *Gates) isLive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.live
}

func TestGates(t *testing.T) {
	s := startServer(t)
	a, b := s.open(), s.open()
	ctx := t.Context()
	eventually(t, "both hear of changes", func() bool { return a.Gates.isLive() && b.Gates.isLive() })
	get := func(c *Client, key string) string {
		t.Helper()
		v, _, err := c.Gates.Fetch(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(v)
	}
	if v := get(b, "api"); v != "" {
		t.Errorf("before anything was published: %q", v)
	}
	if err := a.Gates.Publish(ctx, "api", []byte("closed {until}: \x00 later"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if v := get(a, "api"); v != "closed {until}: \x00 later" {
		t.Errorf("its own: %q", v)
	}
	eventually(t, "the other one hears of it", func() bool { return get(b, "api") == "closed {until}: \x00 later" })
	if _, left, err := b.Gates.Fetch(ctx, "api"); err != nil || left > time.Hour || left < 59*time.Minute {
		t.Errorf("it is kept for %v, %v", left, err)
	}
	if v := get(s.open(), "api"); v != "closed {until}: \x00 later" {
		t.Errorf("one that came later: %q", v)
	}
	if v := get(b, "another"); v != "" {
		t.Errorf("another key: %q", v)
	}
	if err := b.Gates.Publish(ctx, "api", []byte("open"), time.Hour); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first one hears of the next", func() bool { return get(a, "api") == "open" })
	if err := a.Gates.Publish(ctx, "short", []byte("x"), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is over for everybody", func() bool { return get(a, "short")+get(b, "short") == "" })

	// What is known costs no round trip, until the subscription breaks: then it is asked for anew.
	for range 100 {
		get(b, "api")
	}
	if n := calls(t, s, "eval"); n > 40 {
		t.Errorf("%d calls", n)
	}
	s.kill()
	s.start()
	eventually(t, "what the server lost is lost", func() bool {
		v, _, err := b.Gates.Fetch(ctx, "api")
		return err == nil && v == nil
	})
}

// calls is how often the server ran commands whose name begins so.
func calls(t *testing.T, s *server, prefix string) (n int) {
	t.Helper()
	for line := range strings.Lines(s.raw.Info(t.Context(), "commandstats").Val()) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
		if strings.HasPrefix(name, prefix) {
			count, _, _ := strings.Cut(strings.TrimPrefix(rest, "calls="), ",")
			i, err := strconv.Atoi(count)
			if err != nil {
				t.Fatal(line)
			}
			n += i
		}
	}
	return n
}

func TestDamagedGates(t *testing.T) {
	s := startServer(t)
	c := s.open()
	ctx := t.Context()
	key := func(k string) string { return c.key("gate", c.name("gate", k)) }
	s.raw.RPush(ctx, key("list"), "x")
	s.raw.Set(ctx, key("large"), strings.Repeat("x", maxValue+1), 0)
	s.raw.Set(ctx, key("lasting"), "x", 0)
	for k, want := range map[string]string{"list": Value, "large": Value, "lasting": ""} {
		v, left, err := c.Gates.Fetch(ctx, k)
		if want != "" && class(err) != want || want == "" && (err != nil || string(v) != "x" || left <= 0) {
			t.Errorf("%s: %q, %v", k, v, err)
		}
	}
	for _, k := range []string{"list", "large"} { // once it was found, it is gone
		if v, _, err := c.Gates.Fetch(ctx, k); v != nil || err != nil {
			t.Errorf("%s: %q, %v", k, v, err)
		}
	}
	for _, v := range []string{"", strings.Repeat("x", maxValue+1)} {
		if err := c.Gates.Publish(ctx, "k", []byte(v), time.Minute); class(err) != Value {
			t.Errorf("%d bytes were published: %v", len(v), err)
		}
	}
	if err := c.Gates.Publish(ctx, "k", []byte("x"), 0); class(err) != Value {
		t.Errorf("something was published for no time: %v", err)
	}
	eventually(t, "it hears of changes", c.Gates.isLive)
	if _, _, err := c.Gates.Fetch(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	name := c.name("gate", "k")
	bad := []string{"", "x", name, name + "1", name + " x", name + "x y", name + "-1 x", name + "99999999999999999999 x", name + "1 ",
		name + "1000 " + strings.Repeat("x", maxValue+64)}
	before := c.errorsOf(opSubscribe)
	for _, m := range bad {
		s.raw.Publish(ctx, c.Gates.channel, m)
	}
	s.raw.Publish(ctx, c.Gates.channel, name+"60000 good")
	eventually(t, "the good one is heard", func() bool {
		v, _, _ := c.Gates.Fetch(ctx, "k")
		return string(v) == "good"
	})
	if n := c.errorsOf(opSubscribe) - before; n != len(bad) {
		t.Errorf("%d of %d were found to be damaged", n, len(bad))
	}
}

func TestGatesAreBounded(t *testing.T) {
	g := newGates(&Client{})
	for i := range maxGates + 100 {
		g.mu.Lock()
		g.put("small"+strconv.Itoa(i), []byte("v"), time.Now().Add(time.Hour))
		g.mu.Unlock()
	}
	if len(g.entries) != maxGates || g.bytes != maxGates {
		t.Errorf("%d of %d bytes are kept", len(g.entries), g.bytes)
	}
	large := make([]byte, maxValue)
	for i := range 200 {
		g.mu.Lock()
		g.put(strconv.Itoa(i), large, time.Now().Add(time.Hour))
		g.mu.Unlock()
	}
	if g.bytes > maxBytes || g.bytes < maxBytes-2*maxValue || len(g.entries["199"].value) != maxValue {
		t.Errorf("%d bytes are kept", g.bytes)
	}
}
