package audit

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for i, chain := range []string{"new", "continued", "continued"} {
		tr := at(t, path, nil)
		tr.events(2)
		tr.end()
		lines := splitLines(read(t, path))
		want(t, "lines", len(lines), 4*(i+1))
		want(t, "chain", decode(t, lines[4*i])["chain"].(string), chain)
		want(t, "log", tr.said.String(), "")
	}
	r := verified(t, path)
	want(t, "records", r.Records, 12)
	want(t, "starts", r.Starts, 3)
	want(t, "stopped", r.Stopped, true)
	info, _ := os.Stat(path)
	want(t, "mode", info.Mode().Perm(), 0o600)
	entries, _ := os.ReadDir(filepath.Dir(path))
	want(t, "files", len(entries), 1)
}

func TestFileErrors(t *testing.T) {
	dir := t.TempDir()
	taken := at(t, filepath.Join(dir, "taken.jsonl"), nil)
	defer taken.end()
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ content, message string }{
		"taken.jsonl":        {"", "in use, another process writes it"},
		"missing/a.jsonl":    {"", "the directory " + filepath.Join(dir, "missing") + " is not there"},
		"folder":             {"", "not a regular file"},
		"text.log":           {"a line of something else\n", "not an audit file"},
		"other.jsonl":        {"{\"level\":\"info\"}\n", "not an audit file"},
		"mixed.jsonl":        {"{\"time\":\"2026-03-04T05:06:07.000000000Z\"}\nsomething else\n", "not an audit file"},
		"torn.log":           {"something", "not an audit file"},
		"binary":             {"\x00\x01\x02", "not an audit file"},
		"almost.jsonl":       {"{\"timing", "not an audit file"},
		"blank.jsonl":        {"\n", "not an audit file"},
		"blank-after.jsonl":  {"{\"time\":\"2026-03-04T05:06:07.000000000Z\"}\n\n", "not an audit file"},
		"half-a-time.jsonl":  {"{\"time\":\"2026\n", "not an audit file"},
		"taken.jsonl/under":  {"", "not a directory"},
		"endless-line.jsonl": {"{\"time\":\"" + strings.Repeat("x", maxLine+1000), "not an audit file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			if c.content != "" {
				put(t, path, c.content)
			}
			tr, err := tryAt(path, nil)
			if err == nil {
				tr.t = t
				tr.end()
				t.Fatal("no error")
			}
			wantText(t, "error", err.Error(), "audit.output: ", c.message)
			if c.content != "" && read(t, path) != c.content {
				t.Error("the file was changed")
			}
		})
	}
}

func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	tr := at(t, filepath.Join(dir, "good.jsonl"), nil)
	tr.events(2)
	tr.end()
	good := read(t, filepath.Join(dir, "good.jsonl"))
	lines := splitLines(good)
	for name, c := range map[string]struct {
		content, chain string
		torn           int
	}{
		"a piece":            {good + lines[3][:50], "repaired", 50},
		"one byte":           {good + "{", "repaired", 1},
		"zeros":              {good + "\x00\x00\x00", "repaired", 3},
		"noise":              {good + "\xff\xfe", "repaired", 2},
		"no line end":        {good[:len(good)-1], "continued", 0},
		"the first":          {lines[0][:100], "new", 100},
		"the first few":      {lines[0][:3], "new", 3},
		"nothing but zeros":  {"\x00\x00\x00\x00", "new", 4},
		"the first, no end":  {lines[0], "continued", 0},
		"all but the quotes": {good + lines[3][:len(lines[3])-2], "repaired", len(lines[3]) - 2},
	} {
		t.Run(name, func(t *testing.T) {
			path := put(t, filepath.Join(t.TempDir(), "audit.jsonl"), c.content)
			tr := at(t, path, nil)
			tr.events(1)
			tr.end()
			r := verified(t, path)
			whole := strings.Count(c.content, "\n")
			if c.chain == "continued" {
				whole++
			}
			first := decode(t, splitLines(read(t, path))[whole])
			want(t, "chain", first["chain"].(string), c.chain)
			torn, _ := first["torn_bytes"].(float64)
			want(t, "torn bytes", int(torn), c.torn)
			want(t, "records", r.Records, uint64(whole+3))
			want(t, "told the log", strings.Contains(tr.said.String(), "incomplete record"), c.torn > 0)
			want(t, "repairs", r.Repairs, map[string]int{"repaired": 1}[c.chain])
		})
	}
}

// TestTornUnchained: the same without a chain, where nothing but JSON tells what is complete.
func TestTornUnchained(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	off := func(c *Config) { c.Chain = false }
	tr := at(t, path, off)
	tr.end()
	whole := read(t, path)
	put(t, path, whole+whole[:40])
	at(t, path, off).end()
	lines := splitLines(read(t, path))
	want(t, "lines", summary(t, lines), "audit_started audit_stopped audit_started audit_stopped")
	want(t, "torn", decode(t, lines[2])["torn_bytes"].(float64), 40)
	put(t, path, strings.TrimSuffix(read(t, path), "\n"))
	at(t, path, off).end()
	want(t, "lines", len(splitLines(read(t, path))), 6)
}

