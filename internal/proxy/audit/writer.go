package audit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/redact"
)

const (
	// company is how long a record waits for others to share a write with. It costs nobody: an exchange is through when its record is queued. After a pause in
	// which no more than four would come nothing waits: while the process is awake some writes are cheaper than to wake up for one.
	company = 5 * time.Millisecond
	pause   = company / 4
	// syncEvery bounds what a power cut can take.
	syncEvery = time.Second

	firstRetry = 20 * time.Millisecond
	lastRetry  = 2 * time.Second

	reopenWait = 10 * time.Second       // for a writer that is stuck in its output
	farewell   = 100 * time.Millisecond // for a writer that was told to give up
	keepBuffer = 4 << 20                // a larger buffer is not kept for the next batch
)

var errClosed = errors.New("the audit trail is closed")

// writer takes records from the queue, chains them and writes them. One goroutine does all of it, so that there is one order.
type writer struct {
	owner   *Log
	sink    sink
	chained bool
	log     *slog.Logger
	syncing time.Duration // Config.Sync
	missing atomic.Int64  // lost since the trail last said so
	refused atomic.Int64  // refused by Admit since then, and not recorded one by one

	stuck   *time.Timer // runs while a write is under way
	mu      sync.Mutex  // of writing
	writing bool

	reopenings chan chan error
	abandon    chan struct{} // closed: no more retries
	stopped    chan struct{} // closed when run has returned
	done       chan struct{} // closed when finish has returned

	// Only run's goroutine uses what follows, and finish after it.
	chain     link
	digest    digest // of the chain
	record    record
	sealed    []byte // the lines of a batch
	ends      []int  // where each of them ends
	outage    outage
	recovered []slog.Attr // what the trail has to be told of an outage that is over
	last      time.Time   // when the last batch was through
	company   *time.Timer
	nextSync  *time.Timer
	synced    time.Time
	dirty     bool
	syncFails bool
	closeErr  error

	copiers     []*copier
	checkpoints *checkpoints // nil: none
	nextCheck   *time.Timer
	rotations   int // of the file, as far as they are known
}

// outage is a time in which the output takes nothing.
type outage struct {
	since    time.Time // zero: none
	err      error
	failures int
	wait     time.Duration
}

func newWriter(l *Log, s sink, chained bool, log *slog.Logger) *writer {
	w := &writer{owner: l, sink: s, chained: chained, log: log, chain: genesis(), digest: digest{Hash: sha256.New()}, record: record{repeats: newRepeats()}, reopenings: make(chan chan error),
		abandon: make(chan struct{}), stopped: make(chan struct{}), done: make(chan struct{}), last: time.Now(),
		company: time.NewTimer(time.Hour), nextSync: time.NewTimer(time.Hour), nextCheck: time.NewTimer(time.Hour)}
	w.stuck = time.AfterFunc(time.Hour, w.hangs)
	w.stuck.Stop()
	w.nextCheck.Stop()
	w.company.Stop()
	w.nextSync.Stop()
	return w
}

// run writes until the queue is closed and empty, or the writer is told to give up.
func (w *writer) run() {
	defer close(w.stopped)
	defer w.nextSync.Stop()
	defer w.nextCheck.Stop()
	var b batch
	alive := true
	for open := true; open && alive; w.tidy(&b) {
		w.await()
		if b, open = w.owner.queue.take(b); open {
			alive = w.flush(b, true) && w.notes() && w.check()
		} else {
			alive = w.notes() && w.flush(b, true) // nothing comes after the last record
		}
		w.last = time.Now()
	}
	w.closeErr = errors.Join(w.lastCheck(alive), w.sink.Close())
}

// await returns when there may be records to write.
func (w *writer) await() {
	for {
		select {
		case <-w.owner.queue.wake:
			if time.Since(w.last) > pause {
				return
			}
			w.company.Reset(company)
			select {
			case <-w.company.C:
			case <-w.owner.queue.hurry:
				w.company.Stop()
			case <-w.abandon:
			}
			return
		case reply := <-w.reopenings:
			_, err := w.sink.Reopen()
			reply <- err
		case <-w.nextSync.C:
			w.sync()
		case <-w.nextCheck.C:
			return
		}
	}
}

