package match

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"httpowerd/internal/exchange"
)

func TestParsePattern(t *testing.T) {
	for in, want := range map[string]string{
		"api.example.com": "api.example.com", "API.Example.COM.": "api.example.com", "api.example.com:8443": "api.example.com:8443",
		"*.example.com": "*.example.com", "*.EXAMPLE.com.": "*.example.com", "*.example.com:1": "*.example.com:1", "*": "*", "*:8443": "*:8443",
		"localhost": "localhost", "a_b.example.com": "a_b.example.com", "xn--caf-dma.example.com": "xn--caf-dma.example.com", "*.local": "*.local",
		"192.0.2.7": "192.0.2.7", "192.0.2.7:80": "192.0.2.7:80", "[2001:DB8:0::1]": "[2001:db8::1]", "[2001:db8::1]:443": "[2001:db8::1]:443",
		"[::ffff:192.0.2.7]": "192.0.2.7", "[::ffff:192.0.2.7]:65535": "192.0.2.7:65535",
	} {
		p, err := ParsePattern(in)
		if err != nil || p.String() != want {
			t.Errorf("%s: %s, %v; want %s", in, p, err, want)
		}
		if again, err := ParsePattern(p.String()); err != nil || again != p {
			t.Errorf("%s does not come back: %s, %v", p, again, err)
		}
	}
}

func TestPatternFaults(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "write a host such as api.example.com, or * for every host",
		"https://api.example.com/":        "is a URL: write its host alone",
		"https://u:hunter2@example.com":   "is a URL",
		"user:hunter2@example.com":        "has userinfo before an @",
		"api.example.com/v1":              "has a path: write the host alone, and the path in a route's match",
		"10.0.0.0/8":                      "is a network: write a name or one address",
		"2001:db8::/32":                   "is a network",
		"caf\u00e9.example.com":           "beginning with xn--",
		"*.b\u00fccher.example":           "beginning with xn--",
		"2001:DB8::1":                     "write [2001:db8::1]",
		"::ffff:192.0.2.7":                "write 192.0.2.7",
		"a:b:c":                           "has more than one colon",
		"[2001:db8::1":                    "lacks the closing bracket",
		"[192.0.2.7]:80":                  "write 192.0.2.7:80",
		"[example.com]":                   "has no IPv6 address in its brackets",
		"[fe80::1%eth0]":                  "has a zone, which no request can name: write [fe80::1]",
		"[2001:db8::1]443":                "write [2001:db8::1] or [2001:db8::1]:443",
		"[2001:db8::1]:":                  "leave the colon out",
		"example.com:":                    "leave the colon out to match every port",
		"example.com:*":                   "leave the colon out to match every port",
		"example.com:0":                   "a number from 1 to 65535",
		"example.com:080":                 "a number from 1 to 65535",
		"example.com:99999":               "a number from 1 to 65535",
		"example.com:+80":                 "a number from 1 to 65535",
		"example.com:http":                "a number from 1 to 65535",
		":8443":                           "has no host before its port",
		"*.":                              "write * for every host",
		"*.:443":                          "write * for every host",
		".example.com":                    "write *.example.com for the names below example.com",
		"*example.com":                    "write *.example.com for the names below example.com",
		"*.*":                             "has a * that is not",
		"api.*.com":                       "has a * that is not",
		"**":                              "has a * that is not",
		"**.example.com":                  "has a * that is not",
		"a..example.com":                  "has two dots in a row",
		"a b.example.com":                 "has the character ' '",
		"a%2eb.example.com":               "has the character '%'",
		"127.1":                           "write four decimal numbers such as 127.0.0.1",
		"0x7f.1":                          "write four decimal numbers",
		"192.0.2.7.":                      "write four decimal numbers",
		"*.7":                             "write four decimal numbers",
		"*.192.0.2.7":                     "nothing lies below an address: write 192.0.2.7",
		strings.Repeat("a", 64) + ".com":  "a label longer than 63",
		strings.Repeat("a.", 127) + "com": "longer than 253",
	} {
		p, err := ParsePattern(in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %s, %v; want %s", in, p, err, want)
		}
	}
}

