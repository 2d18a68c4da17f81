package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// company is how long a record waits for others to share a write with. It costs nobody: an exchange is through when its record is queued.
	company = 5 * time.Millisecond
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
	missing atomic.Int64 // lost since the trail last said so

	reopenings chan chan error
	abandon    chan struct{} // closed: no more retries
	stopped    chan struct{} // closed when run has returned
	done       chan struct{} // closed when finish has returned

	// Only run's goroutine uses what follows, and finish after it.
	chain     link
	sealed    []byte // the lines of a batch
	ends      []int  // where each of them ends
	outage    outage
	recovered []slog.Attr // what the trail has to be told of an outage that is over
	company   *time.Timer
	nextSync  *time.Timer
	synced    time.Time
	dirty     bool
	syncFails bool
	closeErr  error
}

// outage is a time in which the output takes nothing.
type outage struct {
	since    time.Time // zero: none
	err      error
	failures int
	wait     time.Duration
}

func newWriter(l *Log, s sink, chained bool, log *slog.Logger) *writer {
	w := &writer{owner: l, sink: s, chained: chained, log: log, chain: genesis(), reopenings: make(chan chan error),
		abandon: make(chan struct{}), stopped: make(chan struct{}), done: make(chan struct{}),
		company: time.NewTimer(time.Hour), nextSync: time.NewTimer(time.Hour)}
	w.company.Stop()
	w.nextSync.Stop()
	return w
}

// run writes until the queue is closed and empty, or the writer is told to give up.
func (w *writer) run() {
	defer close(w.stopped)
	defer w.nextSync.Stop()
	var b batch
	for open, alive := true, true; open && alive; w.tidy(&b) {
		w.await()
		if b, open = w.owner.queue.take(b); open {
			alive = w.flush(b, true) && w.notes()
		} else {
			alive = w.notes() && w.flush(b, true) // nothing comes after the last record
		}
	}
	w.closeErr = w.sink.Close()
}

// await returns when there may be records to write.
func (w *writer) await() {
	for {
		select {
		case <-w.owner.queue.wake:
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
		}
	}
}

// flush seals the records of b and writes them, for as long as it takes. False means that it gave up, after which nothing may be written any more:
// the chain is ahead of the file.
func (w *writer) flush(b batch, queued bool) bool {
	w.seal(b)
	for at, line := 0, 0; at < len(w.sealed); {
		n, err := w.sink.Write(w.sealed[at:])
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
		w.wrote()
	}
	return true
}

// seal makes lines of the records and shows them to the live view.
func (w *writer) seal(b batch) {
	w.sealed, w.ends = w.sealed[:0], w.ends[:0]
	begin := 0
	for _, end := range b.ends {
		start := len(w.sealed)
		w.sealed = append(w.sealed, b.data[begin:end]...)
		if w.chained {
			w.sealed, w.chain = w.chain.seal(w.sealed, start)
		} else {
			w.sealed = append(w.sealed, '}')
		}
		w.owner.subscribers.send(w.sealed[start:])
		w.sealed = append(w.sealed, '\n')
		w.ends = append(w.ends, len(w.sealed))
		begin = end
	}
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
	if !w.owner.off {
		w.owner.metrics.records.Add(float64(n))
	}
	if queued {
		begin := 0
		if line > 0 {
			begin = b.ends[line-1]
		}
		w.owner.queue.done(n, b.ends[line+n-1]-begin)
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
	n := w.missing.Swap(0)
	return n == 0 || w.note([]slog.Attr{slog.String("event", missingEvent), slog.Int64("count", n)})
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
	if o.since.IsZero() {
		o.since, o.wait = time.Now(), firstRetry
		w.log.Error("audit records cannot be written; they wait in memory, and when it is full exchanges wait for them", "error", err)
		if f := w.owner.failing.Load(); f != nil {
			(*f)(err)
		}
		return
	}
	o.wait = min(2*o.wait, lastRetry)
	if progress {
		o.wait = firstRetry
	}
}

// pause waits before the next try. With moved the output is another file now; alive is false when there shall be no other try.
func (w *writer) pause() (moved, alive bool) {
	t := time.NewTimer(w.outage.wait)
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
	took := time.Since(o.since)
	w.log.Warn("audit records are written again", "outage", took.String(), "failures", o.failures)
	w.recovered = []slog.Attr{slog.String("event", "output_recovered"), slog.Duration("outage_ms", took),
		slog.Int("failures", o.failures), slog.Any("error", o.err)}
	*o = outage{}
}

// wrote sees to it that what was written is synced, at most once a second.
func (w *writer) wrote() {
	if w.dirty {
		return // the timer runs
	}
	w.dirty = true
	if wait := syncEvery - time.Since(w.synced); wait > 0 {
		w.nextSync.Reset(wait)
		return
	}
	w.sync()
}

func (w *writer) sync() {
	w.synced, w.dirty = time.Now(), false
	err := w.sink.Sync()
	if err != nil {
		w.owner.metrics.failures.Inc()
		if !w.syncFails {
			w.log.Error("audit records are written but may not survive a power cut", "error", err)
		}
	}
	w.syncFails = err != nil
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
	case stream, device:
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
