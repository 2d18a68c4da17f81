package audit

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Mark is a record's place in the trail.
type Mark struct {
	Seq  uint64
	Time string // as the record says it
}

// Report is what a verified trail holds.
type Report struct {
	Files       int
	Records     uint64
	First, Last Mark
	Hash        string   // of the last record: keep it where the daemon's user cannot write, and the end cannot be cut off unnoticed
	Starts      int      // how often a daemon began to write
	Repairs     int      // how often it found an incomplete record and cut it off
	Missing     uint64   // records that were lost by the trail's own account: a full queue, a failing output
	Chains      []string // where a chain began anew, and why by its own account; the first record of all is not listed
	Stopped     bool     // the last record is a proper end
	Refused     uint64   // exchanges refused while nothing could be written, and not recorded one by one
	Deleted     int      // rotated files that max_files or keep took

	Checkpoints    int    // in the chain, all of them genuine
	Signed         uint64 // the last record of the last chain that one of them speaks of
	Key            string // the fingerprint of the key that signed
	Pinned         bool   // the key is one that the caller gave
	CheckpointFile string // "": there is none, so that the end is not checked
	CheckpointTorn bool   // a line of it is not complete
	Witnessed      int    // how many of its checkpoints are of records that are there
	Earlier        int    // and how many of records before the files given
	Checked        Mark   // the last record that one of them speaks of
}

