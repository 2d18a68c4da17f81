package tenant

import (
	"net/netip"
	"sync"
	"time"
)

// The budget of wrong credentials from one address. Right ones are not counted.
const (
	maxFailures   = 20
	failureWindow = time.Minute
	maxAddresses  = 10_000
)

// Failures counts wrong credentials by the client's address: a network of 64 bits where that is IPv6. Its zero value is ready.
type Failures struct {
	mu sync.Mutex
	m  map[netip.Prefix]*failures
}

type failures struct {
	n     int
	until time.Time
}

// Spent tells whether the address has used its budget up, and for how long nothing it shows is looked at.
func (f *Failures) Spent(a netip.Addr, now time.Time) (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.m[networkOf(a)]
	if e == nil || e.n < maxFailures || !now.Before(e.until) {
		return 0, false
	}
	return e.until.Sub(now), true
}

// Add counts one.
func (f *Failures) Add(a netip.Addr, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = map[netip.Prefix]*failures{}
	}
	p := networkOf(a)
	e := f.m[p]
	if e == nil || !now.Before(e.until) {
		if e == nil && len(f.m) >= maxAddresses {
			f.makeRoom(now)
		}
		e = &failures{until: now.Add(failureWindow)}
		f.m[p] = e
	}
	e.n++
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
			if len(f.m) <= maxAddresses-maxAddresses/10 {
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
