package audit

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var errFull = syscall.ENOSPC

func refuse([]byte) (int, error) { return 0, errFull }

// chained checks that lines are one chain from its beginning.
func chained(t testing.TB, lines []string) {
	t.Helper()
	state := genesis()
	for i, l := range lines {
		e, _ := parseEnding([]byte(l[max(0, len(l)-linkSize):]))
		next, ok := after([]byte(l))
		if !ok || e.prev != state.hash || e.seq != state.seq+1 {
			t.Fatalf("line %d is out of the chain: %s", i+1, l)
		}
		state = next
	}
}

func TestWriterTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		tr := on(t, f, true, standard)
		time.Sleep(time.Minute)
		writes, _ := f.count()
		want(t, "writes of the first record", writes, 1)
		begin := time.Now()
		tr.events(1)
		synctest.Wait()
		want(t, "a record after a pause", summary(t, f.lines()), "audit_started loaded:0")
		want(t, "it waits", time.Since(begin), 0)
		tr.events(1000)
		synctest.Wait()
		writes, _ = f.count()
		want(t, "writes while many may come", writes, 2)
		time.Sleep(company)
		synctest.Wait()
		writes, _ = f.count()
		want(t, "writes of many", writes, 3)
		want(t, "lines", len(f.lines()), 1002)
		begin = time.Now()
		tr.end()
		want(t, "the end waits", time.Since(begin), 0)
		chained(t, f.lines())
		want(t, "the last", summary(t, f.lines()[1002:]), "audit_stopped")
		want(t, "closed", f.closed, true)
		want(t, "records", tr.counter("httpowerd_audit_records_total"), 1003)
		want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 0)
	})
}

// TestWriterHurries: a queue that fills does not wait for more.
func TestWriterHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		tr := on(t, f, false, limits{records: 40, bytes: 1 << 20})
		begin := time.Now()
		tr.events(9)
		synctest.Wait()
		want(t, "lines", len(f.lines()), 10)
		want(t, "time", time.Since(begin), 0)
		tr.end()
		want(t, "unchained", strings.Contains(f.lines()[0], `"chain":"off"}`), true)
	})
}

// TestEarlyOutage: who comes to listen after an outage began hears of it, once.
func TestEarlyOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{fail: refuse}
		tr := on(t, f, true, standard)
		tr.events(1)
		time.Sleep(time.Minute)
		told := 0
		tr.OnFailure(func(err error) {
			told++
			want(t, "told", errors.Is(err, errFull), true)
		})
		want(t, "told of outages", told, 1)
		time.Sleep(time.Minute)
		f.failing(nil)
		tr.end()
		want(t, "told of outages in all", told, 1)
	})
}

func TestWriterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{fail: refuse}
		tr := on(t, f, true, standard)
		told := 0
		tr.OnFailure(func(err error) {
			told++
			want(t, "told", errors.Is(err, errFull), true)
		})
		tr.events(3)
		time.Sleep(time.Minute)
		writes, _ := f.count()
		if writes < 30 || writes > 60 {
			t.Errorf("%d tries in a minute", writes)
		}
		want(t, "errors in the log", strings.Count(tr.said.String(), "level=ERROR"), 1)
		want(t, "failures", tr.counter("httpowerd_audit_write_failures_total"), float64(writes))
		want(t, "records", tr.counter("httpowerd_audit_records_total"), 0)
		f.failing(nil)
		time.Sleep(lastRetry)
		want(t, "lines", summary(t, f.lines()), "audit_started loaded:0 loaded:1 loaded:2 output_recovered")
		m := decode(t, f.lines()[4])
		want(t, "error", m["error"].(string), errFull.Error())
		if ms := m["outage_ms"].(float64); ms < 60_000 || ms > 62_000 {
			t.Errorf("outage of %v ms", ms)
		}
		wantText(t, "log", tr.said.String(), "audit records are written again")
		f.failing(refuse) // the next outage is told of again
		tr.events(1)
		time.Sleep(time.Second)
		want(t, "errors in the log", strings.Count(tr.said.String(), "level=ERROR"), 2)
		f.failing(nil)
		tr.end()
		want(t, "told of outages", told, 2)
		chained(t, f.lines())
	})
}

// TestWriterParts: an output that takes a few bytes at a time, with an error or without, gets whole lines in the end.
func TestWriterParts(t *testing.T) {
	for name, err := range map[string]error{"error": syscall.EIO, "short": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{}
				tries := 0
				f.fail = func(p []byte) (int, error) {
					tries++
					if tries%3 == 0 {
						return 0, err // nothing and no error is an error too
					}
					return min(len(p), 100), err
				}
				tr := on(t, f, true, standard)
				tr.events(20)
				tr.end()
				chained(t, f.lines())
				lines := f.lines()
				want(t, "last", summary(t, lines[len(lines)-1:]), "audit_stopped")
				want(t, "records", tr.counter("httpowerd_audit_records_total"), float64(len(lines)))
				want(t, "left", tr.queue.left(), 0)
			})
		})
	}
}

