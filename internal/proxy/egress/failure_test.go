package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/setting"
)

// failed sends a request and returns the Failure that it must end in.
func failed(t *testing.T, rt http.RoundTripper, r *http.Request) *exchange.Failure {
	t.Helper()
	resp, err := rt.RoundTrip(r)
	if err == nil {
		_ = resp.Body.Close()
		t.Fatal("there was an answer: " + resp.Status)
	}
	f := own[*exchange.Failure](err)
	if f == nil {
		t.Fatal(err)
	}
	return f
}

// TestProxyStatus: each way to fail has the error type of RFC 9209 that names it, and a detail that does.
func TestProxyStatus(t *testing.T) {
	tlsd, ca := tlsOrigin(t, false)
	reads := func(c net.Conn) { _, _ = c.Read(make([]byte, 4<<10)) }
	wants := func(c net.Conn) { // a client certificate
		_ = tls.Server(c, &tls.Config{Certificates: tlsd.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2", "http/1.1"}}).Handshake()
		_, _ = io.Copy(io.Discard, c) // to close now would reset the connection under the alert
	}
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) { reads(c); _, _ = io.WriteString(c, text); _, _ = io.Copy(io.Discard, c) }
	}
	const alert, protocol = "tls_alert_received; alert-id=", "upstream_protocol sent"
	for name, c := range map[string]struct {
		scheme string
		talk   func(net.Conn)
		major  int
		want   string // the failure
		status string
		detail string // a part of it
	}{
		"no TLS":                    {"https", says("HTTP/1.1 400 Bad Request\r\n\r\n"), 1, "upstream_tls", "", "does not speak TLS"},
		"an alert":                  {"https", says("\x15\x03\x03\x00\x02\x02\x28"), 1, "upstream_tls", alert + "40", "wants a client certificate"},
		"alert about the name":      {"https", says("\x15\x03\x03\x00\x02\x02\x70"), 1, "upstream_tls", alert + "112", "no host of this name"},
		"alert about the version":   {"https", says("\x15\x03\x03\x00\x02\x02\x46"), 1, "upstream_tls", alert + "70", "TLS version"},
		"another alert":             {"https", says("\x15\x03\x03\x00\x02\x02\x50"), 1, "upstream_tls", alert + "80", "alert 80"},
		"closed in the handshake":   {"https", reads, 1, "upstream_tls", "connection_terminated", "during the TLS handshake"},
		"no end of the handshake":   {"https", says(""), 1, "upstream_timeout", "connection_timeout", "TLS handshake in time"},
		"no client certificate":     {"https", wants, 1, "upstream_tls sent", alert + "116", "wants a client certificate"},
		"none by HTTP/2":            {"https", wants, 2, "upstream_tls sent", alert + "116", "wants a client certificate"},
		"alert about a certificate": {"https", says("\x15\x03\x03\x00\x02\x02\x2a"), 1, "upstream_tls", alert + "42", "or that there is none"},
		"untrusted":                 {"https", nil, 1, "upstream_tls permanent", "tls_certificate_error", "another name"},
		"closed before the answer":  {"http", reads, 1, "upstream_reset sent", "", "before its answer was complete"},
		"no HTTP":                   {"http", says("SSH-2.0-x\r\n"), 1, protocol, "", "the status"},
		"a coding":                  {"http", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), 1, protocol, "http_response_transfer_coding", "transfer coding"},
		"a long head": {"http", says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead) + "\r\n\r\n"), 1, protocol,
			"http_response_header_section_size", "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := 5 * time.Second
			if c.status == "connection_timeout" {
				limit = 50 * time.Millisecond
			}
			s := setup{up: func(u *upstream.Config) { u.CA = ca; u.Resolve = map[string]string{"other.test": "127.0.0.1"} },
				limits: timeout.Config{Connect: setting.Duration(5 * time.Second), TLS: setting.Duration(limit)}}
			host := "other.test:" + port(t, tlsd.Listener)
			if c.talk != nil {
				host = serve(t, func(_ int, conn net.Conn, _ *bufio.Reader, _ *origin) { c.talk(conn) }).Addr().String()
			}
			r, _ := request(t, "GET", c.scheme+"://"+host+"/", "")
			r.ProtoMajor = c.major
			f := failed(t, end(t, s), r)
			if c.major == 2 { // it depends on which comes first, the alert or the request
				f.Sent = true
			}
			want(t, describe(f), "failure "+c.want)
			want(t, f.ProxyStatus, c.status)
			if !strings.Contains(f.Detail, c.detail) {
				t.Errorf("the detail %q says nothing of %q: %#v", f.Detail, c.detail, f.Err)
			}
		})
	}
}

