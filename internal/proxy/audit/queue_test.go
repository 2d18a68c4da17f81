package audit

import (
	"testing"
	"testing/synctest"
)

func (q *queue) has() (records, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.records, q.bytes
}

func signalled(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestQueueBatches(t *testing.T) {
	q := newQueue(limits{records: 8, bytes: 1000})
	for _, r := range []string{"a", "bb", "ccc"} {
		if !q.put([]byte(r), wait) {
			t.Fatalf("%s was refused", r)
		}
	}
	want(t, "wake", signalled(q.wake), true)
	want(t, "a quarter", signalled(q.hurry), true)
	b, open := q.take(batch{})
	want(t, "data", string(b.data), "abbccc")
	want(t, "open", open, true)
	if e := b.entries; len(e) != 3 || e[0].end != 1 || e[1].end != 3 || e[2].end != 6 {
		t.Errorf("entries %v", e)
	}
	q.put([]byte("d"), wait)
	want(t, "wake", signalled(q.wake), true)
	want(t, "left", q.left(), 4) // what is taken is not written yet
	q.done(3, 6)
	records, bytes := q.has()
	want(t, "records", records, 1)
	want(t, "bytes", bytes, 1)
	q.last(func() []byte { return []byte("end") })
	want(t, "after the last", q.put([]byte("e"), wait), false)
	b, open = q.take(b)
	want(t, "data", string(b.data), "dend")
	want(t, "open", open, false)
}

// TestQueueLate: exchanges whose records are not made yet have their places among the others, and a bound of their own; each is made before the cache forgets it.
func TestQueueLate(t *testing.T) {
	q := newQueue(limits{records: 8 * maxLate, bytes: 1 << 30})
	x := typical()
	q.put([]byte("a"), wait)
	for i := range maxLate {
		want(t, "putLate", q.putLate(late{x: x}), true)
		want(t, "hurry", signalled(q.hurry), i == warmLate-1)
	}
	want(t, "putLate beyond the bound", q.putLate(late{x: x}), false)
	q.put([]byte("b"), wait)
	b, _ := q.take(batch{})
	e := b.entries
	if len(e) != maxLate+2 || e[0].late.x != nil || e[1].late.x != x || e[maxLate].end != 1 || e[maxLate+1].late.x != nil || string(b.data) != "ab" {
		t.Errorf("%d entries, %q", len(e), b.data)
	}
	want(t, "size", b.size(0, len(e)), 2+maxLate*(lateSize+len(x.URL)))
	q.done(len(e), b.size(0, len(e)))
	if records, bytes := q.has(); records != 0 || bytes != 0 {
		t.Errorf("%d records and %d bytes are left", records, bytes)
	}
	want(t, "putLate when there is room again", q.putLate(late{x: x}), true)
	q.close()
	want(t, "putLate into a closed queue", q.putLate(late{x: x}), false)
	full := newQueue(limits{records: 1, bytes: 1 << 20})
	full.put([]byte("a"), wait)
	want(t, "putLate into a full queue", full.putLate(late{x: x}), false)
}

func TestQueueFull(t *testing.T) {
	for name, lim := range map[string]limits{"records": {records: 4, bytes: 1000}, "bytes": {records: 1000, bytes: 8}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(lim)
				for range 4 {
					want(t, "put", q.put([]byte("12"), giveUp), true)
				}
				want(t, "put into a full queue", q.put([]byte("12"), giveUp), false)
				for range 4 {
					want(t, "put into the reserve", q.put([]byte("12"), reserve), true)
				}
				results := make(chan bool, 2)
				go func() { results <- q.put([]byte("12"), wait) }()
				go func() { results <- q.put([]byte("12"), reserve) }()
				synctest.Wait()
				want(t, "through", len(results), 0)
				want(t, "hurry", signalled(q.hurry), true)
				q.done(1, 2) // there is room in the reserve only
				synctest.Wait()
				want(t, "the reserved one", <-results, true)
				q.done(5, 10)
				synctest.Wait()
				want(t, "the other", <-results, true)
			})
		})
	}
}

// TestQueueGiant: a record that is larger than the whole queue goes through an empty one, alone.
func TestQueueGiant(t *testing.T) {
	q := newQueue(limits{records: 10, bytes: 4})
	want(t, "giant", q.put(make([]byte, 100), giveUp), true)
	want(t, "behind it", q.put([]byte("1"), giveUp), false)
	q.done(1, 100)
	want(t, "after it", q.put([]byte("1"), giveUp), true)
}

func TestQueueCloseFreesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(limits{records: 1, bytes: 100})
		q.put([]byte("1"), wait)
		result := make(chan bool)
		go func() { result <- q.put([]byte("2"), wait) }()
		synctest.Wait()
		q.close()
		want(t, "who waited", <-result, false)
		want(t, "left", q.left(), 1)
		want(t, "wake", signalled(q.wake), true)
	})
}
