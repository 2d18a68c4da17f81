package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

const (
	// rotationRetry is the wait after a rotation that failed; records go on into the old file meanwhile.
	rotationRetry = time.Minute
	// movedGrace is how long whoever moved the file away has to say so, before the path is opened again without being asked.
	movedGrace = 10 * time.Second
	// nextSuffix names the new file until the old one has its rotated name.
	nextSuffix = ".next"
)

var errLocked = errors.New("another process writes it")

// file is a sink that owns a file, its lock and its rotated predecessors.
type file struct {
	path  string
	names naming
	size  int64 // maximum of a file; 0: none
	age   time.Duration
	log   *slog.Logger
	keep  *keeper
	lazy  bool // Sync leaves it to the system

	f        *os.File
	written  int64     // the file's size
	reserved int64     // room is set aside up to here; the largest number: it cannot be
	first    time.Time // of its first record; zero: it has none
	torn     int       // bytes of a line that is not complete

	rotations int // how often the trail went on in another file

	retry time.Time // no rotation before
	moved time.Time // when the path was first seen to be another file; zero: it is ours
}

// openLocked opens the path and makes sure that no other process writes there.
func openLocked(path string) (*os.File, error) {
	for try := 0; ; try++ {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lock(f); err != nil {
			f.Close()
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		if same(f, path) || try == 3 {
			return f, nil
		}
		_ = release(f) // it was rotated away between the two
	}
}

// same tells whether the path leads to f.
func same(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(open, now)
}

func release(f *os.File) error {
	unlock(f)
	return f.Close()
}

// Write appends lines, and rotates where one would pass a bound. A line that was begun is completed in the same file first.
func (s *file) Write(lines []byte) (n int, err error) {
	for n < len(lines) {
		part := lines[n:]
		if s.torn > 0 {
			part = firstLine(part)
		} else {
			part = s.fit(part)
		}
		s.reserve(len(part))
		m, err := s.f.Write(part)
		s.grew(part[:m])
		n += m
		if err != nil {
			return n, s.named(err)
		}
	}
	return n, nil
}

// named has an error name the path: after a rotation the open file still has the name that it was begun under.
func (s *file) named(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		p.Path = s.path
	}
	return err
}

// firstLine is the first line with its end, or all of it where there is no end.
func firstLine(b []byte) []byte {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i+1]
	}
	return b
}

// fit rotates if it is time, and returns the lines that go into the current file.
func (s *file) fit(lines []byte) []byte {
	now := time.Now()
	line := firstLine(lines)
	if s.due(len(line), now) {
		if now.Before(s.retry) {
			return lines
		}
		if _, err := s.rotate(now); err != nil {
			s.retry = now.Add(rotationRetry)
			s.log.Error("the audit file was not rotated; records go on into it", "path", s.path, "error", err)
			return lines
		}
	}
	if room := s.size - s.written; s.size > 0 && int64(len(lines)) > room {
		return lines[:max(len(line), bytes.LastIndexByte(lines[:max(0, room)], '\n')+1)]
	}
	return lines
}

// due tells whether the next line belongs into a new file.
func (s *file) due(line int, now time.Time) bool {
	return s.written > 0 && (s.size > 0 && s.written+int64(line) > s.size || s.age > 0 && now.Sub(s.first) > s.age)
}

// grew accounts for bytes that were written.
func (s *file) grew(b []byte) {
	if len(b) == 0 {
		return
	}
	if s.first.IsZero() {
		s.first = time.Now()
	}
	s.written += int64(len(b))
	if end := bytes.LastIndexByte(b, '\n'); end >= 0 {
		s.torn = len(b) - end - 1
	} else {
		s.torn += len(b)
	}
}

