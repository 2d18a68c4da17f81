package destination

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

func compile(t testing.TB, c Config, loopbackOnly bool) *Rules {
	t.Helper()
	if faults := c.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	r, err := Compile(c, loopbackOnly)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func denied(t testing.TB, err error) bool {
	t.Helper()
	var refusal *exchange.Refusal
	if err != nil && (!errors.As(err, &refusal) || refusal.Code != exchange.DestinationDenied) {
		t.Fatalf("%v is not a destination_denied", err)
	}
	return err != nil
}

func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// TestEdges tries the first and the last address of each network of the tables (A1, 5.1).
func TestEdges(t *testing.T) {
	strict := compile(t, Default(), false)
	open := compile(t, Default(), true)
	for _, s := range append(append([]special{}, specials4...), specials6...) {
		if s.class == public {
			continue
		}
		for _, a := range []netip.Addr{s.prefix.Addr(), last(s.prefix)} {
			if !denied(t, strict.CheckAddr(a)) {
				t.Errorf("%s of %s passes", a, s.prefix)
			}
			if s.class == metadata || s.class == linkLocal || s.class == multicast || s.class == reserved {
				if !denied(t, open.CheckAddr(a)) {
					t.Errorf("%s of %s passes where private addresses may", a, s.prefix)
				}
			}
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		addr         string
		strict, open bool // passes
	}{
		{"8.8.8.8", true, true}, {"1.1.1.1", true, true}, {"2606:4700::1", true, true}, {"2a00::1", true, true},
		{"9.255.255.255", true, true}, {"11.0.0.0", true, true}, {"100.63.255.255", true, true}, {"100.128.0.0", true, true},
		{"172.15.255.255", true, true}, {"172.32.0.0", true, true}, {"223.255.255.255", true, true},
		{"10.0.0.1", false, true}, {"127.0.0.1", false, true}, {"::1", false, true}, {"fd12::1", false, true}, {"192.168.1.1", false, true},
		{"169.254.169.254", false, false}, {"::ffff:169.254.169.254", false, false}, {"fd00:ec2::254", false, false},
		{"fd00:ec2::23", false, false}, {"fd20:ce::254", false, false}, {"168.63.129.16", false, false}, {"100.100.100.200", false, false},
		{"192.0.0.192", false, false}, {"169.254.170.2", false, false}, {"fe80::1", false, false}, {"fe80::1%lo", false, false},
		{"64:ff9b::a9fe:a9fe", false, false}, {"64:ff9b:1::a9fe:a9fe", false, false}, {"2002:a9fe:a9fe::1", false, false},
		{"::a9fe:a9fe", false, false}, {"::ffff:0:a9fe:a9fe", false, false}, {"2001:0:a9fe:a9fe::1", false, false},
		{"2001::5601:5601", false, false}, // Teredo: the client's address is inverted
		{"64:ff9b::808:808", true, true}, {"64:ff9b::7f00:1", false, true}, {"2002:7f00:1::1", false, true},
		{"255.255.255.255", false, false}, {"224.0.0.1", false, false}, {"240.0.0.1", false, false}, {"ff02::1", false, false},
		{"0.1.2.3", false, false}, {"0.0.0.0", false, true}, {"::", false, true},
	} {
		a := netip.MustParseAddr(c.addr)
		if got := !denied(t, compile(t, Default(), false).CheckAddr(a)); got != c.strict {
			t.Errorf("%s: passes is %v", c.addr, got)
		}
		if got := !denied(t, compile(t, Default(), true).CheckAddr(a)); got != c.open {
			t.Errorf("%s on loopback: passes is %v", c.addr, got)
		}
	}
}

func TestLists(t *testing.T) {
	r := compile(t, Config{Private: Deny, Metadata: Deny, Allow: []string{"10.1.0.0/16", "169.254.0.0/16", "0.0.0.0/0"},
		Deny: []string{"10.1.2.3", "8.8.8.0/24"}}, true)
	for addr, passes := range map[string]bool{"10.1.0.1": true, "10.1.2.3": false, "::ffff:10.1.2.3": false, "8.8.8.8": false,
		"169.254.169.254": false, "fd12::1": false, "64:ff9b::a01:203": false} {
		if got := !denied(t, r.CheckAddr(netip.MustParseAddr(addr))); got != passes {
			t.Errorf("%s: passes is %v", addr, got)
		}
	}
	opened := compile(t, Config{Private: Deny, Metadata: Allow}, true)
	if denied(t, opened.CheckAddr(netip.MustParseAddr("169.254.169.254"))) || !denied(t, opened.CheckAddr(netip.MustParseAddr("10.0.0.1"))) {
		t.Error("metadata: allow opens the wrong addresses")
	}
}

func TestNoAddressInTheRefusal(t *testing.T) {
	err := compile(t, Default(), false).CheckAddr(netip.MustParseAddr("10.1.2.3"))
	if err == nil || strings.Contains(err.Error(), "10.") || !strings.Contains(err.Error(), "private") {
		t.Error(err)
	}
}

func TestPorts(t *testing.T) {
	var p Ports
	if err := p.DecodeSetting([]any{int64(80), "8000-8999", "443"}); err != nil {
		t.Fatal(err)
	}
	if p.String() != "80, 8000-8999, 443" {
		t.Error(p)
	}
	c := Default()
	c.Ports = p
	for port, passes := range map[uint16]bool{80: true, 81: false, 443: true, 7999: false, 8000: true, 8999: true, 9000: false, 0: false} {
		if got := !denied(t, compile(t, c, true).CheckPort(port)); got != passes {
			t.Errorf("%d: passes is %v", port, got)
		}
	}
	if denied(t, compile(t, Default(), true).CheckPort(25)) || !denied(t, compile(t, Default(), false).CheckPort(25)) {
		t.Error("auto")
	}
	for _, bad := range []any{[]any{}, int64(0), int64(65536), "x", "9-8", "-", "80-", true, 1.5, []any{true}, []any{"0-80"}} {
		if err := p.DecodeSetting(bad); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if err := p.DecodeSetting("auto"); err != nil || !p.Auto() {
		t.Error(err)
	}
	var _ setting.Decoder = &p
}

func TestFaults(t *testing.T) {
	c := Config{Private: "maybe", Metadata: "", Allow: []string{"10.1.2.3/8", "example.com"}, Deny: []string{"fe80::1%lo"}}
	var keys []string
	for _, f := range c.Validate() {
		keys = append(keys, f.Key)
	}
	if got := strings.Join(keys, " "); got != "allow[0] allow[1] deny[0] metadata private" {
		t.Error(got)
	}
}

func TestNoAllocation(t *testing.T) {
	r := compile(t, Config{Private: Deny, Metadata: Deny, Allow: []string{"10.1.0.0/16"}}, false)
	a, b := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2606:4700::1")
	if n := testing.AllocsPerRun(100, func() { _, _ = r.CheckAddr(a), r.CheckAddr(b) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
