package tenant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
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

// take adds what an earlier process left.
func (n *nonces) take(l left) {
	n.since = max(n.since, l.since)
	maps.Copy(n.used, l.used)
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

// left is what an earlier process used up of what the next one would take: signatures made in the second in which it ended, or ahead of it.
type left struct {
	since int64
	used  map[[16]byte]use
}

// exported is left as it is kept.
type exported struct {
	Since int64               `json:"since,omitempty"`
	Used  map[string][2]int64 `json:"used,omitempty"`
}

// maxExported bounds the signatures of all tenants that are kept one by one. Of a tenant that has more the next process refuses all up to the last one's second.
const maxExported = 10_000

// Export implements state.Keeps: what was signed before the next process begins that refuses by itself.
func (r *Room) Export() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, n := time.Now().Unix(), 0
	out := map[string]exported{}
	for name, l := range r.left { // of tenants that are not there
		l.export(out, name, now, &n)
	}
	for name, of := range r.nonces {
		of.mu.Lock()
		left{of.since, of.used}.export(out, name, now, &n)
		of.mu.Unlock()
	}
	if len(out) == 0 {
		return nil
	}
	data, _ := json.Marshal(out) // of such a map it never fails
	return data
}

func (l left) export(out map[string]exported, name string, now int64, n *int) {
	var e exported
	if l.since > now {
		e.Since = l.since
	}
	for id, u := range l.used {
		if u.made < now {
			continue
		}
		if *n++; *n > maxExported {
			e.Since = max(e.Since, u.made+1)
			continue
		}
		if e.Used == nil {
			e.Used = map[string][2]int64{}
		}
		e.Used[hex.EncodeToString(id[:])] = [2]int64{u.made, u.last}
	}
	if e.Since > 0 || e.Used != nil {
		out[name] = e
	}
}

var errLeft = errors.New("what it says of signatures makes no sense")

// Import implements state.Keeps.
func (r *Room) Import(data []byte) error {
	var in map[string]exported
	if json.Unmarshal(data, &in) != nil || len(in) > maxTenants {
		return errLeft
	}
	most := time.Now().Add(ahead).Unix() + 1 // nothing later was ever right
	all, n := map[string]left{}, 0
	for name, e := range in {
		l := left{e.Since, map[[16]byte]use{}}
		if n += len(e.Used); e.Since > most || n > maxExported {
			return errLeft
		}
		for text, u := range e.Used {
			id, err := hex.DecodeString(text)
			if err != nil || len(id) != 16 || u[0] > most || u[1]-u[0] > int64(maxWindow/time.Second) {
				return errLeft
			}
			l.used[[16]byte(id)] = use{u[0], u[1]}
		}
		all[name] = l
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = all
	return nil
}
