package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// copier sends each record that the output has taken to one more place. It has a backlog and a goroutine of its own: a place that is down or slow holds
// nobody up, unless Config.AlsoOnFull says so.
type copier struct {
	name    string // as the configuration writes it; a label
	sink    sink
	queue   *queue
	how     manner
	log     *slog.Logger
	metrics copyMetrics
	alarm   func(error)

	missing atomic.Int64  // since the trail last said so
	abandon chan struct{} // closed: no more tries
	done    chan struct{}

	// Only run's goroutine uses what follows.
	outage outage
	timer  *time.Timer
}

// CopyError is what befell one of Config.Also, while the output may be as it should.
type CopyError struct {
	To  string // as the configuration writes it
	Err error
}

// Error names the place.
func (e *CopyError) Error() string { return "the copy to " + e.To + ": " + e.Err.Error() }

// Unwrap is the error itself.
func (e *CopyError) Unwrap() error { return e.Err }

// copySync is how often a connection is looked at over which something was sent.
const copySync = time.Second

func newCopier(name string, s sink, how manner, env environment, m copyMetrics, alarm func(error)) *copier {
	return &copier{name: name, sink: s, queue: newQueue(env.limits), how: how, log: env.log, metrics: m, alarm: alarm,
		abandon: make(chan struct{}), done: make(chan struct{}), timer: time.NewTimer(time.Hour)}
}

// put takes lines with their ends, each of which is one record.
func (c *copier) put(line []byte) {
	if c.queue.put(line, c.how) {
		c.metrics.backlog.Inc()
		return
	}
	c.lost(1)
}

func (c *copier) lost(n int) {
	c.missing.Add(int64(n))
	c.metrics.dropped.Add(float64(n))
}

func (c *copier) run() {
	defer close(c.done)
	defer c.timer.Stop()
	var b batch
	for open := true; open; {
		c.await()
		b, open = c.queue.take(b)
		if !c.deliver(b) {
			break
		}
	}
	if err := c.sink.Close(); err != nil {
		c.log.Warn("a copy of the audit trail was not closed properly", "to", c.name, "error", err)
	}
}

// await returns when there may be records, and looks after the connection meanwhile.
func (c *copier) await() {
	for {
		c.timer.Reset(copySync)
		select {
		case <-c.queue.wake:
			return
		case <-c.abandon:
			return
		case <-c.timer.C:
		}
		if err := c.sink.Sync(); err != nil {
			c.failed(err)
			if !c.pause() {
				return
			}
			continue
		}
		c.healthy()
	}
}

// deliver sends a batch, for as long as it takes. False means that it gave up.
func (c *copier) deliver(b batch) bool {
	for at, line := 0, 0; at < len(b.data); {
		n, err := c.sink.Write(b.data[at:])
		at += n
		done := 0
		for line+done < len(b.entries) && b.entries[line+done].end <= at {
			done++
		}
		if done > 0 {
			c.queue.done(done, b.size(line, done))
			line += done
			c.metrics.backlog.Sub(float64(done))
			c.metrics.records.Add(float64(max(0, done-c.skipped()))) // a counter that falls panics
		}
		if err == nil && n > 0 {
			c.healthy()
			continue
		}
		if err == nil {
			err = errors.New("nothing was taken")
		}
		c.failed(err)
		if !c.pause() {
			return false
		}
		if _, ok := c.sink.(remote); !ok {
			continue // a stream goes on within the line
		}
		if line > 0 {
			at = b.entries[line-1].end
		} else {
			at = 0
		}
	}
	return true
}

// skipped counts records that were too long for the target, or that it refused for good.
func (c *copier) skipped() int {
	r, ok := c.sink.(remote)
	if !ok {
		return 0
	}
	n := r.unsendable()
	if n > 0 {
		c.lost(n)
		c.log.Error("audit records were too long for a copy, or refused by it for good; none was cut", "to", c.name, "records", n)
	}
	return n
}

func (c *copier) failed(err error) {
	c.metrics.failures.Inc()
	o := &c.outage
	o.err = err
	o.failures++
	if o.since.IsZero() {
		o.since, o.wait = time.Now(), firstRetry
		c.log.Error("a copy of the audit trail takes no records; they wait in memory", "to", c.name, "error", err)
		c.alarm(&CopyError{c.name, err})
		return
	}
	o.wait = min(2*o.wait, lastRetry)
}

// pause waits before the next try; false: there shall be none.
func (c *copier) pause() bool {
	select {
	case <-c.abandon:
		return false
	default:
	}
	t := time.NewTimer(pauseAfter(c.outage.err, c.outage.wait))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.abandon:
		return false
	}
}

func (c *copier) healthy() {
	if c.outage.since.IsZero() {
		return
	}
	c.log.Warn("a copy of the audit trail takes records again", "to", c.name, "outage", time.Since(c.outage.since).String(), "failures", c.outage.failures)
	c.outage = outage{}
}

// finish waits until everything is delivered, or for ctx, and says what is lost.
func (c *copier) finish(ctx context.Context) error {
	c.queue.close()
	select {
	case <-c.done:
	case <-ctx.Done():
		close(c.abandon)
		t := time.NewTimer(farewell)
		defer t.Stop()
		select {
		case <-c.done:
		case <-t.C: // stuck in the target; the process ends without it
		}
	}
	left := c.queue.left()
	if left == 0 {
		return nil
	}
	c.lost(left)
	return fmt.Errorf("%d audit records did not get to %s", left, c.name)
}