// String is the report for people.
func (r *Report) String() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d records in %d files, %d to %d, from %s to %s: none altered, removed or moved\n",
		r.Records, r.Files, r.First.Seq, r.Last.Seq, r.First.Time, r.Last.Time)
	fmt.Fprintf(&b, "last hash: %s\n", r.Hash)
	if r.First.Seq > 1 {
		fmt.Fprintf(&b, "note: the files begin with record %d; nothing is known of those before\n", r.First.Seq)
	}
	r.tail(&b)
	if r.Deleted > 0 {
		fmt.Fprintf(&b, "note: by the trail's own account %s deleted, as max_files or keep asks\n", verb(r.Deleted))
	}
	for _, c := range r.Chains {
		fmt.Fprintf(&b, "note: %s\n", c)
	}
	if r.Repairs > 0 {
		fmt.Fprintf(&b, "note: %d of %d starts found an incomplete record, as a killed daemon leaves it, and cut it off\n", r.Repairs, r.Starts)
	}
	if r.Missing > 0 {
		fmt.Fprintf(&b, "note: by the trail's own account %d records were lost before they were written\n", r.Missing)
	}
	if r.Refused > 0 {
		fmt.Fprintf(&b, "note: by the trail's own account %s refused unrecorded while nothing could be written\n", plural(r.Refused, "exchange"))
	}
	if !r.Stopped {
		b.WriteString("note: the last record is not the end of a daemon: it runs, or was killed, or the end of the file was cut off\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func verb(files int) string {
	if files == 1 {
		return "1 rotated file was"
	}
	return fmt.Sprintf("%d rotated files were", files)
}

// Fault is the first thing that is wrong with a trail.
type Fault struct {
	File string
	Line int
	What string
}

// Error is the place and what is wrong there.
func (f *Fault) Error() string { return f.File + ":" + strconv.Itoa(f.Line) + ": " + f.What }

// VerifyFiles recomputes the chain of a trail whose files are given the oldest first; they may be compressed. The error is a *Fault for the first
// record that was altered, removed or moved, or another error for a file that cannot be read. It holds one record in memory at a time.
//
// What a hash chain cannot show, checkpoints do: that records at the end were cut off, or that all of it was written anew. The file that lies beside the
// newest one is read.
func VerifyFiles(files ...string) (*Report, error) { return Verify(Evidence{}, files...) }

// Verify is VerifyFiles with evidence from elsewhere.
func Verify(evidence Evidence, files ...string) (*Report, error) {
	v := verifier{files: files, starts: map[[hexSize]byte]place{}, keys: evidence.Keys, pinned: len(evidence.Keys) > 0}
	v.report.Pinned = v.pinned
	var err error
	if v.ledger, err = openLedger(evidence.Checkpoints, files); err != nil { // before the trail, which only grows
		return nil, err
	}
	if err = v.trustLedger(); err == nil {
		err = v.walk(0, 0, v.check)
	}
	if err == nil && v.report.Records == 0 {
		err = errors.New("there is no record in " + strings.Join(files, ", "))
	}
	if err == nil {
		err = v.settle()
	}
	if err != nil {
		return nil, err
	}
	v.report.Hash = string(v.at.hash[:])
	return &v.report, nil
}

// maxStarts bounds what is remembered of chains.
const maxStarts = 10_000

// verifier follows a chain.
type verifier struct {
	files  []string
	report Report
	at     link
	place  place                   // of the line that is looked at
	starts map[[hexSize]byte]place // the first records of chains, by hash

	ledger      *ledger // nil: there is no checkpoint file
	keys        []ed25519.PublicKey
	pinned      bool      // the caller gave the keys
	end         place     // of the last record
	beganBroken bool      // the first chain began because the one before was altered
	excused     time.Time // of the youngest file that was deleted by the trail's own account
	vouched     uint64    // the last record of this chain that a checkpoint speaks of
	chainFrom   uint64    // the first record of this chain that is there
	deleted     time.Time // the same, where a checkpoint vouches for that account
}

type place struct {
	file, line int // from 0, from 1
}

// walk calls f for every line behind the given place.
func (v *verifier) walk(file, line int, f func(line []byte) error) error {
	for ; file < len(v.files); file, line = file+1, 0 {
		if err := v.walkFile(file, line, f); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) walkFile(file, skip int, f func(line []byte) error) error {
	r, err := openRecords(v.files[file])
	if err != nil {
		return err
	}
	defer r.close()
	for n, l := 1, newLines(r); ; n++ {
		line, err := l.next()
		v.place = place{file, n}
		switch {
		case errors.Is(err, io.EOF):
			v.report.Files = max(v.report.Files, file+1)
			return nil
		case errors.Is(err, errTorn):
			return v.fault("the file ends within a record, %q: the daemon was killed or is writing right now, or the end was cut off", clip(line))
		case errors.Is(err, errLong):
			return v.fault("%s", err)
		case err != nil:
			return fmt.Errorf("%s:%d: cannot be read on: %w", v.files[file], n, err)
		}
		if n <= skip {
			continue
		}
		if err := f(line); err != nil {
			return err
		}
	}
}

func (v *verifier) fault(format string, args ...any) error {
	return &Fault{File: v.files[v.place.file], Line: v.place.line, What: fmt.Sprintf(format, args...)}
}

// clip is the beginning of a line, for a message.
func clip(line []byte) []byte { return line[:min(len(line), 40)] }

// check follows the chain over one more record.
func (v *verifier) check(line []byte) error {
	if !looksRight(line) {
		return v.fault("this is not a record: %q", clip(line))
	}
	e, ok := parseEnding(line[max(0, len(line)-linkSize):])
	if !ok {
		return v.fault("this record has no place in the chain: it was altered or put here, or was written with audit.chain off")
	}
	next, right := after(line)
	if !right {
		return v.fault("record %d was altered: its hash does not fit its content", e.seq)
	}
	if err := v.follows(line, e); err != nil {
		return err
	}
	if err := v.sworn(line, e); err != nil {
		return err
	}
	if e.seq == 1 {
		v.starts[e.hash] = v.place
	}
	v.end = v.place
	v.at = next
	v.note(line, e)
	v.meet(e)
	return nil
}

// follows checks that a record, which is whole, stands behind the one before.
func (v *verifier) follows(line []byte, e ending) error {
	begins := e.seq == 1 && e.prev == genesis().hash
	switch {
	case v.report.Records == 0:
		if e.seq == 1 && !begins {
			return v.fault("record 1 names a record before it")
		}
		return nil
	case e.seq == v.at.seq+1 && e.prev == v.at.hash:
		return nil
	case begins:
		return v.anew(line, e)
	case e.seq == v.at.seq+1:
		return v.fault("record %d does not follow from the record before it: one of the two was replaced", e.seq)
	case e.seq <= v.at.seq:
		return v.fault("record %d stands behind record %d: it was moved or repeated, or the files are not given the oldest first", e.seq, v.at.seq)
	}
	return v.gap(e)
}

// anew is for a chain that begins in the middle. An honest one says why.
func (v *verifier) anew(line []byte, e ending) error {
	if p, again := v.starts[e.hash]; again {
		return v.fault("the same first record stands at %s:%d: records were repeated, or a file is given twice", v.files[p.file], p.line)
	}
	if len(v.starts) == maxStarts {
		return v.fault("a new chain begins for the %dth time: no daemon starts so often", maxStarts)
	}
	start, ok := lifecycle(line, startEvent)
	if !ok {
		return v.fault("the chain begins anew behind record %d, and not with a daemon's start", v.at.seq)
	}
	word := chainWord(start)
	where := fmt.Sprintf("%s:%d: a new chain begins behind record %d (hash %s)", v.files[v.place.file], v.place.line, v.at.seq, v.at.hash)
	switch word {
	case "new":
		where += ": the daemon that started found no record to go on from"
	case "broken":
		where += ": the daemon that started found that the last record was altered"
	default:
		return v.fault("the chain begins anew behind record %d, but its first record says that it is %q", v.at.seq, word)
	}
	if t, ok := timeOf(line); ok && t.Format(timeLayout) < v.report.Last.Time {
		where += ". Its time is before that of the last record: the files may not be given the oldest first"
	}
	v.report.Chains = append(v.report.Chains, where+v.unvouched())
	v.report.Signed, v.vouched, v.chainFrom = 0, 0, 1
	return nil
}

// gap is for records that do not stand where they belong: elsewhere, or nowhere.
func (v *verifier) gap(e ending) error {
	at, wanted := v.place, v.at
	var found *place
	err := v.walk(at.file, at.line, func(line []byte) error {
		other, ok := parseEnding(line[max(0, len(line)-linkSize):])
		if ok && other.seq == wanted.seq+1 && other.prev == wanted.hash {
			found = &place{v.place.file, v.place.line}
			return io.EOF
		}
		return nil
	})
	v.place = at
	if found != nil && errors.Is(err, io.EOF) {
		return v.fault("record %d stands where record %d belongs, which is at %s:%d: the order was changed, or the files are not given the oldest first",
			e.seq, wanted.seq+1, v.files[found.file], found.line)
	}
	which := fmt.Sprintf("record %d is", wanted.seq+1)
	if e.seq > wanted.seq+2 {
		which = fmt.Sprintf("records %d to %d are", wanted.seq+1, e.seq-1)
	}
	if at.line == 1 {
		return v.fault("%s missing before this file: removed, or a file in between was not given", which)
	}
	return v.fault("%s missing before this record: removed", which)
}

// note counts a record that is right.
func (v *verifier) note(line []byte, e ending) {
	r := &v.report
	r.Last = Mark{Seq: e.seq}
	if _, ok := timeOf(line); ok {
		r.Last.Time = string(line[len(opening) : len(opening)+timeSize])
	}
	if r.Records == 0 {
		r.First, v.chainFrom = r.Last, r.Last.Seq
	}
	r.Records++
	_, r.Stopped = lifecycle(line, stopEvent)
	if rest, ok := lifecycle(line, startEvent); ok {
		r.Starts++
		if r.Records == 1 {
			v.beganBroken = chainWord(rest) == "broken"
		}
		if chainWord(rest) == "repaired" {
			r.Repairs++
		}
	}
	if rest, ok := lifecycle(line, missingEvent); ok {
		r.Missing += countIn(rest)
	}
	if rest, ok := lifecycle(line, refusedEvent); ok {
		r.Refused += countIn(rest)
	}
	if _, ok := lifecycle(line, deletedEvent); ok {
		r.Deleted++
		if t := deletedStamp(line); t.After(v.excused) {
			v.excused = t
		}
	}
}

// deletedStamp is when the file was rotated of whose deletion a record tells.
func deletedStamp(line []byte) time.Time {
	_, rest, _ := bytes.Cut(line, []byte(`,"name":"`))
	name, _, _ := bytes.Cut(rest, []byte{'"'})
	stamp := name[bytes.LastIndexByte(name, '-')+1:]
	t, _ := time.Parse(stampLayout, string(stamp[:min(len(stamp), len(stampLayout))]))
	return t
}

// countIn reads the count of a sum.
func countIn(rest []byte) uint64 {
	digits, _ := bytes.CutPrefix(rest, []byte(`,"count":`))
	digits, _, _ = bytes.Cut(digits, []byte{','})
	n, _ := strconv.ParseUint(string(digits), 10, 64)
	return n
}

// lifecycle returns what follows the event's name in a record of that event.
func lifecycle(line []byte, event string) ([]byte, bool) {
	if len(line) < len(opening)+timeSize {
		return nil, false
	}
	return bytes.CutPrefix(line[len(opening)+timeSize:], []byte(`","kind":"`+KindLifecycle+`","event":"`+event+`"`))
}

// chainWord is what a first record says of the chain.
func chainWord(rest []byte) string {
	rest, _ = bytes.CutPrefix(rest, []byte(`,"chain":"`))
	word, _, _ := bytes.Cut(rest, []byte{'"'})
	return string(clip(word))
}
