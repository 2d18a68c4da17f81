// Package destination decides which addresses and ports may be connected to at all. Names are not its matter: whatever a name resolves to is
// checked here, at the moment of connecting, so that no answer of a name server can lead around the rules.
package destination

import (
	"fmt"
	"net/netip"

	"httpowerd/internal/exchange"
)

// Rules are the compiled block. They are immutable and safe for concurrent use; a check that passes allocates nothing.
type Rules struct {
	private  bool // addresses that are not for the public internet may be reached
	metadata bool
	allow    []netip.Prefix
	deny     []netip.Prefix
	anyPort  bool
	ports    []portRange
}

// Compile makes the rules; loopbackOnly says that every proxy listener is on loopback, which is what auto asks.
func Compile(cfg Config, loopbackOnly bool) (*Rules, error) {
	r := &Rules{
		private:  cfg.Private == Allow || cfg.Private == Auto && loopbackOnly,
		metadata: cfg.Metadata == Allow,
		anyPort:  cfg.Ports.Auto() && loopbackOnly,
		ports:    cfg.Ports.ranges,
	}
	if cfg.Ports.Auto() {
		r.ports = []portRange{{80, 80}, {443, 443}}
	}
	var err error
	if r.allow, err = parsePrefixes("allow", cfg.Allow); err != nil {
		return nil, err
	}
	if r.deny, err = parsePrefixes("deny", cfg.Deny); err != nil {
		return nil, err
	}
	return r, nil
}

func parsePrefixes(key string, list []string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("destinations.%s: %w", key, err)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

// CheckHost checks what can be known without a name server: the port, and the address where the host is a literal one.
func (r *Rules) CheckHost(a exchange.Authority) error {
	if err := r.CheckPort(a.Port); err != nil {
		return err
	}
	if addr, ok := a.Addr(); ok {
		return r.CheckAddr(addr)
	}
	return nil
}

// CheckPort returns a Refusal where the port is not one of the allowed ones.
func (r *Rules) CheckPort(port uint16) error {
	if r.anyPort {
		return nil
	}
	for _, p := range r.ports {
		if p.first <= port && port <= p.last {
			return nil
		}
	}
	return &exchange.Refusal{Code: exchange.DestinationDenied, Detail: "destinations: the target falls under the rule ports", ProxyStatus: "http_request_denied"}
}

// CheckAddr returns a Refusal where the address, or an IPv4 address that it carries inside, may not be reached.
func (r *Rules) CheckAddr(addr netip.Addr) error {
	if !addr.IsValid() || addr.Zone() != "" {
		return refuse("an address with a zone")
	}
	addr = addr.Unmap()
	if err := r.check(addr); err != nil {
		return err
	}
	inner, n := embedded(addr)
	for _, v4 := range inner[:n] {
		if err := r.check(v4); err != nil {
			return err
		}
	}
	return nil
}

func (r *Rules) check(addr netip.Addr) error {
	c := classify(addr)
	if (c == metadata || c == linkLocal) && !r.metadata {
		return refuse("metadata")
	}
	if contains(r.deny, addr) {
		return refuse("deny")
	}
	switch {
	case c == multicast, c == reserved, c == unspecified && addr.Is4() && addr != v4Unspecified: // no host has these
		return refuse(string(c))
	case c == public, contains(r.allow, addr):
		return nil
	case c == metadata, c == linkLocal: // opened by its own switch
		return nil
	case r.private:
		return nil
	}
	return refuse("private (" + string(c) + ")")
}

func contains(list []netip.Prefix, addr netip.Addr) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func refuse(rule string) error {
	return exchange.Refuse(exchange.DestinationDenied, "destinations: the target falls under the rule %s", rule)
}
