package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Room keeps the key sets that are fetched, and what signatures have used up, across configurations. Its zero value fetches nothing.
type Room struct {
	log *slog.Logger

	mu        sync.Mutex
	transport http.RoundTripper
	sets      map[string]*remoteKeys
	nonces    map[string]*nonces // that tenants' signatures have used up
	left      map[string]left    // the same by an earlier process, until the tenant's nonces are made
}

// NewRoom makes a Room.
func NewRoom(log *slog.Logger) *Room { return &Room{log: log} }

// Use fetches by way of the transport from now on: destinations hold for key sets too.
func (r *Room) Use(t http.RoundTripper) {
	r.mu.Lock()
	r.transport = t
	r.mu.Unlock()
}

func (r *Room) remote(url string) *remoteKeys {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sets == nil {
		r.sets = map[string]*remoteKeys{}
	}
	k := r.sets[url]
	if k == nil {
		k = &remoteKeys{room: r, url: url}
		r.sets[url] = k
	}
	return k
}

// How long keys are believed, and how often they are asked for where something is missing.
const (
	keysFor    = 10 * time.Minute
	askAgain   = 30 * time.Second // after an answer, for a key that was not in it
	retryAfter = 5 * time.Second  // after a failure
	fetchTime  = 5 * time.Second
	maxKeySet  = 1 << 20
)

// remoteKeys are those behind a URL. They are fetched when a token needs them, once for all who wait; while they cannot be had the last ones hold.
type remoteKeys struct {
	room *Room
	url  string

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	asked   time.Time     // when the last attempt ended
	failed  bool          // it did
	pending chan struct{} // closed when the one that runs ends; nil: none does
}

func (k *remoteKeys) find(id string) (found []jose.JSONWebKey, had bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found = named(k.keys, id)
	age := time.Since(k.asked)
	switch {
	case k.failed && age < retryAfter:
	case len(found) == 0 && (k.keys == nil || k.failed || age > askAgain):
		wait := k.fetch()
		k.mu.Unlock()
		<-wait
		k.mu.Lock()
		found = named(k.keys, id)
	case k.failed || age > keysFor:
		k.fetch() // what is known holds until it is here
	}
	return found, k.keys != nil
}

// fetch begins to ask, where nobody does. k.mu is held.
func (k *remoteKeys) fetch() chan struct{} {
	if k.pending == nil {
		k.pending = make(chan struct{})
		go k.ask(k.pending)
	}
	return k.pending
}

func (k *remoteKeys) ask(done chan struct{}) {
	all, err := k.room.get(k.url)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asked, k.failed = time.Now(), err != nil; err == nil {
		k.keys = all
	} else if k.room.log != nil {
		k.room.log.Warn("a key set could not be fetched; tokens are judged by the last one", "url", k.url, "error", err)
	}
	k.pending = nil
	close(done)
}

func (r *Room) get(url string) ([]jose.JSONWebKey, error) {
	r.mu.Lock()
	transport := r.transport
	r.mu.Unlock()
	if transport == nil {
		return nil, errors.New("nothing may be fetched yet")
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := transport.RoundTrip(req) // no redirect is followed
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %d", resp.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySet+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxKeySet:
		return nil, errors.New("the key set is larger than 1 MiB")
	}
	all, err := publicKeys(data)
	if err != nil {
		return nil, fmt.Errorf("what the server sent %w", err)
	}
	return all, nil
}

// parseSet reads the keys of a set one by one: those of a kind that is not known here do not spoil the others (RFC 7517 section 5).
func parseSet(data []byte) (keys []jose.JSONWebKey, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, err
	}
	for _, text := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(text) == nil {
			keys = append(keys, k)
		}
	}
	return keys, nil
}