// flush seals the records of b and writes them, for as long as it takes. False means that it gave up, after which nothing may be written any more:
// the chain is ahead of the file.
func (w *writer) flush(b batch, queued bool) bool {
	w.seal(b)
	for at, line := 0, 0; at < len(w.sealed); {
		n, err := w.write(w.sealed[at:])
		at += n
		line += w.settle(b, line, at, queued)
		switch {
		case err == nil && n > 0:
			w.healthy()
			continue
		case err == nil:
			err = io.ErrShortWrite
		}
		w.failed(err, n > 0)
		if at == len(w.sealed) {
			break
		}
		moved, alive := w.pause()
		if !alive {
			return false
		}
		if moved {
			at = w.start(line)
		}
	}
	if len(w.sealed) > 0 {
		if w.checkpoints != nil {
			w.checkpoints.wrote(len(w.ends))
		}
		w.wrote()
	}
	return true
}

// stuckAfter is how long a write may take before it counts as a failure that nobody has told.
const stuckAfter = 5 * time.Second

var errStuck = fmt.Errorf("a write has not returned for %s: nobody reads the output, or its disk hangs", stuckAfter)

// write is the sink's, with an eye on the clock.
func (w *writer) write(lines []byte) (int, error) {
	w.mu.Lock()
	w.writing = true
	w.mu.Unlock()
	w.stuck.Reset(stuckAfter)
	n, err := w.sink.Write(lines)
	w.stuck.Stop()
	w.mu.Lock()
	w.writing = false
	w.mu.Unlock()
	if g := &w.owner.queue.gate; g.has(outputStuck) {
		g.clear(outputStuck)
		w.log.Warn("the audit output took the write that it held up")
	}
	return n, err
}

// hangs is for a write that does not return.
func (w *writer) hangs() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.writing {
		return
	}
	w.owner.queue.gate.set(outputStuck)
	w.log.Error("audit records cannot be written; they wait in memory", "error", errStuck)
	w.owner.alarm(errStuck)
}

// seal makes lines of the records and shows them to the live view.
func (w *writer) seal(b batch) {
	w.sealed, w.ends = w.sealed[:0], w.ends[:0]
	begin := 0
	for i := range b.entries {
		e := &b.entries[i]
		start := len(w.sealed)
		w.sealed = append(w.sealed, b.data[begin:e.end]...)
		begin = e.end
		if e.late.x != nil {
			w.encode(&e.late)
			e.late = late{} // or all of its request would stay with the batch
		}
		if w.chained {
			w.sealed, w.chain = w.chain.sealBy(&w.digest, w.sealed, start)
		} else {
			w.sealed = append(w.sealed, '}')
		}
		w.owner.subscribers.send(w.sealed[start:])
		w.sealed = append(w.sealed, '\n')
		w.ends = append(w.ends, len(w.sealed))
	}
}

// encode makes the record of an exchange. What fails there fails for this one alone.
func (w *writer) encode(l *late) {
	start := len(w.sealed)
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("the record of an exchange could not be made", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			attrs := []slog.Attr{slog.String("event", unmadeEvent), slog.String("id", l.x.ID)}
			w.sealed = (&record{redactor: w.owner.builtin}).appendEvent(w.sealed[:start], l.end, KindLifecycle, attrs)
		}
	}()
	w.record.redactor, w.record.counts = cmp.Or(l.redactor, w.owner.builtin), redact.Counts{}
	w.sealed = w.record.appendExchange(w.sealed, l.x, &Extra{End: l.end})
	w.owner.metrics.redacted(&w.record.counts)
}

// start is where that line of the batch begins.
func (w *writer) start(line int) int {
	if line == 0 {
		return 0
	}
	return w.ends[line-1]
}

// settle accounts for the lines from the given one on that are complete before at, and tells how many they are.
func (w *writer) settle(b batch, line, at int, queued bool) int {
	n := 0
	for line+n < len(w.ends) && w.ends[line+n] <= at {
		n++
	}
	if n == 0 {
		return 0
	}
	for _, c := range w.copiers {
		for i := line; i < line+n; i++ {
			c.put(w.sealed[w.start(i):w.ends[i]])
		}
	}
	if !w.owner.off {
		w.owner.metrics.records.Add(float64(max(0, n-w.skipped()))) // a counter that falls panics
	}
	if queued {
		w.owner.queue.done(n, b.size(line, n))
	}
	return n
}

