// Package query reads audit trails: it finds records, shows them, follows them and adds them up.
//
// A trail is read as it streams by, in memory of one record, whatever its size. Lines that are no records are counted and told, and stop nothing.
package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"httpowerd/internal/proxy/audit"
)

// Stdin is the name of standard input among files.
const Stdin = "-"

// Query is what to read, and what of it.
type Query struct {
	Files   []string // the oldest first
	Rotated bool     // with the rotated predecessors of each file
	Follow  bool     // go on with what is written from now on, in one file, over its rotations
	Last    int      // only so many, the last ones; 0: all
	Filter  *Filter  // nil: all records
	Stdin   io.Reader
	Tell    func(line string) // what a person should know besides the records
	Poll    time.Duration     // how often a followed file is looked at; 0: four times a second
}

// Sink takes the records that were found, and shows them.
type Sink interface {
	record(r *record) error
	idle() error // nothing comes for a while
	end() error
}

// errUnread says that the answer is not whole; what could not be read was told.
var errUnread = errors.New("not all of the trail could be read")

// Run reads, until everything is read or, with Follow, until ctx ends.
func (q *Query) Run(ctx context.Context, to Sink) error {
	filter := q.Filter
	if filter == nil {
		filter = &Filter{}
	}
	r := &reading{Query: q, ctx: ctx, filter: filter, to: to}
	defer r.close()
	err := r.run()
	r.tellDamage()
	if err := errors.Join(err, to.end()); err != nil {
		return err
	}
	if r.unread {
		return errUnread
	}
	return nil
}

// reading is a Query that runs.
type reading struct {
	*Query
	ctx     context.Context
	filter  *Filter
	to      Sink
	current record
	parts   []part
	damaged int
	example string // of a line that is no record, and where
	unread  bool
}

// part is one file of the trail.
type part struct {
	name          string
	after, before time.Time // its records are from between the two; zero: unknown
	rotated       bool
	live          bool // somebody may be writing into the pipe
	file          *os.File
	lines         *lines
}

func (r *reading) close() {
	for i := range r.parts {
		r.parts[i].close()
	}
}

func (p *part) close() {
	if p.file != nil && p.name != Stdin {
		p.file.Close()
	}
	p.file, p.lines = nil, nil
}

func (r *reading) run() error {
	for _, name := range r.Files {
		if err := r.list(name); err != nil {
			return err
		}
	}
	r.parts = slices.DeleteFunc(r.parts, func(p part) bool {
		if r.filter.covers(p.after, p.before) || p.file != nil && r.Follow {
			return false
		}
		p.close()
		return true
	})
	var err error
	if r.Last > 0 {
		err = r.last()
	} else {
		err = r.all()
	}
	if err != nil || !r.Follow || len(r.parts) == 0 {
		return err
	}
	if err := r.to.idle(); err != nil {
		return err
	}
	return r.follow(&r.parts[len(r.parts)-1])
}

