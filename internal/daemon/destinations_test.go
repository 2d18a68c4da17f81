package daemon

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// decision is what became of a request: its code, or the name that the upstream was asked by.
type decision struct {
	status int
	code   string
}

// decisions sends a request for an authority on every way and returns what became of it.
type decisions map[string]func(authority string) decision

func decisionOf(a answer) decision { return decision{a.StatusCode, a.Header.Get("Httpowerd-Error")} }

func newDecisions(tunnelling, intercepting, upgrading *box) decisions {
	get := func(b *box) func(string) decision {
		return func(authority string) decision {
			c := b.dialProxy()
			defer c.Close()
			c.send("GET http://" + authority + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
			return decisionOf(c.answer(http.MethodGet))
		}
	}
	return decisions{
		"plain":   get(tunnelling),
		"upgrade": get(upgrading),
		"tunnel": func(authority string) decision {
			c := tunnelling.dialProxy()
			defer c.Close()
			return decisionOf(c.connect(authority))
		},
		"plaintext in a tunnel": func(authority string) decision {
			c := tunnelling.dialProxy()
			defer c.Close()
			if a := c.connect(authority); a.StatusCode != 200 {
				return decisionOf(a)
			}
			c.send("GET / HTTP/1.1\r\nHost: " + authority + "\r\n\r\n")
			return decisionOf(c.answer(http.MethodGet))
		},
		"intercepted": func(authority string) decision {
			c := intercepting.dialProxy()
			defer c.Close()
			if a := c.connect(authority); a.StatusCode != 200 {
				return decisionOf(a)
			}
			c.Close()
			c = intercepting.intercepted(authority, "http/1.1")
			defer c.Close()
			c.send("GET / HTTP/1.1\r\nHost: " + authority + "\r\n\r\n")
			return decisionOf(c.answer(http.MethodGet))
		},
		"intercepted h2": func(authority string) decision {
			c := intercepting.dialProxy()
			defer c.Close()
			if a := c.connect(authority); a.StatusCode != 200 {
				return decisionOf(a)
			}
			c.Close()
			h := intercepting.dialH2(authority)
			defer h.Close()
			h.request(1, true, ":method", "GET", ":scheme", "https", ":authority", authority, ":path", "/")
			body := h.body(1)
			if body == "ok" {
				return decision{200, ""}
			}
			d := decision{}
			_, rest, _ := strings.Cut(body, `"status":`)
			_, _ = fmt.Sscan(rest, &d.status)
			_, rest, _ = strings.Cut(body, `"code":"`)
			d.code, _, _ = strings.Cut(rest, `"`)
			return d
		},
	}
}

// TestHosts: the same spelling of a host gives the same decision on every way (A1, A2, A3, A4, A5, A6, A7, A13, A19, G24,
// G25).
func TestHosts(t *testing.T) {
	all := ways(t, "", okAnswer)
	plain, secure := all[0].origin, all[3].origin
	upstream := func(o *rawOrigin) string {
		return "retry: off, upstream: {ca: " + all[3].ca + ", resolve: {a.example.com: \"" + o.addr + "\"}}"
	}
	tunnelling := start(t, "defaults: {"+upstream(plain)+"}")
	intercepting := start(t, "defaults: {tls: intercept, "+upstream(secure)+"}")
	upgrading := start(t, "defaults: {upgrade: https, "+upstream(secure)+"}")
	listeners := func(b *box) (proxy, admin string) {
		_, proxy, _ = net.SplitHostPort(b.ProxyAddrs()[0])
		_, admin, _ = net.SplitHostPort(b.AdminAddr())
		return
	}
	bad, denied, loop, fine := decision{400, "bad_request"}, decision{403, "destination_denied"}, decision{502, "loop"}, decision{200, ""}
	corpus := map[string]decision{"a.example.com:80": fine, "A.Example.COM:80": fine, "a.example.com.:80": fine, "a.example.com:8443": fine}
	for _, host := range []string{"127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "0", "127.0.0.1.", "1.2.3.4.5", "256.1.1.1", "1.2.3",
		"\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "a.example\u3002com", "\u24d0.example.com", "a\u00ad.example.com", "b\u00fccher.example",
		"user@a.example.com", "user:pw@a.example.com", "a.example.com\\@evil.example", "a.example.com@evil.example", "a%2eexample.com", "a%00.example.com", "%61.example.com",
		"[example.com]", "[127.0.0.1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[::1", "a..example.com", ".example.com", "a b.example.com", "a,b.example.com", "a;b", "a|b", "*.example.com",
		strings.Repeat("a", 64) + ".example.com", strings.Repeat("a.", 127) + "com"} {
		corpus[host+":80"] = bad
	}
	for _, port := range []string{":0080", ":", ":0", ":99999", ":65536", ":http", ":+80", ":-80", ":80:80", ":8a", ":\uff18\uff10"} {
		corpus["a.example.com"+port] = bad
	}
	for _, host := range []string{"169.254.169.254", "169.254.170.2", "[::ffff:a9fe:a9fe]", "[::ffff:169.254.169.254]", "[0:0:0:0:0:FFFF:A9FE:A9FE]", "[64:ff9b::a9fe:a9fe]",
		"[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[::a9fe:a9fe]", "[::ffff:0:a9fe:a9fe]", "[2001:0:a9fe:a9fe::1]", "[2001::5601:5601]", "[fd00:ec2::254]", "[fd20:ce::254]",
		"[fe80::1]", "100.100.100.200", "168.63.129.16", "192.0.0.192", "255.255.255.255", "224.0.0.1", "240.0.0.1", "0.1.2.3", "[ff02::1]"} {
		corpus[host+":80"] = denied
	}
	for way, decide := range newDecisions(tunnelling, intercepting, upgrading) {
		for authority, want := range corpus {
			if got := decide(authority); got != want {
				t.Errorf("%s, %s: %v; want %v", way, authority, got, want)
			}
		}
		own := map[string]*box{"intercepted": intercepting, "intercepted h2": intercepting, "upgrade": upgrading}[way]
		if own == nil {
			own = tunnelling
		}
		proxy, admin := listeners(own)
		for _, port := range []string{proxy, admin} {
			for _, host := range []string{"127.0.0.1", "localhost", "LOCALHOST.", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]"} {
				if got := decide(host + ":" + port); got != loop {
					t.Errorf("%s, %s: %v; want %v", way, host, got, loop)
				}
			}
		}
	}
	for _, o := range []*rawOrigin{plain, secure} {
		for _, r := range o.requests() {
			_, rest, _ := strings.Cut(r, "\r\nHost: ")
			if host, _, _ := strings.Cut(rest, "\r\n"); !strings.HasPrefix(host, "a.example.com") || strings.HasPrefix(host, "a.example.com.") {
				t.Errorf("the upstream received %q", r)
			}
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// denyRanges are the networks that nobody may reach from a proxy that is not on loopback alone.
var denyRanges = []string{"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32", "169.254.169.254/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "169.254.170.2/32",
	"::/128", "::1/128", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001:db8::/32", "2002::/16",
	"2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "fd00:ec2::254/128", "fd20:ce::254/128"}

// TestDenyRanges tries the first and last address of each network, and their neighbours, with GET and CONNECT. A parent proxy stands in for
// the internet: what it is asked for was let through (5.1; A1, A3).
func TestDenyRanges(t *testing.T) {
	parent := newRawOrigin(t, okAnswer+"<close>")
	b := start(t, "destinations: {private: deny, ports: [\"1-65535\"], allow: [\"169.254.0.0/16\", \"100.100.100.200/32\", \"168.63.129.16/32\", \"192.0.0.192/32\"]}\n"+
		"defaults: {retry: off, upstream: {proxy: \"http://"+parent.addr+"\"}}")
	prefixes := make([]netip.Prefix, len(denyRanges))
	for i, text := range denyRanges {
		prefixes[i] = netip.MustParsePrefix(text)
	}
	denied := func(a netip.Addr) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	tried, passed := map[netip.Addr]bool{}, 0
	for _, p := range prefixes {
		end := lastOf(p)
		for _, a := range []netip.Addr{p.Addr().Prev(), p.Addr(), end, end.Next()} {
			if !a.IsValid() || tried[a] || a.Is4In6() {
				continue
			}
			tried[a] = true
			authority := netip.AddrPortFrom(a, 8080).String()
			c := b.dialProxy()
			c.send("GET http://" + authority + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
			plain := c.answer(http.MethodGet)
			c.Close()
			c = b.dialProxy()
			tunnel := c.connect(authority)
			c.Close()
			if denied(a) {
				refused(t, plain, 403, "destination_denied")
				refused(t, tunnel, 403, "destination_denied")
				if strings.Contains(plain.body, a.String()) {
					t.Errorf("the refusal of %s tells the address: %s", a, plain.body)
				}
			} else if passed += 2; plain.body != "ok" || tunnel.StatusCode != 200 {
				t.Errorf("%s is in none of the networks: %s, %s", a, plain.Status, tunnel.Status)
			}
		}
	}
	if got := parent.requests(); len(got) != passed || passed < 50 {
		t.Errorf("the parent was asked %d times; want %d", len(got), passed)
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// TestPorts: a port that is not listed is not reached, by whatever way (A12).
func TestPorts(t *testing.T) {
	const config = "destinations: {ports: [80, 443]}\ndefaults: {retry: off"
	tunnelling, intercepting, upgrading := start(t, config+"}"), start(t, config+", tls: intercept}"), start(t, config+", upgrade: https}")
	for way, decide := range newDecisions(tunnelling, intercepting, upgrading) {
		for _, port := range []string{"22", "25", "53", "81", "444", "3306", "6379", "8080", "65535"} {
			for _, host := range []string{"a.example.com", "127.0.0.1", "[::1]"} {
				if got := decide(host + ":" + port); got != (decision{403, "destination_denied"}) {
					t.Errorf("%s, %s:%s: %v", way, host, port, got)
				}
			}
		}
	}
}

// TestNotListed: where only some names may be reached, an address may not, nor a name that only looks like one of them (A15, A21).
func TestNotListed(t *testing.T) {
	all := ways(t, "", okAnswer)
	resolve := "upstream: {resolve: {api.example.com: \"" + all[0].origin.addr + "\", example.com: \"" + all[0].origin.addr + "\"}}"
	const hosts = "\nhosts: {api.example.com: {access: allow}, \"*.sub.example.com\": {access: allow}}"
	config := "defaults: {retry: off, access: deny, " + resolve
	tunnelling, intercepting, upgrading := start(t, config+"}"+hosts), start(t, config+", tls: intercept}"+hosts), start(t, config+", upgrade: https}"+hosts)
	for way, decide := range newDecisions(tunnelling, intercepting, upgrading) {
		for _, host := range []string{"127.0.0.1", "[::1]", "192.0.2.1", "example.com", "evilapi.example.com", "api.example.com.evil.example", "sub.example.com", "evilsub.example.com",
			"xsub.example.com", "api.example.co"} {
			if got := decide(host + ":80"); got != (decision{403, "denied"}) {
				t.Errorf("%s, %s: %v", way, host, got)
			}
		}
	}
	if got := newDecisions(tunnelling, intercepting, upgrading)["plain"]("API.example.com.:80"); got.status != 200 {
		t.Errorf("the name that may be reached: %v", got)
	}
}

// TestOwnListenersByAnyName: a daemon on all addresses is not reached through itself, however it is called (A13).
func TestOwnListenersByAnyName(t *testing.T) {
	listens := []string{"0.0.0.0:0"}
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil { // else the machine has no IPv6
		l.Close()
		listens = append(listens, "[::]:0")
	}
	for _, listen := range listens {
		b := startOn(t, "proxy: {open: true}\ndestinations: {private: allow, ports: [\"1-65535\"]}\ndefaults: {retry: off}", listen)
		_, port, _ := net.SplitHostPort(b.ProxyAddrs()[0])
		hosts := []string{"localhost", "127.0.0.1", "127.0.0.2", "0.0.0.0", "[::ffff:127.0.0.1]"}
		if listen == "[::]:0" {
			hosts = append(hosts, "[::1]", "[::]")
		}
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			p := netip.MustParsePrefix(a.String())
			if p.Addr().IsLinkLocalUnicast() || p.Addr().Is6() && listen != "[::]:0" {
				continue
			}
			host := p.Addr().String()
			if p.Addr().Is6() {
				host = "[" + host + "]"
			}
			hosts = append(hosts, host)
		}
		for _, host := range hosts {
			c := b.dialProxy()
			c.send("GET http://" + host + ":" + port + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
			refused(t, c.answer(http.MethodGet), 502, "loop")
			refused(t, b.dialProxy().connect(host+":"+port), 502, "loop")
		}
	}
}

// TestCircle: two daemons that are each other's parent notice it, with GET, CONNECT and https in absolute form (A14).
func TestCircle(t *testing.T) {
	b := start(t, "defaults: {retry: off, breaker: off}")
	second := start(t, "defaults: {retry: off, breaker: off, upstream: {proxy: \"http://"+b.ProxyAddrs()[0]+"\"}}")
	b.write("defaults: {retry: off, breaker: off, upstream: {proxy: \"http://" + second.ProxyAddrs()[0] + "\"}}")
	if err := b.Reload(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	c := b.dialProxy()
	c.send("GET http://loop.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if a := c.answer(http.MethodGet); a.StatusCode != 502 || !strings.Contains(a.body, `"code":"loop"`) {
		t.Errorf("GET: %s %s", a.Status, a.body)
	}
	if a := b.dialProxy().connect("loop.example.com:443"); a.StatusCode != 502 {
		t.Errorf("CONNECT: %s %s", a.Status, a.body)
	}
	c = b.dialProxy()
	c.send("GET https://loop.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if a := c.answer(http.MethodGet); a.StatusCode != 502 {
		t.Errorf("https: %s %s", a.Status, a.body)
	}
	// Each came to the first daemon once more, and no third time.
	outcomes := map[string]int{}
	for _, r := range append(b.records(6), second.records(3)...) {
		outcomes[r.text("outcome")]++
	}
	if outcomes["loop"] != 3 {
		t.Errorf("the outcomes are %v", outcomes)
	}
}

// TestRulesOfToday: no connection outlives the rules under which it was made (A9).
func TestRulesOfToday(t *testing.T) {
	const after = "\ndestinations: {deny: [\"127.0.0.0/8\"]}\n"
	for _, w := range ways(t, "retry: off, breaker: off", okAnswer) {
		_, port, _ := net.SplitHostPort(w.origin.addr)
		config, _ := strings.CutPrefix(readFile(t, w.box.config), "version: 1\n")
		config, _, _ = strings.Cut(config, "\ndrain:")
		config = strings.Replace(config, "upstream: {", "upstream: {resolve: {a.example.com: 127.0.0.1}, ", 1)
		w.box.write(config)
		if err := w.box.Reload(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		name := "a.example.com:" + port
		c := w.box.dialProxy()
		switch w.name {
		case "plaintext in a tunnel":
			c.connect(name)
		case "intercepted":
			c = w.box.intercepted(name, "http/1.1")
		}
		request := strings.NewReplacer(w.origin.addr, name).Replace(w.text("GET {T}/ HTTP/1.1\r\nHost: {H}\r\n\r\n"))
		for range 2 {
			c.send(request)
			if a := c.answer(http.MethodGet); a.body != "ok" {
				t.Fatalf("%s: %s %s", w.name, a.Status, a.body)
			}
		}
		if conns := w.origin.connections(); conns[0] != conns[1] {
			t.Errorf("%s: the connection was not kept", w.name)
		}
		w.box.write(config + after)
		if err := w.box.Reload(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		c.send(request)
		refused(t, c.answer(http.MethodGet), 403, "destination_denied")
		if got := w.origin.requests(); len(got) != 2 {
			t.Errorf("%s: the upstream received %d requests", w.name, len(got))
		}
	}
}

// TestProxyPortIsNoServer: what is not for a proxy is refused, and a victim's own paths are never answered here (A20, G29).
func TestProxyPortIsNoServer(t *testing.T) {
	b := start(t, "")
	for _, target := range []string{"/", "/metrics", "/healthz", "/readyz", "/ca.pem", "/api/v1/config"} {
		c := b.dialProxy()
		c.send("GET " + target + " HTTP/1.1\r\nHost: " + b.ProxyAddrs()[0] + "\r\n\r\n")
		refused(t, c.answer(http.MethodGet), 400, "bad_request")
	}
	c := b.dialProxy()
	c.send("OPTIONS * HTTP/1.1\r\nHost: " + b.ProxyAddrs()[0] + "\r\n\r\n")
	refused(t, c.answer(http.MethodOptions), 400, "bad_request")
	for _, w := range ways(t, "", okAnswer) {
		c := w.open()
		for i, line := range []string{"GET {T}/metrics", "GET {T}/healthz", "OPTIONS {T}/x"} {
			c.send(w.text(line + " HTTP/1.1\r\nHost: {H}\r\n\r\n"))
			if a := c.answer(http.MethodGet); a.body != "ok" {
				t.Errorf("%s, %s: %s %s", w.name, line, a.Status, a.body)
			}
			if got := w.origin.requests(); len(got) != i+1 {
				t.Errorf("%s, %s: the upstream received %q", w.name, line, got)
			}
		}
		star := w.prefix
		if star == "" {
			star = "*"
		}
		c.send(w.text("OPTIONS " + star + " HTTP/1.1\r\nHost: {H}\r\n\r\n"))
		if a := c.answer(http.MethodOptions); a.body != "ok" {
			t.Errorf("%s, OPTIONS *: %s %s", w.name, a.Status, a.body)
		}
		if got := w.origin.requests(); !strings.HasPrefix(got[len(got)-1], "OPTIONS * HTTP/1.1\r\n") {
			t.Errorf("%s: the upstream received %q", w.name, got[len(got)-1])
		}
		if w.prefix != "" {
			continue
		}
		c.send(w.text("GET * HTTP/1.1\r\nHost: {H}\r\n\r\n"))
		refused(t, c.answer(http.MethodGet), 400, "bad_request")
	}
}

// TestSchemes: nothing but http and https (A19).
func TestSchemes(t *testing.T) {
	b := start(t, "")
	for _, scheme := range []string{"ftp", "file", "ws", "wss", "gopher", "HTTPX", "javascript", "unix"} {
		c := b.dialProxy()
		c.send("GET " + scheme + "://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
		refused(t, c.answer(http.MethodGet), 400, "bad_request")
	}
}

// TestInnerAuthority: what is inside a tunnel goes where CONNECT went, or nowhere (A17, G5).
func TestInnerAuthority(t *testing.T) {
	for _, w := range ways(t, "", okAnswer)[1:4] {
		if w.name == "absolute https" {
			continue
		}
		scheme := map[string]string{"plain": "http", "intercept": "https"}[w.mode]
		for _, head := range []string{
			"GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
			"GET " + scheme + "://other.example.com/ HTTP/1.1\r\nHost: {H}\r\n\r\n",
			"GET " + scheme + "://127.0.0.1:1/ HTTP/1.1\r\nHost: {H}\r\n\r\n",
			"GET http://{H}/ HTTP/1.1\r\nHost: other.example.com\r\n\r\n",
			"GET https://{H}/ HTTP/1.1\r\nHost: other.example.com\r\n\r\n",
		} {
			before := len(w.origin.requests())
			c := w.open()
			c.send(w.text(head))
			a := c.answer(http.MethodGet)
			got := w.origin.requests()[before:]
			if strings.HasPrefix(head, "GET "+scheme+"://{H}") { // the absolute form that agrees wins over Host
				if a.body != "ok" || len(got) != 1 || !strings.Contains(got[0], "\r\nHost: "+w.origin.addr+"\r\n") {
					t.Errorf("%s, %q: %s %q", w.name, head, a.Status, got)
				}
				continue
			}
			refused(t, a, 400, "authority_mismatch")
			if len(got) > 0 {
				t.Errorf("%s, %q: the upstream received %q", w.name, head, got)
			}
		}
	}
}