// skipped counts records that were too long for the output, or that it refused for good.
func (w *writer) skipped() int {
	r, ok := w.sink.(remote)
	if !ok {
		return 0
	}
	n := r.unsendable()
	if n > 0 {
		w.owner.metrics.unsendable.Add(float64(n))
		w.owner.lost(n)
		w.log.Error("audit records were too long for the output, or refused by it for good; none was cut", "records", n)
	}
	return n
}

// notes tells the trail what befell it. False means that it gave up.
func (w *writer) notes() bool {
	if attrs := w.recovered; attrs != nil {
		w.recovered = nil
		if !w.note(attrs) {
			return false
		}
	}
	for _, c := range w.copiers {
		if c.queue.gate.has(queueFull) {
			continue // it would be told of the next one too
		}
		if n := c.missing.Swap(0); n > 0 && !w.note([]slog.Attr{slog.String("event", copyMissingEvent), slog.Int64("count", n), slog.String("to", c.name)}) {
			return false
		}
	}
	return w.sum(missingEvent, &w.missing) && w.sum(refusedEvent, &w.refused)
}

// sum tells the trail of what was only counted.
func (w *writer) sum(event string, count *atomic.Int64) bool {
	n := count.Swap(0)
	return n == 0 || w.note([]slog.Attr{slog.String("event", event), slog.Int64("count", n)})
}

func (w *writer) note(attrs []slog.Attr) bool {
	r := record{redactor: w.owner.builtin}
	var b batch
	b.add(r.appendEvent(nil, time.Now(), KindLifecycle, attrs))
	return w.flush(b, false)
}

// failed notes a failed try; the first one of an outage is told to the log.
func (w *writer) failed(err error, progress bool) {
	w.owner.metrics.failures.Inc()
	o := &w.outage
	o.err = err
	o.failures++
	w.owner.queue.gate.set(outputFails)
	if o.since.IsZero() {
		o.since, o.wait = time.Now(), firstRetry
		w.log.Error("audit records cannot be written; they wait in memory, and when it is full exchanges wait for them", "error", err)
		w.owner.alarm(err)
		return
	}
	o.wait = min(2*o.wait, lastRetry)
	if progress {
		o.wait = firstRetry
	}
}

// pause waits before the next try. With moved the output is another file now; alive is false when there shall be no other try.
func (w *writer) pause() (moved, alive bool) {
	t := time.NewTimer(pauseAfter(w.outage.err, w.outage.wait))
	defer t.Stop()
	select {
	case <-t.C:
	case reply := <-w.reopenings:
		var err error
		moved, err = w.sink.Reopen()
		reply <- err
	case <-w.abandon:
		return false, false
	}
	return moved, true
}

// healthy ends an outage.
func (w *writer) healthy() {
	o := &w.outage
	if o.since.IsZero() {
		return
	}
	w.owner.queue.gate.clear(outputFails)
	took := time.Since(o.since)
	w.log.Warn("audit records are written again", "outage", took.String(), "failures", o.failures)
	w.recovered = []slog.Attr{slog.String("event", "output_recovered"), slog.Duration("outage_ms", took),
		slog.Int("failures", o.failures), slog.Any("error", o.err)}
	*o = outage{}
}

// wrote sees to it that what was written is synced: at once, or within the span that was set.
func (w *writer) wrote() {
	if w.syncing == SyncAlways {
		w.sync()
		return
	}
	if w.dirty {
		return // the timer runs
	}
	w.dirty = true
	span := syncEvery
	if w.syncing > 0 {
		span = w.syncing
	}
	if wait := span - time.Since(w.synced); wait > 0 {
		w.nextSync.Reset(wait)
		return
	}
	w.sync()
}

func (w *writer) sync() {
	w.synced, w.dirty = time.Now(), false
	w.judge(w.sink.Sync())
	if r, far := w.sink.(remote); far && !w.dirty && r.pending() {
		w.dirty = true // a connection may yet break
		w.nextSync.Reset(syncEvery)
	}
}

