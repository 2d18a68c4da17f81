package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"httpowerd/internal/coding"
)

// stampLayout is the part of a rotated file's name that makes names sort by time.
const stampLayout = "20060102T150405.000000000Z"

const (
	// keeperRound is how often files are looked at that nobody rotates.
	keeperRound = 10 * time.Minute
	// keepRotates is how long a file lasts where Config.Keep is set and MaxAge is not.
	keepRotates = 24 * time.Hour
	// clockStep is how far the clock may go ahead by itself, and clockDoubt how long no file is deleted for its age where it went further: a clock that is
	// wrong for a moment would take all of them away.
	clockStep  = time.Hour
	clockDoubt = 24 * time.Hour
)

const (
	packed  = ".gz"
	packing = ".gz.tmp"
	chunk   = 128 << 10 // of work without a rest: a fraction of a millisecond
)

// naming knows the names of a file's rotated predecessors: audit.jsonl becomes audit-20060102T150405.000000000Z.jsonl, and later .jsonl.gz.
type naming struct{ dir, stem, ext string }

func newNaming(path string) naming {
	base, ext := filepath.Base(path), filepath.Ext(path)
	return naming{dir: filepath.Dir(path), stem: strings.TrimSuffix(base, ext) + "-", ext: ext}
}

// rotated is one of them.
type rotated struct {
	name   string
	stamp  time.Time
	packed bool
	twin   string // the compressed form beside the plain one, where compression was interrupted before its last step
}

// parse reads the name of a rotated file.
func (n naming) parse(name string) (r rotated, ok bool) {
	rest, ok := strings.CutPrefix(name, n.stem)
	if !ok {
		return r, false
	}
	r.name = name
	for _, ending := range []string{n.ext, n.ext + packed} {
		stamp, ok := strings.CutSuffix(rest, ending)
		if t, err := time.Parse(stampLayout, stamp); ok && err == nil {
			r.stamp = t
			return r, true
		}
		r.packed = true
	}
	return r, false
}

