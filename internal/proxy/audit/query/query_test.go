package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"httpowerd/internal/proxy/audit"
)

// small rotates early.
func small(c *audit.Config) { c.MaxSize = 64 << 10 }

// numbered records the exchanges from..to-1, one in a second, each of about half a kilobyte.
func (w *writer) numbered(from, to int) {
	for i := from; i < to; i++ {
		w.call(call{id: fmt.Sprintf("n%d", i), method: "GET", url: "https://api.example.com/" + strings.Repeat("x", 300), host: "api.example.com", status: 200, outcome: "ok",
			at: time.Duration(i) * time.Second})
	}
}

func names(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("n%d", i))
	}
	return out
}

// rotated writes a trail of n exchanges over several files, of which all but one are packed.
func rotated(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWriter(t, path, small)
	w.numbered(0, n)
	w.end()
	old := predecessors(t, path)
	if len(old) < 4 {
		t.Fatalf("%d rotated files", len(old))
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		w := newWriter(t, path, small) // its keeper packs what the first did not get to
		time.Sleep(20 * time.Millisecond)
		w.end()
		if old = predecessors(t, path); strings.HasSuffix(old[len(old)-1].Path, ".gz") {
			return path
		}
		if time.Now().After(deadline) {
			t.Fatal("rotated files are not packed")
		}
	}
}