// judge tells of a sync that failed, and of an end of that. With SyncAlways it is as bad as a write that fails, and tried again.
func (w *writer) judge(err error) {
	_, far := w.sink.(remote)
	always := w.syncing == SyncAlways || far // over a connection that broke, what was sent may be lost
	switch {
	case err != nil:
		w.owner.metrics.failures.Inc()
		if !w.syncFails {
			w.log.Error(map[bool]string{false: "audit records are written but may not survive a power cut",
				true: "audit records that were sent may be lost with their connection; they will be sent again"}[far], "error", err)
		}
		if !w.syncFails && always {
			w.owner.alarm(err)
		}
		if always {
			w.owner.queue.gate.set(syncFails)
			w.dirty = true
			w.nextSync.Reset(syncEvery)
		}
	case w.syncFails && always:
		w.owner.queue.gate.clear(syncFails)
	}
	w.syncFails = err != nil
}

// secure brings what was written to the disk, whatever Config.Sync says.
func (w *writer) secure() bool {
	f, ok := w.sink.(*file)
	if !ok {
		return true
	}
	err := f.named(f.f.Sync())
	w.judge(err)
	return err == nil
}

// check makes a checkpoint where one is due. What it speaks of is on the disk first: a power cut must not make it a lie. False means that the writer
// gave up.
func (w *writer) check() bool {
	c := w.checkpoints
	if c == nil {
		return true
	}
	if f, ok := w.sink.(*file); ok && f.rotations != w.rotations {
		w.rotations, c.rotation = f.rotations, true
	}
	at, some := c.due()
	if !some {
		return true
	}
	if wait := time.Until(at); wait > 0 {
		w.nextCheck.Reset(wait)
		return true
	}
	if !w.secure() {
		w.nextCheck.Reset(checkpointPause)
		return true
	}
	var b batch
	b.add(c.sign(w.chain, time.Now()).append(nil))
	alive := w.flush(b, false)
	c.unsigned = 0 // a checkpoint is no reason for another
	return alive
}

// lastCheck signs the last record. No record follows: only the file has it.
func (w *writer) lastCheck(alive bool) error {
	c := w.checkpoints
	if c == nil {
		return nil
	}
	if alive && c.unsigned > 0 && w.secure() {
		c.sign(w.chain, time.Now())
	}
	return c.close()
}

// tidy lets go of the memory of a giant batch.
func (w *writer) tidy(b *batch) {
	if cap(w.sealed) > keepBuffer {
		w.sealed = nil
	}
	if cap(b.data) > keepBuffer {
		*b = batch{}
	}
}

// reopen has the writer follow the output's path.
func (w *writer) reopen() error {
	switch w.sink.(type) {
	case stream, device, remote:
		return nil
	}
	late := time.NewTimer(reopenWait)
	defer late.Stop()
	reply := make(chan error, 1)
	select {
	case w.reopenings <- reply:
	case <-w.stopped:
		return errClosed
	case <-late.C:
		return fmt.Errorf("the audit output was not opened again: a write is stuck in it for more than %s", reopenWait)
	}
	return <-reply
}

// finish waits for the writer to write everything, or for ctx, and says how many records are lost.
func (w *writer) finish(ctx context.Context) error {
	defer close(w.done)
	var stuck bool
	select {
	case <-w.stopped:
	case <-ctx.Done():
		close(w.abandon)
		for _, c := range w.copiers {
			c.queue.close() // the writer may wait for room there
		}
		t := time.NewTimer(farewell)
		defer t.Stop()
		select {
		case <-w.stopped:
		case <-t.C: // stuck in the output; the process ends without it
			stuck = true
		}
	}
	var err error
	if !stuck && w.closeErr != nil {
		err = fmt.Errorf("closing the audit output: %w", w.closeErr)
	}
	for _, c := range w.copiers {
		err = errors.Join(err, c.finish(ctx))
	}
	left := w.owner.queue.left()
	if left == 0 {
		return err
	}
	w.owner.lost(left)
	why := errors.New("the output does not take them")
	if !stuck && w.outage.err != nil {
		why = w.outage.err
	}
	return errors.Join(fmt.Errorf("%d audit records are lost: %w", left, why), err)
}
