package destination

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"httpowerd/internal/setting"
)

// Values of Config.Private and Config.Metadata.
const (
	Auto  = "auto"
	Allow = "allow"
	Deny  = "deny"
)

// Config is the block destinations. Start from Default.
type Config struct {
	// Private says whether loopback, private, shared and other addresses that are not for the public internet may be reached. auto allows
	// them while every proxy listener is on loopback: whoever can use the proxy then could reach them without it.
	Private string `yaml:"private"`
	// Allow lists networks or addresses that may be reached whatever Private says. It never opens Metadata's addresses.
	Allow []string `yaml:"allow"`
	// Deny lists networks or addresses that may never be reached. It beats Allow.
	Deny []string `yaml:"deny"`
	// Ports lists the ports that may be reached. auto is any while every proxy listener is on loopback, else 80 and 443.
	Ports Ports `yaml:"ports"`
	// Metadata opens link-local and cloud metadata addresses, which hand out a machine's credentials: the only switch that does.
	Metadata string `yaml:"metadata"`
}

// Default is the block with nothing written in it.
func Default() Config { return Config{Private: Auto, Metadata: Deny} }

// Validate returns every fault of the block.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	if !slices.Contains([]string{Auto, Allow, Deny}, c.Private) {
		faults = append(faults, setting.Faultf("private", "must be auto, allow or deny, is %q", c.Private))
	}
	if c.Metadata != Allow && c.Metadata != Deny {
		faults = append(faults, setting.Faultf("metadata", "must be deny or allow, is %q", c.Metadata))
	}
	for key, list := range map[string][]string{"allow": c.Allow, "deny": c.Deny} {
		for i, s := range list {
			if _, err := parsePrefix(s); err != nil {
				faults = append(faults, setting.Faultf(fmt.Sprintf("%s[%d]", key, i), "%v", err))
			}
		}
	}
	slices.SortFunc(faults, func(a, b setting.Fault) int { return strings.Compare(a.Key, b.Key) })
	return faults
}

// parsePrefix reads a network or one address. Bits below the mask are refused: 10.1.2.3/8 is rarely what was meant.
func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is neither a network such as 10.1.2.0/24 nor an address (names are matched under hosts)", s)
	}
	if p.Masked() != p {
		return p, fmt.Errorf("%q has bits set below its mask: write %s", s, p.Masked())
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("%q reaches beyond the IPv4-mapped addresses: write IPv4 networks as such", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, nil
}

// Ports is auto (the zero value) or a list of ports and ranges.
type Ports struct{ ranges []portRange }

type portRange struct{ first, last uint16 }

var errPorts = errors.New("must be auto, or a list of ports and ranges such as [80, 443, 8000-8999]")

// DecodeSetting takes auto, a port, a range, or a list of ports and ranges.
func (p *Ports) DecodeSetting(v any) error {
	items, isList := v.([]any)
	switch {
	case v == Auto:
		*p = Ports{}
		return nil
	case isList && len(items) == 0:
		return errors.New("is an empty list: nothing could be reached; write auto, or ports such as [80, 443]")
	case !isList:
		items = []any{v}
	}
	ranges := make([]portRange, 0, len(items))
	for _, item := range items {
		r, err := parseRange(item)
		if err != nil {
			return err
		}
		ranges = append(ranges, r)
	}
	p.ranges = ranges
	return nil
}

func parseRange(v any) (portRange, error) {
	var first, last string
	switch v := v.(type) {
	case int64:
		first = strconv.FormatInt(v, 10)
		last = first
	case string:
		var isRange bool
		if first, last, isRange = strings.Cut(v, "-"); !isRange {
			last = first
		}
	default:
		return portRange{}, errPorts
	}
	a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	switch {
	case errA != nil || errB != nil || a == 0:
		return portRange{}, fmt.Errorf("%v is not a port from 1 to 65535 or a range such as 8000-8999", v)
	case a > b:
		return portRange{}, fmt.Errorf("the range %v ends before it begins", v)
	}
	return portRange{uint16(a), uint16(b)}, nil
}

// SettingKind describes what may be written.
func (Ports) SettingKind() string { return "auto, or a list of ports and ranges" }

// Auto tells whether no list was written.
func (p Ports) Auto() bool { return p.ranges == nil }

// String is auto or the list as it may be written.
func (p Ports) String() string {
	if p.Auto() {
		return Auto
	}
	parts := make([]string, len(p.ranges))
	for i, r := range p.ranges {
		parts[i] = strconv.Itoa(int(r.first))
		if r.last != r.first {
			parts[i] += "-" + strconv.Itoa(int(r.last))
		}
	}
	return strings.Join(parts, ", ")
}

// MarshalText is String.
func (p Ports) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