func port(t *testing.T, l net.Listener) string {
	t.Helper()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// answersWith is a resolver that knows nothing but an error; nil: it does not answer at all.
type answersWith struct{ err error }

func (a answersWith) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	if a.err == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, a.err
}

// TestNameFailures: what the name servers said, as far as it is known.
func TestNameFailures(t *testing.T) {
	for name, c := range map[string]struct {
		err          error
		want, status string
	}{
		"none":     {&net.DNSError{Err: "no such host", IsNotFound: true}, "failure upstream_dns permanent", ""},
		"SERVFAIL": {&net.DNSError{Err: "server misbehaving", IsTemporary: true}, "failure upstream_dns", `dns_error; rcode="SERVFAIL"`},
		"REFUSED":  {&net.DNSError{Err: "server misbehaving"}, "failure upstream_dns", ""},
		"timeout":  {&net.DNSError{Err: "i/o timeout", IsTimeout: true, IsTemporary: true}, "failure upstream_dns", "dns_timeout"},
		"silence":  {nil, "failure upstream_timeout", "dns_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := request(t, "GET", "http://example.com/", "")
				f := failed(t, end(t, setup{options: Options{Resolver: answersWith{c.err}}}), r)
				want(t, describe(f), c.want)
				want(t, f.ProxyStatus, c.status)
				time.Sleep(lookupLimit) // the question ends by itself
			})
		})
	}
}

// early is a context whose deadline has passed although it has not ended yet.
type early struct{ context.Context }

func (early) Deadline() (time.Time, bool) { return time.Unix(1, 0), true }

// TestDialAheadOfItsContext: net's dialer goes by the deadline, and may return before the context knows whose that was.
func TestDialAheadOfItsContext(t *testing.T) {
	over := &exchange.Failure{Code: exchange.UpstreamTimeout, Detail: "all of it", Sent: true, Overall: true}
	for name, c := range map[string]struct {
		cause  error
		detail string
	}{
		"connect": {errConnectTimeout, "the upstream could not be connected to in time"},
		"total":   {over, over.Detail},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(time.Millisecond, func() { cancel(c.cause) })
				f := own[*exchange.Failure](dialFailure(early{ctx}, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}))
				if f == nil || f.Code != exchange.UpstreamTimeout || f.Detail != c.detail || f.Sent || f.Overall != (c.cause == over) || f.ProxyStatus != "connection_timeout" {
					t.Errorf("%+v", f)
				}
			})
		})
	}
}

// TestConnectErrors: what the system says of a connection that did not come about.
func TestConnectErrors(t *testing.T) {
	for errno, c := range map[error]struct {
		code   exchange.Code
		status string
	}{
		syscall.ECONNREFUSED:  {exchange.UpstreamConnect, ""},
		syscall.EHOSTUNREACH:  {exchange.UpstreamConnect, "destination_ip_unroutable"},
		syscall.ENETUNREACH:   {exchange.UpstreamConnect, "destination_ip_unroutable"},
		syscall.EADDRNOTAVAIL: {exchange.UpstreamConnect, "proxy_internal_error"},
		syscall.ECONNRESET:    {exchange.UpstreamConnect, "connection_terminated"},
		syscall.ETIMEDOUT:     {exchange.UpstreamTimeout, "connection_timeout"},
	} {
		f := own[*exchange.Failure](dialFailure(t.Context(), &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}))
		if f == nil || f.Code != c.code || f.ProxyStatus != c.status || f.Sent {
			t.Errorf("%v: %+v", errno, f)
		}
	}
}