// list finds out of which parts a trail is made. The file that is written to is opened before its predecessors are listed: it cannot slip between the two.
func (r *reading) list(name string) error {
	if name == Stdin || !r.Rotated && !r.Follow {
		r.parts = append(r.parts, part{name: name, live: name == Stdin})
		return nil
	}
	for try := 0; ; try++ {
		f, err := os.Open(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		before, listErr := audit.Predecessors(name)
		switch {
		case f == nil && len(before) == 0, f == nil && r.Follow && try > 8:
			return err
		case listErr != nil:
			f.Close()
			return listErr
		case f != nil && !sameFile(f, name) && try < 8, f == nil && r.Follow: // it is being rotated right now
			if f != nil {
				f.Close()
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		var after time.Time
		for _, b := range before {
			if r.Rotated {
				r.parts = append(r.parts, part{name: b.Path, after: after, before: b.At, rotated: true})
			}
			after = b.At
		}
		if f != nil {
			p := part{name: name, after: after, file: f}
			if p.lines, err = unpack(f); err != nil {
				f.Close()
				return fmt.Errorf("%s: %w", name, err)
			}
			r.parts = append(r.parts, p)
		}
		return nil
	}
}

func unpack(in io.Reader) (*lines, error) {
	u, err := audit.Unpacked(in)
	if err != nil {
		return nil, err
	}
	return newLines(u), nil
}

// sameFile tells whether the path still leads to f.
func sameFile(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(open, now)
}

// all hands on the records that are wanted, in their order.
func (r *reading) all() error {
	for i := range r.parts {
		if err := r.scan(&r.parts[i], r.to.record); err != nil {
			return err
		}
	}
	return nil
}

// last hands on the last records that are wanted. It reads file by file from the youngest on, and only as many files as it takes.
func (r *reading) last() error {
	var rings []*ring
	left := r.Last
	for i := len(r.parts) - 1; i >= 0 && left > 0; i-- {
		k := &ring{size: left}
		if err := r.scan(&r.parts[i], k.add); err != nil {
			return err
		}
		rings = append(rings, k)
		left -= len(k.lines)
	}
	for _, k := range slices.Backward(rings) {
		if err := k.each(&r.current, r.to.record); err != nil {
			return err
		}
	}
	return nil
}

// ring keeps the last lines it is given.
type ring struct {
	size, next int
	lines      [][]byte
}

func (k *ring) add(r *record) error {
	if len(k.lines) < k.size {
		k.lines = append(k.lines, slices.Clone(r.line))
		return nil
	}
	k.lines[k.next] = append(k.lines[k.next][:0], r.line...)
	k.next = (k.next + 1) % k.size
	return nil
}

func (k *ring) each(r *record, f func(*record) error) error {
	for i := range k.lines {
		r.parse(k.lines[(k.next+i)%len(k.lines)])
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// open opens a part. False: there is nothing to read, which was told where it matters.
func (r *reading) open(p *part) bool {
	if p.lines != nil {
		return true
	}
	var err error
	switch {
	case p.name == Stdin:
		p.lines, err = unpack(r.Stdin)
	case p.rotated:
		if p.file, err = audit.OpenRotated(p.name); errors.Is(err, fs.ErrNotExist) {
			r.Tell(p.name + " was deleted while the trail was read: it was the oldest, and there were enough")
			return false
		}
	default:
		p.file, err = os.Open(p.name)
	}
	if err == nil && p.lines == nil {
		p.lines, err = unpack(p.file)
	}
	if err != nil {
		r.cannot(p, err)
		return false
	}
	return true
}

func (r *reading) cannot(p *part, err error) {
	var path *fs.PathError
	if !errors.As(err, &path) {
		err = fmt.Errorf("%s: %w", p.name, err)
	}
	r.Tell(err.Error())
	r.unread = true
	p.close()
}

// scan calls f for every record of a part that is wanted. The last part of a followed trail stays open.
func (r *reading) scan(p *part, f func(*record) error) error {
	if !r.open(p) {
		return nil
	}
	if err := r.read(p, f); err != nil {
		return err
	}
	if r.Follow && p == &r.parts[len(r.parts)-1] || p.lines == nil {
		return nil
	}
	if torn := p.lines.rest(); len(torn) > 0 {
		if err := r.line(p, torn, f); err != nil {
			return err
		}
	}
	p.close()
	return nil
}

// read calls f for the records up to the end that the part has now.
func (r *reading) read(p *part, f func(*record) error) error {
	for n := 0; ; n++ {
		if n%1024 == 0 && r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		if p.live && p.lines.empty() {
			if err := r.to.idle(); err != nil {
				return err
			}
		}
		line, err := p.lines.next()
		switch {
		case err == io.EOF:
			return nil
		case err == errLong:
			r.damage(p, line)
		case err != nil:
			r.cannot(p, fmt.Errorf("line %d cannot be read: %w", p.lines.n+1, err))
			return nil
		default:
			if err := r.line(p, line, f); err != nil {
				return err
			}
		}
	}
}

func (r *reading) line(p *part, line []byte, f func(*record) error) error {
	switch {
	case r.filter.early(line):
		return nil
	case !r.current.parse(line):
		r.damage(p, line)
		return nil
	case !r.filter.match(&r.current):
		return nil
	}
	return f(&r.current)
}

func (r *reading) damage(p *part, line []byte) {
	if r.damaged++; r.damaged == 1 {
		r.example = fmt.Sprintf("%s:%d begins with %q", p.name, p.lines.n, line[:min(len(line), 40)])
	}
}

func (r *reading) tellDamage() {
	switch {
	case r.damaged == 1:
		r.Tell("one line is no audit record: " + r.example)
	case r.damaged > 1:
		r.Tell(fmt.Sprintf("%d lines are no audit records: the first, %s", r.damaged, r.example))
	}
}
