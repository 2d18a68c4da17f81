package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sealedLines are n chained records, written by one daemon from start to stop, behind state.
func sealedLines(state link, chain string, n int) ([]string, link) {
	var out []string
	add := func(rest string) {
		var line []byte
		line, state = state.seal([]byte(`{"time":"2026-03-04T05:06:07.000000000Z","kind":`+rest), 0)
		out = append(out, string(line))
	}
	add(`"lifecycle","event":"audit_started","chain":"` + chain + `"`)
	for i := range n - 2 {
		add(fmt.Sprintf(`"request","url":"http://api.example.com/%d"`, i))
	}
	add(`"lifecycle","event":"audit_stopped"`)
	return out, state
}

func join(lines ...[]string) string { return strings.Join(slices.Concat(lines...), "\n") + "\n" }

// TestVerifyFaults: each kind of tampering is found, with its place.
func TestVerifyFaults(t *testing.T) {
	lines, state := sealedLines(genesis(), "new", 8)
	more, _ := sealedLines(state, "continued", 4)
	anew, _ := sealedLines(genesis(), "new", 4)
	forged, _ := link{seq: 3, hash: genesis().hash}.seal([]byte(`{"time":"2026-03-04T05:06:07.000000000Z","kind":"request"`), 0)
	all := slices.Concat(lines, more)
	replace := func(i int, line string) []string {
		out := slices.Clone(all)
		out[i] = line
		return out
	}
	flip := func(i, at int) []string {
		b := []byte(all[i])
		b[at] ^= 1
		return replace(i, string(b))
	}
	remove := func(i, j int) []string { return slices.Delete(slices.Clone(all), i, j) }
	swap := func(i, j int) []string {
		out := slices.Clone(all)
		out[i], out[j] = out[j], out[i]
		return out
	}
	for name, c := range map[string]struct {
		text string
		line int
		what string
	}{
		"a byte of the content":    {join(flip(4, 70)), 5, "record 5 was altered"},
		"a byte of the first":      {join(flip(0, 30)), 1, "record 1 was altered"},
		"a byte of seq":            {join(flip(4, strings.Index(all[4], seqKey)+len(seqKey))), 5, "was altered"},
		"a digit of prev":          {join(replace(4, strings.Replace(all[4], prevKey+all[3][len(all[3])-66:][:1], prevKey+other(all[3][len(all[3])-66]), 1))), 5, "record 5 was altered"},
		"a byte of hash":           {join(flip(4, len(all[4])-4)), 5, "record 5 was altered"},
		"a byte of a key":          {join(flip(4, strings.Index(all[4], hashKey)+3)), 5, "no place in the chain"},
		"one removed":              {join(remove(4, 5)), 5, "record 5 is missing before this record: removed"},
		"three removed":            {join(remove(4, 7)), 5, "records 5 to 7 are missing"},
		"two swapped":              {join(swap(4, 5)), 5, "record 6 stands where record 5 belongs, which is at FILE:6"},
		"one moved to the end":     {join(remove(4, 5), all[4:5]), 5, "record 6 stands where record 5 belongs, which is at FILE:12"},
		"one repeated":             {join(all[:5], all[4:]), 6, "record 5 stands behind record 5"},
		"one moved forward":        {join(all[:5], all[2:3], all[5:]), 6, "record 3 stands behind record 5"},
		"one replaced":             {join(replace(3, string(forged))), 4, "record 4 does not follow"},
		"a torn tail":              {strings.TrimSuffix(join(all), "\"}\n"), 12, "ends within a record"},
		"no last line end":         {strings.TrimSuffix(join(all), "\n"), 12, "ends within a record"},
		"a blank line":             {join(all[:3], []string{""}, all[3:]), 4, "not a record"},
		"a foreign line":           {join(all[:3], []string{"hello"}, all[3:]), 4, `not a record: "hello"`},
		"zeros":                    {join(all[:3], []string{"\x00\x00"}, all[3:]), 4, "not a record"},
		"an unchained record":      {join(all[:3], []string{`{"time":"2026-03-04T05:06:07.000000000Z"}`}, all[3:]), 4, "no place in the chain"},
		"two records on a line":    {join(all[:3], []string{all[3] + all[4]}, all[5:]), 4, "was altered"},
		"carriage returns":         {strings.ReplaceAll(join(all), "\n", "\r\n"), 1, "not a record"},
		"a chain in the chain":     {join(all[:3], anew[1:]), 4, "record 2 stands behind record 3"},
		"an anonymous new chain":   {join(all[:3], []string{plainFirst(t)}), 4, "and not with a daemon's start"},
		"a new chain that says it": {join(all[:3], []string{startWord(t, "continued")}), 4, `says that it is "continued"`},
		"a first with a prev":      {join([]string{firstWithPrev(t)}), 1, "names a record before it"},
		"endless":                  {strings.Repeat("x", maxLine+2), 1, "longer than 64 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			path := put(t, filepath.Join(t.TempDir(), "audit.jsonl"), c.text)
			_, err := VerifyFiles(path)
			var f *Fault
			if !errors.As(err, &f) {
				t.Fatalf("error %v", err)
			}
			want(t, "file", f.File, path)
			want(t, "line", f.Line, c.line)
			wantText(t, "what", strings.ReplaceAll(f.What, path, "FILE"), c.what)
			wantText(t, "error", err.Error(), fmt.Sprintf("%s:%d: ", path, c.line))
		})
	}
}

