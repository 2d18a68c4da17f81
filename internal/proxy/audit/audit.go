// Package audit keeps the record of what was sent: one JSON object a line for each exchange and tunnel, and for what administrators and the daemon did.
//
// A record is redacted and encoded by whoever hands it in, then waits in a bounded queue for the one writer, which chains it to the record before
// (chain.go says how) and writes. Nothing that was accepted is lost while the process lives: a sink that fails is tried again.
package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
	"httpowerd/internal/redact"
	"httpowerd/internal/setting"
)

// The kinds of records that are not exchanges.
const (
	KindAdmin     = "admin"     // what an administrator changed, or tried to
	KindBreaker   = "breaker"   // a circuit breaker changed its state
	KindConfig    = "config"    // a configuration was loaded, or refused
	KindLifecycle = "lifecycle" // start, stop, drain, and what befell the trail itself
)

// What to do with a record that finds the queue full.
const (
	Block = "block" // wait: an exchange does not end before its record is safe
	Drop  = "drop"  // go on without it; the loss is counted, and the trail says how many are missing
	// FailClosed begins no exchange while records cannot be written (Log.Admit); those under way wait as with Block.
	FailClosed = "fail-closed"
)

// Extra is what a policy adds to the record of an exchange. Its zero value records no header and no body and redacts by the built-in lists.
type Extra struct {
	End                                 time.Time        // zero: now
	Redactor                            *redact.Redactor // nil: the built-in lists
	Sent                                http.Header      // what the client sent; its secrets are hidden wherever they occur. nil: as found
	RequestHeader, ResponseHeader       http.Header      // nil: not recorded
	RequestType, ResponseType           string           // Content-Type of the bodies; decides how they are read
	RequestEncoding, ResponseEncoding   string           // their Content-Encoding
	MaxBody                             int              // how much is recorded of a body that is decoded, in bytes
	RequestBody, ResponseBody           []byte           // nil: not recorded
	RequestTruncated, ResponseTruncated bool             // the body went on
	OnFull                              string           // Block (also ""), Drop or FailClosed
	Refused                             bool             // Admit said no: the record never waits, and where it finds no room the trail has it in a sum
}

// alone tells whether nothing but the story is recorded, for which there is time.
func (e *Extra) alone() bool {
	return !e.Refused && !e.End.IsZero() && e.RequestHeader == nil && e.ResponseHeader == nil && e.RequestBody == nil && e.ResponseBody == nil
}

// Log is the audit trail. It is safe for concurrent use.
type Log struct {
	off         bool // no sink: records exist for subscribers only
	queue       *queue
	writer      *writer
	subscribers subscribers
	metrics     *metrics
	builtin     *redact.Redactor
	scratch     sync.Pool // *scratch
	closing     atomic.Bool
	alarms      alarms
}

// Open opens the trail where cfg says and writes its first record, which tells whether the hash chain goes on or begins. The Log registers its
// metrics with reg and complains to log. A file that another process writes, or that cannot be written at all, is an error.
func Open(cfg Config, reg prometheus.Registerer, log *slog.Logger) (*Log, error) {
	return open(cfg, reg, log, limits{records: maxRecords, bytes: maxBytes})
}

func open(cfg Config, reg prometheus.Registerer, log *slog.Logger, lim limits) (*Log, error) {
	var s sink
	first := opened{chain: chainNew, state: genesis()}
	switch cfg.Output {
	case Off:
		s = stream{io.Discard}
	case Stdout:
		s = openStream(os.Stdout)
	case Stderr:
		s = openStream(os.Stderr)
	default:
		if setting.IsTarget(cfg.Output) {
			r, err := openTarget(cfg.Output, cfg.TLS)
			if err != nil {
				return nil, fmt.Errorf("audit.output: %w", err)
			}
			s = r
			break
		}
		f, o, err := openFile(cfg, log)
		if err != nil {
			return nil, err
		}
		s, first = f, o
	}
	return start(cfg, s, first, environment{reg, log, lim})
}

