package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/intercept"
)

// faulty answers by the request's path, as no stage should.
func faulty(r *http.Request) (*http.Response, error) {
	answer := func(body io.ReadCloser) *http.Response {
		return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: body, ContentLength: -1, Request: r}
	}
	switch r.URL.Path {
	case "/panic":
		panic("a defect that knows sk_" + "live_secret")
	case "/nothing":
		return nil, nil
	case "/nobody":
		return answer(nil), nil
	case "/nohead":
		resp := answer(io.NopCloser(strings.NewReader("x")))
		resp.Header = nil
		return resp, nil
	case "/foreign":
		return nil, errors.New("dial tcp 10.1.2.3:443: something nobody expects")
	case "/midway":
		return answer(exploding{strings.NewReader("half of it")}), nil
	case "/status":
		resp := answer(io.NopCloser(strings.NewReader("x")))
		resp.StatusCode = 7
		return resp, nil
	}
	return answer(io.NopCloser(strings.NewReader("fine"))), nil
}

// exploding panics where a body would end.
type exploding struct{ io.Reader }

func (e exploding) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil {
		panic("a defect in a body")
	}
	return n, nil
}

func (exploding) Close() error { return nil }

// TestFaultInChain: whatever a stage does wrong, the client hears 500, the record says internal, and the daemon lives; in the clear, in a tunnel with
// plaintext, and in an intercepted connection by HTTP/1.1 and HTTP/2 (G6, G7, G10).
func TestFaultInChain(t *testing.T) {
	o, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	target := o.Addr().String()
	fake := ends{requests: exchange.RoundTripperFunc(faulty)}
	plain := newRig(t, "", fake, standardLimits())
	intercepting := newRig(t, "defaults: {tls: intercept}", fake, standardLimits())
	seen := map[*rig]int{} // records
	for name, way := range map[string]struct {
		rig    *rig
		prefix string
		open   func() *peer
	}{
		"plain":  {plain, "http://" + target, plain.dial},
		"tunnel": {plain, "", func() *peer { return plain.connect(target) }},
		"h1":     {intercepting, "", func() *peer { return intercepting.connect(target).secure("http/1.1") }},
	} {
		before := seen[way.rig]
		for range [2]int{} { // the second time: nothing of the first is left behind
			p := way.open()
			for _, path := range []string{"/panic", "/nothing", "/nobody", "/nohead", "/foreign", "/status", "/fine"} {
				p.send("GET " + way.prefix + path + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n")
				resp, body := p.answer(http.MethodGet)
				status, code, outcome := 500, "internal", "internal"
				if path == "/fine" {
					status, code, outcome = 200, "", "ok"
				}
				if resp.StatusCode != status || resp.Header.Get("Httpowerd-Error") != code || strings.Contains(body, "10.1.2.3") || strings.Contains(body, "defect") {
					t.Errorf("%s %s: %s %v %s", name, path, resp.Status, resp.Header, body)
				}
				before++
				if last := way.rig.records(before)[before-1]; last["outcome"] != outcome || last["status"] != float64(status) {
					t.Errorf("%s %s: the record is %v", name, path, last)
				}
			}
		}
		p := way.open()
		p.send("GET " + way.prefix + "/midway HTTP/1.1\r\nHost: " + target + "\r\n\r\n")
		if resp, err := http.ReadResponse(p.r, nil); err == nil {
			if _, err = io.ReadAll(resp.Body); err == nil {
				t.Errorf("%s: an answer that broke off looks whole", name)
			}
		}
		before++
		if last := way.rig.records(before)[before-1]; last["outcome"] != "internal" {
			t.Errorf("%s: the record is %v", name, last)
		}
		seen[way.rig] = before
	}
	h2 := &http.Transport{Protocols: new(http.Protocols), DialTLSContext: nil}
	h2.Protocols.SetHTTP2(true)
	h2.TLSClientConfig = insecure()
	h2.Proxy = http.ProxyURL(urlOf("http://" + intercepting.addr))
	defer h2.CloseIdleConnections()
	for _, path := range []string{"/panic", "/nothing", "/nobody", "/nohead", "/foreign", "/status", "/fine", "/midway", "/fine"} {
		r, _ := http.NewRequest(http.MethodGet, "https://"+target+path, nil)
		resp, err := h2.RoundTrip(r)
		if err != nil {
			t.Fatalf("h2 %s: %v", path, err)
		}
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		switch path {
		case "/fine":
			if resp.StatusCode != 200 || resp.ProtoMajor != 2 || err != nil {
				t.Errorf("h2 %s: %s %v", path, resp.Status, err)
			}
		case "/midway":
			if err == nil {
				t.Error("h2: an answer that broke off looks whole")
			}
		default:
			if resp.StatusCode != 500 || resp.Header.Get("Httpowerd-Error") != "internal" {
				t.Errorf("h2 %s: %s %v", path, resp.Status, resp.Header)
			}
		}
	}
	if log := plain.log.String(); strings.Contains(log, "http: panic serving") || !strings.Contains(log, "a stage panicked") {
		t.Errorf("the log:\n%s", log)
	}
}

// TestFaultInTunnelChain: the same of a CONNECT (G6).
func TestFaultInTunnelChain(t *testing.T) {
	byHost := exchange.RoundTripperFunc(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		name, _, _ := strings.Cut(r.URL.Host, ".")
		r.URL.Path = "/" + name
		return faulty(r)
	})
	r := newRig(t, "", ends{tunnels: byHost}, standardLimits())
	names := []string{"panic", "nothing", "nobody", "foreign", "fine"} // a tunnel that is no connection is a fault too
	for _, name := range names {
		p := r.dial()
		p.send("CONNECT " + name + ".example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, body := p.answer(http.MethodConnect)
		if resp.StatusCode != 500 || resp.Header.Get("Httpowerd-Error") != "internal" || resp.Status != "500 httpowerd: internal" || strings.Contains(body, "10.1.2.3") {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
	for _, record := range r.records(len(names)) {
		if record["outcome"] != "internal" || record["status"] != float64(500) || record["kind"] != "tunnel" {
			t.Errorf("the record is %v", record)
		}
	}
}

// TestFaultInDoor: a panic above the chain, before anything was answered, must not look like an empty 200 (G6).
func TestFaultInDoor(t *testing.T) {
	for _, p := range []any{"a defect in the door", http.ErrAbortHandler} {
		r := newRig(t, "", ends{requests: exchange.RoundTripperFunc(faulty)}, standardLimits(), func(s *Server) {
			s.door = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(p) })
		})
		r.internal("GET http://api.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", http.MethodGet)
	}
}

// TestFaultNoCA: where the CA cannot be had nothing is intercepted, and the client hears of it.
func TestFaultNoCA(t *testing.T) {
	for _, ca := range []func() (*intercept.Authority, error){nil, func() (*intercept.Authority, error) { return nil, errors.New("open /var/lib/ca.key: no such file") }} {
		r := newRig(t, "defaults: {tls: intercept}", ends{}, standardLimits(), func(s *Server) { s.ca = ca })
		r.internal("CONNECT api.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", http.MethodConnect)
	}
}

// internal sends a request that finds a defect, and looks at what the client and the record are told.
func (r *rig) internal(request, method string) {
	r.t.Helper()
	c := r.dial()
	c.send(request)
	if resp, body := c.answer(method); resp.StatusCode != 500 || resp.Header.Get("Httpowerd-Error") != "internal" || strings.Contains(body, "/var") {
		r.t.Errorf("%s %s", resp.Status, body)
	}
	if record := r.records(1)[0]; record["outcome"] != "internal" || record["status"] != float64(500) {
		r.t.Errorf("the record is %v", record)
	}
}

// TestRefusedHead: the proxy's own answer to HEAD is that to GET without its body, of which the record counts nothing.
func TestRefusedHead(t *testing.T) {
	r := newRig(t, "", ends{requests: exchange.RoundTripperFunc(faulty)}, standardLimits())
	p := r.dial()
	p.send("GET http://192.0.2.1/foreign HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n")
	whole, body := p.answer(http.MethodGet)
	p.send("HEAD http://192.0.2.1/foreign HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n")
	bare, none := p.answer(http.MethodHead)
	if bare.StatusCode != whole.StatusCode || bare.ContentLength != int64(len(body)) || none != "" {
		t.Errorf("%s %d %q; GET had %s and %d bytes", bare.Status, bare.ContentLength, none, whole.Status, len(body))
	}
	p.send("GET http://192.0.2.1/fine HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n")
	if _, text := p.answer(http.MethodGet); text != "fine" {
		t.Errorf("behind it: %q", text)
	}
	if all := r.records(3); all[0]["response_bytes"] != float64(len(body)) || all[1]["response_bytes"] != 0.0 {
		t.Errorf("the records count %v and %v bytes; %d were sent for GET", all[0]["response_bytes"], all[1]["response_bytes"], len(body))
	}
}