// other is another hexadecimal digit.
func other(digit byte) string {
	if digit == '0' {
		return "1"
	}
	return "0"
}

func plainFirst(t *testing.T) string {
	t.Helper()
	line, _ := genesis().seal([]byte(`{"time":"2026-03-04T05:06:07.000000000Z","kind":"request"`), 0)
	return string(line)
}

func startWord(t *testing.T, word string) string {
	t.Helper()
	lines, _ := sealedLines(genesis(), word, 2)
	return lines[0]
}

func firstWithPrev(t *testing.T) string {
	t.Helper()
	line, _ := link{seq: 0, hash: link{}.filled('a')}.seal([]byte(`{"time":"2026-03-04T05:06:07.000000000Z","kind":"request"`), 0)
	return string(line)
}

func (l link) filled(c byte) [hexSize]byte {
	for i := range l.hash {
		l.hash[i] = c
	}
	return l.hash
}

// TestEveryByteCounts: no byte of a trail can be another one unnoticed.
func TestEveryByteCounts(t *testing.T) {
	lines, _ := sealedLines(genesis(), "new", 4)
	good := []byte(join(lines))
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x20
		if _, err := VerifyFiles(put(t, path, string(bad))); err == nil {
			t.Fatalf("byte %d may be %q instead of %q", i, bad[i], good[i])
		}
	}
	for i := 1; i < len(good)-1; i++ { // a tail cut off within a record
		if _, err := VerifyFiles(put(t, path, string(good[:i]))); err == nil && good[i-1] != '\n' {
			t.Fatalf("the first %d bytes pass", i)
		}
	}
}

func TestVerifyReport(t *testing.T) {
	dir := t.TempDir()
	lines, state := sealedLines(genesis(), "new", 5)
	more, state := sealedLines(state, "repaired", 3)
	var lost []byte
	lost, state = state.seal([]byte(`{"time":"2026-03-04T05:06:09.000000000Z","kind":"lifecycle","event":"records_missing","count":17`), 0)
	anew, _ := sealedLines(genesis(), "broken", 3)
	a := put(t, filepath.Join(dir, "a.jsonl"), join(lines))
	b := put(t, filepath.Join(dir, "b.jsonl"), "")
	c := put(t, filepath.Join(dir, "c.jsonl"), join(more, []string{string(lost)}))
	d := put(t, filepath.Join(dir, "d.jsonl"), join(anew[:2]))
	r := verified(t, a, b, c)
	want(t, "records", r.Records, 9)
	want(t, "files", r.Files, 3)
	want(t, "first", r.First, Mark{1, "2026-03-04T05:06:07.000000000Z"})
	want(t, "last", r.Last, Mark{9, "2026-03-04T05:06:09.000000000Z"})
	want(t, "hash", r.Hash, string(state.hash[:]))
	want(t, "starts", r.Starts, 2)
	want(t, "repairs", r.Repairs, 1)
	want(t, "missing", r.Missing, 17)
	want(t, "chains", len(r.Chains), 0)
	want(t, "stopped", r.Stopped, false)
	wantText(t, "report", r.String(), "9 records in 3 files, 1 to 9, from 2026-03-04T05:06:07", "none altered, removed or moved", "last hash: "+r.Hash,
		"17 records were lost", "1 of 2 starts found an incomplete record", "is not the end of a daemon")
	r = verified(t, a, c, d)
	want(t, "chains", len(r.Chains), 1)
	wantText(t, "report", r.String(), d+":1: a new chain begins behind record 9", "the last record was altered")
	r = verified(t, d, a)
	want(t, "chains", len(r.Chains), 1)
	wantText(t, "report", r.String(), "found no record to go on from")
	r = verified(t, c)
	wantText(t, "report", r.String(), "the files begin with record 6")
	r = verified(t, a)
	want(t, "stopped", r.Stopped, true)
	want(t, "lines of a clean report", strings.Count(r.String(), "\n"), 2)
	wantText(t, "report", r.String(), "the end was not checked: there is no checkpoint file")
}

