// Package match finds the block of a host and tells whether a request belongs to a route.
package match

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"httpowerd/internal/exchange"
)

// Pattern says which authorities a host block is for. Equal patterns are equal values, however they were written.
type Pattern struct {
	name string // canonical; of a suffix what follows "*."; "" of everything
	kind kind
	port uint16 // 0: every port
}

type kind uint8

const (
	exact kind = iota
	suffix
	everything
)

// String is the pattern in its one spelling: api.example.com, *.example.com:8443, [2001:db8::1]:443, *.
func (p Pattern) String() string {
	s := p.name
	switch {
	case p.kind == everything:
		s = "*"
	case p.kind == suffix:
		s = "*." + p.name
	case strings.IndexByte(s, ':') >= 0:
		s = "[" + s + "]"
	}
	if p.port != 0 {
		s += ":" + strconv.Itoa(int(p.port))
	}
	return s
}

// ParsePattern reads a name, an address, "*." before a name, or "*", each with or without a port. Names and addresses become canonical as the
// targets of requests do. The error says what to write instead.
func ParsePattern(s string) (Pattern, error) {
	if err := notAHost(s); err != nil {
		return Pattern{}, err
	}
	if s[0] == '[' {
		return parseBracketed(s)
	}
	if strings.Count(s, ":") > 1 {
		if addr, err := netip.ParseAddr(s); err == nil {
			return Pattern{}, fmt.Errorf("an IPv6 address stands in brackets: write %s", Pattern{name: addr.WithZone("").Unmap().String()})
		}
		return Pattern{}, errors.New("has more than one colon: write a name and one port such as api.example.com:8443, or an IPv6 address in brackets")
	}
	host, rest, hasPort := strings.Cut(s, ":")
	p, err := parseHost(host)
	if err == nil && hasPort {
		p.port, err = parsePort(rest)
	}
	if err != nil {
		return Pattern{}, err
	}
	return p, nil
}

// notAHost names what people write who think of something else than a host.
func notAHost(s string) error {
	_, network := netip.ParsePrefix(s)
	switch {
	case s == "":
		return errors.New("is empty: write a host such as api.example.com, or * for every host")
	case strings.Contains(s, "://"):
		return errors.New("is a URL: write its host alone, such as api.example.com or api.example.com:8443")
	case network == nil:
		return errors.New("is a network: write a name or one address (what may be reached is said under destinations)")
	case strings.IndexByte(s, '/') >= 0:
		return errors.New("has a path: write the host alone, and the path in a route's match")
	case strings.IndexByte(s, '@') >= 0:
		return errors.New("has userinfo before an @: write the host alone, such as api.example.com")
	}
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return errors.New("has letters beyond ASCII: write the name as DNS knows it, beginning with xn--")
		}
	}
	return nil
}

func parseBracketed(s string) (Pattern, error) {
	inner, rest, closed := strings.Cut(s[1:], "]")
	addr, err := netip.ParseAddr(inner)
	switch {
	case !closed:
		return Pattern{}, errors.New("lacks the closing bracket: write [2001:db8::1] or [2001:db8::1]:443")
	case err == nil && addr.Is4():
		return Pattern{}, fmt.Errorf("only IPv6 addresses stand in brackets: write %s%s", addr, rest)
	case err != nil:
		return Pattern{}, errors.New("has no IPv6 address in its brackets: write one such as [2001:db8::1]")
	case addr.Zone() != "":
		return Pattern{}, fmt.Errorf("has a zone, which no request can name: write %s", Pattern{name: addr.WithZone("").String()})
	}
	p := Pattern{name: addr.Unmap().String()}
	switch {
	case rest == "":
		return p, nil
	case rest[0] != ':':
		return Pattern{}, fmt.Errorf("has something other than a port behind the bracket: write %s or %s:443", p, p)
	}
	p.port, err = parsePort(rest[1:])
	return p, err
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	switch {
	case s == "" || s == "*":
		return 0, errors.New("has no port after its colon: leave the colon out to match every port")
	case err != nil || n == 0 || s[0] == '0':
		return 0, errors.New("has a port that is not a number from 1 to 65535: write one, or leave it out to match every port")
	}
	return uint16(n), nil
}

func parseHost(s string) (Pattern, error) {
	if s == "*" {
		return Pattern{kind: everything}, nil
	}
	name, below := strings.CutPrefix(s, "*.")
	switch {
	case s == "":
		return Pattern{}, errors.New("has no host before its port: write one, or * for every host")
	case below && name == "":
		return Pattern{}, errors.New("has nothing after *. : write * for every host, or *.example.com for the names below example.com")
	case s[0] == '.':
		return Pattern{}, fmt.Errorf("begins with a dot: write *%s for the names below %s", s, s[1:])
	case strings.IndexByte(name, '*') >= 0:
		return Pattern{}, errors.New("has a * that is not a whole pattern or its first label: " +
			"write *.example.com for the names below example.com, or * for every host")
	}
	name, err := parseName(name)
	if err != nil {
		return Pattern{}, err
	}
	p := Pattern{name: name}
	if below {
		if _, err := netip.ParseAddr(name); err == nil {
			return Pattern{}, fmt.Errorf("nothing lies below an address: write %s", name)
		}
		p.kind = suffix
	}
	return p, nil
}

// parseName is exchange.CanonicalHost with words for whoever writes a file.
func parseName(s string) (string, error) {
	name, err := exchange.CanonicalHost(s)
	if err == nil {
		return name, nil
	}
	bare := strings.TrimSuffix(s, ".")
	if len(bare) > 253 {
		return "", errors.New("is longer than 253 characters, which no host name may be")
	}
	for label := range strings.SplitSeq(bare, ".") {
		switch {
		case label == "":
			return "", errors.New("has two dots in a row: write the name with one dot between its labels")
		case len(label) > 63:
			return "", errors.New("has a label longer than 63 characters, which no host name may have")
		}
	}
	for _, c := range bare {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", c) {
			return "", fmt.Errorf("has the character %q, which no host name may have: write letters, digits, - and dots", c)
		}
	}
	return "", errors.New("is a shorthand that some programs take for an address: write four decimal numbers such as 127.0.0.1, or a name")
}

// Meets tells whether some authority is matched by both patterns.
func (p Pattern) Meets(q Pattern) bool {
	if p.port != 0 && q.port != 0 && p.port != q.port {
		return false
	}
	if p.kind == everything || q.kind == everything {
		return true
	}
	if p.kind > q.kind {
		p, q = q, p
	}
	switch {
	case q.kind == exact:
		return p.name == q.name
	case p.kind == exact:
		return strings.HasSuffix(p.name, "."+q.name)
	}
	return p.name == q.name || strings.HasSuffix(p.name, "."+q.name) || strings.HasSuffix(q.name, "."+p.name)
}
