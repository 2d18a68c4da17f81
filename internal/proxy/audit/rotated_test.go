package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

// fill records an event and an exchange for every 1000 of n; together they take about 2 KB.
func (tr *trail) fill(n int) {
	text := strings.Repeat("x", 1000)
	for range n / 1000 {
		tr.events(1)
		x := typical()
		x.Update(func(s *exchange.Story) { s.Detail = text })
		tr.Exchange(x, nil)
	}
}

func TestRotationBySize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	tr := at(t, path, func(c *Config) { c.MaxSize, c.MaxFiles = 64<<10, 0 })
	tr.fill(500_000)
	tr.end()
	at(t, path, func(c *Config) { c.MaxSize, c.MaxFiles = 64<<10, 0 }).end() // its keeper compresses what the first did not get to
	files := trailFiles(t, path)
	if len(files) < 8 {
		t.Fatalf("%d files", len(files))
	}
	r := verified(t, files...)
	want(t, "records", r.Records, 2*500+4)
	want(t, "first", r.First.Seq, 1)
	for _, f := range files {
		if n := len(unpacked(t, f)); n > 64<<10 {
			t.Errorf("%s holds %d bytes", f, n)
		}
	}
	// A file that is missing is noticed, and so is the wrong order.
	_, err := VerifyFiles(slices.Delete(slices.Clone(files), 3, 4)...)
	wantText(t, "a missing file", err.Error(), filepath.Base(files[4])+":1: records ", "missing before this file")
	slices.Reverse(files)
	_, err = VerifyFiles(files...)
	wantText(t, "the wrong order", err.Error(), filepath.Base(files[1])+":1: ", "oldest first")
}

// unpacked is what a file holds, unpacked.
func unpacked(t *testing.T, path string) string {
	t.Helper()
	r, err := openRecords(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestGiantRecord: a record that is larger than a file may be has one for itself.
func TestGiantRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	tr := at(t, path, func(c *Config) { c.MaxSize, c.MaxFiles = 64<<10, 0 })
	tr.Exchange(typical(), &Extra{RequestType: "text/plain", RequestBody: []byte(strings.Repeat("a long word ", 20_000))})
	tr.end()
	files := trailFiles(t, path)
	want(t, "files", len(files), 3)
	want(t, "records", verified(t, files...).Records, 3)
}

func TestRotationByAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	synctest.Test(t, func(t *testing.T) {
		aged := func(c *Config) { c.MaxAge = setting.Duration(time.Hour) }
		tr := at(t, path, aged)
		time.Sleep(40 * time.Minute)
		tr.events(1)
		tr.end()
		want(t, "files", len(trailFiles(t, path)), 1)
		tr = at(t, path, aged) // the age is that of the first record, whoever wrote it
		time.Sleep(21 * time.Minute)
		tr.events(1)
		time.Sleep(time.Minute)
		want(t, "files", len(trailFiles(t, path)), 2)
		tr.events(1)
		tr.end()
		want(t, "the new file", summary(t, splitLines(read(t, path))), "loaded:0 loaded:0 audit_stopped")
	})
	want(t, "records", verified(t, trailFiles(t, path)...).Records, 7)
}

// TestKeepDoubtsTheClock: one that went ahead by itself deletes nothing for a day, by age; after that it is believed.
func TestKeepDoubtsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := newNaming(filepath.Join(t.TempDir(), "audit.jsonl"))
		name, err := names.next(time.Now().Add(-200 * 24 * time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(names.dir, name+packed), "")
		var log buffer
		k := &keeper{names: names, age: 365 * 24 * time.Hour, log: log.logger(), event: func(context.Context, string, ...slog.Attr) bool { return true }, gone: func() {}}
		left := func() int {
			if err := k.work(t.Context()); err != nil {
				t.Fatal(err)
			}
			all, _ := names.list()
			return len(all)
		}
		want(t, "files", left(), 1)
		k.age = 100 * 24 * time.Hour                  // as if the clock were that much later
		k.wall = k.wall.Add(-clockStep - time.Second) // and had gone there
		time.Sleep(keeperRound)
		want(t, "files after a step", left(), 1)
		wantText(t, "the log", log.String(), "the clock went ahead")
		time.Sleep(clockDoubt)
		want(t, "files a day later", left(), 0)
	})
}