// TestVerifyAcrossFiles: the place of a fault is that of its file.
func TestVerifyAcrossFiles(t *testing.T) {
	dir := t.TempDir()
	lines, _ := sealedLines(genesis(), "new", 9)
	a := put(t, filepath.Join(dir, "a.jsonl"), join(lines[:3]))
	b := put(t, filepath.Join(dir, "b.jsonl"), join(lines[3:6]))
	c := put(t, filepath.Join(dir, "c.jsonl"), join(lines[6:8]))
	torn := put(t, filepath.Join(dir, "torn.jsonl"), join(lines[3:6])+lines[6][:20])
	for name, v := range map[string]struct {
		files []string
		what  string
	}{
		"a file is missing": {[]string{a, c}, c + ":1: records 4 to 6 are missing before this file"},
		"the wrong order":   {[]string{b, a, c}, c + ":1: records 4 to 6 are missing before this file"},
		"elsewhere":         {[]string{a, c, b}, c + ":1: record 7 stands where record 4 belongs, which is at " + b + ":1"},
		"torn in between":   {[]string{a, torn, c}, torn + ":4: the file ends within a record"},
		"twice":             {[]string{a, a}, a + ":1: the same first record stands at " + a + ":1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := VerifyFiles(v.files...)
			if err == nil {
				t.Fatal("no fault")
			}
			wantText(t, "error", err.Error(), v.what)
		})
	}
}

func TestVerifyUnreadable(t *testing.T) {
	dir := t.TempDir()
	lines, _ := sealedLines(genesis(), "new", 400)
	good := put(t, filepath.Join(dir, "audit-20260102T150405.000000000Z.jsonl"), join(lines))
	tidy(t, filepath.Join(dir, "audit.jsonl"), 0)
	packedBytes := read(t, good+packed)
	for name, c := range map[string]struct{ path, what string }{
		"missing":            {filepath.Join(dir, "none"), "no such file"},
		"a folder":           {dir, "not a file"},
		"empty":              {put(t, filepath.Join(dir, "empty"), ""), "there is no record"},
		"a cut gzip":         {put(t, filepath.Join(dir, "cut.gz"), packedBytes[:len(packedBytes)/2]), "cut.gz:"},
		"a gzip of rubbish":  {put(t, filepath.Join(dir, "bad.gz"), packedBytes[:20]+"rubbish"), "bad.gz:"},
		"half a gzip header": {put(t, filepath.Join(dir, "head.gz"), packedBytes[:5]), "head.gz"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := VerifyFiles(c.path)
			if err == nil {
				t.Fatal("no error")
			}
			wantText(t, "error", err.Error(), c.what)
		})
	}
	want(t, "the whole gzip", verified(t, good+packed).Records, 400)
	if _, err := os.Stat(good); err == nil {
		t.Error("the plain form is still there")
	}
}

// FuzzVerify: whatever is in a file, verification ends in a report or an error, and only a chain passes.
func FuzzVerify(f *testing.F) {
	lines, _ := sealedLines(genesis(), "new", 3)
	f.Add([]byte(join(lines)))
	f.Add([]byte(join(lines[1:])))
	f.Add([]byte("\x1f\x8b"))
	f.Add([]byte("{\"time\":\"}\n"))
	path := filepath.Join(f.TempDir(), "audit.jsonl")
	f.Fuzz(func(t *testing.T, data []byte) {
		put(t, path, string(data))
		r, err := VerifyFiles(path)
		if (r == nil) == (err == nil) {
			t.Errorf("report %v, error %v", r, err)
		}
		if err == nil && bytes.Count(data, []byte{'\n'}) != int(r.Records) && !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
			t.Errorf("%d records of %q", r.Records, data)
		}
	})
}
