package egress

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/upstream"
)

// follow feeds an answer in pieces of that size, and returns how much of it belongs to the answer.
func follow(method, in string, size int) (used int, ended bool, bad error) {
	a := &answers{}
	a.expect(method)
	for used < len(in) {
		piece := in[used:min(used+size, len(in))]
		n, bad := a.follow([]byte(piece))
		used += n
		if bad != nil || n < len(piece) {
			return used, a.state == nothing, bad
		}
	}
	return used, a.state == nothing, nil
}

// TestFollow: where an answer ends, and which have no end that all agree on (A24; RFC 9112 section 6.3).
func TestFollow(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct {
		method, answer string
		ended          bool
	}{
		"length":       {"GET", head + "Content-Length: 2\r\n\r\nok", true},
		"no length":    {"GET", head + "\r\nok and more", false},
		"zero":         {"GET", head + "Content-Length: 0\r\n\r\n", true},
		"HEAD":         {"HEAD", head + "Content-Length: 2\r\n\r\n", true},
		"HEAD chunked": {"HEAD", head + "Transfer-Encoding: chunked\r\n\r\n", true},
		"204":          {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", true},
		"304":          {"GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", true},
		"1xx":          {"GET", "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n" + head + "Content-Length: 2\r\n\r\nok", true},
		"101":          {"GET", "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 2\r\n\r\nwhatever", false},
		"chunked":      {"GET", head + "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nA: b\r\n\r\n", true},
		"empty body":   {"GET", head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
		"bare LF":      {"GET", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", true},
	} {
		for _, size := range []int{1, 3, 1 << 16} {
			for _, more := range []string{"", "X", "HTTP/1.1 200 OK\r\n\r\n"} {
				used, ended, bad := follow(c.method, c.answer+more, size)
				want := len(c.answer)
				if !c.ended {
					want += len(more)
				}
				if used != want || ended != c.ended || bad != nil {
					t.Errorf("%s, %d at a time, and %q: %d of %d, ended %v, %v", name, size, more, used, want, ended, bad)
				}
			}
		}
	}
	for name, answer := range map[string]string{
		"both":            head + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
		"two lengths":     head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
		"huge length":     head + "Content-Length: 9999999999999999999\r\n\r\n",
		"empty length":    head + "Content-Length:\r\n\r\n",
		"chunked twice":   head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
		"other coding":    head + "Transfer-Encoding: gzip\r\n\r\n",
		"old and chunked": "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"folded framing":  head + "Content-Length: 1\r\n 2\r\n\r\n",
		"folded coding":   head + "Transfer-Encoding: chunked\r\n , gzip\r\n\r\n",
		"folded status":   head + " Content-Length: 1\r\n\r\n",
		"space in a name": head + "Content-Length : 2\r\n\r\n",
		"low status":      "HTTP/1.1 099 OK\r\n\r\n",
		"long line":       head + "A: " + strings.Repeat("a", maxHead) + "\r\n\r\n",
		"long head":       head + strings.Repeat("A: b\r\n", maxHead/6+1) + "\r\n",
		"no size":         head + "Transfer-Encoding: chunked\r\n\r\n;x\r\n",
		"minus":           head + "Transfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n",
		"huge size":       head + "Transfer-Encoding: chunked\r\n\r\n1000000000000000\r\nok\r\n",
		"long chunk":      head + "Transfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n",
		"endless size":    head + "Transfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("a", maxChunkLine+1),
	} {
		for _, size := range []int{7, 1 << 16} {
			if used, _, bad := follow("GET", answer, size); bad == nil {
				t.Errorf("%s, %d at a time: %d of %d bytes pass", name, size, used, len(answer))
			}
		}
	}
}

// FuzzFollow: where an answer ends does not depend on how it arrives, and net/http agrees.
func FuzzFollow(f *testing.F) {
	for _, s := range []string{ok, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nA: b\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "X",
		"HTTP/1.1 204 No Content\nContent-Length: 2\n\nok", "HTTP/1.0 200 OK\r\nA: b\r\n c\r\n\r\nx", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n 2\r\n\r\nab"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, in string, isHead bool) {
		method := "GET"
		if isHead {
			method = "HEAD"
		}
		used, ended, bad := follow(method, in, len(in)+1)
		slow, slowEnded, slowBad := follow(method, in, 1)
		if (bad == nil) != (slowBad == nil) || bad == nil && (used != slow || ended != slowEnded) {
			t.Fatalf("at once: %d %v %v; byte by byte: %d %v %v", used, ended, bad, slow, slowEnded, slowBad)
		}
		if !ended || bad != nil {
			return
		}
		r := bufio.NewReader(bytes.NewReader([]byte(in[:used] + "X")))
		for {
			resp, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				return // refused by net/http itself
			}
			if resp.StatusCode < 200 && resp.StatusCode != 101 {
				continue
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				return
			}
			break
		}
		if rest, _ := io.ReadAll(r); string(rest) != "X" {
			t.Fatalf("%q ends after %d bytes, but net/http leaves %q", in, used, rest)
		}
	})
}

// TestNoMixUp: bytes behind an answer never become the next one, even where requests wait for the connection. The standard transport by itself hands it on
// before it looks (A24, G17).
func TestNoMixUp(t *testing.T) {
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	o := serve(t, func(_ int, c net.Conn, br *bufio.Reader, o *origin) {
		for {
			head := o.head(br)
			if head == "" {
				return
			}
			path, _, _ := strings.Cut(strings.TrimPrefix(head, "GET "), " ")
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(path), path, poison)
		}
	})
	rt := end(t, setup{up: func(c *upstream.Config) { c.MaxConnections = 1 }})
	var wait sync.WaitGroup
	for worker := range 16 {
		wait.Go(func() {
			for i := range 60 {
				path := fmt.Sprintf("/%d/%d", worker, i)
				r, _ := request(t, "GET", "http://"+o.Addr().String()+path, "")
				if got := get(rt, r); got != "200 "+path && got != "failure upstream_reset" { // nothing was sent: the next attempt may
					t.Errorf("%s: %s", path, got)
				}
			}
		})
	}
	wait.Wait()
}