func indexOf(t testing.TB, patterns ...string) *Index[string] {
	t.Helper()
	x := NewIndex[string]()
	for _, s := range patterns {
		p, err := ParsePattern(s)
		if err != nil {
			t.Fatal(s, err)
		}
		if err := x.Add(p, s); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

func target(t testing.TB, s string) exchange.Authority {
	t.Helper()
	a, err := exchange.ParseAuthority(s, 443)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestFind: the nearest pattern, and none that only looks like it (A21).
func TestFind(t *testing.T) {
	all := []string{"*", "*:8443", "*.example.com", "*.example.com:8443", "*.a.example.com", "api.example.com", "api.example.com:8443", "other.example.com:8443",
		"x.a.example.com:1", "192.0.2.7", "[2001:db8::1]:443"}
	backwards := make([]string, len(all))
	for i, s := range all {
		backwards[len(all)-1-i] = s
	}
	for _, patterns := range [][]string{all, backwards} {
		x := indexOf(t, patterns...)
		for in, want := range map[string]string{
			"api.example.com": "api.example.com", "api.example.com:8443": "api.example.com:8443", "API.example.com.:9": "api.example.com",
			"www.example.com": "*.example.com", "www.example.com:8443": "*.example.com:8443", "b.c.example.com": "*.example.com",
			"example.com": "*", "example.com:8443": "*:8443", "evilexample.com": "*", "example.com.evil.test": "*",
			"other.example.com:8443": "other.example.com:8443", "other.example.com": "*.example.com",
			"b.a.example.com:8443": "*.a.example.com", // the longer suffix wins over the port
			"a.example.com":        "*.example.com", "x.a.example.com:1": "x.a.example.com:1", "x.a.example.com": "*.a.example.com",
			"192.0.2.7": "192.0.2.7", "192.0.2.8": "*", "[2001:db8::1]": "[2001:db8::1]:443", "[2001:db8::1]:80": "*", "[::ffff:192.0.2.7]": "192.0.2.7",
		} {
			v, p, ok := x.Find(target(t, in))
			if !ok || v != want || p.String() != want {
				t.Errorf("%s: %s %s %v, want %s", in, v, p, ok, want)
			}
		}
	}
	if v, p, ok := indexOf(t, "*.example.com:8443", "api.example.com").Find(target(t, "api.example.com:8443")); !ok || v != "api.example.com" {
		t.Errorf("an exact name lost to a suffix with a port: %s %s %v", v, p, ok)
	}
	if v, _, ok := indexOf(t, "*.example.com:8443", "api.example.com:1").Find(target(t, "api.example.com")); ok || v != "" {
		t.Errorf("nothing should match, %s did", v)
	}
	p, err := ParsePattern("API.example.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := indexOf(t, "api.example.com").Add(p, "again"); err == nil {
		t.Error("one pattern was added twice")
	}
}

func TestFindIsSafeForConcurrentReaders(t *testing.T) {
	x, a := indexOf(t, "*.example.com", "api.example.com:8443"), target(t, "b.example.com")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				if v, _, _ := x.Find(a); v != "*.example.com" {
					t.Error(v)
					return
				}
			}
		})
	}
	wg.Wait()
}

// naive is Find as one would say it: all patterns that fit, the best by name, then by port.
func naive(patterns []Pattern, a exchange.Authority) (best Pattern, ok bool) {
	score := func(p Pattern) int {
		s := 0
		switch p.kind {
		case exact:
			s = 1 << 20
		case suffix:
			s = 2 * (1 + len(p.name))
		}
		if p.port != 0 {
			s++
		}
		return s
	}
	for _, p := range patterns {
		fits := p.kind == everything || p.kind == exact && p.name == a.Host || p.kind == suffix && strings.HasSuffix(a.Host, "."+p.name)
		if fits && (p.port == 0 || p.port == a.Port) && (!ok || score(p) > score(best)) {
			best, ok = p, true
		}
	}
	return best, ok
}

func FuzzFind(f *testing.F) {
	f.Add("* *.example.com api.example.com *.example.com:8443", "api.example.com:8443")
	f.Add("*.a.a a.a *:1 a.a:1", "a.a.a:1")
	f.Add("*.example.com", "evilexample.com")
	f.Add("*.com *.example.com example.com", "example.com.")
	f.Add("[2001:db8::1]:443 192.0.2.7", "[::ffff:192.0.2.7]:443")
	f.Add("https://a 127.1 *.* **.a [::1", "a")
	f.Fuzz(func(t *testing.T, list, host string) {
		x := NewIndex[Pattern]()
		var patterns []Pattern
		for _, s := range strings.Fields(list) {
			p, err := ParsePattern(s)
			if err != nil {
				continue
			}
			if again, err := ParsePattern(p.String()); err != nil || again != p {
				t.Fatalf("%q: %s does not come back: %v", s, p, err)
			}
			if x.Add(p, p) == nil {
				patterns = append(patterns, p)
			}
		}
		a, err := exchange.ParseAuthority(host, 443)
		if err != nil {
			return
		}
		v, p, ok := x.Find(a)
		want, wantOK := naive(patterns, a)
		if ok != wantOK || (ok && (v != want || p != want)) {
			t.Errorf("%v: %s %v, want %s %v of %v", a, p, ok, want, wantOK, patterns)
		}
		if _, literal := a.Addr(); ok && literal && p.kind == suffix {
			t.Errorf("the address %v lies below %s", a, p)
		}
		if addr, err := netip.ParseAddr(p.name); ok && err == nil && addr.String() != p.name {
			t.Errorf("%s is not canonical", p)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 1000, 10000} {
		x := NewIndex[int]()
		for i := range n {
			s := "*.service" + strconv.Itoa(i) + ".example.com"
			if i%2 == 1 {
				s = "api" + s[1:]
			}
			p, err := ParsePattern(s)
			if err == nil {
				err = x.Add(p, i)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		for name, host := range map[string]string{"suffix": "a.b.service0.example.com", "none": "a.b.c.elsewhere.example.org"} {
			a := target(b, host)
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, _, ok := x.Find(a); ok != (name == "suffix") {
						b.Fatal(ok)
					}
				}
			})
		}
	}
}
