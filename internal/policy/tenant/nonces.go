package tenant

import (
	"crypto/sha256"
	"sync"
	"time"
)

// nonces are what one tenant's signatures have used up, so that nobody sends one again. Where there are too many a signature is refused: to forget one that
// still holds would let it be repeated. Only right signatures are remembered, so that nobody but the tenant itself fills it.
type nonces struct {
	mu    sync.Mutex
	since int64 // what was signed before this second may have been used and forgotten: by an earlier process, or under a shorter window
	used  map[[16]byte]use
	swept int64
}

// use is when something was signed and the last second in which it holds.
type use struct{ made, last int64 }

// maxNonces bounds the signatures of one tenant that are remembered.
const maxNonces = 65_536

func newNonces() *nonces {
	return &nonces{since: time.Now().Unix(), used: map[[16]byte]use{}}
}

// spend takes a nonce of a key, which nobody may use again until the signature made at that time holds no more.
func (n *nonces) spend(key, nonce string, now, made time.Time, window time.Duration) error {
	sum := sha256.Sum256([]byte(key + "\x00" + nonce))
	id, second := [16]byte(sum[:16]), now.Unix()
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.used[id]; ok {
		return errRepeated
	}
	if made.Unix() < n.since {
		return errBefore
	}
	if len(n.used) >= maxNonces {
		n.sweep(second)
	}
	if len(n.used) >= maxNonces {
		return errFull
	}
	n.used[id] = use{made.Unix(), made.Add(window).Unix()}
	return nil
}

// sweep forgets what holds no more, at most once a second. n.mu is held.
func (n *nonces) sweep(second int64) {
	if n.swept == second {
		return
	}
	n.swept = second
	for id, u := range n.used {
		if u.last < second {
			n.since = max(n.since, u.made+1)
			delete(n.used, id)
		}
	}
}
