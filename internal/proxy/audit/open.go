package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// What the first record says of the chain.
const (
	chainNew       = iota + 1 // begins, because there was nothing before
	chainContinued            // goes on from the last record
	chainRepaired             // goes on from the last record, behind which an incomplete one was cut off
	chainBroken               // begins anew, because the last record is not what was written
)

// opened is how the trail was found.
type opened struct {
	chain int
	state link   // the place in the chain before the first record
	torn  int64  // bytes of an incomplete record that were cut off
	aside string // the name that a file got in which the trail cannot go on
}

// attrs are what the first record says.
func (o opened) attrs(chain bool) []slog.Attr {
	word := map[int]string{chainNew: "new", chainContinued: "continued", chainRepaired: "repaired", chainBroken: "broken"}[o.chain]
	if !chain {
		word = "off"
	}
	attrs := []slog.Attr{slog.String("event", startEvent), slog.String("chain", word)}
	if o.torn > 0 {
		attrs = append(attrs, slog.Int64("torn_bytes", o.torn))
	}
	if o.aside != "" {
		attrs = append(attrs, slog.String("set_aside", o.aside))
	}
	return attrs
}

const (
	startEvent       = "audit_started"
	stopEvent        = "audit_stopped"
	missingEvent     = "records_missing"
	refusedEvent     = "exchanges_refused"
	unmadeEvent      = "record_unmade" // of an exchange: a defect of the daemon
	deletedEvent     = "file_deleted"
	copyMissingEvent = "copy_records_missing"
	// opening is how every record begins.
	opening = `{"time":"`
)

// openFile opens the output's file, repairs its end if need be, and finds the place in the chain to go on from.
func openFile(cfg Config, log *slog.Logger) (sink, opened, error) {
	path := cfg.Output
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // rotation renames the file, not the link
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Mode()&fs.ModeCharDevice != 0:
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return nil, opened{}, fmt.Errorf("audit.output: %w", err)
		}
		return device{stream{f}, f}, opened{chain: chainNew, state: genesis()}, nil
	case err == nil && !info.Mode().IsRegular():
		return nil, opened{}, fmt.Errorf("audit.output: %s is not a regular file: write the path of a file, or stdout", cfg.Output)
	case err == nil && info.Mode().Perm()&0o007 != 0:
		log.Warn("the audit file is open to everybody on this machine: chmod 600", "path", path, "mode", info.Mode().Perm().String())
	}
	f, err := openLocked(path)
	if err != nil {
		return nil, opened{}, fmt.Errorf("audit.output: %w", plainly(err))
	}
	s := &file{path: path, names: newNaming(path), size: int64(cfg.MaxSize), age: cfg.MaxAge.D(), log: log, f: f}
	if s.age == 0 && cfg.Keep > 0 {
		s.age = min(cfg.Keep.D(), keepRotates) // only whole files are deleted
	}
	o, err := s.begin(cfg.Chain)
	if err != nil {
		_ = release(s.f)
		return nil, opened{}, fmt.Errorf("audit.output: %w", err)
	}
	_ = os.Remove(path + nextSuffix) // of a process that died while it rotated; ours is locked, so nobody rotates now
	s.keep = newKeeper(s.names, cfg.MaxFiles, cfg.Keep.D(), log)
	return s, o, nil
}

// plainly says what to do about an error of opening.
func plainly(err error) error {
	var p *fs.PathError
	if !errors.As(err, &p) {
		return err
	}
	switch {
	case errors.Is(err, errLocked):
		return fmt.Errorf("%s is in use, %w: give each process a file of its own", p.Path, errLocked)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the directory %s is not there: make it, for the daemon's user alone (mode 0700)", filepath.Dir(p.Path))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the daemon's user must be able to write the file and its directory", err)
	}
	return err
}

// begin repairs the end of the file and decides how the trail goes on.
func (s *file) begin(chain bool) (opened, error) {
	e, err := readEnd(s.f)
	if err != nil {
		return opened{}, fmt.Errorf("%s: %w", s.path, err)
	}
	if err := s.repair(&e, chain); err != nil {
		return opened{}, err
	}
	s.written, s.first = e.size, e.first
	o := opened{chain: chainNew, state: genesis(), torn: int64(len(e.torn))}
	if o.torn > 0 {
		s.log.Warn("the audit file ended in an incomplete record, which was cut off", "path", s.path, "bytes", o.torn)
	}
	if e.size == 0 {
		return s.inherit(o, chain), nil
	}
	state, right := after(e.last)
	_, linked := parseEnding(e.last[max(0, len(e.last)-linkSize):])
	switch {
	case !chain && !linked:
		return o, nil
	case chain && right:
		o.chain, o.state = chainContinued, state
		if o.torn > 0 {
			o.chain = chainRepaired
		}
		return o, nil
	case chain && linked:
		o.chain = chainBroken
		s.log.Error("the last record of the audit file is not what was written: a new chain begins in a new file", "path", s.path)
	}
	o.aside, err = s.rotate(time.Now())
	if err != nil {
		return opened{}, fmt.Errorf("%s cannot be set aside: %w", s.path, err)
	}
	return o, nil
}

