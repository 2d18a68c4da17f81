package retry

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

// What the keyring remembers.
const (
	keyLife = 10 * time.Minute
	maxKeys = 16_384 // the oldest goes first
	maxLike = 64     // of requests that are alike; the oldest that was answered goes first
)

// identity tells one request from another: tenant, authority, method, URL, credentials and, for a whole one, body.
type identity [sha256.Size]byte

// ending is how an exchange ended, as far as its program could know.
type ending uint8

const (
	running ending = iota
	failed         // no answer, or one that programs try again
	answered
)

// made is a key that was made for an exchange. The keyring's lock guards all but id.
type made struct {
	id       [16]byte
	identity identity
	repeat   int // what the program last said of how often it had sent the request before
	state    ending
	known    bool // remembered
	whole    bool // the identity holds the body
	since    time.Time
}

// keyring remembers the keys that were made, so that a request by which a program repeats an exchange, and says so, gets that exchange's key.
// Requests that do not say so never share one, however alike they are: they may be two purchases.
type keyring struct {
	mu    sync.Mutex
	keys  map[identity][]*made
	queue []place // the oldest first
}

// place is one in the queue; it means nothing any more where the key has a later one.
type place struct {
	made  *made
	since time.Time
}

// add remembers the key of a whole request.
func (k *keyring) add(id identity, m *made, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.remove(m) // of a request whose end came after the exchange's
	m.whole = true
	k.put(id, m, now)
}

// end notes how an exchange ended; its key is remembered from now on. partial is one whose request was not read to its end: it cannot be told by it,
// and the upstream cannot have acted on it, so what repeats it gets a new key.
func (k *keyring) end(base identity, m *made, s ending, partial bool, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m.state = s
	switch {
	case m.whole:
		k.put(m.identity, m, now)
	case partial && s == failed:
		k.put(base, m, now)
	}
}

// put remembers a key from now on. k.mu is held.
func (k *keyring) put(id identity, m *made, now time.Time) {
	k.expire(now)
	for len(k.queue) >= maxKeys {
		k.forget()
	}
	if k.keys == nil {
		k.keys = map[identity][]*made{}
	}
	k.queue = append(k.queue, place{m, now})
	m.since = now
	if m.known {
		return
	}
	list := k.keys[id]
	if len(list) >= maxLike {
		old := max(0, slices.IndexFunc(list, func(m *made) bool { return m.state == answered }))
		list[old].known = false
		list = slices.Delete(list, old, old+1)
	}
	m.identity, m.known = id, true
	k.keys[id] = append(list, m)
}

// expire forgets what is too old. k.mu is held.
func (k *keyring) expire(now time.Time) {
	for len(k.queue) > 0 && now.Sub(k.queue[0].since) >= keyLife {
		k.forget()
	}
}

// forget drops the oldest place, and the key that has no later one. k.mu is held.
func (k *keyring) forget() {
	p := k.queue[0]
	k.queue[0] = place{}
	k.queue = k.queue[1:]
	if p.made.since.Equal(p.since) {
		k.remove(p.made)
	}
}

// remove forgets a key, where it is remembered. k.mu is held.
func (k *keyring) remove(m *made) {
	if !m.known {
		return
	}
	m.known = false
	list := k.keys[m.identity]
	if i := slices.Index(list, m); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == 0 {
		delete(k.keys, m.identity)
		return
	}
	k.keys[m.identity] = list
}

// repeated is the key of the exchange that a program repeats for the nth time; nil where there is none, or where it cannot be told which it is. What
// it returns is taken: of two exchanges that are alike, the second repeat belongs to the second one.
func (k *keyring) repeated(base, id identity, n int, now time.Time) *made {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire(now)
	m, settled := choose(k.keys[id], n)
	if m == nil || !settled {
		for _, half := range k.keys[base] {
			if !half.whole && half.repeat < n {
				half.repeat = n
				return nil
			}
		}
	}
	if m != nil {
		m.repeat, m.state = max(m.repeat, n), running
	}
	return m
}

// choose finds what the nth repeat is of. It is settled where that one is known to lack an answer.
func choose(list []*made, n int) (m *made, settled bool) {
	for _, group := range []struct {
		fits    func(*made) bool
		settled bool
	}{
		{func(m *made) bool { return m.state != answered && m.repeat == n-1 }, true},
		{func(m *made) bool { return m.state != answered && m.repeat < n }, true},
		{func(m *made) bool { return m.state == answered && m.repeat < n }, false}, // whose answer was lost on its way
		{func(*made) bool { return true }, false},                                  // counted otherwise
	} {
		if m, some := newest(list, group.fits); some {
			return m, group.settled
		}
	}
	return nil, false
}

// newest is the newest of those that fit, one that ended before one that runs. Of several that run nobody can tell which is repeated: none is.
func newest(list []*made, fits func(*made) bool) (*made, bool) {
	var ended, lone *made
	some, several := false, false
	for _, m := range list {
		switch {
		case !fits(m):
			continue
		case m.state != running:
			ended = m
		default:
			several = lone != nil
			lone = m
		}
		some = true
	}
	if ended != nil || several {
		return ended, some
	}
	return lone, some
}

// identify begins an identity.
func identify(x *exchange.Exchange, r *http.Request, header string) identity {
	var space [1024]byte
	b := space[:0]
	for _, s := range [...]string{x.Tenant, x.Scheme, x.Target.Host, r.Method, r.URL.RequestURI(), header} {
		b = appendPart(b, s)
	}
	b = binary.BigEndian.AppendUint16(b, x.Target.Port)
	return sha256.Sum256(appendCredentials(b, r.Header, header))
}

// with is the identity of a whole request.
func (id identity) with(body [sha256.Size]byte) identity {
	var both [2 * sha256.Size]byte
	copy(both[:], id[:])
	copy(both[sha256.Size:], body[:])
	return sha256.Sum256(both[:])
}

// appendPart adds a text so that no two lists of texts look the same.
func appendPart(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// accounts are words in the names of fields by which upstreams tell whose request it is.
var accounts = [...]string{"auth", "key", "token", "cookie", "account", "tenant", "merchant", "organization", "project", "customer", "stripe-context"}

// appendCredentials adds what says whose request it is, but for the key itself.
func appendCredentials(dst []byte, fields http.Header, except string) []byte {
	var space [8]string
	names := space[:0]
	for name := range fields {
		if name != except && isCredential(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		dst = appendPart(dst, name)
		for _, v := range fields[name] {
			dst = appendPart(dst, lasting(v))
		}
		dst = append(dst, 0)
	}
	return dst
}

func isCredential(name string) bool {
	var space [64]byte
	lower := append(space[:0], name...)
	for i, c := range lower {
		if c >= 'A' && c <= 'Z' {
			lower[i] = c | 0x20
		}
	}
	for i := range accounts {
		if bytes.Contains(lower, []byte(accounts[i])) {
			return true
		}
	}
	return false
}

// lasting is the part of a credential that is the same in every request: a signature of AWS (Signature Version 4) begins with the account's key, the
// day and the place, and ends with what is made anew each time.
func lasting(credential string) string {
	if !strings.HasPrefix(credential, "AWS4-") {
		return credential
	}
	key, _, _ := strings.Cut(credential, ",")
	return key
}
