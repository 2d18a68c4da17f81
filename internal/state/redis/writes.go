package redis

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"time"
)

// Writes remember which writes were sent under an idempotency key, and what they were answered. Answers are encrypted in Redis.
type Writes struct {
	client *Client
	seal   cipher.AEAD
}

// Claim is one client's hold on a key.
type Claim struct {
	Key         string
	Fingerprint string // of what the write asks for
	Owner       string // of this one exchange
}

// State is how a key stands.
type State uint8

// The states of a key.
const (
	Claimed  State = iota + 1 // by this owner, now
	Running                   // by another one, with the same fingerprint
	Finished                  // Standing.Record is the answer
	Mismatch                  // it has another fingerprint
)

// Standing is what Begin says.
type Standing struct {
	State  State
	Record []byte
}

// Bounds of what is kept and believed.
const (
	maxRecord = 24 << 20
	// maxTold is how large a record comes with the answer that there is one. A larger one is asked for, so that the time for it is known.
	maxTold = 64 << 10
	// insist is how long a claim's end is tried to be told to a server that is away.
	insist = 10 * time.Second
	again  = 100 * time.Millisecond
)

func newWrites(c *Client) (*Writes, error) {
	key := c.Secret("records")
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	seal, err := cipher.NewGCM(block)
	return &Writes{c, seal}, err
}

// Begin claims a key for the claim's owner until the lease ends; by its owner it is a renewal. Where the key is known, it says how it stands: a key
// that was finished without a record may be claimed again with the same fingerprint.
func (w *Writes) Begin(ctx context.Context, claim Claim, lease time.Duration) (Standing, error) {
	c := w.client
	if claim.Owner == "" { // which is what finished ones have
		return Standing{}, c.fault(opBegin, &Error{Value})
	}
	v, err := c.run(ctx, beginScript, w.key(claim), 0, claim.Fingerprint, claim.Owner, milliseconds(lease), maxRecord, maxTold)
	if err != nil {
		return Standing{}, err
	}
	s, size, ok := standing(v)
	if !ok {
		return Standing{}, c.fault(opBegin, &Error{Protocol})
	}
	if size > maxTold {
		if s.Record, err = w.record(ctx, claim, size); err != nil {
			return Standing{}, err
		}
	}
	if s.State == Finished {
		if s.Record, err = w.open(claim, s.Record); err != nil {
			return Standing{}, c.fault(opBegin, &Error{Value})
		}
	}
	return s, nil
}

// record asks for a record of that size.
func (w *Writes) record(ctx context.Context, claim Claim, size int) ([]byte, error) {
	c := w.client
	v, err := c.run(ctx, recordScript, w.key(claim), size, claim.Fingerprint)
	if err != nil {
		return nil, err
	}
	items, ok := v.([]any)
	if !ok || len(items) > 1 {
		return nil, c.fault(opBegin, &Error{Protocol})
	}
	if len(items) == 0 { // its time was over meanwhile
		return nil, c.fault(opBegin, &Error{Value})
	}
	text, ok := items[0].(string)
	if !ok {
		return nil, c.fault(opBegin, &Error{Protocol})
	}
	return []byte(text), nil
}

// standing takes the script's answer apart. size is that of the record.
func standing(v any) (s Standing, size int, ok bool) {
	items, ok := v.([]any)
	if !ok || len(items) == 0 {
		return s, 0, false
	}
	kind, _ := items[0].(int64)
	s.State = State(min(max(kind, 0), 5))
	switch {
	case s.State == Finished && len(items) == 3:
		n, isNumber := items[1].(int64)
		text, isText := items[2].(string)
		s.Record = []byte(text)
		return s, int(n), isNumber && isText && n > 0 && n <= maxRecord
	case len(items) == 1 && (s.State == Claimed || s.State == Running || s.State == Mismatch):
		return s, 0, true
	}
	return Standing{}, 0, false
}

// Finish replaces the owner's claim by what is to be repeated for as long as keep says; nil: nothing is known but the fingerprint. Where the claim is
// not the owner's any more, nothing happens. A server that is away is asked again until ctx ends: what it never hears of runs a second time.
func (w *Writes) Finish(ctx context.Context, claim Claim, record []byte, keep time.Duration) error {
	var sealed []byte
	if record != nil && len(record) <= maxRecord-64 {
		sealed = w.close(claim, record)
	}
	return w.insist(ctx, func(ctx context.Context) error {
		_, err := w.client.run(ctx, finishScript, w.key(claim), len(sealed), claim.Owner, sealed, milliseconds(keep))
		return err
	})
}

// Release ends the owner's claim: nothing came of it. The key is forgotten, unless it was finished without a record before: then it is so again, for as
// long as keep says. Where the claim is not the owner's any more, nothing happens.
func (w *Writes) Release(ctx context.Context, claim Claim, keep time.Duration) error {
	return w.insist(ctx, func(ctx context.Context) error {
		_, err := w.client.run(ctx, releaseScript, w.key(claim), 0, claim.Owner, milliseconds(keep))
		return err
	})
}

// insist repeats a step that does no harm twice, while the server is away.
func (w *Writes) insist(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, insist)
	defer cancel()
	var last error
	for {
		err := step(ctx)
		if err == nil {
			return nil
		}
		var e *Error
		if !errors.As(err, &e) { // the time is over
			if last != nil {
				return last
			}
			return &Error{Timeout}
		}
		if last = e; e.Class == Value || e.Class == Auth {
			return e
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return last
		case <-w.client.done.Done():
			return last
		}
	}
}

func (w *Writes) key(claim Claim) string {
	return w.client.key("write", w.client.name("write", claim.Key))
}

func milliseconds(d time.Duration) int64 { return max(1, min(d, maxKeep).Milliseconds()) }

// bound is what a record belongs to: under another key, or for another write, it cannot be opened.
func (w *Writes) bound(claim Claim) []byte { return []byte(claim.Key + "\x00" + claim.Fingerprint) }

func (w *Writes) close(claim Claim, record []byte) []byte {
	nonce := make([]byte, w.seal.NonceSize(), w.seal.NonceSize()+len(record)+w.seal.Overhead())
	_, _ = rand.Read(nonce) // never fails
	return w.seal.Seal(nonce, nonce, record, w.bound(claim))
}

func (w *Writes) open(claim Claim, sealed []byte) ([]byte, error) {
	n := w.seal.NonceSize()
	if len(sealed) < n {
		return nil, errReply
	}
	return w.seal.Open(nil, sealed[:n], sealed[n:], w.bound(claim))
}
