package state

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Keeps is what has something that should survive the process. Export is bounded and may be called at any time; Import is called once, before
// traffic, with what an earlier process exported: it trusts none of it, and on an error it has changed nothing.
type Keeps interface {
	Export() []byte
	Import([]byte) error
}

// File carries what rooms export from one process to the next. It is a convenience, and never a reason not to start: what cannot be read is set
// aside, what cannot be written is logged. A file is there only once there was something to keep.
type File struct {
	path  string
	rooms map[string]Keeps
	log   *slog.Logger

	mu      sync.Mutex
	lock    *os.File // nil: not taken
	empty   map[string][32]byte
	written [32]byte // of what the file holds; zero: there is none
	failed  string   // the last complaint: the same one is logged once
}

const (
	// SaveEvery is how often a File is written at most while it is run.
	SaveEvery = 5 * time.Second

	fileName    = "state.json"
	fileFormat  = "httpowerd state"
	fileVersion = 1
	maxFile     = 4 << 20
)

// document is the file.
type document struct {
	Format  string             `json:"format"`
	Version int                `json:"version"`
	Rooms   map[string]section `json:"rooms"`
}

// section is what one room exported: JSON as it is, anything else encoded.
type section struct {
	JSON json.RawMessage `json:"json,omitempty"`
	Data []byte          `json:"data,omitempty"`
}

func (s section) content() []byte {
	if s.JSON != nil {
		return s.JSON
	}
	return s.Data
}

func (s section) size() int { return len(s.JSON) + len(s.Data)*4/3 }

// NewFile makes a File in dir for rooms that have learnt nothing yet: what they export now is not worth a file.
func NewFile(dir string, log *slog.Logger, rooms map[string]Keeps) *File {
	f := &File{path: filepath.Join(dir, fileName), rooms: rooms, log: log, empty: map[string][32]byte{}}
	for name, room := range rooms {
		f.empty[name] = sha256.Sum256(room.Export())
	}
	return f
}

// Load gives rooms what the file holds for them.
func (f *File) Load() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := os.Lstat(f.path); errors.Is(err, fs.ErrNotExist) {
		return
	}
	if !f.own() {
		return
	}
	data, err := readState(f.path)
	if err != nil {
		f.complain("the state file was not read", err)
		return
	}
	d, err := parseState(data)
	if err != nil {
		f.setAside(err)
		return
	}
	f.written = sha256.Sum256(data)
	for _, name := range slices.Sorted(maps.Keys(d.Rooms)) {
		room := f.rooms[name]
		if room == nil {
			continue
		}
		if err := room.Import(d.Rooms[name].content()); err != nil {
			f.log.Warn("a part of the state file is not used", "part", name, "error", err)
		}
	}
	f.log.Info("state of an earlier process was taken over", "path", f.path)
}

// readState reads the file, unless it is none or too large.
func readState(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	return io.ReadAll(io.LimitReader(file, maxFile+1))
}

func parseState(data []byte) (d document, err error) {
	if len(data) > maxFile {
		return d, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&d); err != nil {
		return d, errors.New("it is no JSON, or of another shape")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return d, errors.New("something follows it")
	}
	switch {
	case d.Format != fileFormat:
		return d, errors.New("it is a file of something else")
	case d.Version != fileVersion:
		return d, fmt.Errorf("it is of version %d, not %d", d.Version, fileVersion)
	}
	return d, nil
}

// setAside keeps a file that cannot be used for whoever wants to look at it. mu is held.
func (f *File) setAside(why error) {
	aside := f.path + ".unusable"
	if err := os.Rename(f.path, aside); err != nil {
		f.complain("the state file cannot be used, and was not set aside", errors.Join(why, err))
		return
	}
	f.log.Warn("the state file cannot be used and was set aside: gates and breakers start anew", "path", aside, "error", why)
}

// Run saves what changed every few seconds, until ctx ends.
func (f *File) Run(ctx context.Context) {
	ticker := time.NewTicker(SaveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f.Save()
		case <-ctx.Done():
			return
		}
	}
}

// Save writes the file, where something changed since it was written.
func (f *File) Save() {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := json.Marshal(document{fileFormat, fileVersion, f.collect()})
	if err != nil {
		f.complain("the state file was not written", err)
		return
	}
	sum := sha256.Sum256(data)
	if sum == f.written || f.written == [32]byte{} && !bytes.Contains(data, []byte(`"rooms":{"`)) || !f.own() {
		return
	}
	if err := writeState(f.path, data); err != nil {
		f.complain("the state file was not written", err)
		return
	}
	f.written, f.failed = sum, ""
}

// collect asks every room; where all is too much, the largest parts stay out. mu is held.
func (f *File) collect() map[string]section {
	sections := map[string]section{}
	for name, room := range f.rooms {
		data := room.Export()
		if len(data) == 0 || sha256.Sum256(data) == f.empty[name] {
			continue
		}
		if json.Valid(data) {
			sections[name] = section{JSON: data}
		} else {
			sections[name] = section{Data: data}
		}
	}
	left := maxFile - 1024
	for _, name := range slices.SortedFunc(maps.Keys(sections), func(a, b string) int {
		return cmp.Or(cmp.Compare(sections[a].size(), sections[b].size()), cmp.Compare(a, b))
	}) {
		if left -= sections[name].size(); left < 0 {
			delete(sections, name)
			f.complain("a part of the state is too large for its file", errors.New(name))
		}
	}
	return sections
}

// Close lets another process have the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lock == nil {
		return nil
	}
	err := f.lock.Close()
	f.lock = nil
	return err
}

// own takes the folder for this process, or says that another one has it. mu is held.
func (f *File) own() bool {
	if f.lock != nil {
		return true
	}
	dir := filepath.Dir(f.path)
	err := os.MkdirAll(dir, 0o700)
	var l *os.File
	if err == nil {
		l, err = os.OpenFile(filepath.Join(dir, "state.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	}
	if err == nil {
		if err = lockFile(l); err != nil {
			err = errors.Join(err, l.Close())
		}
	}
	if err != nil {
		f.complain("gates and breakers will not survive this process", err)
		return false
	}
	f.lock = l
	return true
}

// complain logs what went wrong, once until something goes right. mu is held.
func (f *File) complain(what string, err error) {
	if text := what + err.Error(); text != f.failed {
		f.failed = text
		f.log.Warn(what, "path", f.path, "error", err)
	}
}

// writeState replaces the file in one step, so that a crash leaves the old one or the new one.
func writeState(path string, data []byte) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return syncDir(filepath.Dir(path))
}