// list is the rotated files, the oldest first.
func (n naming) list() ([]rotated, error) {
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return nil, err
	}
	var all []rotated
	for _, e := range entries {
		if r, ok := n.parse(e.Name()); ok && e.Type().IsRegular() {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b rotated) int {
		if c := a.stamp.Compare(b.stamp); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name) // the plain form before the compressed one
	})
	out := all[:0]
	for _, r := range all {
		if k := len(out); k > 0 && out[k-1].stamp.Equal(r.stamp) {
			out[k-1].twin = r.name
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

// next is the name for the file that is rotated now: behind all others, even when the clock went back.
func (n naming) next(now time.Time) (string, error) {
	all, err := n.list()
	if err != nil {
		return "", err
	}
	if k := len(all); k > 0 && !now.After(all[k-1].stamp) {
		now = all[k-1].stamp.Add(time.Nanosecond)
	}
	return n.stem + now.UTC().Format(stampLayout) + n.ext, nil
}

// keeper deletes and compresses rotated files in the background.
type keeper struct {
	names  naming
	max    int           // files to keep; 0: all
	age    time.Duration // since the last record of a file that is kept; 0: any
	log    *slog.Logger
	event  func(ctx context.Context, kind string, attrs ...slog.Attr) bool // writes a record; false: there will be none
	gone   func()                                                          // counts a deletion
	wall   time.Time                                                       // when the keeper last worked, by the clock
	steady time.Time                                                       // the same by what nobody sets
	doubt  time.Time                                                       // no file is deleted for its age before this
	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

func newKeeper(names naming, most int, age time.Duration, log *slog.Logger) *keeper {
	k := &keeper{names: names, max: most, age: age, log: log, wake: make(chan struct{}, 1), cancel: func() {}, done: make(chan struct{})}
	close(k.done) // until it is started
	return k
}

// start has it work until close; event makes records of what it deletes, gone counts it.
func (k *keeper) start(event func(ctx context.Context, kind string, attrs ...slog.Attr) bool, gone func()) {
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel, k.done, k.event = cancel, make(chan struct{}), event
	k.gone = gone
	k.nudge()
	go k.run(ctx)
}

func (k *keeper) nudge() { poke(k.wake) }

func (k *keeper) close() {
	k.cancel()
	<-k.done
}

func (k *keeper) run(ctx context.Context) {
	defer close(k.done)
	again := time.NewTicker(keeperRound)
	defer again.Stop()
	for {
		select {
		case <-k.wake:
		case <-again.C:
		case <-ctx.Done():
			return
		}
		if err := k.work(ctx); err != nil && ctx.Err() == nil {
			k.log.Error("rotated audit files were not put in order", "directory", k.names.dir, "error", err)
		}
	}
}

// work deletes what is too much and compresses what is left, the oldest first. Compressing takes its time, in which there may be too much again.
func (k *keeper) work(ctx context.Context) error {
	for {
		now := time.Now()
		k.watchClock(now)
		all, err := k.names.list()
		if err != nil {
			return err
		}
		for len(all) > 0 {
			why := k.excess(len(all), all[0], now)
			if why == "" {
				break
			}
			if err := k.remove(ctx, all[0], why); err != nil {
				return err
			}
			all = all[1:]
		}
		plain := slices.IndexFunc(all, func(r rotated) bool { return !r.packed })
		if plain < 0 || k.names.ext == packed {
			return nil
		}
		if err := k.compress(ctx, filepath.Join(k.names.dir, all[plain].name)); err != nil {
			return err
		}
	}
}

// watchClock doubts the clock where it went ahead by itself.
func (k *keeper) watchClock(now time.Time) {
	wall := now.Round(0)
	if !k.wall.IsZero() && wall.Sub(k.wall)-now.Sub(k.steady) > clockStep {
		k.doubt = now.Add(clockDoubt)
		if k.age > 0 {
			k.log.Warn("the clock went ahead, or the machine slept: no audit file is deleted for its age within a day", "directory", k.names.dir)
		}
	}
	k.wall, k.steady = wall, now
}

// excess is the bound that the oldest of n files passes, or "".
func (k *keeper) excess(n int, oldest rotated, now time.Time) string {
	switch {
	case k.max > 0 && n > k.max:
		return "max_files"
	case k.age > 0 && now.Sub(oldest.stamp) > k.age && !now.Before(k.doubt): // the stamp is when its last record had been written
		return "keep"
	}
	return ""
}

// remove deletes a file. The record of it comes first, so that no file goes unrecorded; where the deletion fails, another one says so.
func (k *keeper) remove(ctx context.Context, r rotated, why string) error {
	if !k.event(ctx, KindLifecycle, slog.String("event", deletedEvent), slog.String("name", r.name), slog.String("bound", why)) {
		return errClosed
	}
	k.log.Info("an old audit file is deleted", "directory", k.names.dir, "name", r.name, "bound", why)
	err := k.unlink(r)
	if err != nil {
		k.event(ctx, KindLifecycle, slog.String("event", "file_not_deleted"), slog.String("name", r.name), slog.Any("error", err))
		return err
	}
	k.gone()
	return nil
}

func (k *keeper) unlink(r rotated) error {
	_ = os.Remove(filepath.Join(k.names.dir, r.name+packing)) // of a process that died over it
	if r.twin != "" {
		if err := os.Remove(filepath.Join(k.names.dir, r.twin)); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(k.names.dir, r.name))
}

// compress replaces a file by its compressed form; at every moment one of the two is complete.
func (k *keeper) compress(ctx context.Context, path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	temp := path + packing
	_ = os.Remove(temp) // of a process that died over it
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = pack(ctx, out, in)
	if err = errors.Join(err, out.Chmod(info.Mode().Perm()), out.Sync(), out.Close()); err == nil {
		err = os.Chtimes(temp, info.ModTime(), info.ModTime())
	}
	if err == nil {
		err = check(ctx, temp, info.Size())
	}
	if err == nil {
		err = os.Rename(temp, path+packed)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	syncDir(k.names.dir)
	return os.Remove(path)
}

// pack compresses in.
func pack(ctx context.Context, out io.Writer, in io.Reader) error {
	z := coding.Gzip(out)
	if _, err := copyGently(ctx, z, in); err != nil {
		return err
	}
	return z.Close()
}

// check reads a compressed file back before the other one is deleted.
func check(ctx context.Context, path string, size int64) error {
	r, err := openRecords(path)
	if err != nil {
		return err
	}
	defer r.close()
	n, err := copyGently(ctx, io.Discard, r)
	if err == nil && n != size {
		err = fmt.Errorf("%s holds %d bytes instead of %d", path, n, size)
	}
	return err
}

// copyGently copies with at most half of a core, and little more than a hundredth of one while the process is busy.
func copyGently(ctx context.Context, out io.Writer, in io.Reader) (total int64, err error) {
	buf := make([]byte, chunk)
	rest := time.NewTimer(time.Hour)
	defer rest.Stop()
	l := load{used: processCPU}
	for {
		begin := time.Now()
		n, err := readFull(in, buf)
		m, failed := out.Write(buf[:n])
		total += int64(m)
		if failed != nil {
			return total, failed
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		rest.Reset(l.rest(time.Since(begin)))
		select {
		case <-rest.C:
		case <-ctx.Done():
			return total, ctx.Err()
		}
	}
}

// readFull fills buf as far as it can. Unlike io.ReadFull it keeps the reader's own error: io.EOF is the end, io.ErrUnexpectedEOF says that something is missing.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}
