package state

import (
	"fmt"
	"sync"
	"testing"
	"unsafe"

	"httpowerd/internal/exchange"
)

type resource struct {
	name   string
	closed bool
}

func (r *resource) Close() error {
	r.closed = true
	return nil
}

func TestKeeperKeepsByValue(t *testing.T) {
	var k Keeper
	ask := func(g *Generation, settings any, name string) *resource {
		return Keep(Scope{g, "api.example.com"}, "pool", settings, func() *resource { return &resource{name: name} })
	}
	g := k.Begin()
	first := ask(g, []int{1}, "first")
	g.Commit()

	g = k.Begin()
	if again := ask(g, []int{1}, "again"); again != first {
		t.Error("equal settings got another value")
	}
	g.Commit()

	g = k.Begin()
	second := ask(g, []int{2}, "second")
	if second == first {
		t.Error("other settings got the old value")
	}
	g.Abort()
	if !second.closed || first.closed {
		t.Errorf("abort closed first=%v second=%v; want only the second", first.closed, second.closed)
	}

	g = k.Begin()
	third := ask(g, []int{2}, "third")
	g.Commit()
	if !first.closed || third.closed {
		t.Errorf("commit closed first=%v third=%v; want only the first", first.closed, third.closed)
	}
}

func key(n int) Key {
	return Key{Authority: exchange.Authority{Host: fmt.Sprintf("h%d.example.com", n), Port: 443}}
}

func TestTableIsBounded(t *testing.T) {
	made := 0
	table := NewTable(160, func(Key) *int { made++; v := made; return &v })
	kept := table.Get(key(0))
	for i := 1; i < 5000; i++ {
		table.Get(key(i))
		if table.Get(key(0)) != kept {
			t.Fatalf("what was used last is gone after %d others", i)
		}
	}
	if n := table.Len(); n > 160 {
		t.Errorf("the table holds %d entries of at most 160", n)
	}
	if _, ok := table.Peek(key(99999)); ok {
		t.Error("Peek made an entry")
	}
	seen := 0
	table.Each(func(Key, *int) { seen++ })
	if seen != table.Len() {
		t.Errorf("Each saw %d of %d", seen, table.Len())
	}
}

func TestTableMakesOnce(t *testing.T) {
	var mu sync.Mutex
	made := 0
	table := NewTable(0, func(Key) *int { mu.Lock(); made++; mu.Unlock(); return new(int) })
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { table.Get(key(1)) })
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("one key was made %d times", made)
	}
}

func BenchmarkTableGet(b *testing.B) {
	table := NewTable(0, func(Key) *int { return new(int) })
	k := key(1)
	b.ReportAllocs()
	for b.Loop() {
		table.Get(k)
	}
}

// What was asked for last is found the short way, and never after it was forgotten: then two would have the same key.
func TestTableForgetsTheLast(t *testing.T) {
	made := map[Key]int{}
	table := NewTable(1, func(k Key) Key { made[k]++; return k })
	for range 100 {
		for i := range 64 {
			for range 20 { // often enough to be the last
				if got := table.Get(key(i)); got != key(i) {
					t.Fatalf("asked for %v, got %v", key(i), got)
				}
			}
			if last := table.last.Load(); last != nil {
				if v, ok := table.Peek(last.key); !ok || v != last.value {
					t.Fatalf("%v is the last and is not there", last.key)
				}
			}
		}
	}
	again := 0
	for _, n := range made {
		again += n - 1
	}
	if again == 0 {
		t.Error("nothing was ever forgotten")
	}
}

// What stays in a table refers to nothing of the request that first asked for it: all of its head would stay too.
func TestTableOwnsItsKeys(t *testing.T) {
	head := "api.example.com and the rest of a request's head"
	host := head[:len("api.example.com")]
	table := NewTable(10, func(k Key) string { return k.Authority.Host })
	got := table.Get(Key{Authority: exchange.Authority{Host: host, Port: 80}})
	table.Each(func(k Key, v string) {
		for _, s := range []string{got, v, k.Authority.Host} {
			if s != host || unsafe.StringData(s) == unsafe.StringData(host) {
				t.Errorf("%q is the request's", s)
			}
		}
	})
}
