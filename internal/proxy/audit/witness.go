package audit

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
)

// Evidence is what a trail is held against besides its own chain. Its zero value takes the checkpoint file that lies beside the newest file, if there
// is one, and asks only that all checkpoints are signed by one key.
type Evidence struct {
	Checkpoints string              // the checkpoint file; "": PATH.checkpoints of the newest file, which need not be there
	Keys        []ed25519.PublicKey // the keys that may have signed
}

// ledger is the checkpoint file, while a trail is held against it.
type ledger struct {
	path   string
	all    []witness
	torn   bool
	byHash map[[hexSize]byte]*witness
	bySeq  map[uint64][]*witness
	other  map[*witness]place // where the trail has another record of that number
}

// openLedger reads the checkpoints that the last of files has beside it, or those that were named.
func openLedger(named string, files []string) (*ledger, error) {
	path := named
	if path == "" {
		path = files[len(files)-1] + checkpointSuffix
	}
	all, torn, err := readCheckpoints(path)
	if missingFile(err) && named == "" {
		target, linked := filepath.EvalSymlinks(files[len(files)-1])
		if linked != nil {
			return nil, nil
		}
		path = target + checkpointSuffix
		if all, torn, err = readCheckpoints(path); missingFile(err) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	l := &ledger{path: path, all: make([]witness, 0, len(all)), torn: torn, byHash: map[[hexSize]byte]*witness{}, bySeq: map[uint64][]*witness{}, other: map[*witness]place{}}
	for _, w := range all {
		if again := l.byHash[w.of.hash]; again != nil && again.of.seq == w.of.seq {
			continue // what ships lines may ship one twice
		}
		if n := len(l.all); n > 0 {
			w.chain = l.all[n-1].chain
			if w.of.seq < l.all[n-1].of.seq {
				w.chain++
			}
		}
		l.all = append(l.all, w)
		kept := &l.all[len(l.all)-1]
		l.byHash[w.of.hash] = kept
		l.bySeq[w.of.seq] = append(l.bySeq[w.of.seq], kept)
	}
	return l, nil
}

// trust checks that a checkpoint's key is one that may sign.
func (v *verifier) trust(c *checkpoint) (ok bool) {
	if v.pinned {
		for _, k := range v.keys {
			if k.Equal(c.key) {
				v.report.Key = fingerprint(c.key)
				return true
			}
		}
		return false
	}
	if len(v.keys) == 0 {
		v.keys, v.report.Key = []ed25519.PublicKey{c.key}, fingerprint(c.key)
	}
	return v.keys[0].Equal(c.key)
}

// stranger says what is wrong with a checkpoint of another key.
func (v *verifier) stranger(c *checkpoint) string {
	if v.pinned {
		return fmt.Sprintf("it is signed by %s, which is none of the keys given: forged, or the daemon's key was replaced", fingerprint(c.key))
	}
	return fmt.Sprintf("it is signed by %s and others by %s: forged, or the daemon's key was replaced; give all keys that may sign with --key",
		fingerprint(c.key), v.report.Key)
}

// trustLedger checks the keys of the whole file.
func (v *verifier) trustLedger() error {
	if v.ledger == nil {
		return nil
	}
	for i := range v.ledger.all {
		if w := &v.ledger.all[i]; !v.trust(w.checkpoint) {
			return &Fault{File: v.ledger.path, Line: w.line, What: "the checkpoint is not to be trusted: " + v.stranger(w.checkpoint)}
		}
	}
	return nil
}

// sworn checks a record of the chain that is a checkpoint.
func (v *verifier) sworn(line []byte, e ending) error {
	if _, ok := lifecycle(line, checkpointEvent); !ok {
		return nil
	}
	c, err := parseCheckpoint(line)
	switch {
	case err != nil:
		return v.fault("record %d %s", e.seq, err)
	case c.of.seq+1 != e.seq || c.of.hash != e.prev:
		return v.fault("record %d is a checkpoint of record %d, and does not stand behind it: it was copied here", e.seq, c.of.seq)
	case !c.genuine():
		return v.fault("record %d is a forged checkpoint: its signature does not fit", e.seq)
	case !v.trust(c):
		return v.fault("record %d is a checkpoint that is not to be trusted: %s", e.seq, v.stranger(c))
	}
	v.report.Checkpoints++
	v.report.Signed, v.vouched = c.of.seq, c.of.seq
	return nil
}

// unvouched says how much of a chain that another one follows nothing but its own hashes hold.
func (v *verifier) unvouched() string {
	if v.ledger == nil && !v.pinned {
		return ""
	}
	n := v.at.seq - min(v.at.seq, max(v.vouched, v.chainFrom-1))
	if n == 0 {
		return ""
	}
	return "; behind its last checkpoint " + plural(n, "record")
}

// meet holds a record against the checkpoints that speak of its number.
func (v *verifier) meet(e ending) {
	l := v.ledger
	if l == nil {
		return
	}
	if w := l.byHash[e.hash]; w != nil && w.of.seq == e.seq {
		w.seen, v.vouched = true, e.seq
		if v.excused.After(v.deleted) {
			v.deleted = v.excused
		}
		return
	}
	for _, w := range l.bySeq[e.seq] {
		l.other[w] = v.place
	}
}

// settle finds checkpoints whose records are not in the trail, though they should be.
func (v *verifier) settle() error {
	l := v.ledger
	if l == nil {
		return v.unsigned()
	}
	r := &v.report
	r.CheckpointFile, r.CheckpointTorn = l.path, l.torn
	first, last := -1, -1 // of those that the trail has
	for i := range l.all {
		if l.all[i].seen {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return v.unwitnessed()
	}
	for i := range l.all {
		w := &l.all[i]
		switch {
		case w.seen:
			r.Witnessed++
			continue
		case i < first && v.before(w, l.all[first].chain):
			r.Earlier++
			continue
		}
		return v.absent(w, i > last)
	}
	r.Checked = Mark{Seq: l.all[last].of.seq, Time: l.all[last].time.Format(timeLayout)}
	return nil
}

// before tells whether a checkpoint is of records that were before the files given, as those of deleted files are.
func (v *verifier) before(w *witness, chain int) bool {
	if v.report.First.Seq > 1 {
		return w.chain < chain || w.of.seq < v.report.First.Seq
	}
	return !w.time.After(v.deleted) // an earlier chain, whose last file went by the account of records that are sworn to
}

// unsigned is for a trail that has to be signed, and no checkpoint is of it.
func (v *verifier) unsigned() error {
	if !v.pinned || v.report.Checkpoints > 0 {
		return nil
	}
	v.place = v.end
	return v.fault("no checkpoint is signed by the key given: they were removed, or were never made")
}

// unwitnessed is for a file none of whose checkpoints is of a record in the trail.
func (v *verifier) unwitnessed() error {
	for i := range v.ledger.all {
		w := &v.ledger.all[i]
		if w.of.seq >= v.report.First.Seq {
			return v.absent(w, true)
		}
	}
	v.report.Earlier = len(v.ledger.all)
	return v.unsigned()
}

// absent is the fault of a checkpoint whose record is not there.
func (v *verifier) absent(w *witness, tail bool) error {
	l, at := v.ledger, fmt.Sprintf("%s:%d", v.ledger.path, w.line)
	good := uint64(0)
	for i := range l.all {
		if x := &l.all[i]; x.seen && x.chain == w.chain && x.of.seq < w.of.seq {
			good = max(good, x.of.seq)
		}
	}
	if p, ok := l.other[w]; ok && (tail || good > 0) {
		v.place = p
		return v.fault("record %d is not the one that the checkpoint at %s speaks of: the trail was written anew behind record %d", w.of.seq, at, good)
	}
	v.place = v.end
	if tail {
		return v.fault("the end was cut off: the trail ends with record %d, and by the checkpoint at %s record %d was written at %s; "+
			"or the newest file was not given", v.at.seq, at, w.of.seq, w.time.Format(timeLayout))
	}
	which := "an earlier trail was removed"
	if v.beganBroken {
		which = "the file that was set aside because its last record was altered was removed, or was not given"
	}
	return v.fault("record %d, of which the checkpoint at %s speaks, is missing: %s; where that was meant, remove the checkpoint too", w.of.seq, at, which)
}

// tail says what is known of the trail's end.
func (r *Report) tail(b *bytes.Buffer) {
	if r.Key != "" {
		fmt.Fprintf(b, "checkpoints: %d in the trail, signed by %s", r.Checkpoints, r.Key)
		if !r.Pinned {
			b.WriteString(" (compare with `httpowerd audit key`, or give --key)")
		}
		b.WriteByte('\n')
	}
	switch {
	case r.CheckpointFile == "":
		b.WriteString("note: the end was not checked: there is no checkpoint file, so records cut off at the end are not found\n")
		r.sworn(b)
		return
	case r.Witnessed == 0:
		fmt.Fprintf(b, "note: the end was not checked: no checkpoint in %s is of these records\n", r.CheckpointFile)
		r.sworn(b)
	default:
		fmt.Fprintf(b, "the end was checked: record %d is there as the last of %d checkpoints in %s says (%s); behind it %s\n",
			r.Checked.Seq, r.Witnessed, r.CheckpointFile, r.Checked.Time, plural(r.Last.Seq-min(r.Last.Seq, r.Checked.Seq), "record"))
	}
	if r.Earlier > 0 {
		fmt.Fprintf(b, "note: %s of records before these files\n", plural(uint64(r.Earlier), "checkpoint"))
	}
	if r.CheckpointTorn {
		b.WriteString("note: a line of the checkpoint file is not complete, as a killed daemon leaves it\n")
	}
	if r.Signed > r.Checked.Seq && r.Witnessed > 0 {
		fmt.Fprintf(b, "note: the trail has a checkpoint of record %d, which the file lacks: the file was cut off, or could not be written\n", r.Signed)
	}
}

// sworn says what the checkpoints in the trail vouch for, where the file does not.
func (r *Report) sworn(b *bytes.Buffer) {
	if r.Signed > 0 {
		fmt.Fprintf(b, "note: the last checkpoint in the trail is of record %d; behind it %s\n", r.Signed, plural(r.Last.Seq-min(r.Last.Seq, r.Signed), "record"))
	}
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
