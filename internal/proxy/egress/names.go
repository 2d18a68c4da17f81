package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"httpowerd/internal/exchange"
)

// Answers of name servers are believed for a short time only: the library that asks does not say for how long they may be.
const (
	nameTTL     = 10 * time.Second
	unknownTTL  = time.Second
	maxNames    = 1024
	lookupLimit = 15 * time.Second
)

// names is a small cache of name servers' answers. Whoever asks for a name that is being looked up waits for the same answer.
type names struct {
	resolver Resolver

	mu sync.Mutex
	m  map[string]*answer
}

type answer struct {
	done  chan struct{}
	until time.Time // set before done is closed
	addrs []netip.Addr
	err   error
}

func newNames(r Resolver) *names { return &names{resolver: r, m: map[string]*answer{}} }

// lookup returns the host's addresses, at least one, or a Failure.
func (n *names) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	a := n.m[host]
	if a == nil || a.stale(time.Now()) {
		n.makeRoom()
		a = &answer{done: make(chan struct{})}
		host = strings.Clone(host) // or all of the request's head would stay with it
		n.m[host] = a
		go n.ask(context.WithoutCancel(ctx), host, a)
	}
	n.mu.Unlock()
	select {
	case <-a.done:
		return a.addrs, a.err
	case <-ctx.Done():
		return nil, errors.Join(errUnresolved, ctx.Err())
	}
}

func (a *answer) stale(now time.Time) bool {
	select {
	case <-a.done:
		return now.After(a.until)
	default:
		return false
	}
}

// makeRoom forgets answers until one more fits.
func (n *names) makeRoom() {
	if len(n.m) < maxNames {
		return
	}
	now := time.Now()
	for host, a := range n.m {
		if a.stale(now) {
			delete(n.m, host)
		}
	}
	for host := range n.m { // in no order, which no flood of names can foresee
		if len(n.m) < maxNames {
			return
		}
		delete(n.m, host)
	}
}

// ask runs detached: the one who asked first may leave before the others.
func (n *names) ask(ctx context.Context, host string, a *answer) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	addrs, err := n.resolver.LookupNetIP(ctx, "ip", host)
	ttl := nameTTL
	switch {
	case err == nil && len(addrs) > 0:
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		a.addrs = addrs
	default:
		a.err = nameFailure(err)
		ttl = 0
		if f, ok := errors.AsType[*exchange.Failure](a.err); ok && f.Permanent {
			ttl = unknownTTL
		}
	}
	a.until = time.Now().Add(ttl)
	close(a.done)
}

func nameFailure(err error) error {
	var dns *net.DNSError
	if err == nil || errors.As(err, &dns) && dns.IsNotFound {
		return &exchange.Failure{Code: exchange.UpstreamDNS, Detail: "the upstream's name does not exist, or has no address", Permanent: true, Err: err}
	}
	f := &exchange.Failure{Code: exchange.UpstreamDNS, Detail: "the upstream's name could not be resolved at the moment", Err: err}
	switch {
	case dns == nil:
	case dns.IsTimeout:
		f.ProxyStatus = dnsTimeout
	case dns.IsTemporary && dns.Err == "server misbehaving": // what net makes of this one code; others of that text are not temporary
		f.ProxyStatus = `dns_error; rcode="SERVFAIL"`
	}
	return f
}