// environment is what a Log is given besides its configuration.
type environment struct {
	reg    prometheus.Registerer
	log    *slog.Logger
	limits limits
}

// start runs a Log on a sink that is open.
func start(cfg Config, s sink, first opened, env environment) (*Log, error) {
	m, err := newMetrics(env.reg)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	l := &Log{off: cfg.Output == Off, queue: newQueue(env.limits), metrics: m, builtin: cmp.Or(cfg.Redactor, redact.Default())}
	l.scratch.New = func() any { return &scratch{line: make([]byte, 0, 2048), record: record{text: make([]byte, 0, 1024)}} }
	l.writer = newWriter(l, s, cfg.Chain && !l.off, env.log)
	l.writer.chain, l.writer.syncing = first.state, cfg.Sync
	if err := l.witness(cfg, s, env.log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := l.copies(cfg, env); err != nil {
		return nil, errors.Join(err, l.writer.lastCheck(false), s.Close())
	}
	if f, ok := s.(*file); ok {
		f.lazy = cfg.Sync == SyncOff
	}
	go l.writer.run()
	if !l.off {
		l.Event(KindLifecycle, first.attrs(cfg.Chain)...)
	}
	if f, ok := s.(*file); ok {
		f.keep.start(l.written, m.deleted.Inc) // its records come behind the first one
	}
	return l, nil
}

// witness opens what checkpoints need, where there are any.
func (l *Log) witness(cfg Config, s sink, log *slog.Logger) error {
	_, isFile := s.(*file)
	if !cfg.Chain || l.off || !cfg.Checkpoint.on(isFile) {
		return nil
	}
	c, err := openCheckpoints(cfg.Checkpoint, cfg.Output, log, l.metrics)
	if err != nil && cfg.Checkpoint.Optional {
		log.Error("the audit trail gets no checkpoints: an end that is cut off is not found", "error", err)
		return nil
	}
	l.writer.checkpoints = c
	return err
}

// copies opens the places that get every record too.
func (l *Log) copies(cfg Config, env environment) error {
	if l.off {
		return nil
	}
	how := giveUp
	if cfg.AlsoOnFull == Block {
		how = wait
	}
	for _, name := range cfg.Also {
		var s sink
		switch name {
		case Stdout:
			s = openStream(os.Stdout)
		case Stderr:
			s = openStream(os.Stderr)
		default:
			r, err := openTarget(name, cfg.TLS)
			if err != nil {
				return fmt.Errorf("audit.also: %w", err)
			}
			s = r
		}
		l.writer.copiers = append(l.writer.copiers, newCopier(name, s, how, env, l.metrics.copies.of(name), l.alarm))
	}
	for _, c := range l.writer.copiers {
		go c.run()
	}
	return nil
}

// Exchange records x, which has ended and is not used again. It waits while the queue is full unless e says otherwise. e may be nil.
func (l *Log) Exchange(x *exchange.Exchange, e *Extra) {
	if !l.wanted() {
		return
	}
	var none Extra
	if e == nil {
		e = &none
	}
	if e.alone() && l.queue.putLate(late{x, e.End, e.Redactor}) {
		return
	}
	sc := l.borrow(e.Redactor)
	sc.line = sc.appendExchange(sc.line[:0], x, e)
	how := wait
	switch {
	case e.Refused:
		how = spare
	case e.OnFull == Drop:
		how = giveUp
	}
	l.put(sc, how)
}

// Event records something that is not an exchange. Attributes follow time and kind in their order; durations are written in milliseconds; strings are
// redacted. It waits for a few seconds while the queue and the reserve for events are full, and is lost and counted then; that of a breaker does not wait, as
// exchanges change breakers.
func (l *Log) Event(kind string, attrs ...slog.Attr) {
	if !l.wanted() {
		return
	}
	l.event(kind, attrs)
}

func (l *Log) event(kind string, attrs []slog.Attr) (taken bool) {
	sc := l.borrow(nil)
	sc.line = sc.appendEvent(sc.line[:0], time.Now(), kind, attrs)
	how := reserve
	if kind == KindBreaker {
		how = brief
	}
	return l.put(sc, how)
}

// written records an event and waits until the output has it, though not while the output takes nothing: what follows may be what makes room. False
// means that the trail has ended without it.
func (l *Log) written(ctx context.Context, kind string, attrs ...slog.Attr) bool {
	if !l.event(kind, attrs) {
		return false
	}
	again := time.NewTicker(company)
	defer again.Stop()
	for at := l.queue.accepted(); !l.queue.past(at) && !l.queue.gate.has(outputFails|outputStuck); {
		select {
		case <-again.C:
		case <-ctx.Done():
			return l.queue.past(at)
		}
	}
	return true
}

func (l *Log) wanted() bool { return !l.off || l.subscribers.any() }

// put queues the record that was made in sc, and gives sc back.
func (l *Log) put(sc *scratch, how manner) (taken bool) {
	l.metrics.redacted(&sc.counts)
	taken = l.queue.put(sc.line, how)
	switch {
	case taken:
	case how == spare && !l.off:
		l.writer.refused.Add(1)
	default:
		l.lost(1)
	}
	if cap(sc.line) <= maxScratch && cap(sc.text) <= maxScratch {
		l.scratch.Put(sc)
	}
	return taken
}

// lost counts records that will never be written.
func (l *Log) lost(n int) {
	if l.off {
		return
	}
	l.writer.missing.Add(int64(n))
	l.metrics.dropped.Add(float64(n))
}

// scratch is the memory in which a record is made.
type scratch struct {
	record
	line []byte
}

// maxScratch keeps one giant record from holding its memory for ever.
const maxScratch = 64 << 10

func (l *Log) borrow(r *redact.Redactor) *scratch {
	if r == nil {
		r = l.builtin
	}
	sc := l.scratch.Get().(*scratch)
	sc.redactor, sc.counts = r, redact.Counts{}
	return sc
}

// Subscribe returns the records from now on, each one line without its end, until ctx ends or the Log closes; then the channel is closed. A reader
// that falls behind misses records. The lines are shared and must not be changed.
func (l *Log) Subscribe(ctx context.Context) <-chan []byte { return l.subscribers.add(ctx) }

// OnFailure calls f when the output begins to take nothing, with the error, once for each outage. It is set once; f must not wait.
// A copy that fails is told like that too, with a CopyError. Outages that began before are told at once.
func (l *Log) OnFailure(f func(error)) {
	l.alarms.mu.Lock()
	l.alarms.tell = f
	early := l.alarms.early
	l.alarms.early = nil
	l.alarms.mu.Unlock()
	for _, err := range early {
		f(err)
	}
}

func (l *Log) alarm(err error) {
	l.alarms.mu.Lock()
	tell := l.alarms.tell
	if tell == nil && len(l.alarms.early) < maxEarly {
		l.alarms.early = append(l.alarms.early, err)
	}
	l.alarms.mu.Unlock()
	if tell != nil {
		tell(err)
	}
}

// maxEarly bounds what is kept for a function that may never be set.
const maxEarly = 64

// alarms are whom to tell of outages, and those that nobody could be told of yet.
type alarms struct {
	mu    sync.Mutex
	tell  func(error)
	early []error
}

// Reopen opens the output's path again, after something else moved the file away. The chain goes on in the new file. It does nothing for
// streams, or when the path still is the open file.
func (l *Log) Reopen() error { return l.writer.reopen() }

// Close writes everything that was accepted and a last record, and closes the file. When ctx ends first, what is left is lost, counted, and the error
// says how many.
func (l *Log) Close(ctx context.Context) error {
	if !l.closing.CompareAndSwap(false, true) {
		<-l.writer.done
		return nil
	}
	if !l.off {
		l.queue.last(func() []byte {
			r := record{redactor: l.builtin}
			return r.appendEvent(nil, time.Now(), KindLifecycle, []slog.Attr{slog.String("event", stopEvent)})
		})
	}
	l.queue.close()
	err := l.writer.finish(ctx)
	l.subscribers.close()
	return err
}
