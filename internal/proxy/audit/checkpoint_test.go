package audit

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// signed is a trail with checkpoints, in a directory of its own.
func signed(dir string) func(*Config) {
	return func(c *Config) {
		c.Checkpoint = CheckpointConfig{Every: time.Minute, Records: 20, Key: filepath.Join(dir, "audit.key")}
	}
}

func publicOf(t testing.TB, dir string) []ed25519.PublicKey {
	t.Helper()
	k, err := ReadPublicKey(filepath.Join(dir, "audit.key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	return []ed25519.PublicKey{k}
}

func faultOf(t testing.TB, err error) *Fault {
	t.Helper()
	var f *Fault
	if !errors.As(err, &f) {
		t.Fatalf("no fault but %v", err)
	}
	return f
}

// TestCheckpoints: when they are made, what they say, and that they cause no others.
func TestCheckpoints(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	synctest.Test(t, func(t *testing.T) {
		tr := at(t, path, signed(dir))
		lines := func() int { return strings.Count(read(t, path+checkpointSuffix), "\n") }
		time.Sleep(59 * time.Second)
		want(t, "before a minute has passed", lines(), 0)
		time.Sleep(2 * time.Second)
		want(t, "after a minute", lines(), 1)
		time.Sleep(time.Hour)
		want(t, "while nothing happens", lines(), 1)
		tr.events(1)
		time.Sleep(time.Second)
		want(t, "a record after a long rest", lines(), 2)
		tr.events(25)
		time.Sleep(2 * time.Second)
		want(t, "many records", lines(), 3)
		for range 10 {
			tr.events(25)
			time.Sleep(100 * time.Millisecond)
		}
		if n := lines(); n > 5 {
			t.Errorf("%d checkpoints in a second of many records", n)
		}
		tr.events(1)
		tr.end()
	})
	r, err := Verify(Evidence{Keys: publicOf(t, dir)}, path)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "the end", r.Checked.Seq, r.Last.Seq)
	want(t, "stopped", r.Stopped, true)
	wantText(t, "report", r.String(), "the end was checked: record ", "behind it 0 records", "signed by SHA256:")
	if r.Checkpoints < 4 || r.Witnessed != r.Checkpoints+1 {
		t.Errorf("%d checkpoints in the trail, %d in the file", r.Checkpoints, r.Witnessed)
	}
	info, _ := os.Stat(filepath.Join(dir, "audit.key"))
	want(t, "the key's mode", info.Mode().Perm(), fs.FileMode(0o600))
}

// TestCheckpointsAcrossRuns: the key stays, the file grows, and a rotation is followed by a checkpoint.
func TestCheckpointsAcrossRuns(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	synctest.Test(t, func(t *testing.T) {
		for range 2 {
			tr := at(t, path, func(c *Config) { signed(dir)(c); c.MaxSize, c.Checkpoint.Records = 64<<10, 0 })
			time.Sleep(10 * time.Second)
			tr.fill(70_000)
			time.Sleep(2 * time.Second)
			tr.end()
		}
	})
	r := verified(t, trailFiles(t, path)...)
	want(t, "the end", r.Checked.Seq, r.Last.Seq)
	if r.Checkpoints < 2 || r.Checkpoints > 4 { // one behind each rotation, and where the first records were through before it, one for those
		t.Error("checkpoints in the trail:", r.Checkpoints)
	}
	want(t, "checkpoints in the file", r.Witnessed, r.Checkpoints+2)
}

// TestCheckpointFileFails: what cannot be had is an error where it was asked for, and told to the log where it is only the default.
func TestCheckpointFileFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	if err := os.Mkdir(path+checkpointSuffix, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := tryAt(path, signed(dir)); err == nil {
		t.Error("checkpoints that cannot be written were no reason not to start")
	}
	tr := at(t, path, func(c *Config) { signed(dir)(c); c.Checkpoint.Optional = true })
	tr.end()
	wantText(t, "log", tr.said.String(), "gets no checkpoints")
	put(t, filepath.Join(dir, "open.key"), "")
	if err := os.Chmod(filepath.Join(dir, "open.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := tryAt(path, func(c *Config) { signed(dir)(c); c.Checkpoint.Key = filepath.Join(dir, "open.key") })
	if err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
}

// TestTornCheckpoint: a line over which the daemon died is no fault, and the next daemon cuts it off.
func TestTornCheckpoint(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	at(t, path, signed(dir)).end()
	whole := read(t, path+checkpointSuffix)
	put(t, path+checkpointSuffix, whole+whole[:40])
	wantText(t, "report", verified(t, path).String(), "a line of the checkpoint file is not complete")
	at(t, path, signed(dir)).end()
	r := verified(t, path)
	want(t, "checkpoints", r.Witnessed, 2)
	want(t, "torn", r.CheckpointTorn, false)
}

// TestCheckpointsTwice: lines that came twice, as what ships them may deliver, are as good as once, and still miss what is gone.
func TestCheckpointsTwice(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	at(t, path, signed(dir)).end()
	at(t, path, signed(dir)).end()
	lines := splitLines(read(t, path+checkpointSuffix))
	want(t, "lines", len(lines), 2)
	for _, order := range [][]int{{0, 0, 1}, {0, 1, 0, 1}, {0, 1, 1}} {
		var text strings.Builder
		for _, i := range order {
			text.WriteString(lines[i] + "\n")
		}
		put(t, path+checkpointSuffix, text.String())
		r := verified(t, path)
		want(t, fmt.Sprint(order, " witnessed"), r.Witnessed, 2)
		want(t, fmt.Sprint(order, " the end"), r.Checked.Seq, r.Last.Seq)
	}
	all := splitLines(read(t, path))
	put(t, path, strings.Join(all[:len(all)-1], "\n")+"\n")
	_, err := VerifyFiles(path)
	wantText(t, "the end is gone", faultOf(t, err).What, "the end was cut off")
}

// TestCheckpointFileIsBounded: the older half goes, and what is left still vouches.
func TestCheckpointFileIsBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{}
	signed(dir)(&cfg)
	c, err := openCheckpoints(cfg.Checkpoint, path, slog.New(slog.DiscardHandler), m)
	if err != nil {
		t.Fatal(err)
	}
	line := string(append(c.sign(link{seq: 7, hash: genesis().hash}, time.Now()).append(nil), '}', '\n'))
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	put(t, c.path, strings.Repeat(line, maxCheckpoints/len(line)))
	if c, err = openCheckpoints(cfg.Checkpoint, path, slog.New(slog.DiscardHandler), m); err != nil {
		t.Fatal(err)
	}
	c.sign(link{seq: 8, hash: genesis().hash}, time.Now())
	c.sign(link{seq: 9, hash: genesis().hash}, time.Now())
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	all, torn, err := readCheckpoints(c.path)
	if err != nil || torn {
		t.Fatal(err, torn)
	}
	if n := len(all); n > maxCheckpoints/len(line)/2+2 || all[n-1].of.seq != 9 || all[n-2].of.seq != 8 || all[0].of.seq != 7 {
		t.Errorf("%d checkpoints", n)
	}
}

// story is a trail with all that there may be, and what can be done to it.
type story struct {
	t     testing.TB
	dir   string
	files []string   // names, the oldest first
	lines [][]string // of each file
	there []string   // what the copy's files hold
}

// newStory writes about 200 records into several files, most of them compressed, over two runs.
func newStory(t *testing.T) *story {
	t.Helper()
	s := &story{t: t, dir: t.TempDir()}
	path := filepath.Join(s.dir, "audit.jsonl")
	synctest.Test(t, func(t *testing.T) {
		for range 2 {
			tr := at(t, path, func(c *Config) { signed(s.dir)(c); c.MaxSize, c.MaxFiles = 10<<10, 0 })
			for range 4 {
				for range 22 {
					tr.Exchange(typical(), nil)
				}
				time.Sleep(2 * time.Second)
			}
			tr.end()
		}
	})
	tidy(t, path, 0)
	for _, f := range trailFiles(t, path) {
		s.files = append(s.files, filepath.Base(f))
		r, err := openRecords(f)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for l := newLines(r); ; {
			line, err := l.next()
			if err != nil {
				break
			}
			lines = append(lines, string(line))
		}
		r.close()
		s.lines = append(s.lines, lines)
	}
	return s
}

// spot is a record's place.
type spot struct{ file, line int }

func (s *story) spots() (all []spot) {
	for f, lines := range s.lines {
		for l := range lines {
			all = append(all, spot{f, l})
		}
	}
	return all
}

// told verifies the trail with other lines in it.
func (s *story) told(change func(lines [][]string)) error {
	s.t.Helper()
	lines := make([][]string, len(s.lines))
	for i := range lines {
		lines[i] = slices.Clone(s.lines[i])
	}
	change(lines)
	dir := filepath.Join(s.dir, "copy")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	var paths []string
	if s.there == nil {
		s.there = make([]string, len(s.files))
	}
	for i, name := range s.files {
		text := ""
		if len(lines[i]) > 0 {
			text = join(lines[i])
		}
		paths = append(paths, filepath.Join(dir, name))
		if s.there[i] != text || text == "" {
			put(s.t, paths[i], text)
			s.there[i] = text
		}
	}
	_, err := Verify(Evidence{Checkpoints: filepath.Join(s.dir, "audit.jsonl"+checkpointSuffix)}, paths...)
	return err
}

// found checks that a change is a fault, and its place.
func (s *story) found(what string, err error, at spot) {
	s.t.Helper()
	var f *Fault
	if !errors.As(err, &f) {
		s.t.Fatalf("%s was not found: %v", what, err)
	}
	if filepath.Base(f.File) != s.files[at.file] || f.Line != at.line+1 {
		s.t.Fatalf("%s: %v, want it at %s:%d", what, f, s.files[at.file], at.line+1)
	}
}

// TestTampering: over a trail of many records and files, nothing that can be done to one of them goes unnoticed, and its place is named.
func TestTampering(t *testing.T) {
	s := newStory(t)
	spots := s.spots()
	if len(spots) < 180 || len(s.files) < 10 || !strings.HasSuffix(s.files[0], packed) {
		t.Fatalf("%d records in %d files", len(spots), len(s.files))
	}
	if err := s.told(func([][]string) {}); err != nil {
		t.Fatal(err)
	}
	last := len(spots) - 1
	for i, at := range spots {
		line := s.lines[at.file][at.line]
		for n, b := range places(line) {
			if n%6 != i%6 { // each class at every sixth record
				continue
			}
			err := s.told(func(lines [][]string) {
				flipped := []byte(line)
				flipped[b] ^= 1
				lines[at.file][at.line] = string(flipped)
			})
			s.found(fmt.Sprintf("byte %d of record %d", b, i+1), err, at)
		}
		err := s.told(func(lines [][]string) { lines[at.file] = slices.Delete(lines[at.file], at.line, at.line+1) })
		switch {
		case i == 0: // a trail may begin in the middle, but the checkpoints know better only of what they speak of
			if err != nil {
				t.Fatal(err)
			}
		case i == last:
			s.found("the last record's removal", err, spots[i-1])
		case spots[i+1].file == at.file:
			s.found("a removal", err, at)
		default:
			s.found("a removal at a file's end", err, spots[i+1])
		}
		if i == last {
			break
		}
		other := spots[i+1+(i*7)%(last-i)]
		for _, o := range []spot{spots[i+1], other} {
			err = s.told(func(lines [][]string) {
				a, b := &lines[at.file][at.line], &lines[o.file][o.line]
				*a, *b = *b, *a
			})
			if f := faultOf(t, err); i > 0 { // a trail may begin anywhere, so that its first record is not in the wrong place, but those behind it
				s.found("a swap", f, at)
			}
		}
		err = s.told(func(lines [][]string) {
			lines[at.file] = lines[at.file][:at.line+1]
			for f := at.file + 1; f < len(lines); f++ {
				lines[f] = nil
			}
		})
		s.found(fmt.Sprintf("a truncation behind record %d", i+1), err, at)
		wantText(t, "truncation", err.Error(), "the end was cut off")
	}
	for f := 1; f < len(s.files); f++ {
		err := s.told(func(lines [][]string) { lines[f] = nil })
		at := spot{f + 1, 0}
		if f == len(s.files)-1 {
			at = spot{f - 1, len(s.lines[f-1]) - 1}
		}
		s.found("a file's removal", err, at)
	}
}

// places are a byte of each class: the time, the kind, the content, each part of the chain, and the ends.
func places(line string) []int {
	seq, prev, hash := strings.LastIndex(line, seqKey), strings.LastIndex(line, prevKey), strings.LastIndex(line, hashKey)
	return []int{0, len(opening) + 3, strings.Index(line, `"kind":"`) + 9, seq - 2, seq + 3, seq + len(seqKey), prev + 3, prev + len(prevKey) + 5,
		hash + 2, hash + len(hashKey), len(line) - 3, len(line) - 1}
}

// contentOf is what a compressed file holds.
func contentOf(packed []byte) string {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(z)
	return fmt.Sprint(string(text), err)
}

// TestPackedBytes: a flipped byte of a compressed file is found too, whatever it does to the compression.
func TestPackedBytes(t *testing.T) {
	s := newStory(t)
	var paths []string
	for _, f := range s.files {
		paths = append(paths, filepath.Join(s.dir, f))
	}
	verified(t, paths...)
	good := read(t, paths[1])
	const header = 10 // the name, the time and the system in it mean nothing to the content
	for at := header; at < len(good); at += 11 {
		bad := []byte(good)
		bad[at] ^= 1 << (at % 8)
		put(t, paths[1], string(bad))
		if _, err := VerifyFiles(paths...); err == nil {
			if contentOf(bad) != contentOf([]byte(good)) { // some bits only fill bytes up, and mean nothing
				t.Fatalf("byte %d was not found", at)
			}
		} else if !strings.Contains(err.Error(), s.files[1]) && !strings.Contains(err.Error(), s.files[2]) {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
}

// rewrite chains what an attacker keeps anew, from a record on.
func rewrite(lines []string, from int, key ed25519.PrivateKey, change func(string) string) (out []string, signed []string) {
	state, _ := after([]byte(lines[from-1]))
	out = slices.Clone(lines[:from])
	for _, l := range lines[from:] {
		body := change(l[:strings.LastIndex(l, seqKey)])
		if c, err := parseCheckpoint([]byte(l)); err == nil {
			if key == nil {
				continue
			}
			p := &checkpoint{time: c.time, of: state, records: c.records, key: key.Public().(ed25519.PublicKey)}
			p.signature = ed25519.Sign(key, p.text())
			body = string(p.append(nil))
			signed = append(signed, body+"}")
		}
		var line []byte
		line, state = state.seal([]byte(body), 0)
		out = append(out, string(line))
	}
	return out, signed
}

// TestForgery: whoever writes the trail anew, right hashes and all, is found by the checkpoints.
func TestForgery(t *testing.T) {
	s := newStory(t)
	var lines []string
	for _, f := range s.lines {
		lines = append(lines, f...)
	}
	lie := func(l string) string { return strings.Replace(l, "api.example.com", "api.example.org", 1) }
	own := publicOf(t, s.dir)
	genuine := filepath.Join(s.dir, "audit.jsonl"+checkpointSuffix)
	_, foreign, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	trail := filepath.Join(t.TempDir(), "audit.jsonl")

	kept, _ := rewrite(lines, 100, nil, lie)
	put(t, trail, join(kept))
	if _, err := VerifyFiles(trail); err != nil {
		t.Fatal("without any checkpoint it is a whole chain:", err)
	}
	_, err = Verify(Evidence{Checkpoints: genuine}, trail)
	wantText(t, "without the key", faultOf(t, err).What, "is not the one that the checkpoint at", "was written anew behind record")
	_, err = Verify(Evidence{Keys: own}, put(t, filepath.Join(t.TempDir(), "audit.jsonl"), join(kept[:10])))
	wantText(t, "no checkpoint at all", faultOf(t, err).What, "no checkpoint is signed by the key given")

	forged, _ := rewrite(lines, 100, foreign, lie)
	put(t, trail, join(forged))
	_, err = VerifyFiles(trail)
	wantText(t, "another key in the middle", faultOf(t, err).What, "is not to be trusted", "others by SHA256:")

	all, file := rewrite(lines, 1, foreign, lie)
	put(t, trail, join(all))
	put(t, trail+checkpointSuffix, join(file))
	r := verified(t, trail)
	want(t, "another key all over, and nobody knows the right one", r.Pinned, false)
	wantText(t, "report", r.String(), "compare with `httpowerd audit key`")
	_, err = Verify(Evidence{Keys: own}, trail)
	f := faultOf(t, err)
	want(t, "file", f.File, trail+checkpointSuffix)
	wantText(t, "the right key is given", f.What, "none of the keys given")

	words := strings.SplitAfter(read(t, genuine), "\n")
	words[1] = strings.Replace(words[1], `"of":`, `"of":1`, 1)
	put(t, trail+checkpointSuffix, strings.Join(words, ""))
	_, err = VerifyFiles(trail)
	f = faultOf(t, err)
	want(t, "line", f.Line, 2)
	wantText(t, "an altered line of the file", f.What, "its signature does not fit")

	first := slices.IndexFunc(lines, func(l string) bool { _, err := parseCheckpoint([]byte(l)); return err == nil })
	c, _ := parseCheckpoint([]byte(lines[first]))
	c.records++
	line, _ := c.of.seal(c.append(nil), 0)
	put(t, trail, join(lines[:first], []string{string(line)}))
	none := put(t, filepath.Join(t.TempDir(), "none"), "")
	_, err = Verify(Evidence{Checkpoints: none}, trail)
	wantText(t, "an altered checkpoint", faultOf(t, err).What, "is a forged checkpoint: its signature does not fit")

	moved := slices.Clone(lines)
	state := genesis()
	var copied string
	for i, l := range moved { // a genuine checkpoint at another place, in a chain of right hashes
		body := l[:strings.LastIndex(l, seqKey)]
		if _, err := parseCheckpoint([]byte(l)); err == nil && copied == "" {
			copied = body
		}
		if i == 120 {
			body = copied
		}
		var line []byte
		line, state = state.seal([]byte(body), 0)
		moved[i] = string(line)
	}
	put(t, trail, join(moved[:121]))
	_, err = Verify(Evidence{Checkpoints: none}, trail)
	wantText(t, "a copied checkpoint", faultOf(t, err).What, "does not stand behind it")
}

// TestCrashBetween: a line of the checkpoint file without its record, or a record without the line, is what a crash leaves, and no alarm.
func TestCrashBetween(t *testing.T) {
	s := newStory(t)
	var lines []string
	for _, f := range s.lines {
		lines = append(lines, f...)
	}
	file := splitLines(read(t, filepath.Join(s.dir, "audit.jsonl"+checkpointSuffix)))
	i := slices.IndexFunc(lines, func(l string) bool { _, err := parseCheckpoint([]byte(l)); return err == nil })
	c, _ := parseCheckpoint([]byte(lines[i]))
	f, _ := parseCheckpoint([]byte(file[0]))
	want(t, "the first", c.of, f.of)
	trail := put(t, filepath.Join(t.TempDir(), "audit.jsonl"), join(lines[:i]))
	put(t, trail+checkpointSuffix, join(file[:1]))
	want(t, "a line without its record", verified(t, trail).Witnessed, 1)
	put(t, trail, join(lines[:i+1]))
	put(t, trail+checkpointSuffix, "")
	r := verified(t, trail)
	want(t, "a record without its line", r.Checkpoints, 1)
	wantText(t, "report", r.String(), "the end was not checked: no checkpoint in ")
}

// TestRetentionVerifies: what is left after the oldest files are gone begins in the middle, and says so.
func TestRetentionVerifies(t *testing.T) {
	s := newStory(t)
	var paths []string
	for _, f := range s.files[4:] {
		paths = append(paths, filepath.Join(s.dir, f))
	}
	r := verified(t, paths...)
	want(t, "the end", r.Checked.Seq, r.Last.Seq)
	if r.First.Seq < 10 || r.Earlier == 0 {
		t.Errorf("first %d, %d earlier checkpoints", r.First.Seq, r.Earlier)
	}
	wantText(t, "report", r.String(), "nothing is known of those before", "of records before these files")
}
