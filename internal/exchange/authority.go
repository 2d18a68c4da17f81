package exchange

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Authority is a host and port in the one spelling that policy, dialer, certificates and records share: names are lower case without a
// trailing dot, addresses are netip's text with IPv4-mapped ones unmapped.
type Authority struct {
	Host string
	Port uint16
}

// String is host:port, with brackets round an IPv6 address.
func (a Authority) String() string {
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// As is String, and said itself where that is the same text: nothing is allocated then.
func (a Authority) As(said string) string {
	port, ok := strings.CutPrefix(said, a.Host)
	var own [len(":65535")]byte
	if ok && string(strconv.AppendUint(append(own[:0], ':'), uint64(a.Port), 10)) == port && strings.IndexByte(a.Host, ':') < 0 {
		return said
	}
	return a.String()
}

// IsDefault tells whether the port is the scheme's own, so that a Host field does not name it.
func (a Authority) IsDefault(scheme string) bool {
	return scheme == "http" && a.Port == 80 || scheme == "https" && a.Port == 443
}

// ForScheme is the authority as a Host field shows it: without the scheme's default port (RFC 9110 section 4.2.3).
func (a Authority) ForScheme(scheme string) string {
	if a.IsDefault(scheme) {
		if strings.IndexByte(a.Host, ':') >= 0 {
			return "[" + a.Host + "]"
		}
		return a.Host
	}
	return a.String()
}

// Addr is the address when the host is a literal one.
func (a Authority) Addr() (netip.Addr, bool) {
	// No name that ParseAuthority accepts ends in a digit-only label or holds a colon, so a cheap look spares the parse.
	last := a.Host[len(a.Host)-1]
	if strings.IndexByte(a.Host, ':') < 0 && (last < '0' || last > '9') {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(a.Host)
	return addr, err == nil
}

// HostIn is host as a request's target spells it, which may begin with a scheme; host itself where it is not there. Case tells some secrets from words.
func HostIn(target, host string) string {
	if strings.Contains(target, host) {
		return host
	}
	for i := 0; i <= len("https://") && i+len(host) <= len(target); i++ {
		if strings.EqualFold(target[i:i+len(host)], host) {
			return target[i : i+len(host)]
		}
	}
	return host
}

// ParseAuthority canonicalises host or host:port; defaultPort 0 means that the port must be there. Whatever a resolver, a URL parser or
// another proxy might read in two ways (numeric shorthands of addresses, zones, percent-encoding, userinfo, non-ASCII letters) is a Refusal
// with BadRequest, so that the value checked is always the value dialled.
func ParseAuthority(s string, defaultPort uint16) (Authority, error) {
	host, port, bracketed, err := splitAuthority(s)
	if err != nil {
		return Authority{}, err
	}
	a := Authority{Port: defaultPort}
	if port != "" {
		if a.Port, err = parsePort(port); err != nil {
			return Authority{}, err
		}
	}
	if a.Port == 0 {
		return Authority{}, Refuse(BadRequest, "the target has no port")
	}
	if bracketed {
		a.Host, err = canonicalIPv6(host)
	} else {
		a.Host, err = CanonicalHost(host)
	}
	return a, err
}

func splitAuthority(s string) (host, port string, bracketed bool, err error) {
	if s == "" {
		return "", "", false, Refuse(BadRequest, "the target has no host")
	}
	rest := ""
	if s[0] == '[' {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", false, Refuse(BadRequest, "the target's address lacks its closing bracket")
		}
		host, rest, bracketed = s[1:end], s[end+1:], true
		if rest != "" && rest[0] != ':' {
			return "", "", false, Refuse(BadRequest, "the target's address is followed by something other than a port")
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, rest = s[:i], s[i:]
	} else {
		host = s
	}
	if rest == "" {
		return host, "", bracketed, nil
	}
	if rest == ":" {
		return "", "", false, Refuse(BadRequest, "the target's port is empty")
	}
	return host, rest[1:], bracketed, nil
}

func parsePort(s string) (uint16, error) {
	if len(s) > 5 || s[0] == '0' {
		return 0, Refuse(BadRequest, "the target's port is not a number from 1 to 65535")
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, Refuse(BadRequest, "the target's port is not a number from 1 to 65535")
		}
		n = n*10 + int(s[i]-'0')
	}
	if n > 65535 {
		return 0, Refuse(BadRequest, "the target's port is not a number from 1 to 65535")
	}
	return uint16(n), nil
}

func canonicalIPv6(s string) (string, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Is4() {
		return "", Refuse(BadRequest, "the target's bracketed host is not an IPv6 address")
	}
	if addr.Zone() != "" {
		return "", Refuse(BadRequest, "the target's address has a zone")
	}
	return addr.Unmap().String(), nil
}

// CanonicalHost canonicalises a host name or an IPv4 address (no port, no brackets).
func CanonicalHost(s string) (string, error) {
	name, dotted := strings.CutSuffix(s, ".")
	if name == "" || len(name) > 253 {
		return "", Refuse(BadRequest, "the target's host is empty or longer than 253 characters")
	}
	upper, label := false, 0
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return "", Refuse(BadRequest, "the target's host has an empty label")
			}
			label = 0
			continue
		case c >= 'A' && c <= 'Z':
			upper = true
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return "", Refuse(BadRequest, "the target's host has a character that no host name may have")
		}
		if label++; label > 63 {
			return "", Refuse(BadRequest, "the target's host has a label longer than 63 characters")
		}
	}
	if label == 0 {
		return "", Refuse(BadRequest, "the target's host has an empty label")
	}
	if upper {
		name = strings.ToLower(name)
	}
	if !endsInNumber(name) {
		return name, nil
	}
	// Resolvers disagree on 127.1, 0x7f.1, 017700000001: only four plain decimal parts are an address, nothing else is a name.
	addr, err := netip.ParseAddr(name)
	if err != nil || dotted {
		return "", Refuse(BadRequest, "the target's host is neither a name nor a dotted IPv4 address")
	}
	var text [len("255.255.255.255")]byte
	if string(addr.AppendTo(text[:0])) == name { // as nearly always, and no memory of its own
		return name, nil
	}
	return addr.String(), nil
}

// endsInNumber is the URL standard's test for hosts that some parsers take for an IPv4 address.
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		for i := 0; i < len(hex); i++ {
			if !strings.ContainsRune("0123456789abcdef", rune(hex[i])) {
				return false
			}
		}
		return true
	}
	for i := 0; i < len(last); i++ {
		if last[i] < '0' || last[i] > '9' {
			return false
		}
	}
	return true
}
