package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestReserve: a busy file has room ahead of it that is no part of its size, and gives it back; a quiet one has none.
func TestReserve(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := reserving(t, path)
	beyond := func(path string) int64 { // what the file takes on the disk beyond its size
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Blocks*512 - info.Size()
	}
	put := func(n int) {
		t.Helper()
		line := append(bytes.Repeat([]byte{'x'}, n-1), '\n')
		if m, err := s.Write(line); m != n || err != nil {
			t.Fatal(m, err)
		}
	}
	size := func(want int64) {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Size() != want || s.written != want {
			t.Fatal(info.Size(), s.written, want, err)
		}
	}
	const block = 64 << 10 // no file system that tests run on rounds up to more
	put(100)
	if n := beyond(path); n > block {
		t.Errorf("after a short line %d bytes are set aside", n)
	}
	for range 3 {
		put(reserveFrom)
		if n := beyond(path); n < reserveAhead-3*reserveFrom || n > reserveAhead+block {
			t.Errorf("%d bytes are set aside", n)
		}
	}
	size(100 + 3*reserveFrom)

	if err := os.Truncate(path, 0); err != nil { // as copytruncate of logrotate does
		t.Fatal(err)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	put(reserveFrom)
	if n := beyond(path); n < reserveAhead-block {
		t.Errorf("after it was cut %d bytes are set aside", n)
	}
	size(reserveFrom)

	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reopen(); err != nil {
		t.Fatal(err)
	}
	if n := beyond(path + ".old"); n > block {
		t.Errorf("the file that was moved away keeps %d bytes", n)
	}
	s.size = reserveAhead / 2
	put(reserveFrom)
	if n := beyond(path); n > reserveAhead/2-reserveFrom+block {
		t.Errorf("%d bytes are set aside where the file may not be so large", n)
	}
	s.size = reserveFrom
	put(reserveFrom)
	before, err := Predecessors(path)
	if err != nil || len(before) != 1 {
		t.Fatal(before, err)
	}
	if n := beyond(before[0].Path); n > block {
		t.Errorf("the rotated file keeps %d bytes", n)
	}
	s.size = 0
	put(reserveFrom)
	if n := beyond(path); n < reserveAhead-block {
		t.Errorf("the new file has %d bytes set aside", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := beyond(path); n > block {
		t.Errorf("the closed file keeps %d bytes", n)
	}
	if data, err := os.ReadFile(path); err != nil || len(data) != 2*reserveFrom || data[reserveFrom-1] != '\n' {
		t.Error(len(data), err)
	}
}

// TestReserveRefused: a file system that cannot is asked once, and the lines are written all the same.
func TestReserveRefused(t *testing.T) {
	s := reserving(t, filepath.Join(t.TempDir(), "audit.jsonl"))
	whole := s.f
	reader, err := os.Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	s.f = reader // in which no room can be set aside
	s.reserve(reserveFrom)
	asked := s.reserved
	s.f = whole
	reader.Close()
	line := append(bytes.Repeat([]byte{'x'}, reserveFrom-1), '\n')
	if n, err := s.Write(line); n != len(line) || err != nil || s.reserved != asked || s.reserved <= reserveAhead*1000 {
		t.Error(n, err, s.reserved)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(s.path); err != nil || info.Size() != reserveFrom {
		t.Error(info, err)
	}
}

func reserving(t *testing.T, path string) *file {
	t.Helper()
	f, err := openLocked(path)
	if err != nil {
		t.Fatal(err)
	}
	return &file{path: path, names: newNaming(path), log: (&buffer{}).logger(), f: f}
}