func predecessors(t *testing.T, path string) []audit.Rotated {
	t.Helper()
	all, err := audit.Predecessors(path)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRotated(t *testing.T) {
	path := rotated(t, 1000)
	all := Query{Files: []string{path}, Rotated: true}
	got, said, err := ask(t, all, "kind:request")
	want(t, "all of it", err, nil)
	want(t, "what was told", said, "")
	want(t, "the records", strings.Join(got, " "), strings.Join(names(0, 1000), " "))

	got, _, _ = ask(t, Query{Files: []string{path}}, "kind:request")
	if len(got) == 0 || len(got) > 300 || got[len(got)-1] != "n999" {
		t.Errorf("the file alone: %d records", len(got))
	}

	link := filepath.Join(t.TempDir(), "link.jsonl")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	got, _, _ = ask(t, Query{Files: []string{link}, Rotated: true}, "kind:request")
	want(t, "through a link", len(got), 1000)

	for _, n := range []int{1, 3, 300, 999, 2000} {
		q := all
		q.Last = n
		got, said, err := ask(t, q, "kind:request")
		want(t, "the last, error", fmt.Sprint(err, said), "<nil>")
		want(t, "the last", strings.Join(got, " "), strings.Join(names(max(0, 1000-n), 1000), " "))
	}

	// The newest file was moved away, and nothing has its name yet.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	got, _, err = ask(t, all, "kind:request")
	if err != nil || len(got) < 500 || got[0] != "n0" {
		t.Errorf("without the newest: %v, %d records", err, len(got))
	}
}

// TestOnlyNeededFiles: old files are not even opened where nothing in them can be wanted.
func TestOnlyNeededFiles(t *testing.T) {
	path := rotated(t, 1000)
	old := predecessors(t, path)
	put(t, old[0].Path, "\x1f\x8bnot gzip")
	all := Query{Files: []string{path}, Rotated: true}
	got, said, err := ask(t, all)
	if !errors.Is(err, errUnread) || !slices.Contains(got, "n999") {
		t.Errorf("with a broken file: %v, %d records", err, len(got))
	}
	wantText(t, "a broken file", said, filepath.Base(old[0].Path))

	q := all
	q.Last = 5
	_, said, err = ask(t, q)
	want(t, "the last five", fmt.Sprint(err, said), "<nil>")

	f := &Filter{}
	for _, b := range []struct {
		since, until  time.Duration
		after, before time.Duration
		covers        bool
	}{
		{0, 0, 0, 0, true},
		{time.Hour, 0, 0, 30 * time.Minute, false},
		{time.Hour, 0, 0, 58 * time.Minute, true}, // the clock may have been set
		{time.Hour, 0, 0, 2 * time.Hour, true},
		{time.Hour, 0, 3 * time.Hour, 0, true},
		{0, time.Hour, 2 * time.Hour, 3 * time.Hour, false},
		{0, time.Hour, 30 * time.Minute, 3 * time.Hour, true},
	} {
		at := func(d time.Duration) time.Time {
			if d == 0 {
				return time.Time{}
			}
			return noon.Add(d)
		}
		f.since, f.until = at(b.since), at(b.until)
		want(t, fmt.Sprintf("%+v", b), f.covers(at(b.after), at(b.before)), b.covers)
	}
	// The same through the whole: the file was rotated an hour before what is asked for.
	ancient := filepath.Join(filepath.Dir(path), "audit-20010101T000000.000000000Z.jsonl.gz")
	put(t, ancient, "\x1f\x8bnot gzip")
	if err := os.Remove(old[0].Path); err != nil {
		t.Fatal(err)
	}
	_, said, err = ask(t, all, "since:2026-01-01")
	want(t, "since", fmt.Sprint(err, said), "<nil>")
	_, _, err = ask(t, all)
	want(t, "without since", err, errUnread)
}

func TestForeignLines(t *testing.T) {
	path := mixed(t)
	text := read(t, path)
	lines := strings.SplitAfter(text, "\n")
	noise := "hello\n\n{\"level\":\"INFO\",\"time\":\"2026-11-26T12:00:00Z\"}\n{\"time\":\"x\",\"kind\":\"request\",}\n[1]\n\x00\x00\x00\n" + strings.Repeat("y", 300_000) + "\n"
	bad := put(t, filepath.Join(t.TempDir(), "bad.jsonl"), lines[0]+noise+strings.Join(lines[1:], "")+lines[1][:50])
	got, said, err := ask(t, Query{Files: []string{bad}})
	want(t, "error", err, nil)
	want(t, "found", strings.Join(got, " "), "audit_started a b c d e loaded audit_stopped")
	want(t, "told", said, `8 lines are no audit records: the first, `+bad+`:2 begins with "hello"`)

	// A last line that only lacks its end is a record.
	short := put(t, filepath.Join(t.TempDir(), "short.jsonl"), strings.TrimSuffix(text, "\n"))
	got, said, err = ask(t, Query{Files: []string{short}})
	want(t, "without an end", fmt.Sprint(len(got), err, said), "8 <nil>")

	// A packed file that was cut off gives what it has.
	z := zipped(t, text)
	cut := put(t, filepath.Join(t.TempDir(), "cut.gz"), z[:len(z)-20])
	got, said, err = ask(t, Query{Files: []string{cut}})
	if !errors.Is(err, errUnread) || len(got) < 3 {
		t.Errorf("a packed file without its end: %v, %d records", err, len(got))
	}
	wantText(t, "a packed file without its end", said, "cut.gz", "unexpected EOF")

	_, said, err = ask(t, Query{Files: []string{filepath.Join(t.TempDir(), "no.jsonl"), path}})
	want(t, "a file that is not there", err, errUnread)
	wantText(t, "a file that is not there", said, "no such file")
	_, _, err = ask(t, Query{Files: []string{t.TempDir()}})
	want(t, "a folder", err, errUnread)
}

// TestLongLine: a line without end takes no memory without end, and what follows it is read.
func TestLongLine(t *testing.T) {
	l := newLines(strings.NewReader("first\n" + strings.Repeat("z", 1<<20) + "\nsecond\n" + strings.Repeat("y", 900<<10) + "\n" + strings.Repeat("x", 2<<20)))
	l.max = 900 << 10
	var got []string
	for {
		line, err := l.next()
		if err == io.EOF {
			break
		}
		got = append(got, fmt.Sprintf("%v %s %d %v", len(line) <= l.max, line[:5], l.n, err))
	}
	want(t, "lines", strings.Join(got, "; "), "true first 1 <nil>; true zzzzz 2 a line is longer than any record; true secon 3 <nil>; true yyyyy 4 <nil>")
	if cap(l.part) > 3<<20 {
		t.Errorf("%d bytes are held", cap(l.part))
	}
	want(t, "the rest", len(l.rest()), 0)
}

func TestStdin(t *testing.T) {
	text := read(t, mixed(t))
	for _, in := range []string{text, zipped(t, text)} {
		got, said, err := ask(t, Query{Files: []string{Stdin}, Stdin: strings.NewReader(in)}, "kind:request")
		want(t, "standard input", fmt.Sprint(got, err, said), "[a b c e] <nil>")
		got, _, _ = ask(t, Query{Files: []string{Stdin}, Stdin: strings.NewReader(in), Last: 2}, "kind:request")
		want(t, "the last of it", got, []string{"c", "e"})
	}
	got, _, err := ask(t, Query{Files: []string{Stdin}, Stdin: strings.NewReader("")})
	want(t, "nothing", fmt.Sprint(len(got), err), "0 <nil>")
}

// TestPipe: what comes through a pipe is shown when it comes, and not when a buffer is full.
func TestPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out buffer
	lines, err := NewLines(&out, false, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		q := Query{Files: []string{Stdin}, Stdin: r, Tell: func(string) {}}
		done <- q.Run(context.Background(), lines)
	}()
	line := `{"time":"2026-11-26T12:00:00.000000000Z","kind":"config"}` + "\n"
	_, _ = w.WriteString(line)
	eventually(t, "the line is shown", func() bool { return out.String() == line })
	w.Close()
	want(t, "the end", <-done, nil)
}

// buffer may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// follower follows a file in the background.
type follower struct {
	ids
	notes
	stop func() error
}

