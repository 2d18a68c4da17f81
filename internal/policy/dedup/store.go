package dedup

import (
	"context"
	"errors"
	"time"
)

// Store remembers keyed writes. Each method is one atomic step.
type Store interface {
	// Begin claims a key for claim.Owner until the lease ends; by its owner it is a renewal. Where the key is known it says how it stands:
	// a key that was finished without a record may be claimed again with the same fingerprint. An error leaves open whether it was claimed, unless it
	// is ErrUnclaimed.
	Begin(ctx context.Context, claim Claim, lease time.Duration) (Standing, error)
	// Finish replaces the owner's claim by what is to be repeated for as long as keep says; nil: nothing is known but the fingerprint. Where the
	// claim is not the owner's any more, nothing happens.
	Finish(ctx context.Context, claim Claim, record []byte, keep time.Duration) error
	// Release ends the owner's claim: nothing came of it. The key is forgotten, unless it was finished without a record before: then it is so again,
	// for as long as keep says. Where the claim is not the owner's any more, nothing happens.
	Release(ctx context.Context, claim Claim, keep time.Duration) error
}

// ErrUnclaimed is what Begin's error is, or wraps, where nothing can have been claimed.
var ErrUnclaimed = errors.New("nothing was claimed")

// Claim is one client's hold on a key.
type Claim struct {
	Key         string // a keyed hash: whose it is, and the client's own key
	Fingerprint string // a keyed hash of what the write asks for
	Owner       string // of this one exchange: what is late cannot finish the claim of somebody else
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
	Record []byte // not to be changed
}
