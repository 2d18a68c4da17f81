package tenant

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// The budgets of wrong credentials from one address: of different ones, which are guesses, and of one that comes again and again, as from a program whose password
// is an old one, and which must not stop its neighbours. Right ones are not counted.
const (
	maxFailures   = 20
	failureWindow = time.Minute
	maxKept       = 10_000
)

// Failures counts wrong credentials by the client's address: a network of 64 bits where that is IPv6. Its zero value is ready.
type Failures struct {
	mu sync.Mutex
	m  map[failureKey]*failures
}

// failureKey is a credential from a network, or, where that is 0, how many different ones came from there.
type failureKey struct {
	network    netip.Prefix
	credential uint64
}

type failures struct {
	n     int
	until time.Time
}

var credentialSeed = maphash.MakeSeed()

// credential tells one that comes again from others. Signatures, of which none is like another, count as one.
func (e *Evidence) credential() uint64 {
	if len(e.Authorization) == 0 || len(e.Authorization[0]) > len(schemeHMAC) && strings.EqualFold(e.Authorization[0][:len(schemeHMAC)], schemeHMAC) {
		return 1
	}
	var h maphash.Hash
	h.SetSeed(credentialSeed)
	for _, line := range e.Authorization {
		_, _ = h.WriteString(line)
	}
	return max(2, h.Sum64())
}

// Spent tells whether the address has used a budget up, and for how long what it shows is not looked at.
func (f *Failures) Spent(e *Evidence) (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.m) == 0 {
		return 0, false
	}
	network := networkOf(e.Address)
	for _, k := range [...]failureKey{{network, 0}, {network, e.credential()}} {
		if c := f.m[k]; c != nil && c.n >= maxFailures && e.Now.Before(c.until) {
			return c.until.Sub(e.Now), true
		}
	}
	return 0, false
}

// Add counts one.
func (f *Failures) Add(e *Evidence) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = map[failureKey]*failures{}
	}
	network := networkOf(e.Address)
	if f.count(failureKey{network, e.credential()}, e.Now) == 1 {
		f.count(failureKey{network, 0}, e.Now)
	}
}

func (f *Failures) count(k failureKey, now time.Time) int {
	c := f.m[k]
	if c == nil || !now.Before(c.until) {
		if c == nil && len(f.m) >= maxKept {
			f.makeRoom(now)
		}
		c = &failures{until: now.Add(failureWindow)}
		f.m[k] = c
	}
	c.n++
	return c.n
}

// makeRoom forgets what is over; then a tenth of the rest, those with few failures first, in no order that a flood of addresses can foresee.
func (f *Failures) makeRoom(now time.Time) {
	for p, e := range f.m {
		if !now.Before(e.until) {
			delete(f.m, p)
		}
	}
	for _, least := range [...]int{maxFailures, 1 << 62} {
		for p, e := range f.m {
			if len(f.m) <= maxKept-maxKept/10 {
				return
			}
			if e.n < least {
				delete(f.m, p)
			}
		}
	}
}

func networkOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
