package state

import (
	"strconv"
	"sync"
	"testing"
)

// Whoever asks for a key gets the one value that was made for it, whoever else asks meanwhile.
func TestGrown(t *testing.T) {
	const keys, askers = 100, 8
	var g Grown[string, *int]
	var made [keys]int
	var wg sync.WaitGroup
	got := make([][keys]*int, askers)
	for i := range askers {
		wg.Go(func() {
			for n := range keys {
				got[i][n] = g.Get(strconv.Itoa(n), func(k string) *int {
					made[n]++ // one addition at a time
					return new(int)
				})
			}
		})
	}
	wg.Wait()
	for n := range keys {
		for i := range askers {
			if made[n] != 1 || got[i][n] != got[0][n] {
				t.Fatalf("key %d: made %d times, asker %d got another one", n, made[n], i)
			}
		}
	}
	key := strconv.Itoa(keys - 1)
	if n := testing.AllocsPerRun(100, func() { g.Get(key, nil) }); n != 0 {
		t.Errorf("a look allocates %v times", n)
	}
}
