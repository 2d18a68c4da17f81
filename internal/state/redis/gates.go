package redis

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Gates are values that every daemon hears of as soon as one publishes them: closings and quotas that upstreams announced. The last one that is
// published under a key holds.
type Gates struct {
	client  *Client
	channel string

	mu      sync.Mutex
	live    bool // the subscription stands: what is known is what there is
	entries map[string]*gateEntry
	bytes   int // of their values
}

// gateEntry is what is known of one key.
type gateEntry struct {
	value   []byte // nil: there is nothing
	expires time.Time
	read    time.Time // zero: not yet
	changes int       // how often it was published
}

// Bounds of what is kept and believed.
const (
	maxGates = 10_000
	maxBytes = 64 << 20
	maxValue = 1 << 20
	maxKeep  = 31 * 24 * time.Hour
	// stale is how long a value is believed that nobody would tell a change of.
	stale = time.Second
)

func newGates(c *Client) *Gates {
	return &Gates{client: c, channel: c.prefix + "gates", entries: map[string]*gateEntry{}}
}

// Publish stores a value for as long as keep says, and tells every daemon.
func (g *Gates) Publish(ctx context.Context, key string, value []byte, keep time.Duration) error {
	c := g.client
	if len(value) == 0 || len(value) > maxValue || keep <= 0 {
		return c.fault(opPublish, &Error{Value})
	}
	name := c.name("gate", key)
	keep = min(max(keep, time.Millisecond), maxKeep)
	g.mu.Lock()
	g.put(name, slices.Clone(value), time.Now().Add(keep))
	g.mu.Unlock()
	_, err := c.run(ctx, publishScript, c.key("gate", name), len(value), value, keep.Milliseconds(), g.channel, name)
	return err
}

// Fetch is the key's value, which is not to be changed, and for how much longer it is kept; nil where there is none. It costs no round trip where the
// value is known: changes are told.
func (g *Gates) Fetch(ctx context.Context, key string) (value []byte, left time.Duration, err error) {
	c := g.client
	name := c.name("gate", key)
	value, left, changes := g.known(name)
	if changes < 0 {
		return value, left, nil
	}
	v, err := c.run(ctx, fetchScript, c.key("gate", name), 0, maxValue)
	if err != nil {
		return nil, 0, err
	}
	value, left, ok := fetched(v)
	if !ok {
		return nil, 0, c.fault(opFetch, &Error{Protocol})
	}
	value, left = g.learn(name, value, left, changes)
	return value, left, nil
}

// fetched takes the answer of the script apart.
func fetched(v any) (value []byte, left time.Duration, ok bool) {
	items, ok := v.([]any)
	if !ok || len(items) == 0 {
		return nil, 0, ok
	}
	if len(items) != 2 {
		return nil, 0, false
	}
	text, isText := items[0].(string)
	ms, isNumber := items[1].(int64)
	if !isText || !isNumber || len(text) > maxValue {
		return nil, 0, false
	}
	if ms < 0 || ms > maxKeep.Milliseconds() {
		ms = maxKeep.Milliseconds()
	}
	return []byte(text), time.Duration(ms) * time.Millisecond, true
}

// known is what need not be asked for: then changes is -1, else how often the key was published up to now.
func (g *Gates) known(name string) (value []byte, left time.Duration, changes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	e := g.entry(name)
	if e.read.IsZero() || !g.live && now.Sub(e.read) >= stale {
		return nil, 0, e.changes
	}
	value, left = e.at(now)
	return value, left, -1
}

// at is what the entry holds, and for how long.
func (e *gateEntry) at(now time.Time) ([]byte, time.Duration) {
	if left := e.expires.Sub(now); e.value != nil && left > 0 {
		return e.value, left
	}
	return nil, 0
}

// hold gives an entry a value, at the cost of any others where all are too large. mu is held.
func (g *Gates) hold(name string, e *gateEntry, value []byte, expires time.Time) {
	g.bytes += len(value) - len(e.value)
	e.value, e.expires, e.read = value, expires, time.Now()
	for other, o := range g.entries {
		if g.bytes <= maxBytes {
			return
		}
		if other != name {
			g.drop(other, o)
		}
	}
}

func (g *Gates) drop(name string, e *gateEntry) {
	g.bytes -= len(e.value)
	delete(g.entries, name)
}

// learn takes in what was fetched, unless something newer was published meanwhile, and tells what holds.
func (g *Gates) learn(name string, value []byte, left time.Duration, changes int) ([]byte, time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.entry(name)
	now := time.Now()
	if e.changes == changes {
		g.hold(name, e, value, now.Add(left))
	}
	e.read = now
	return e.at(now)
}

// put takes in what was published. mu is held.
func (g *Gates) put(name string, value []byte, expires time.Time) {
	e := g.entry(name)
	g.hold(name, e, value, expires)
	e.changes++
}

// entry finds or makes an entry; where there are too many, any goes. mu is held.
func (g *Gates) entry(name string) *gateEntry {
	e := g.entries[name]
	if e == nil {
		for other, o := range g.entries {
			if len(g.entries) < maxGates {
				break
			}
			g.drop(other, o)
		}
		e = &gateEntry{}
		g.entries[name] = e
	}
	return e
}

// heard takes in what somebody published, where somebody here asks for it: its name, for how long it is kept, the value.
func (g *Gates) heard(payload string) bool {
	if len(payload) <= nameSize || len(payload) > nameSize+maxValue+16 {
		return false
	}
	name, rest := payload[:nameSize], payload[nameSize:]
	digits, value, ok := strings.Cut(rest, " ")
	ms, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || ms < 1 || ms > maxKeep.Milliseconds() || value == "" {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.entries[name] != nil {
		g.put(name, []byte(value), time.Now().Add(time.Duration(ms)*time.Millisecond))
	}
	return true
}

// alive notes whether changes are told. When they are again, everything is asked for anew.
func (g *Gates) alive(live bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if live && !g.live {
		clear(g.entries)
		g.bytes = 0
	}
	g.live = live
}

// subscribe hears of what is published, until the client is closed.
func (g *Gates) subscribe() {
	c := g.client
	for c.done.Err() == nil {
		err := g.listen()
		g.alive(false)
		if c.done.Err() != nil {
			return
		}
		_ = c.fault(opSubscribe, err) // counted; it is tried again
		c.reroute()
		select {
		case <-time.After(pause):
		case <-c.done.Done():
		}
	}
}

// silence is after how long without a word the subscription is asked whether it stands.
const silence = 5 * time.Second

// listen subscribes, and returns when the subscription broke.
func (g *Gates) listen() (err error) {
	c := g.client
	defer func() {
		if p := recover(); p != nil { // whatever the server made the library do
			err = errReply
		}
	}()
	ps := c.redis.Subscribe(c.done, g.channel)
	defer func() { _ = ps.Close() }()
	defer context.AfterFunc(c.done, func() { _ = ps.Close() })() // or it would read on, where the client is closed while it connects
	asked := false
	for {
		message, err := ps.ReceiveTimeout(c.done, silence)
		if err != nil {
			if classify(err).Class != Timeout || asked || c.done.Err() != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.done, dialTimeout)
			err = ps.Ping(ctx)
			cancel()
			if err != nil {
				return err
			}
			asked = true
			continue
		}
		asked = false
		switch m := message.(type) {
		case *goredis.Subscription:
			g.alive(m.Kind == "subscribe")
		case *goredis.Message:
			if !g.heard(m.Payload) {
				_ = c.fault(opSubscribe, &Error{Value}) // counted, and otherwise ignored
			}
		}
	}
}
