package destination

import "net/netip"

// class is what an address is for, by the IANA special-purpose registries (RFC 6890) and the cloud providers' documents.
type class string

const (
	public      class = "" // the zero value: no special purpose
	metadata    class = "cloud metadata"
	linkLocal   class = "link-local"
	unspecified class = "this host"
	loopback    class = "loopback"
	privateUse  class = "private use"
	shared      class = "shared address space"
	protocol    class = "protocol assignments"
	documentary class = "documentation and benchmarks"
	translated  class = "translation and tunnels"
	multicast   class = "multicast"
	reserved    class = "reserved"
)

type special struct {
	prefix netip.Prefix
	class  class
}

var v4Unspecified = netip.IPv4Unspecified()

// specials4 is walked in order, so that what is more particular stands first.
var specials4 = table(
	"169.254.0.0/16", linkLocal, // the metadata service of most clouds, pod identity agents
	"168.63.129.16/32", metadata, // Azure's wire server, a public address
	"100.100.100.200/32", metadata, // Alibaba Cloud
	"192.0.0.192/32", metadata, // Oracle Cloud
	"0.0.0.0/8", unspecified,
	"10.0.0.0/8", privateUse,
	"100.64.0.0/10", shared,
	"127.0.0.0/8", loopback,
	"172.16.0.0/12", privateUse,
	"192.0.0.0/24", protocol,
	"192.0.2.0/24", documentary,
	"192.31.196.0/24", protocol, // AS112
	"192.52.193.0/24", protocol, // AMT
	"192.88.99.0/24", translated, // 6to4 relays
	"192.168.0.0/16", privateUse,
	"192.175.48.0/24", protocol, // AS112
	"198.18.0.0/15", documentary,
	"198.51.100.0/24", documentary,
	"203.0.113.0/24", documentary,
	"224.0.0.0/4", multicast,
	"240.0.0.0/4", reserved, // the broadcast address among them
)

var specials6 = table(
	"fe80::/10", linkLocal,
	"fd00:ec2::/32", metadata, // Amazon: 254 is the metadata service, 23 the pod identity agent
	"fd20:ce::254/128", metadata, // Google
	"fd00:c1::a9fe:a9fe/128", metadata, // Oracle
	"fd00:42::42/128", metadata, // Scaleway
	"::/128", unspecified,
	"::1/128", loopback,
	"::/96", translated, // IPv4-compatible
	"::ffff:0:0:0/96", translated, // IPv4-translated
	"64:ff9b::/96", public, // NAT64: what the IPv4 address inside is decides
	"64:ff9b:1::/48", translated, // local NAT64
	"100::/64", reserved, // discard
	"100:0:0:1::/64", reserved,
	"2001::/23", protocol, // Teredo and ORCHID among them
	"2001:db8::/32", documentary,
	"2002::/16", translated, // 6to4
	"2620:4f:8000::/48", protocol, // AS112
	"3fff::/20", documentary,
	"5f00::/16", protocol, // segment routing
	"fc00::/7", privateUse,
	"fec0::/10", privateUse, // site-local
	"ff00::/8", multicast,
)

func table(pairs ...any) []special {
	out := make([]special, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, special{netip.MustParsePrefix(pairs[i].(string)), pairs[i+1].(class)})
	}
	return out
}

// classify says what an address, IPv4-mapped ones unmapped before, is for.
func classify(addr netip.Addr) class {
	list := specials6
	if addr.Is4() {
		list = specials4
	}
	for i := range list {
		if list[i].prefix.Contains(addr) {
			return list[i].class
		}
	}
	return public
}

var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	teredo     = netip.MustParsePrefix("2001::/32")
	compatible = netip.MustParsePrefix("::/96")
	siit       = netip.MustParsePrefix("::ffff:0:0:0/96")
)

// embedded lists the IPv4 addresses that an IPv6 address would lead to by way of a translator or a tunnel.
func embedded(addr netip.Addr) (inner [2]netip.Addr, n int) {
	if addr.Is4() {
		return inner, 0
	}
	b := addr.As16()
	switch {
	case nat64.Contains(addr), nat64Local.Contains(addr), siit.Contains(addr),
		compatible.Contains(addr) && addr != netip.IPv6Unspecified() && addr != netip.IPv6Loopback():
		inner[0] = netip.AddrFrom4([4]byte(b[12:16])) // RFC 6052 section 2.2, prefix of 96 bits
		return inner, 1
	case sixToFour.Contains(addr):
		inner[0] = netip.AddrFrom4([4]byte(b[2:6])) // RFC 3056 section 2
		return inner, 1
	case teredo.Contains(addr):
		inner[0] = netip.AddrFrom4([4]byte(b[4:8])) // the server; RFC 4380 section 4
		inner[1] = netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
		return inner, 2
	}
	return inner, 0
}