// TestRetention: the oldest of our own rotated files go, and nothing else.
func TestRetention(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	others := []string{"audit-old.jsonl", "audit-20260102T150405Z.jsonl", "audit.jsonl.1", "other-20000102T150405.000000000Z.jsonl", "audit-20000102T150405.000000000Z.jsonl.bak"}
	for _, name := range others {
		put(t, filepath.Join(dir, name), "keep")
	}
	put(t, filepath.Join(dir, "audit-20000102T150405.000000000Z.jsonl"), "")
	put(t, filepath.Join(dir, "audit-20000102T150405.000000000Z.jsonl.gz"), "") // compression was interrupted: both are the same file
	adjust := func(c *Config) { c.MaxSize, c.MaxFiles = 64<<10, 3 }
	tr := at(t, path, adjust)
	tr.fill(600_000)
	tr.end()
	tidy(t, path, 3)
	files := trailFiles(t, path)
	want(t, "files", len(files), 4)
	for _, name := range others {
		want(t, name, read(t, filepath.Join(dir, name)), "keep")
	}
	r := verified(t, files...)
	if r.First.Seq < 100 {
		t.Errorf("the first record is %d", r.First.Seq)
	}
	wantText(t, "report", r.String(), "nothing is known of those before")
	for _, f := range files[:3] {
		want(t, filepath.Base(f)+" is compressed", strings.HasSuffix(f, packed), true)
	}
}

// TestRetentionOfHalfPacked: with a file goes what a killed daemon had begun of its compressed form.
func TestRetentionOfHalfPacked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	names := newNaming(path)
	old := put(t, filepath.Join(names.dir, names.stem+"20260102T150405.000000000Z.jsonl"), "old\n")
	put(t, old+packing, "what a killed daemon left")
	put(t, filepath.Join(names.dir, names.stem+"20260103T150405.000000000Z.jsonl"), "young\n")
	tidy(t, path, 1)
	entries, _ := os.ReadDir(names.dir)
	want(t, "files", len(entries), 1)
	want(t, "what is left", entries[0].Name(), names.stem+"20260103T150405.000000000Z.jsonl"+packed)
}

