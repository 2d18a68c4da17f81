package egress

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/policy/destination"
)

func ruled(t *testing.T, c destination.Config, loopbackOnly bool) *destination.Rules {
	t.Helper()
	rules, err := destination.Compile(c, loopbackOnly)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func call(t *testing.T, rt http.RoundTripper, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	return get(rt, r)
}

// TestCallsAreRuled: the daemon's own calls reach nothing that a client's request could not (A11, A71).
func TestCallsAreRuled(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("ALL_PROXY", "http://127.0.0.1:1")
	o := says(t, ok)
	port := o.Addr().(*net.TCPAddr).AddrPort().Port()
	own := netip.AddrPort{}
	reached := []string{}
	e := New(Options{Registerer: prometheus.NewRegistry(), Standard: onStandard, Own: func(a netip.AddrPort) bool { return a == own },
		Reached: func(host string) { reached = append(reached, host) },
		Resolver: fixed{"hooks.example.com": {netip.MustParseAddr("127.0.0.1")},
			"two.example.com":  {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254")},
			"meta.example.com": {netip.MustParseAddr("169.254.169.254")}}})
	local, err := e.Calls(ruled(t, destination.Default(), true))
	if err != nil {
		t.Fatal(err)
	}
	remote, err := e.Calls(ruled(t, destination.Default(), false))
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + o.Addr().String() + "/x"
	want(t, call(t, local, url), "200 ok")
	want(t, call(t, local, strings.Replace(url, "127.0.0.1", "hooks.example.com", 1)), "200 ok")
	want(t, call(t, local, strings.Replace(url, "127.0.0.1", "two.example.com", 1)), "refusal destination_denied")
	want(t, call(t, local, "http://meta.example.com/latest"), "refusal destination_denied")
	want(t, call(t, local, "http://169.254.169.254/latest"), "refusal destination_denied")
	want(t, call(t, local, "http://unknown.example.com/"), "failure upstream_dns permanent")
	want(t, call(t, remote, url), "refusal destination_denied")
	want(t, call(t, remote, "http://hooks.example.com/"), "refusal destination_denied")
	own = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	want(t, call(t, local, url), "refusal loop")
	if o.count() != 2 || len(reached) != 0 {
		t.Errorf("%d connections, %v became labels", o.count(), reached)
	}
}

// TestCallsVerify: over https the receiver has to be who it says.
func TestCallsVerify(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer s.Close()
	e := New(Options{Registerer: prometheus.NewRegistry(), Standard: onStandard})
	rules := ruled(t, destination.Default(), true)
	stranger, err := e.Calls(rules)
	if err != nil {
		t.Fatal(err)
	}
	want(t, call(t, stranger, s.URL), "failure upstream_tls permanent")
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	want(t, call(t, e.calls(rules, &tls.Config{RootCAs: roots}), s.URL), "200 ok")
}

// TestCallsFollowNothing: a redirect is an answer, and no connection stays.
func TestCallsFollowNothing(t *testing.T) {
	gone := make(chan struct{}, 1)
	o := serve(t, func(_ int, c net.Conn, br *bufio.Reader, o *origin) {
		o.head(br)
		_, _ = io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, br)
		gone <- struct{}{}
	})
	rt, err := New(Options{Registerer: prometheus.NewRegistry(), Standard: onStandard}).Calls(ruled(t, destination.Default(), true))
	if err != nil {
		t.Fatal(err)
	}
	want(t, call(t, rt, "http://"+o.Addr().String()), "302 ")
	<-gone
}
