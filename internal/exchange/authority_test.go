package exchange

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// TestParseAuthority: one spelling for each authority (A3, A4).
func TestParseAuthority(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct{ in, want string }{
		{"api.example.com", "api.example.com:443"},
		{"API.Example.COM.", "api.example.com:443"},
		{"api.example.com:8443", "api.example.com:8443"},
		{"_dmarc.example.com", "_dmarc.example.com:443"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example:443"},
		{"192.0.2.1", "192.0.2.1:443"},
		{"[2001:DB8::1]", "[2001:db8::1]:443"},
		{"[2001:db8:0:0::1]:80", "[2001:db8::1]:80"},
		{"[::ffff:169.254.169.254]:80", "169.254.169.254:80"},
		{"[::ffff:a9fe:a9fe]:80", "169.254.169.254:80"},
		{long + ".example.com:65535", long + ".example.com:65535"},
	} {
		a, err := ParseAuthority(c.in, 443)
		if err != nil || a.String() != c.want {
			t.Errorf("ParseAuthority(%q) = %v, %v; want %s", c.in, a, err, c.want)
		}
	}
}

// TestParseAuthorityRefuses: what somebody might read differently (A2, A3, A4, A5, A6, A7).
func TestParseAuthorityRefuses(t *testing.T) {
	for _, in := range []string{
		"", ":443", "a:", "a:0", "a:080", "a:99999", "a:65536", "a:http", "a:-1", "a:+1", "a:1:2",
		"a..b", ".a", "a b", "a\tb", "a\x00", "a\r\nb", "a/b", "a?b", "a#b", "a@b", "a\\b", "a%2eb", "a,b", "a;b",
		"2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "0", "1.2.3.4.5", "256.1.1.1", "1.2.3", "0x7f.1", "example.0x1",
		"[example.com]", "[::1", "::1", "[::1]x", "[fe80::1%25lo]", "[fe80::1%lo]", "[127.0.0.1]", "[]",
		"bücher.example", "１２７.0.0.1", "exam。ple", "ⓔxample.com", "a\u00adb.example",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "example",
	} {
		a, err := ParseAuthority(in, 443)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Code != BadRequest {
			t.Errorf("ParseAuthority(%q) = %v, %v; want bad_request", in, a, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\r\n\x00") {
			t.Errorf("the refusal of %q repeats it", in)
		}
	}
	if _, err := ParseAuthority("example.com", 0); err == nil {
		t.Error("a missing port was let through where there is no default")
	}
}

// TestAs: the text that came is used again only where it is letter for letter what String would say.
func TestAs(t *testing.T) {
	for _, c := range []struct {
		a    Authority
		said string
		same bool
	}{
		{Authority{"api.example.com", 8080}, "api.example.com:8080", true},
		{Authority{"api.example.com", 8080}, "API.example.com:8080", false},
		{Authority{"api.example.com", 80}, "api.example.com", false},
		{Authority{"api.example.com", 80}, "api.example.com:", false},
		{Authority{"api.example.com", 80}, "api.example.com:080", false},
		{Authority{"api.example.com", 80}, "api.example.com:8", false},
		{Authority{"api.example.com", 80}, "api.example.com:800", false},
		{Authority{"api.example.com", 80}, "api.example.com:80x", false},
		{Authority{"api.example.com", 1}, "api.example.com:65537", false},
		{Authority{"api.example.com", 1}, "api.example.com:4294967297", false},
		{Authority{"192.0.2.1", 65535}, "192.0.2.1:65535", true},
		{Authority{"2001:db8::1", 80}, "2001:db8::1:80", false},
		{Authority{"2001:db8::1", 80}, "[2001:db8::1]:80", true}, // equal, if not the same memory
		{Authority{"api.example.com", 80}, "", false},
	} {
		got := c.a.As(c.said)
		if got != c.a.String() || (got == c.said) != c.same {
			t.Errorf("%v as %q is %q", c.a, c.said, got)
		}
	}
}

func TestForScheme(t *testing.T) {
	for _, c := range []struct {
		a            Authority
		scheme, want string
	}{
		{Authority{"a.example", 80}, "http", "a.example"},
		{Authority{"a.example", 443}, "https", "a.example"},
		{Authority{"a.example", 443}, "http", "a.example:443"},
		{Authority{"2001:db8::1", 443}, "https", "[2001:db8::1]"},
		{Authority{"2001:db8::1", 8443}, "https", "[2001:db8::1]:8443"},
	} {
		if got := c.a.ForScheme(c.scheme); got != c.want {
			t.Errorf("%v.ForScheme(%s) = %s; want %s", c.a, c.scheme, got, c.want)
		}
	}
}

func TestAddr(t *testing.T) {
	for host, literal := range map[string]bool{"a.example": false, "example.c0m": false, "192.0.2.1": true, "2001:db8::1": true} {
		text := host
		if strings.Contains(host, ":") {
			text = "[" + host + "]"
		}
		a, err := ParseAuthority(text, 1)
		if err != nil {
			t.Fatal(err)
		}
		if addr, ok := a.Addr(); ok != literal || ok && addr != netip.MustParseAddr(host) {
			t.Errorf("%s: Addr() = %v, %v", host, addr, ok)
		}
	}
}

// FuzzParseAuthority: what is accepted is a fixed point, and nobody reads it differently.
func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"api.example.com:443", "[2001:db8::1]:80", "127.1", "a@b", "EXAMPLE.com.", "0x7f.1:80", "[::ffff:1.2.3.4]", "a%2eb", "é.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAuthority(s, 80)
		if err != nil {
			return
		}
		again, err := ParseAuthority(a.String(), 0)
		if err != nil || again != a {
			t.Fatalf("%q became %v, which became %v, %v", s, a, again, err)
		}
		if strings.ToLower(a.Host) != a.Host || strings.ContainsAny(a.Host, "@/?#%\\ \t\r\n\x00") || strings.HasSuffix(a.Host, ".") {
			t.Fatalf("%q became %q", s, a.Host)
		}
		if addr, err := netip.ParseAddr(a.Host); err == nil && (addr.Is4In6() || addr.Zone() != "") {
			t.Fatalf("%q became %v", s, addr)
		}
	})
}

func BenchmarkParseAuthority(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = ParseAuthority("api.example.com:443", 0)
	}
}

// TestHostIn: a host is found in its own case at the beginning of a target, and is itself where it is not there.
func TestHostIn(t *testing.T) {
	for _, c := range []struct{ target, host, want string }{
		{"API.Example.com:443", "api.example.com", "API.Example.com"}, {"https://API.Example.com/x", "api.example.com", "API.Example.com"},
		{"http://api.example.com/API", "api.example.com", "api.example.com"}, {"/x", "api.example.com", "api.example.com"}, {"", "", ""}, {"x", "", ""},
		{"http://a.example.com/" + strings.Repeat("x", 100) + "API.Example.com", "api.example.com", "api.example.com"},
	} {
		if got := HostIn(c.target, c.host); got != c.want {
			t.Errorf("%s in %s: %q", c.host, c.target, got)
		}
	}
}