// inherit continues the chain of the newest rotated file in one that is empty: the process before died just after a rotation.
func (s *file) inherit(o opened, chain bool) opened {
	if !chain {
		return o
	}
	all, err := s.names.list()
	if err != nil || len(all) == 0 {
		return o
	}
	last, err := lastLine(filepath.Join(s.names.dir, all[len(all)-1].name))
	if err != nil {
		s.log.Warn("the newest rotated audit file cannot be read: a new chain begins", "error", err)
		o.chain = chainBroken
		return o
	}
	state, right := after(last)
	_, linked := parseEnding(last[max(0, len(last)-linkSize):])
	switch {
	case right:
		o.chain, o.state = chainContinued, state
		if o.torn > 0 {
			o.chain = chainRepaired
		}
	case linked:
		o.chain = chainBroken
		s.log.Error("the last record of the newest rotated audit file is not what was written: a new chain begins")
	}
	return o
}

// repair completes or cuts off what follows the last complete line.
func (s *file) repair(e *end, chain bool) error {
	if len(e.torn) == 0 {
		return nil
	}
	whole := json.Valid(e.torn)
	if chain {
		_, whole = after(e.torn)
	}
	if whole { // only the line's end is missing
		if _, err := s.f.Write([]byte{'\n'}); err != nil {
			return err
		}
		e.last, e.torn, e.size = e.torn, nil, e.size+1
		return s.f.Sync()
	}
	e.size -= int64(len(e.torn))
	if err := s.f.Truncate(e.size); err != nil {
		return fmt.Errorf("%s ends in an incomplete record, which cannot be cut off: %w", s.path, err)
	}
	return s.f.Sync()
}

// end is what a file's end looks like.
type end struct {
	size  int64
	first time.Time // of the first record
	last  []byte    // the last complete line without its end
	torn  []byte    // what follows it
}

var errFormat = errors.New("is not an audit file of this program: it stays untouched, name another path")

// readEnd reads the last line and what follows it, and refuses what cannot be ours.
func readEnd(f *os.File) (e end, err error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return e, err
	}
	e.size = info.Size()
	head := make([]byte, min(e.size, int64(len(opening)+timeSize)))
	if _, err := f.ReadAt(head, 0); err != nil {
		return e, err
	}
	e.first = info.ModTime()
	if t, ok := timeOf(head); ok {
		e.first = t
	}
	stop, err := lineStart(f, e.size)
	if err != nil {
		return e, err
	}
	if e.torn, err = readRange(f, stop, e.size); err != nil {
		return e, err
	}
	hollow := stop == 0 && len(bytes.Trim(e.torn, "\x00")) == 0 // what a power cut may leave of a new file
	if n := min(len(head), len(opening)); string(head[:n]) != opening[:n] && !hollow {
		return e, errFormat
	}
	if stop == 0 {
		return e, nil
	}
	start, err := lineStart(f, stop-1)
	if err != nil {
		return e, err
	}
	if e.last, err = readRange(f, start, stop-1); err != nil {
		return e, err
	}
	if !looksRight(e.last) {
		return e, errFormat
	}
	return e, nil
}

// looksRight tells whether a line can be one of ours.
func looksRight(line []byte) bool {
	return bytes.HasPrefix(line, []byte(opening)) && bytes.HasSuffix(line, []byte{'}'})
}

// lineStart is where the line begins that ends before the given place.
func lineStart(f io.ReaderAt, before int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for at := before; at > 0; {
		n := min(at, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], at-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return at - n + int64(i) + 1, nil
		}
		if at -= n; before-at > maxLine {
			return 0, errFormat
		}
	}
	return 0, nil
}

func readRange(f io.ReaderAt, from, to int64) ([]byte, error) {
	if to-from > maxLine {
		return nil, errFormat
	}
	b := make([]byte, to-from)
	_, err := f.ReadAt(b, from)
	if errors.Is(err, io.EOF) && len(b) == 0 {
		err = nil
	}
	return b, err
}