// TestParentFailures: what a parent proxy does is not told as the upstream's doing.
func TestParentFailures(t *testing.T) {
	tlsd, ca := tlsOrigin(t, false)
	closed := serve(t, nil)
	address := closed.Addr().String()
	closed.Close()
	wanting := serve(t, func(_ int, c net.Conn, _ *bufio.Reader, _ *origin) {
		secure := tls.Server(c, &tls.Config{Certificates: tlsd.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert})
		_ = secure.Handshake()
		_, _ = io.Copy(io.Discard, c)
	})
	unreachable := serve(t, func(_ int, c net.Conn, _ *bufio.Reader, _ *origin) {
		_, _ = c.Read(make([]byte, 100))
		_, _ = io.WriteString(c, "\x05\x00")
		_, _ = c.Read(make([]byte, 100))
		_, _ = io.WriteString(c, "\x05\x04\x00\x01")
		_, _ = io.WriteString(c, "\x00\x00\x00\x00\x00\x00")
		_, _ = io.Copy(io.Discard, c)
	})
	for name, c := range map[string]struct{ parent, ca, detail, status string }{
		"refuses":             {"http://" + address, "", "the parent proxy refused the connection", ""},
		"untrusted":           {"https://" + tlsd.Listener.Addr().String(), "", "the parent proxy's certificate is from an authority that is not trusted", "tls_certificate_error"},
		"wants a certificate": {"https://" + wanting.Addr().String(), ca, "the parent proxy wants a client certificate", "tls_alert_received; alert-id=116"},
		"finds no network":    {"socks5://" + unreachable.Addr().String(), "", "the upstream's network cannot be reached", "destination_ip_unroutable"},
		"not a name":          {"http://parent.test:3128", "", "the parent proxy's name does not exist, or has no address", ""},
		"of no tunnel": {"http://" + serve(t, func(_ int, c net.Conn, br *bufio.Reader, o *origin) {
			o.head(br)
			_, _ = io.WriteString(c, "HTTP/1.1 407 Who\r\n\r\n")
		}).Addr().String(), "", parentAuth, "proxy_configuration_error"},
	} {
		t.Run(name, func(t *testing.T) {
			rt := end(t, setup{options: Options{Resolver: fixed{}}, tunnels: true, up: func(u *upstream.Config) { u.Proxy, u.CA = c.parent, c.ca }})
			r, _ := request(t, http.MethodConnect, "https://192.0.2.1/", "")
			f := failed(t, rt, r)
			want(t, f.Detail, c.detail)
			want(t, f.ProxyStatus, c.status)
			if errors.Is(f, context.Canceled) {
				t.Error(f)
			}
		})
	}
}

// TestHTTP2NeverUsed: a connection that the upstream ended before its first request was written has had nothing of it, so a write may be sent again.
func TestHTTP2NeverUsed(t *testing.T) {
	tlsd, ca := tlsOrigin(t, true)
	o := serve(t, func(_ int, c net.Conn, _ *bufio.Reader, _ *origin) {
		secure := tls.Server(c, &tls.Config{Certificates: tlsd.TLS.Certificates, NextProtos: []string{"h2"}})
		_ = secure.Handshake()
		_ = secure.Close()
	})
	a := &attempt{two: newObjecting(nil), conn: &conn{http2: true}}
	f := own[*exchange.Failure](a.explain(t.Context(), errors.New("http2: client conn could not be established")))
	if f == nil || f.Code != exchange.UpstreamReset || f.Sent {
		t.Errorf("%+v", f)
	}
	r, _ := request(t, "POST", "https://"+o.Addr().String()+"/", "data")
	r.ProtoMajor = 2
	want(t, failed(t, end(t, setup{up: func(u *upstream.Config) { u.CA = ca }}), r).Detail, closedEarly)
}
