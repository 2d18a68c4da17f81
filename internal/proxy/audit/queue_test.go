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
	if len(b.ends) != 3 || b.ends[0] != 1 || b.ends[1] != 3 || b.ends[2] != 6 {
		t.Errorf("ends %v", b.ends)
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
