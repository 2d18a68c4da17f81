package redis

import (
	"cmp"
	"context"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Bounds of what waits for a worker, and of what one takes along.
const (
	queued     = 4096
	batchCalls = 128
	batchBytes = 1 << 20
)

// call is one run of a script.
type call struct {
	ctx     context.Context // of whoever waits, with the call's own end
	script  *script
	key     string
	args    []any
	size    int
	allowed time.Duration
	answer  chan answer // takes one
}

type answer struct {
	value any
	err   error
}

// transfer is the slowest that large values are expected to come and go, in bytes per second.
const transfer = 16 << 20

// run runs a script and waits for its answer, no longer than the timeout, which grows with the size of what is sent, or will come.
func (c *Client) run(ctx context.Context, s *script, key string, size int, args ...any) (any, error) {
	m := c.metrics.ops[s.op]
	if c.health.tripped() {
		m.errors.Inc()
		return nil, &Error{Away}
	}
	started := time.Now()
	allowed := c.timeout + time.Duration(size)*time.Second/transfer
	limited, cancel := context.WithTimeout(ctx, allowed)
	defer cancel()
	value, err := c.ask(&call{ctx: limited, script: s, key: key, args: args, size: size, allowed: allowed, answer: make(chan answer, 1)})
	m.duration.Observe(time.Since(started).Seconds())
	if err == nil {
		return value, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // whoever waited has left: nobody's fault
	}
	return nil, c.fault(s.op, err)
}

// fault counts an error and remembers its class.
func (c *Client) fault(op string, err error) *Error {
	e := classify(err)
	c.metrics.ops[op].errors.Inc()
	c.health.note(e)
	return e
}

func (c *Client) ask(k *call) (any, error) {
	select {
	case c.queue <- k:
	case <-k.ctx.Done():
		return nil, k.ctx.Err()
	case <-c.done.Done():
		return nil, &Error{Away}
	}
	select {
	case a := <-k.answer:
		return a.value, a.err
	case <-k.ctx.Done():
		return nil, k.ctx.Err()
	case <-c.done.Done():
		return nil, &Error{Away}
	}
}

// work sends what is asked for: as many calls as there are at once, in one go.
func (c *Client) work() {
	batch := make([]*call, 0, batchCalls)
	for {
		select {
		case k := <-c.queue:
			batch = append(batch[:0], k)
		case <-c.done.Done():
			return
		}
		for size := batch[0].size; len(batch) < batchCalls && size < batchBytes; size += batch[len(batch)-1].size {
			select {
			case k := <-c.queue:
				batch = append(batch, k)
				continue
			default:
			}
			break
		}
		c.send(batch)
		clear(batch)
	}
}

// send runs a batch and answers each call of it.
func (c *Client) send(batch []*call) {
	defer func() {
		if p := recover(); p != nil { // whatever the server made the library do
			c.log.Error("a defect in the shared state's client", "panic", fmt.Sprint(p))
			c.health.failed(&Error{Protocol}, c.log)
			for _, k := range batch {
				k.reply(nil, errReply)
			}
		}
	}()
	waiting := batch[:0:len(batch)]
	for _, k := range batch {
		if k.ctx.Err() == nil { // else nobody waits: nothing is to be taken
			waiting = append(waiting, k)
		}
	}
	if len(waiting) == 0 {
		return
	}
	again := c.pipeline(waiting, func(k *call) *once { return byHash(k.ctx, k.script, k.key, k.args...) })
	if len(again) > 0 {
		c.pipeline(again, func(k *call) *once { return byText(k.ctx, k.script, k.key, k.args...) })
	}
}

// once is a command that is not sent again when it may have run. The library's client of a cluster does so otherwise, whatever MaxRetries says: it
// follows redirections with the same loop.
type once struct{ *goredis.Cmd }

// NoRetry implements goredis.Cmder.
func (*once) NoRetry() bool { return true }

func byHash(ctx context.Context, s *script, key string, args ...any) *once {
	return eval(ctx, "evalsha", s.hash, key, args)
}

func byText(ctx context.Context, s *script, key string, args ...any) *once {
	return eval(ctx, "eval", s.text, key, args)
}

func eval(ctx context.Context, how, what, key string, args []any) *once {
	cmd := goredis.NewCmd(ctx, append([]any{how, what, 1, key}, args...)...)
	cmd.SetFirstKeyPos(3) // what a cluster goes by
	return &once{cmd}
}

// pipeline sends calls and answers them, but for those whose script the server does not know: they were not run.
func (c *Client) pipeline(calls []*call, command func(*call) *once) (unknown []*call) {
	allowed := time.Duration(0)
	for _, k := range calls {
		allowed = max(allowed, k.allowed)
	}
	ctx, cancel := context.WithTimeout(c.done, allowed)
	defer cancel()
	p := c.redis.Pipeline()
	commands := make([]*once, len(calls))
	for i, k := range calls {
		commands[i] = command(k)
		_ = p.Process(ctx, commands[i]) // only queued
	}
	_, failed := p.Exec(ctx) // of the first command that failed; each has its own, but where there was no connection for them
	var worst *Error
	answered := false
	for i, k := range calls {
		value, err := commands[i].Result()
		if err == nil && value == nil { // no script answers nothing
			err = cmp.Or(failed, errReply)
		}
		if noScript(err) {
			answered = true
			unknown = append(unknown, k)
			continue
		}
		if err == nil {
			answered = true
		} else if e := classify(err); !e.failed() {
			answered = true
		} else {
			worst = e
		}
		k.reply(value, err)
	}
	if worst != nil {
		c.reroute()
	}
	switch {
	case answered:
		c.health.succeeded(c.log)
	case worst != nil && c.done.Err() == nil:
		c.health.failed(worst, c.log)
	}
	return unknown
}

// reroute has a cluster asked which of its nodes are masters, after a call that failed: one may have taken the place of another that is gone and redirects
// nobody any more. The library would ask by itself every minute.
func (c *Client) reroute() {
	if cluster, ok := c.redis.(*goredis.ClusterClient); ok && c.done.Err() == nil {
		cluster.ReloadState(c.done) // beside the calls, one at a time, with a pause behind it
	}
}

func (k *call) reply(value any, err error) {
	select {
	case k.answer <- answer{value, err}:
	default: // it has one
	}
}
