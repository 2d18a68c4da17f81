package audit

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestGate: nothing may begin while records cannot be written, for each of the reasons; afterwards it may.
func TestGate(t *testing.T) {
	t.Run("the output fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{}
			tr := on(t, f, true, standard)
			synctest.Wait()
			want(t, "before", tr.Admit(), true)
			f.failing(refuse)
			tr.events(1)
			time.Sleep(time.Second)
			want(t, "while it fails", tr.Admit(), false)
			f.failing(nil)
			time.Sleep(5 * time.Second)
			want(t, "afterwards", tr.Admit(), true)
			want(t, "refused", tr.counter("httpowerd_audit_refused_total"), 1)
			tr.end()
		})
	})
	t.Run("a write does not return", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			let := make(chan struct{})
			f := &stalled{let: let}
			tr := on(t, f, true, standard)
			var alarms atomic.Int64
			tr.OnFailure(func(error) { alarms.Add(1) })
			time.Sleep(stuckAfter - time.Second)
			want(t, "a slow write", tr.Admit(), true)
			time.Sleep(2 * time.Second)
			want(t, "a stuck one", tr.Admit(), false)
			want(t, "alarms", alarms.Load(), 1)
			close(let)
			synctest.Wait()
			want(t, "afterwards", tr.Admit(), true)
			tr.end()
			wantText(t, "log", tr.said.String(), "has not returned for 5s", "took the write that it held up")
		})
	})
	t.Run("the queue is full", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			let := make(chan struct{})
			f := &stalled{let: let}
			tr := on(t, f, true, limits{records: 10, bytes: 1 << 20})
			time.Sleep(time.Second)
			for range 9 { // the first record is in the writer's hands
				want(t, "with room", tr.Admit(), true)
				tr.Exchange(typical(), &Extra{OnFull: FailClosed})
			}
			want(t, "full", tr.Admit(), false)
			done := make(chan struct{})
			go func() {
				tr.Exchange(typical(), &Extra{OnFull: FailClosed}) // one that was under way waits
				close(done)
			}()
			for range 7 {
				tr.Exchange(typical(), &Extra{OnFull: FailClosed, Refused: true}) // and those refused do not
			}
			select {
			case <-done:
				t.Error("the record of an exchange under way did not wait")
			default:
			}
			close(let)
			<-done
			synctest.Wait()
			want(t, "afterwards", tr.Admit(), true)
			tr.end()
			lines := f.lines()
			chained(t, lines)
			wantText(t, "trail", strings.Join(lines, "\n"), `"event":"exchanges_refused","count":7`)
			want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 0)
			want(t, "records", len(lines), 1+10+1+1)
		})
	})
	t.Run("nothing gets to the disk", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{}
			tr := with(t, f, Config{Output: "test", Chain: true, Sync: SyncAlways}, standard)
			var alarms atomic.Int64
			tr.OnFailure(func(error) { alarms.Add(1) })
			synctest.Wait()
			f.mu.Lock()
			f.broken = errors.New("input/output error")
			f.mu.Unlock()
			tr.events(1)
			time.Sleep(3 * time.Second)
			want(t, "while it fails", tr.Admit(), false)
			want(t, "alarms", alarms.Load(), 1)
			f.mu.Lock()
			f.broken = nil
			f.mu.Unlock()
			time.Sleep(2 * time.Second)
			want(t, "afterwards", tr.Admit(), true)
			tr.end()
		})
	})
	t.Run("there is no trail", func(t *testing.T) {
		tr := on(t, &fake{}, true, standard)
		tr.off = true
		tr.queue.gate.set(outputFails)
		want(t, "off", tr.Admit(), true)
		tr.off = false
		tr.end()
	})
}

// stalled is a sink that takes nothing until it is let.
type stalled struct {
	fake
	let chan struct{}
}

func (s *stalled) Write(p []byte) (int, error) {
	<-s.let
	return s.fake.Write(p)
}

// TestSyncing: always syncs each batch before the next is written; off never syncs a file.
func TestSyncing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for sync, want3 := range map[time.Duration]int{SyncAlways: 4, 0: 2, time.Minute: 1} {
			f := &fake{}
			tr := with(t, f, Config{Output: "test", Chain: true, Sync: sync}, standard)
			time.Sleep(100 * time.Millisecond)
			for range 3 {
				tr.events(1)
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(2 * time.Second)
			writes, syncs := f.count()
			want(t, "writes", writes, 4)
			want(t, "syncs with "+sync.String(), syncs, want3)
			tr.end()
		}
	})
}

// TestKeep: files whose last record is too old go, the deletion is a record that comes before it, and both bounds hold.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	old := func(age time.Duration) string {
		stamp := time.Now().Add(-age).UTC().Format(stampLayout)
		put(t, filepath.Join(dir, "audit-"+stamp+".jsonl"), `{"time":"2026-01-01T00:00:00.000000000Z"}`+"\n")
		return "audit-" + stamp + ".jsonl"
	}
	ancient, older, young := old(800*time.Hour), old(400*time.Hour), old(time.Hour)
	tr := at(t, path, func(c *Config) { c.Keep, c.MaxFiles = durationOf(300*time.Hour), 0 })
	eventually(t, "they are gone", func() bool { return tr.counter("httpowerd_audit_files_deleted_total") == 2 })
	tr.end()
	for _, name := range []string{ancient, older} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Error(name, "is still there")
		}
		wantText(t, "trail", read(t, path), `"event":"file_deleted","name":"`+name+`","bound":"keep"`)
	}
	if _, err := os.Stat(filepath.Join(dir, young+packed)); err != nil {
		t.Error(err)
	}
	r := verified(t, path)
	want(t, "deleted", r.Deleted, 2)
	wantText(t, "report", r.String(), "2 rotated files were deleted, as max_files or keep asks")

	tr = at(t, path, func(c *Config) { c.Keep, c.MaxFiles, c.MaxSize = durationOf(300*time.Hour), 1, 64<<10 })
	tr.fill(200_000)
	eventually(t, "the other bound", func() bool { return tr.counter("httpowerd_audit_files_deleted_total") >= 2 })
	tr.end()
	wantText(t, "trail", tr.all(path), `"bound":"max_files"`)
	verified(t, trailFiles(t, path)...)
}

// TestKeepRotates: with keep alone a file is rotated daily, as only whole files are deleted.
func TestKeepRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	synctest.Test(t, func(t *testing.T) {
		tr := at(t, path, func(c *Config) { c.Keep, c.MaxFiles = durationOf(48*time.Hour), 0 })
		for range 10 {
			tr.events(1)
			time.Sleep(12*time.Hour + time.Minute)
		}
		tr.end()
	})
	if n := len(trailFiles(t, path)); n < 2 || n > 5 {
		t.Errorf("%d files", n)
	}
	verified(t, trailFiles(t, path)...)
}

// TestDeletionFails: the trail says that the file is still there.
func TestDeletionFails(t *testing.T) {
	var said []string
	k := &keeper{names: newNaming(filepath.Join(t.TempDir(), "audit.jsonl")), max: 1, log: (&buffer{}).logger(), gone: func() { t.Error("it counts") }}
	k.event = func(_ context.Context, _ string, attrs ...slog.Attr) bool {
		said = append(said, attrs[0].Value.String()+" "+attrs[1].Value.String())
		return true
	}
	if err := k.remove(t.Context(), rotated{name: "not-there"}, "keep"); err == nil {
		t.Error("no error")
	}
	want(t, "said", strings.Join(said, ", "), "file_deleted not-there, file_not_deleted not-there")
}