// TestSetAside: where the chain cannot go on, a new one begins in a new file.
func TestSetAside(t *testing.T) {
	for name, c := range map[string]struct {
		before, now bool // audit.chain
		tamper      func(string) string
		chain       string
		aside       bool
	}{
		"altered":           {true, true, func(s string) string { return strings.Replace(s, stopEvent, "audit_paused!", 1) }, "broken", true},
		"chain switched on": {false, true, nil, "new", true},
		"and off":           {true, false, nil, "off", true},
		"left off":          {false, false, nil, "off", false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			at(t, path, func(k *Config) { k.Chain = c.before }).end()
			if c.tamper != nil {
				put(t, path, c.tamper(read(t, path)))
			}
			before := read(t, path)
			tr := at(t, path, func(k *Config) { k.Chain = c.now })
			tr.end()
			first := decode(t, splitLines(strings.TrimPrefix(read(t, path), map[bool]string{false: before}[c.aside]))[0])
			want(t, "chain", first["chain"].(string), c.chain)
			files := trailFiles(t, path)
			if !c.aside {
				want(t, "files", len(files), 1)
				return
			}
			want(t, "files", len(files), 2)
			name := first["set_aside"].(string)
			if got := filepath.Base(files[0]); got != name && got != name+packed {
				t.Errorf("%s was named, %s is there", name, got)
			}
			old, err := openRecords(files[0])
			if err != nil {
				t.Fatal(err)
			}
			defer old.close()
			content, _ := io.ReadAll(old)
			want(t, "the old file", string(content), before)
			if c.now {
				verified(t, path)
			}
		})
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	tr := at(t, path, nil)
	tr.events(2)
	want(t, "reopen of the same", tr.Reopen(), nil)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	tr.events(1) // still into the old one, or already into the new one: the chain decides
	want(t, "reopen", tr.Reopen(), nil)
	tr.events(3)
	tr.end()
	r := verified(t, path+".1", path)
	want(t, "records", r.Records, 8)
	if lines := splitLines(read(t, path)); len(lines) < 4 {
		t.Errorf("the new file holds %d lines", len(lines))
	}
	if err := tr.Reopen(); err == nil {
		t.Error("a closed trail was reopened")
	}
}

// TestReopenRefused: a file in the way stays as it is, and records go on in the old one.
func TestReopenRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	tr := at(t, path, nil)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	put(t, path, "something\n")
	err := tr.Reopen()
	if err == nil {
		t.Fatal("no error")
	}
	wantText(t, "error", err.Error(), "not empty")
	tr.events(1)
	tr.end()
	want(t, "the file in the way", read(t, path), "something\n")
	want(t, "records", verified(t, path+".1").Records, 3)
}

// TestMovedWithoutAWord: a file that was moved or deleted is noticed.
func TestMovedWithoutAWord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	synctest.Test(t, func(t *testing.T) {
		tr := at(t, path, nil)
		time.Sleep(time.Second)
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			tr.events(1)
			time.Sleep(time.Second)
		}
		tr.end()
		wantText(t, "log", tr.said.String(), "moved or deleted")
	})
	want(t, "records", verified(t, path+".1", path).Records, 22)
}

// TestReopenWithinALine: the piece of a line that the old file took is cut off.
func TestReopenWithinALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	at(t, path, nil).end()
	before := read(t, path)
	f, err := openLocked(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &file{path: path, names: newNaming(path), log: (&buffer{}).logger(), f: f, size: 10}
	piece := "{\"time\":\"2026"
	s.grew([]byte(piece))
	if _, err := f.WriteString(piece); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Write([]byte("-01")); err != nil || n != 3 { // a begun line stays in its file, however large that is
		t.Fatal(n, err)
	}
	want(t, "torn", s.torn, len(piece)+3)
	want(t, "the file", read(t, path), before+piece+"-01")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if moved, err := s.Reopen(); err != nil || !moved {
		t.Errorf("moved %v, error %v", moved, err)
	}
	want(t, "the old file", read(t, path+".1"), before)
	s.size = 0
	if n, err := s.Write([]byte("whole\npiece")); err != nil || n != 11 {
		t.Fatal(n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, "the new file", read(t, path), "whole\n")
}

// TestDeviceFull: /dev/full refuses everything, as a full disk does.
func TestDeviceFull(t *testing.T) {
	tr := at(t, "/dev/full", nil)
	tr.events(2)
	want(t, "reopen", tr.Reopen(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := tr.Close(ctx)
	if err == nil {
		t.Fatal("no error")
	}
	wantText(t, "error", err.Error(), "4 audit records are lost", "no space left")
	wantText(t, "log", tr.said.String(), "no space left")
	want(t, "dropped", tr.counter("httpowerd_audit_dropped_total"), 4)
}

// TestDeviceNull: a device has no lock, no chain to go on with, and nothing to rotate.
func TestDeviceNull(t *testing.T) {
	a, b := at(t, os.DevNull, nil), at(t, os.DevNull, nil)
	a.end()
	b.end()
	want(t, "records", a.counter("httpowerd_audit_records_total"), 2)
}