// TestSpentWrite: not a byte of a request goes onto a connection that is spent.
func TestSpentWrite(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	defer ours.Close()
	a := &answers{Conn: ours}
	a.expect("GET")
	go io.WriteString(theirs, ok+"more")
	b := make([]byte, 4096)
	if n, err := a.Read(b); string(b[:n]) != ok || err != nil {
		t.Fatalf("%q, %v", b[:n], err)
	}
	_ = ours.SetDeadline(time.Now().Add(time.Second)) // nobody reads
	if n, err := a.Write([]byte("GET")); n != 0 || err != net.ErrClosed {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := a.Read(b); n != 0 || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
	a = &answers{Conn: ours}
	a.expect("GET")
	a.expect("GET") // the answer before never came
	if _, err := a.Write([]byte("GET")); err != net.ErrClosed {
		t.Error(err)
	}
}

func BenchmarkFollow(b *testing.B) {
	in := []byte("HTTP/1.1 200 OK\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Type: application/json\r\nContent-Length: 2\r\nServer: example\r\n" +
		"Cache-Control: no-store\r\nX-Request-Id: 0123456789abcdef\r\n\r\nok")
	a := &answers{}
	b.ReportAllocs()
	for b.Loop() {
		a.expect("GET")
		if n, bad := a.follow(in); n != len(in) || bad != nil {
			b.Fatal(n, bad)
		}
	}
}

// turning answers a name with one list of addresses after the other.
type turning struct{ lists [][]netip.Addr }

func (r *turning) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	list := r.lists[0]
	if len(r.lists) > 1 {
		r.lists = r.lists[1:]
	}
	return append([]netip.Addr(nil), list...), nil
}

// TestRebinding: the addresses that were checked are the ones that are dialled, whatever the next lookup says, and one bad address among good ones is
// enough to refuse (A8).
func TestRebinding(t *testing.T) {
	o := says(t, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
	_, port, _ := net.SplitHostPort(o.Addr().String())
	good, bad, six := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254")
	mapped := netip.MustParseAddr("::ffff:169.254.169.254")
	for _, tunnels := range []bool{false, true} {
		for name, c := range map[string]struct {
			lists [][]netip.Addr
			want  string
		}{
			"good, then bad":    {[][]netip.Addr{{good}, {bad}}, "refusal destination_denied"},
			"both in one":       {[][]netip.Addr{{good}, {good, bad}}, "refusal destination_denied"},
			"the bad one first": {[][]netip.Addr{{good}, {bad, good}}, "refusal destination_denied"},
			"by family":         {[][]netip.Addr{{good}, {good, six}}, "refusal destination_denied"},
			"mapped":            {[][]netip.Addr{{good}, {mapped}}, "refusal destination_denied"},
			"good and good":     {[][]netip.Addr{{good}, {good, good}}, ""},
		} {
			resolver := &turning{c.lists}
			e := New(Options{Registerer: newRegistry(), Resolver: resolver, Standard: onStandard})
			rt := endOf(t, e, setup{tunnels: tunnels})
			once := func() string {
				r, _ := request(t, "GET", "http://inside.example.com:"+port+"/", "")
				if !tunnels { // a connection for each
					return get(rt, r)
				}
				resp, err := rt.RoundTrip(r)
				if err != nil {
					return describe(err)
				}
				resp.Body.Close()
				return "200 ok"
			}
			before := o.count()
			want(t, once(), "200 ok")
			want(t, once(), "200 ok") // still the answer from before
			e.names.mu.Lock()
			for _, a := range e.names.m {
				a.until = time.Now().Add(-time.Second)
			}
			e.names.mu.Unlock()
			if c.want == "" {
				c.want = "200 ok"
			}
			if got := once(); got != c.want {
				t.Errorf("%s, tunnels %v: %s; want %s", name, tunnels, got, c.want)
			}
			if c.want != "200 ok" && !tunnels && o.count() > before+2 {
				t.Errorf("%s: it was connected to", name)
			}
		}
	}
}

// TestDenyRangesByName: a name that resolves to a forbidden address is as good as the address (A1, A3, A8).
func TestDenyRangesByName(t *testing.T) {
	for _, text := range []string{"0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.0.1", "192.168.255.255", "198.18.0.1", "224.0.0.1", "255.255.255.255",
		"168.63.129.16", "100.100.100.200", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2001::1", "2002:7f00:1::", "fc00::1", "fe80::1",
		"fe80::1%lo", "fec0::1", "ff02::1", "fd00:ec2::254", "fd20:ce::254"} {
		resolver := fixed{"inside.example.com": {netip.MustParseAddr(text)}}
		rules := destination.Default()
		if err := rules.Ports.DecodeSetting([]any{"1-65535"}); err != nil {
			t.Fatal(err)
		}
		for _, up := range []func(*upstream.Config){nil, func(c *upstream.Config) { c.Proxy, c.DNS = "http://192.0.2.1:3128", "local" }} {
			for _, tunnels := range []bool{false, true} {
				rt := end(t, setup{options: Options{Resolver: resolver}, remote: true, rules: rules, tunnels: tunnels, up: up})
				r, _ := request(t, "GET", "http://inside.example.com:8080/", "")
				if got := get(rt, r); got != "refusal destination_denied" {
					t.Errorf("%s, parent %v, tunnels %v: %s", text, up != nil, tunnels, got)
				}
			}
		}
	}
}
