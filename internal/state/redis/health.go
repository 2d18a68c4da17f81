package redis

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// failures in a row after which nothing is asked any more.
	failures = 3
	// pause is how often it is asked then whether it is well again, and how long it may go unasked else.
	pause = time.Second
)

// health is whether the server answers: after some failures in a row calls are not made any more, and the probe alone finds out.
type health struct {
	up   atomic.Bool
	trip atomic.Bool

	mu     sync.Mutex
	row    int // failures
	since  time.Time
	asked  time.Time // of the last success
	class  string
	failAt time.Time
	known  bool // it has been up or down before
}

func (h *health) answers() bool { return h.up.Load() }
func (h *health) tripped() bool { return h.trip.Load() }

func (h *health) succeeded(log *slog.Logger) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.row, h.asked = 0, time.Now()
	h.trip.Store(false)
	if h.up.Swap(true) {
		return
	}
	h.since, h.known = h.asked, true
	log.Info("the shared state answers")
}

func (h *health) failed(e *Error, log *slog.Logger) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.row++
	h.class, h.failAt = e.Class, time.Now()
	if h.row < failures {
		return
	}
	h.trip.Store(true)
	if !h.up.Swap(false) && h.known {
		return
	}
	h.since, h.known = h.failAt, true
	log.Warn("the shared state is away: every daemon is on its own until it answers again", "error", e.Class)
}

// note remembers the class of an error of one call.
func (h *health) note(e *Error) {
	if e.Class == Away {
		return
	}
	h.mu.Lock()
	h.class, h.failAt = e.Class, time.Now()
	h.mu.Unlock()
}

func (h *health) status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Status{Up: h.up.Load(), Since: h.since, LastError: h.class, LastErrorTime: h.failAt}
}

// idle tells whether nothing has shown lately that the server is well.
func (h *health) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.asked) >= pause
}

// watch asks the server every second, unless calls show that it is well.
func (c *Client) watch() {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if c.health.idle() || c.health.tripped() {
			c.probe()
		}
		select {
		case <-ticker.C:
		case <-c.done.Done():
			return
		}
	}
}

// probe runs a script that writes. The first try may take as long as connecting does, and may meet connections that broke while they lay idle;
// what counts is one that is as fast as calls must be.
func (c *Client) probe() {
	var err error
	for range workers + connections {
		if err = c.try(dialTimeout); err == nil {
			err = c.try(c.timeout)
			break
		}
		if classify(err).Class != Lost {
			break
		}
	}
	switch {
	case c.done.Err() != nil:
	case err == nil:
		c.health.succeeded(c.log)
	default:
		c.reroute()
		c.health.failed(c.fault(opProbe, err), c.log)
	}
}

func (c *Client) try(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(c.done, timeout)
	defer cancel()
	started := time.Now()
	defer func() { c.metrics.ops[opProbe].duration.Observe(time.Since(started).Seconds()) }()
	key := c.key("probe", "probe")
	p := c.redis.Pipeline() // by the connections that calls use
	_ = p.Process(ctx, byHash(ctx, probeScript, key))
	_, err := p.Exec(ctx)
	if !noScript(err) {
		return err
	}
	p = c.redis.Pipeline()
	_ = p.Process(ctx, byText(ctx, probeScript, key))
	_, err = p.Exec(ctx)
	return err
}