// tidy does the keeper's work to its end.
func tidy(t *testing.T, path string, most int) {
	t.Helper()
	k := &keeper{names: newNaming(path), max: most, log: (&buffer{}).logger(), event: func(context.Context, string, ...slog.Attr) bool { return true }, gone: func() {}}
	if err := k.work(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestCompression(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	old := newNaming(path).stem + "20260102T150405.000000000Z.jsonl"
	dir := filepath.Dir(path)
	rotatedPath := put(t, filepath.Join(dir, old), strings.Repeat("some lines\n", 100_000))
	put(t, rotatedPath+packing, "what a killed daemon left")
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	k := &keeper{names: newNaming(path), log: (&buffer{}).logger()}
	if err := k.work(stopped); err == nil {
		t.Error("a stopped keeper finished")
	}
	entries, _ := os.ReadDir(dir)
	want(t, "files after an interruption", len(entries), 1)
	tidy(t, path, 0)
	entries, _ = os.ReadDir(dir)
	want(t, "files", len(entries), 1)
	f, err := os.Open(rotatedPath + packed)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	content, _ := io.ReadAll(z)
	want(t, "content", string(content), strings.Repeat("some lines\n", 100_000))
	if info, _ := f.Stat(); info.Mode().Perm() != 0o600 || info.Size() > 20_000 {
		t.Errorf("mode %v, %d bytes", info.Mode(), info.Size())
	}
}

// TestCompressedIsRead: no file is deleted for one that is cut short, were it in its checksum only.
func TestCompressedIsRead(t *testing.T) {
	content := strings.Repeat("some lines\n", 3*chunk/11)
	var b bytes.Buffer
	if err := pack(t.Context(), &b, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	whole := b.String()
	changed := []byte(whole)
	changed[len(changed)-6] ^= 1 // of the CRC
	for name, row := range map[string]struct {
		file string
		good bool
	}{
		"whole":     {whole, true},
		"no length": {whole[:len(whole)-4], false},
		"no CRC":    {whole[:len(whole)-8], false},
		"another":   {string(changed), false},
		"half":      {whole[:len(whole)/2], false},
		"nothing":   {"", false},
	} {
		path := put(t, filepath.Join(t.TempDir(), "audit.jsonl.gz"), row.file)
		if err := check(t.Context(), path, int64(len(content))); (err == nil) != row.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// atEachRest calls a function whenever work in the background rests.
type atEachRest struct {
	context.Context
	f func()
}

func (c atEachRest) Done() <-chan struct{} {
	c.f()
	return c.Context.Done()
}

// TestRotatedMeanwhile: files that are rotated while one is compressed count at once, not when all are.
func TestRotatedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	n, left := newNaming(path), 6
	rotate := func() {
		name, err := n.next(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(n.dir, name), strings.Repeat("some lines\n", 2*chunk/11))
	}
	for range 3 {
		rotate()
	}
	var deleted, most int
	k := &keeper{names: n, max: 3, log: (&buffer{}).logger(), event: func(context.Context, string, ...slog.Attr) bool { return true }, gone: func() { deleted++ }}
	err := k.work(atEachRest{t.Context(), func() {
		if all, _ := n.list(); left > 0 && len(all) < 5 {
			rotate()
			left--
		}
		all, _ := n.list()
		most = max(most, len(all))
	}})
	if err != nil {
		t.Fatal(err)
	}
	files, _ := n.list()
	want(t, "files", len(files), 3)
	want(t, "deleted", deleted, 6)
	want(t, "rotated meanwhile", left, 0)
	want(t, "the most at a time", most, 5)
	for _, f := range files {
		want(t, f.name+" is compressed", f.packed, true)
	}
}

// TestClockGoesBack: a rotated file's name is behind all others, whatever the clock says.
func TestClockGoesBack(t *testing.T) {
	n := newNaming(filepath.Join(t.TempDir(), "audit.jsonl"))
	put(t, filepath.Join(n.dir, "audit-20990102T150405.000000007Z.jsonl.gz"), "")
	name, err := n.next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "name", name, "audit-20990102T150405.000000008Z.jsonl")
}

// TestInheritedChain: a daemon that died just after a rotation left an empty file; the chain goes on from the rotated one.
func TestInheritedChain(t *testing.T) {
	for name, pack := range map[string]bool{"plain": false, "compressed": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			at(t, path, nil).end()
			name, _ := newNaming(path).next(time.Now())
			if err := os.Rename(path, filepath.Join(filepath.Dir(path), name)); err != nil {
				t.Fatal(err)
			}
			if pack {
				tidy(t, path, 0)
			}
			put(t, path+nextSuffix, "") // between the two renames
			at(t, path, nil).end()
			r := verified(t, trailFiles(t, path)...)
			want(t, "records", r.Records, 4)
			want(t, "chains", len(r.Chains), 0)
			if _, err := os.Stat(path + nextSuffix); err == nil {
				t.Error("the leftover is still there")
			}
		})
	}
}

// TestErrorsNameTheFile: after a rotation, too, an error names the file that there is.
func TestErrorsNameTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	out, _, err := openFile(Config{Output: path}, (&buffer{}).logger())
	if err != nil {
		t.Fatal(err)
	}
	s := out.(*file)
	_, err = s.Write([]byte("{}\n"))
	if _, failed := s.rotate(time.Now()); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	if err := s.f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("{}\n")); err == nil || !strings.Contains(err.Error(), path+":") {
		t.Errorf("a write: %v", err)
	}
	if err := s.Sync(); err == nil || !strings.Contains(err.Error(), path+":") {
		t.Errorf("a sync: %v", err)
	}
}

// TestRotationFails: records go on into the old file, and the log says so once.
func TestRotationFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	tr := at(t, path, func(c *Config) { c.MaxSize = 64 << 10 })
	if err := os.Mkdir(path+nextSuffix, 0o700); err != nil { // in the way of the new file
		t.Fatal(err)
	}
	tr.fill(200_000)
	tr.end()
	want(t, "errors in the log", strings.Count(tr.said.String(), "was not rotated"), 1)
	want(t, "records", verified(t, path).Records, 402)
}

// TestLinkedFile: the path may be a symbolic link; what it leads to is rotated, where it lies.
func TestLinkedFile(t *testing.T) {
	target := filepath.Join(t.TempDir(), "real.jsonl")
	put(t, target, "")
	link := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	tr := at(t, link, func(c *Config) { c.MaxSize = 64 << 10 })
	tr.fill(100_000)
	tr.end()
	files := trailFiles(t, target)
	want(t, "files", len(files), 4)
	want(t, "records", verified(t, files...).Records, 202)
}

func durationOf(d time.Duration) setting.Duration { return setting.Duration(d) }

// all is what the files of a trail hold.
func (tr *trail) all(path string) string {
	var all strings.Builder
	for _, f := range trailFiles(tr.t, path) {
		r, err := openRecords(f)
		if err != nil {
			tr.t.Fatal(err)
		}
		if _, err := io.Copy(&all, r); err != nil {
			tr.t.Error(err)
		}
		r.close()
	}
	return all.String()
}