func follow(t *testing.T, q Query, words ...string) *follower {
	t.Helper()
	f := &follower{}
	var err error
	if q.Filter, err = Parse(words, noon); err != nil {
		t.Fatal(err)
	}
	q.Follow, q.Tell = true, f.tell
	if q.Poll == 0 {
		q.Poll = 3 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx, f) }()
	f.stop = func() error {
		cancel()
		return <-done
	}
	t.Cleanup(cancel)
	eventually(t, "it looks", func() bool { f.ids.mu.Lock(); defer f.ids.mu.Unlock(); return f.idled > 0 })
	return f
}

// looks waits until it has looked, and found nothing more, at what was there before.
func (f *follower) looks(t *testing.T) {
	t.Helper()
	idled := func() int {
		f.ids.mu.Lock()
		defer f.ids.mu.Unlock()
		return f.idled
	}
	before := idled()
	eventually(t, "it looks", func() bool { return idled() >= before+2 }) // it may have been looking already
}

// until waits for n records and stops.
func (f *follower) until(t *testing.T, n int) []string {
	t.Helper()
	eventually(t, fmt.Sprintf("%d records", n), func() bool { return len(f.list()) >= n })
	f.looks(t) // what should not come would come now
	want(t, "the end", f.stop(), nil)
	return f.list()
}

// TestFollowRotations: each record is shown once and in its order, however many files they take and however rarely one looks.
func TestFollowRotations(t *testing.T) {
	for _, poll := range []time.Duration{time.Millisecond, 200 * time.Millisecond} {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		w := newWriter(t, path, small)
		f := follow(t, Query{Files: []string{path}, Last: 10, Poll: poll}, "kind:request")
		for i := range 40 {
			w.numbered(i*50, i*50+50)
			time.Sleep(time.Millisecond)
		}
		w.end()
		if n := len(predecessors(t, path)); n < 8 {
			t.Fatalf("%d rotated files", n)
		}
		want(t, "the records", strings.Join(f.until(t, 2000), " "), strings.Join(names(0, 2000), " "))
		want(t, "what was told", f.notes.String(), "")
	}
}

// TestFollowMoved: something else moves the file away, and the daemon writes into it for a while yet.
func TestFollowMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w := newWriter(t, path, nil)
	w.numbered(0, 10)
	f := follow(t, Query{Files: []string{path}, Last: 3}, "kind:request")
	w.numbered(10, 20)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	w.numbered(20, 30)
	put(t, path, "") // as logrotate's create does
	w.numbered(30, 40)
	f.looks(t)
	if err := w.Reopen(); err != nil {
		t.Fatal(err)
	}
	w.numbered(40, 50)
	w.end()
	eventually(t, "the last one", func() bool { return slices.Contains(f.list(), "n49") })
	got := f.until(t, 30)
	from := 50 - len(got) // some of the first ten may not have been written yet when it began
	if from > 7 {
		t.Fatalf("%d records", len(got))
	}
	want(t, "the records", strings.Join(got, " "), strings.Join(names(from, 50), " "))
}

func TestFollowPieces(t *testing.T) {
	line := func(id string) string {
		return `{"time":"2026-11-26T12:00:00.000000000Z","id":"` + id + `","kind":"request"}` + "\n"
	}
	path := put(t, filepath.Join(t.TempDir(), "audit.jsonl"), line("a")+line("b")+line("c")[:20])
	f := follow(t, Query{Files: []string{path}, Last: 1})
	add := func(text string) {
		t.Helper()
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if _, err := out.WriteString(text); err != nil {
			t.Fatal(err)
		}
		f.looks(t)
	}
	add(line("c")[20:40])
	add(line("c")[40:] + line("d") + line("x")[:30])
	// The daemon takes back what a full disk let it write half.
	if err := os.Truncate(path, int64(len(line("a"))*4)); err != nil {
		t.Fatal(err)
	}
	f.looks(t)
	add(line("e"))
	eventually(t, "what was written behind the cut", func() bool { return slices.Contains(f.list(), "e") })
	want(t, "told of a torn line", f.notes.String(), "")
	// Somebody empties the file.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	f.looks(t)
	add(line("f"))
	want(t, "the records", f.until(t, 5), []string{"b", "c", "d", "e", "f"})
	wantText(t, "told", f.notes.String(), "was cut: it is read from its beginning")
}

// TestFollowAll: since shows all since then, from the rotated files too, and goes on.
func TestFollowAll(t *testing.T) {
	path := rotated(t, 1000)
	f := follow(t, Query{Files: []string{path}, Rotated: true}, "kind:request")
	w := newWriter(t, path, small)
	w.numbered(1000, 1300)
	w.end()
	want(t, "the records", strings.Join(f.until(t, 1300), " "), strings.Join(names(0, 1300), " "))
}