// TestReopenInAnOutage: whoever makes room gives the trail another file; a line that was begun is written again from its start.
func TestReopenInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &movable{fake: &fake{}}
		tr := on(t, f, true, standard)
		time.Sleep(time.Second)
		tr.events(1)
		synctest.Wait() // what comes now shares a write
		f.failing(func(p []byte) (int, error) { return bytes.IndexByte(p, '\n') + 10, errFull })
		tr.events(3)
		time.Sleep(2 * company)
		f.failing(refuse)
		time.Sleep(time.Minute)
		want(t, "reopen", tr.Reopen(), nil)
		time.Sleep(time.Minute)
		tr.end()
		want(t, "the old file", summary(t, splitLines(f.old)), "audit_started loaded:0 loaded:0")
		want(t, "the new file", summary(t, f.lines()), "loaded:1 loaded:2 output_recovered audit_stopped")
		chained(t, append(splitLines(f.old), f.lines()...))
	})
}

// movable is a fake whose Reopen finds an empty file with room.
type movable struct {
	*fake
	old string
}

func (m *movable) Reopen() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.old = string(m.data[:bytes.LastIndexByte(m.data, '\n')+1])
	m.data, m.fail = nil, nil
	return true, nil
}

func TestDropAndMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{fail: refuse}
		tr := on(t, f, true, limits{records: 5, bytes: 1 << 20})
		synctest.Wait()
		for range 12 {
			tr.Exchange(typical(), &Extra{OnFull: Drop})
		}
		want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 8)
		f.failing(nil)
		time.Sleep(time.Minute)
		lines := f.lines()
		want(t, "lines", len(lines), 7)
		want(t, "notes", summary(t, lines[:3]), "audit_started output_recovered records_missing:8")
		tr.end()
		chained(t, f.lines())
		want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 8)
	})
}

// TestMissingBeforeTheEnd: the last record stays the last.
func TestMissingBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		tr := on(t, f, true, limits{records: 1, bytes: 1 << 20})
		tr.Exchange(typical(), &Extra{OnFull: Drop}) // the first record still waits
		tr.end()
		want(t, "lines", summary(t, f.lines()), "records_missing:1 audit_started audit_stopped")
	})
}

func TestBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{fail: refuse}
		tr := on(t, f, true, limits{records: 3, bytes: 1 << 20})
		var through sync.WaitGroup
		ended := make(chan struct{}, 10)
		for range 5 {
			through.Go(func() { tr.Exchange(typical(), nil); ended <- struct{}{} })
		}
		time.Sleep(time.Minute)
		want(t, "through while the output fails", len(ended), 2)
		tr.events(3) // events find room in the reserve
		f.failing(nil)
		through.Wait()
		tr.end()
		want(t, "lines", len(f.lines()), 1+5+3+2)
		want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 0)
		chained(t, f.lines())
	})
}

func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		tr := on(t, f, true, standard)
		time.Sleep(time.Second)
		tr.events(1)
		synctest.Wait()                                                                          // what comes now shares a write
		f.failing(func(p []byte) (int, error) { return bytes.IndexByte(p, '\n') + 10, errFull }) // one line and a piece of the next
		tr.events(3)
		time.Sleep(2 * company)
		f.failing(refuse)
		tr.events(2)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		second := make(chan error)
		go func() {
			synctest.Wait()
			second <- tr.Close(t.Context())
		}()
		err := tr.Close(ctx)
		if err == nil || !errors.Is(err, errFull) {
			t.Fatal(err)
		}
		wantText(t, "error", err.Error(), "5 audit records are lost")
		want(t, "the second close", <-second, nil)
		want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 5)
		want(t, "records", tr.counter("httpowerd_audit_records_total"), 3)
		want(t, "closed", f.closed, true)
		tr.events(1) // after the end
		want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 6)
	})
}

// TestCloseTriesOnce: a context that is over already still lets the records go that can.
func TestCloseTriesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		tr := on(t, f, true, standard)
		tr.events(3)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		want(t, "error", tr.Close(ctx), nil)
		want(t, "lines", summary(t, f.lines()), "audit_started loaded:0 loaded:1 loaded:2 audit_stopped")
	})
}

// TestCloseOfAStuckOutput: a write that never returns holds nobody up.
func TestCloseOfAStuckOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := &stuck{fake: &fake{}, until: release}
		tr := on(t, s, true, standard)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		err := tr.Close(ctx)
		if err == nil {
			t.Fatal("no error")
		}
		wantText(t, "error", err.Error(), "2 audit records are lost")
		want(t, "time", time.Since(begin), time.Second+farewell)
		close(release)
	})
}

type stuck struct {
	*fake
	until chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.until
	return s.fake.Write(p)
}

func TestSyncOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		tr := on(t, f, true, standard)
		for range 1000 {
			tr.events(1)
			time.Sleep(10 * time.Millisecond)
		}
		writes, syncs := f.count()
		if writes < 500 || syncs < 9 || syncs > 11 {
			t.Errorf("%d writes, %d syncs in ten seconds", writes, syncs)
		}
		time.Sleep(time.Second)
		_, before := f.count()
		time.Sleep(time.Hour)
		_, after := f.count()
		want(t, "syncs of an hour without records", after-before, 0)
		f.mu.Lock()
		f.broken = syscall.EIO
		f.mu.Unlock()
		for range 5 {
			tr.events(1)
			time.Sleep(2 * time.Second)
		}
		want(t, "errors in the log", strings.Count(tr.said.String(), "may not survive"), 1)
		tr.end()
	})
}