// rotate gives the file its rotated name and goes on in a new one. On an error everything is as it was. The new file exists, and is ours, before
// the old one is touched.
func (s *file) rotate(now time.Time) (name string, err error) {
	if err := s.f.Sync(); err != nil {
		return "", err
	}
	if !same(s.f, s.path) {
		return "", fmt.Errorf("%s is another file now", s.path)
	}
	next, err := openLocked(s.path + nextSuffix)
	if err != nil {
		return "", err
	}
	undo := func(err error) (string, error) {
		_ = release(next)
		return "", errors.Join(err, os.Remove(s.path+nextSuffix))
	}
	if name, err = s.names.next(now); err != nil {
		return undo(err)
	}
	s.giveBack() // while it has its name: whoever reads on behind the rotation knows the file by its time
	rotated := filepath.Join(s.names.dir, name)
	if err := os.Rename(s.path, rotated); err != nil {
		return undo(err)
	}
	if err := os.Rename(s.path+nextSuffix, s.path); err != nil {
		return undo(errors.Join(err, os.Rename(rotated, s.path)))
	}
	syncDir(s.names.dir)
	s.use(next)
	if s.keep != nil {
		s.keep.nudge()
	}
	return name, nil
}

// use goes on in f, which is empty.
func (s *file) use(f *os.File) {
	if err := release(s.f); err != nil {
		s.log.Error("the audit file before was not closed properly", "path", s.path, "error", err)
	}
	s.f, s.written, s.reserved, s.first, s.torn, s.retry, s.moved = f, 0, 0, time.Time{}, 0, time.Time{}, time.Time{}
	s.rotations++
}

// Sync brings the file to the disk and looks whether it still is where it belongs.
func (s *file) Sync() error {
	if !s.lazy {
		if err := s.f.Sync(); err != nil {
			return s.named(err)
		}
	}
	if info, err := s.f.Stat(); err == nil {
		if info.Size() < s.written { // somebody cut it
			s.reserved = 0
		}
		s.written = info.Size()
	}
	switch {
	case same(s.f, s.path):
		s.moved = time.Time{}
	case s.moved.IsZero():
		s.moved = time.Now()
	case time.Since(s.moved) >= movedGrace && s.torn == 0:
		s.moved = time.Now()
		if _, err := s.Reopen(); err != nil {
			return fmt.Errorf("the audit file was moved or deleted, and another cannot be begun: %w", err)
		}
		s.log.Warn("the audit file was moved or deleted; records go on in a new one", "path", s.path)
	}
	return nil
}

// Reopen follows the path to a new file; where that cannot be had, the old one stays in use.
func (s *file) Reopen() (moved bool, err error) {
	if same(s.f, s.path) {
		return false, nil
	}
	f, err := openLocked(s.path)
	if err != nil {
		return false, fmt.Errorf("audit.output: %w", plainly(err))
	}
	if info, err := f.Stat(); err != nil || info.Size() > 0 {
		_ = release(f)
		return false, errors.Join(err, fmt.Errorf("audit.output: %s is not empty: records go on in the file that was moved away", s.path))
	}
	moved = s.torn > 0
	s.cut()
	s.giveBack()
	if err := s.f.Sync(); err != nil {
		s.log.Error("the audit file that was moved away was not synced", "path", s.path, "error", err)
	}
	s.use(f)
	return moved, nil
}

// cut takes an incomplete line off the end of the file. Where it cannot, the next Open repairs it.
func (s *file) cut() {
	if s.torn == 0 {
		return
	}
	info, err := s.f.Stat()
	if err == nil {
		err = s.f.Truncate(max(0, info.Size()-int64(s.torn)))
	}
	if err != nil {
		s.log.Error("the audit file ends in an incomplete record", "path", s.path, "bytes", s.torn, "error", err)
	}
	s.torn = 0
}

// Close syncs and closes the file, and ends the work on rotated ones.
func (s *file) Close() error {
	if s.keep != nil {
		s.keep.close()
	}
	s.cut()
	s.giveBack()
	return errors.Join(s.f.Sync(), release(s.f))
}

// syncDir makes a rename outlive a power cut where the file system can do that.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}
