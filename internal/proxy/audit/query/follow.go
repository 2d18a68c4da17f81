package query

import (
	"io"
	"os"
	"time"

	"httpowerd/internal/proxy/audit"
)

// follow hands on what is written from now on, until the context ends. p is open and was read to its end.
func (r *reading) follow(p *part) error {
	if p.lines == nil {
		return nil
	}
	every := r.Poll
	if every <= 0 {
		every = time.Second / 4
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := r.to.idle(); err != nil {
			return err
		}
		select {
		case <-r.ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := r.look(p); err != nil {
			if r.ctx.Err() != nil {
				return nil
			}
			return err
		}
		if p.lines == nil {
			return nil // it cannot be read on, which was told
		}
	}
}

// look reads what came since. The file is left for the one that has its name now when that one has a record: the daemon, and whatever else rotates, may
// write into the old one until then.
func (r *reading) look(p *part) error {
	now, err := os.Stat(p.name)
	moved := err == nil && now.Size() > 0 && !sameFile(p.file, p.name)
	if !moved && r.cut(p) {
		r.Tell(p.name + " was cut: it is read from its beginning")
	}
	if err := r.read(p, r.to.record); err != nil || !moved || p.lines == nil {
		return err
	}
	if torn := p.lines.rest(); len(torn) > 0 {
		if err := r.line(p, torn, r.to.record); err != nil {
			return err
		}
	}
	return r.move(p)
}

// cut tells that a file became shorter than what was read of it, and goes back to its beginning. Where only a line without an end was cut off, as the daemon
// does after a failed write, it goes back to where that line began.
func (r *reading) cut(p *part) bool {
	info, err := p.file.Stat()
	if err != nil {
		return false
	}
	at, err := p.file.Seek(0, io.SeekCurrent)
	if err != nil || info.Size() >= at {
		return false
	}
	whole := at - int64(p.lines.pending())
	if info.Size() < whole {
		whole = 0
	}
	if _, err := p.file.Seek(whole, io.SeekStart); err != nil {
		return false
	}
	n := p.lines.n
	if p.lines = newLines(p.file); whole > 0 {
		p.lines.n = n
	}
	return whole == 0
}

// move goes on in the file that has the name now, and reads those first that were rotated in between.
func (r *reading) move(p *part) error {
	old, err := p.file.Stat()
	if err != nil {
		return err
	}
	next := &reading{Query: &Query{Follow: true, Tell: r.Tell}, ctx: r.ctx}
	if err := next.list(p.name); err != nil {
		return err
	}
	now := next.parts[0]
	between, err := audit.Predecessors(p.name)
	if err != nil {
		now.close()
		return err
	}
	since := p.after
	p.close()
	*p = now
	for _, b := range after(between, since, old) {
		if b.At.After(now.after) {
			break // rotated since: it is the one that is open now
		}
		if err := r.scan(&part{name: b.Path, rotated: true}, r.to.record); err != nil {
			return err
		}
	}
	return r.read(p, r.to.record)
}

// after is the files that were rotated later than since, without the one that was read already. That one is known by being the same file, or, packed, by its time.
func after(all []audit.Rotated, since time.Time, read os.FileInfo) []audit.Rotated {
	for len(all) > 0 && !all[0].At.After(since) {
		all = all[1:]
	}
	for i, b := range all {
		f, err := audit.OpenRotated(b.Path) // packed since it was listed, perhaps
		if err != nil {
			continue
		}
		info, err := f.Stat()
		f.Close()
		if err == nil && (os.SameFile(info, read) || info.ModTime().Equal(read.ModTime())) {
			return all[i+1:]
		}
	}
	return all
}
