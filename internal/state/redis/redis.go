// Package redis is state that several daemons share: limits, gates, and which writes were sent. Every call is one atomic step of a script, bounded
// in time; where the server is away, calls fail at once and whoever called falls back. Nothing that comes from the server is trusted.
package redis

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/prometheus/client_golang/prometheus"
)

// Client is the connection to the shared state. Its parts are Limits, Gates and Writes.
type Client struct {
	// Limits are token buckets, Gates what upstreams announced, Writes what was sent under an idempotency key.
	Limits *Limits
	Gates  *Gates
	Writes *Writes

	redis   goredis.UniversalClient
	timeout time.Duration
	prefix  string
	names   []byte // the key of the hash that names are made with
	secret  string
	log     *slog.Logger
	metrics *metrics
	health  health
	queue   chan *call
	stop    context.CancelFunc
	done    context.Context
	wg      sync.WaitGroup
}

// Open makes a Client. It connects by and by, and never blocks: whether the server is there shows in Status. The caller closes it.
func Open(c Config, reg prometheus.Registerer, log *slog.Logger) (*Client, error) {
	t, err := parseURL(c.URL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("state.url %w", err)
	}
	options, err := t.options(c)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	logging.Disable() // the library writes addresses to standard error
	client := &Client{redis: goredis.NewUniversalClient(options), timeout: c.Timeout, prefix: c.Prefix + ":v1:", secret: c.Secret.Reveal(), log: log,
		queue: make(chan *call, queued)}
	names := client.Secret("names")
	client.names = names[:]
	client.metrics = newMetrics(reg, client.health.answers)
	client.done, client.stop = context.WithCancel(context.Background())
	client.Limits = &Limits{client: client}
	client.Gates = newGates(client)
	if client.Writes, err = newWrites(client); err != nil {
		return nil, errors.Join(err, client.redis.Close())
	}
	for range workers {
		client.wg.Go(client.work)
	}
	client.wg.Go(client.watch)
	client.wg.Go(client.Gates.subscribe)
	return client, nil
}

// Close ends the connections. Calls fail from then on.
func (c *Client) Close() error {
	c.stop()
	err := c.redis.Close() // interrupts those who read
	c.wg.Wait()
	if err != nil {
		return &Error{Lost}
	}
	return nil
}

// Secret is a key for one purpose. It is the same in all daemons of the same state.secret and state.prefix.
func (c *Client) Secret(purpose string) [32]byte {
	key, err := hkdf.Key(sha256.New, []byte(c.secret), []byte(c.prefix), "httpowerd "+purpose, 32)
	if err != nil {
		panic(err) // 32 bytes are never too many
	}
	return [32]byte(key)
}

// nameSize is the length of a name.
const nameSize = 22

// name is what stands for a key in Redis: it gives nothing away, and is as long for every key.
func (c *Client) name(kind, key string) string {
	h := hmac.New(sha256.New, c.names)
	h.Write([]byte(kind))
	h.Write([]byte{0})
	h.Write([]byte(key))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// key is a name with its kind before it. The braces say to a cluster what it is placed by.
func (c *Client) key(kind, name string) string { return c.prefix + kind + ":{" + name + "}" }

// Status is how the shared state stands.
type Status struct {
	Up    bool      `json:"up"`
	Since time.Time `json:"since,omitzero"`
	// LastError is the class of the error that was last, and LastErrorTime when that was.
	LastError     string    `json:"last_error,omitempty"`
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
}

// Status tells how the shared state stands now.
func (c *Client) Status() Status { return c.health.status() }

// Up tells whether it answers. Where it does not, calls fail at once.
func (c *Client) Up() bool { return c.health.answers() }
