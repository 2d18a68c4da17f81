package proxy

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Own knows the addresses that the daemon itself listens on, which no request may reach through it.
type Own struct {
	mu        sync.RWMutex
	listeners []netip.AddrPort
	local     []netip.Addr // of the interfaces
	until     time.Time    // when local must be read again
	ports     [1 << 16 / 64]uint64
}

// localFor is how long the interfaces' addresses are believed.
const localFor = 10 * time.Second

// Add makes a listener's address known. Addresses that are not TCP are none that a request could reach.
func (o *Own) Add(a net.Addr) {
	addr, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.listeners = append(o.listeners, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()))
	o.ports[addr.Port()/64] |= 1 << (addr.Port() % 64)
}

// Has tells whether a is one of the daemon's listeners, by whatever local address it is called.
func (o *Own) Has(a netip.AddrPort) bool {
	o.mu.RLock()
	hit := o.ports[a.Port()/64]&(1<<(a.Port()%64)) != 0
	o.mu.RUnlock()
	if !hit {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	ip := a.Addr().Unmap().WithZone("")
	for _, l := range o.listeners {
		switch {
		case l.Port() != a.Port():
		case l.Addr() == ip, ip.IsUnspecified():
			return true
		case l.Addr().IsUnspecified() && o.isLocal(ip):
			return true
		}
	}
	return false
}

func (o *Own) isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	if now := time.Now(); now.After(o.until) {
		o.local, o.until = localAddrs(), now.Add(localFor)
	}
	for _, a := range o.local {
		if a == ip {
			return true
		}
	}
	return false
}

func localAddrs() (addrs []netip.Addr) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			addrs = append(addrs, p.Addr().Unmap().WithZone(""))
		}
	}
	return addrs
}
