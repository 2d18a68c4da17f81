package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
	clientField = "00-" + clientTrace + "-" + clientSpan + "-01"
)

// noted is an upstream that keeps the heads it gets.
type noted struct {
	*httptest.Server
	mu    sync.Mutex
	heads []http.Header
}

func (n *noted) got() []http.Header {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.heads)
}

// newNoted answers by f, which is told how many requests came before.
func newNoted(t *testing.T, secure bool, f func(n int, w http.ResponseWriter, r *http.Request)) *noted {
	t.Helper()
	o := &noted{}
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		n := len(o.heads)
		o.heads = append(o.heads, r.Header.Clone())
		o.mu.Unlock()
		f(n, w, r)
	}))
	if secure {
		o.EnableHTTP2 = true
		o.StartTLS()
	} else {
		o.Start()
	}
	t.Cleanup(o.Close)
	return o
}

func fine(_ int, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }

// traced sends a GET with fields, name and value by turns.
func traced(t *testing.T, c *http.Client, url string, fields ...string) answer {
	t.Helper()
	r := request(t, http.MethodGet, url, "")
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return do(t, c, r)
}

// spanIn is the span's id in a traceparent.
func spanIn(field string) string {
	if len(field) != 55 {
		return "?" + field
	}
	return field[36:52]
}

// TestTrace: in every mode, and over both protocols of OTLP, there is a span for the exchange below the client's and one for the attempt below that, and the
// upstream is told the attempt's.
func TestTrace(t *testing.T) {
	for name, c := range map[string]struct {
		collector func(*testing.T) *collector
		secure    bool
		two       bool
		mode      string
	}{
		"plain":            {httpCollector, false, false, "plain"},
		"plain over gRPC":  {grpcCollector, false, false, "plain"},
		"intercepted":      {httpCollector, true, false, "intercept"},
		"intercepted h2":   {httpCollector, true, true, "intercept"},
		"h2 over gRPC too": {grpcCollector, true, true, "intercept"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := c.collector(t)
			o := newNoted(t, c.secure, fine)
			config := fmt.Sprintf("tracing: {otlp: %q, sample: 0, resource: {deployment.environment.name: test}, headers: {x-api-key: \"key of the backend\"}}\n", to.url)
			if c.secure {
				config += fmt.Sprintf("defaults: {tls: intercept, upstream: {ca: %s}}\n", originCA(t, o.Server))
			}
			b := start(t, config)
			client := b.client(o.Server)
			if c.two {
				client = h2(client)
			}
			a := traced(t, client, o.URL+"/v1/things?page=2&api_key=sk_live_planted0123456789", "Traceparent", clientField, "Tracestate", "foo=1,bar=2", "Baggage", "user=7")
			if a.StatusCode != 200 || a.body != "ok" || a.Header.Get("Traceparent") != "" {
				t.Errorf("%s %q %v", a.Status, a.body, a.Header)
			}
			spans := to.got(2)
			server, attempt := of(spans, "SERVER")[0], of(spans, "CLIENT")[0]
			if server.trace != clientTrace || server.parent != clientSpan || attempt.trace != clientTrace || attempt.parent != server.id || attempt.id == server.id {
				t.Errorf("the spans are %+v and %+v", server, attempt)
			}
			if server.flags&0x300 != 0x300 || attempt.flags&0x300 != 0x100 {
				t.Errorf("flags %x and %x: the client is remote, the exchange is not", server.flags, attempt.flags)
			}
			got := o.got()[0]
			if want := "00-" + clientTrace + "-" + attempt.id + "-01"; len(got["Traceparent"]) != 1 || got.Get("Traceparent") != want ||
				got.Get("Tracestate") != "foo=1,bar=2" || got.Get("Baggage") != "user=7" {
				t.Errorf("the upstream got %v; want %s", got, want)
			}
			version := map[bool]string{false: "1.1", true: "2"}
			host, port, _ := net.SplitHostPort(o.Listener.Addr().String())
			scheme := strings.SplitN(o.URL, ":", 2)[0]
			server.want(t, map[string]string{"http.request.method": "GET", "server.address": host, "server.port": port, "http.response.status_code": "200",
				"error.type": "-", "network.protocol.version": version[c.two], "httpowerd.mode": c.mode, "httpowerd.outcome": "ok", "url.scheme": scheme,
				"url.path": "/v1/things", "url.query": "page=2&api_key=" + placeholder, "client.address": "127.0.0.1", "httpowerd.attempts": "1"})
			attempt.want(t, map[string]string{"http.request.method": "GET", "server.address": host, "server.port": port, "http.response.status_code": "200",
				"url.full": o.URL + "/v1/things?page=2&api_key=" + placeholder, "http.request.resend_count": "-", "network.peer.address": host,
				"network.peer.port": port, "network.protocol.version": version[c.two], "error.type": "-"})
			if server.name != "GET" || attempt.name != "GET" || server.status != tracepb.Status_STATUS_CODE_UNSET || attempt.start < server.start || attempt.end > server.end {
				t.Errorf("%+v\n%+v", server, attempt)
			}
			to.mu.Lock()
			defer to.mu.Unlock()
			if to.resource["service.name"] != "httpowerd" || to.resource["service.version"] != "test" || to.resource["deployment.environment.name"] != "test" ||
				to.heads[0].Get("X-Api-Key") != "key of the backend" || to.path != "" && to.path != "/v1/traces" {
				t.Errorf("%v %v %s", to.resource, to.heads[0], to.path)
			}
			b.records(1)[0].want(t, map[string]any{"trace_id": clientTrace})
			if strings.Contains(b.log.String(), "key of the backend") {
				t.Error("the log has the backend's key")
			}
		})
	}
}

// Each attempt has a span of its own, which the upstream is told, and the pause before it is an event.
func TestTraceOfRetries(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newNoted(t, false, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n < 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1}\ndefaults: {retry: {attempts: 4, backoff: {base: 10ms, max: 20ms}}}\n", to.url))
	if a := traced(t, b.client(), o.URL+"/"); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	spans := to.got(4)
	server, attempts := of(spans, "SERVER")[0], of(spans, "CLIENT")
	heads := o.got()
	seen := map[string]bool{server.id: true}
	for i, s := range attempts {
		field := heads[i].Get("Traceparent")
		if seen[s.id] || s.parent != server.id || s.trace != server.trace || field != "00-"+server.trace+"-"+s.id+"-01" {
			t.Errorf("attempt %d: %+v; the upstream got %s", i, s, field)
		}
		seen[s.id] = true
	}
	attempts[0].want(t, map[string]string{"http.response.status_code": "503", "error.type": "503", "http.request.resend_count": "-", "httpowerd.reason": "-"})
	attempts[1].want(t, map[string]string{"http.response.status_code": "503", "http.request.resend_count": "1", "httpowerd.reason": "status"})
	attempts[2].want(t, map[string]string{"http.response.status_code": "200", "http.request.resend_count": "2", "error.type": "-"})
	if attempts[0].status != tracepb.Status_STATUS_CODE_ERROR || attempts[2].status != tracepb.Status_STATUS_CODE_UNSET || server.parent != "" ||
		server.events["httpowerd.retry.pause"]["httpowerd.reason"] != "status" {
		t.Errorf("%+v", spans)
	}
	server.want(t, map[string]string{"http.response.status_code": "200", "error.type": "-", "httpowerd.attempts": "3"})
	b.records(1)[0].want(t, map[string]any{"trace_id": server.trace})
}

// A request that found its kept connection dead is sent once more without a pause; what answers belongs to the span that it was told.
func TestTraceOfResending(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newRawOrigin(t, okAnswer, "<reset>", okAnswer)
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 0}\ndefaults: {retry: off}\n", to.url))
	c := b.client()
	get(t, c, o.url("/1"))
	if a := traced(t, c, o.url("/2"), "Traceparent", clientField); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	attempts, requests := of(to.got(3), "CLIENT"), o.requests()
	if attempts[0].id == attempts[1].id || len(requests) != 3 || !strings.Contains(requests[2], clientTrace+"-"+attempts[1].id+"-01") ||
		!onStandard() && !strings.Contains(requests[1], clientTrace+"-"+attempts[0].id+"-01") {
		t.Errorf("%+v\n%q", attempts, requests)
	}
	attempts[0].want(t, map[string]string{"error.type": "upstream_reset", "http.response.status_code": "-"})
	attempts[1].want(t, map[string]string{"httpowerd.reason": "reset", "http.response.status_code": "200"})
}

// Shared answers have no attempts of their own; those of the leader are below the leader's span.
func TestTraceOfShared(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	waiting := make(chan struct{})
	o := newNoted(t, false, func(_ int, w http.ResponseWriter, _ *http.Request) {
		<-waiting
		_, _ = w.Write([]byte("ok"))
	})
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1}\ndefaults: {dedup: {}}\n", to.url))
	c := b.client()
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() { get(t, c, o.URL+"/") })
	}
	somebodyIn(t, "dedup.(*stage).follow")
	close(waiting)
	both.Wait()
	spans := to.got(3)
	by := map[string]span{}
	for _, s := range of(spans, "SERVER") {
		by[s.attrs["httpowerd.dedup"]] = s
	}
	attempt := of(spans, "CLIENT")[0]
	if attempt.parent != by["leader"].id || by["follower"].trace == by["leader"].trace || spanIn(o.got()[0].Get("Traceparent")) != attempt.id {
		t.Errorf("%+v", spans)
	}
}

// A keyed write runs detached from its client; its attempt is below the client's span all the same.
func TestTraceOfKeyedWrites(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newNoted(t, false, fine)
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1}\ndefaults: {dedup: {methods: [POST]}, retry: {idempotency_key: {}}}\n", to.url))
	for range 2 {
		r := request(t, http.MethodPost, o.URL+"/", "body")
		r.Header.Set("Idempotency-Key", "one")
		do(t, b.client(), r)
	}
	spans := to.got(3)
	servers, attempt := of(spans, "SERVER"), of(spans, "CLIENT")[0]
	if servers[0].attrs["httpowerd.dedup"] == "replayed" { // a client has its answer before its exchange has ended: the second may be through first
		servers[0], servers[1] = servers[1], servers[0]
	}
	if attempt.parent != servers[0].id || attempt.trace != servers[0].trace || len(o.got()) != 1 || spanIn(o.got()[0].Get("Traceparent")) != attempt.id {
		t.Errorf("%+v", spans)
	}
	servers[1].want(t, map[string]string{"httpowerd.dedup": "replayed", "httpowerd.attempts": "0"})
}

// Hedged attempts overlap; each tells the upstream its own span, and the one that lost has not failed.
func TestTraceOfHedges(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newNoted(t, false, func(n int, _ http.ResponseWriter, r *http.Request) {
		if n == 0 {
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Second):
			}
		}
	})
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1}\ndefaults: {hedge: {after: 500ms}}\n", to.url)) // by then the first is at its upstream
	if a := traced(t, b.client(), o.URL+"/"); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	spans := to.got(3)
	server, attempts, heads := of(spans, "SERVER")[0], of(spans, "CLIENT"), o.got()
	if len(heads) != 2 || spanIn(heads[0].Get("Traceparent")) != attempts[0].id || spanIn(heads[1].Get("Traceparent")) != attempts[1].id || attempts[0].id == attempts[1].id {
		t.Errorf("%v\n%+v", heads, attempts)
	}
	attempts[0].want(t, map[string]string{"httpowerd.result": "superseded", "error.type": "-", "http.response.status_code": "-"})
	attempts[1].want(t, map[string]string{"httpowerd.reason": "hedge", "http.request.resend_count": "1", "http.response.status_code": "200"})
	if attempts[0].status != tracepb.Status_STATUS_CODE_UNSET || server.events["httpowerd.hedge"] == nil {
		t.Errorf("%+v", spans)
	}
}

// What the proxy refuses has a span without attempts, which says why.
func TestTraceOfRefusals(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newRawOrigin(t, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	b := start(t, fmt.Sprintf(`tracing: {otlp: %q, sample: 1}
hosts:
  denied.example.com: {access: deny}
  127.0.0.1: {retry: off, breaker: {consecutive: 1}, rate_limit: off}
`, to.url))
	c := b.client()
	traced(t, c, "http://denied.example.com/")
	traced(t, c, o.url("/"))
	traced(t, c, o.url("/"))
	spans := to.got(4)
	by := map[string]span{}
	for _, s := range of(spans, "SERVER") {
		by[s.attrs["httpowerd.outcome"]] = s
	}
	by["denied"].want(t, map[string]string{"error.type": "denied", "http.response.status_code": "403", "httpowerd.status_by": "proxy", "httpowerd.attempts": "0",
		"httpowerd.policy": "denied.example.com"})
	by["breaker_open"].want(t, map[string]string{"error.type": "breaker_open", "http.response.status_code": "503", "httpowerd.attempts": "0"})
	by["upstream_error"].want(t, map[string]string{"error.type": "upstream_error", "http.response.status_code": "503", "httpowerd.attempts": "1"})
	if by["denied"].status != tracepb.Status_STATUS_CODE_UNSET || by["breaker_open"].status != tracepb.Status_STATUS_CODE_ERROR ||
		by["denied"].events["httpowerd.refused"]["httpowerd.reason"] != "denied" || by["breaker_open"].events["httpowerd.breaker.refused"]["httpowerd.breaker"] != "open" {
		t.Errorf("%+v", by)
	}
}

// A wait for a limit is an event with its length.
func TestTraceOfWaits(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newNoted(t, false, fine)
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1}\ndefaults: {rate_limit: {requests: 1, per: 200ms, burst: 1}}\n", to.url))
	c := b.client()
	traced(t, c, o.URL+"/")
	traced(t, c, o.URL+"/")
	for i, s := range of(to.got(4), "SERVER") {
		if wait := s.events["httpowerd.limit.wait"]; (wait != nil) != (i == 1) || i == 1 && !strings.HasPrefix(wait["httpowerd.wait_seconds"], "0.") {
			t.Errorf("exchange %d: %v", i, s.events)
		}
	}
}

// A tunnel is one span, and the connection to the upstream one below it; requests in it are nobody's business.
func TestTraceOfTunnels(t *testing.T) {
	t.Parallel()
	to := grpcCollector(t)
	o := newNoted(t, true, fine)
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 0}\n", to.url))
	authority := o.Listener.Addr().String()
	raw := b.dialProxy()
	raw.send("CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\nTraceparent: " + clientField + "\r\n\r\n")
	if a := raw.answer(http.MethodConnect); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	inside := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if _, err := inside.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\nTraceparent: 00-" + strings.Repeat("a", 32) + "-" + clientSpan + "-01\r\nConnection: close\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_, _ = inside.Read(make([]byte, 1<<10))
	raw.Close()
	spans := to.got(2)
	server, attempt := of(spans, "SERVER")[0], of(spans, "CLIENT")[0]
	if server.name != "CONNECT" || attempt.name != "connect" || server.trace != clientTrace || server.parent != clientSpan || attempt.parent != server.id {
		t.Errorf("%+v", spans)
	}
	server.want(t, map[string]string{"http.request.method": "CONNECT", "httpowerd.mode": "tunnel", "url.full": "-"})
	attempt.want(t, map[string]string{"http.request.method": "-", "network.peer.address": "127.0.0.1", "url.full": "-"})
	if got := o.got(); len(got) != 1 || !strings.Contains(got[0].Get("Traceparent"), strings.Repeat("a", 32)) {
		t.Errorf("the upstream got %v", got)
	}
	b.records(1)[0].want(t, map[string]any{"trace_id": clientTrace, "kind": "tunnel"})
}

// What is not sampled makes no span, and upstreams hear that nobody reads along. A traceparent that breaks the rules begins a trace anew, without its state.
func TestUnsampled(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newNoted(t, false, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 0}\ndefaults: {retry: {backoff: {base: 1ms, max: 2ms}}}\n", to.url))
	c := b.client()
	for i, fields := range [][]string{
		nil, {"Traceparent", clientField[:53] + "00", "Tracestate", "foo=1"}, {"Traceparent", strings.ToUpper(clientField), "Tracestate", "foo=1"},
		{"Traceparent", clientField},
	} {
		traced(t, c, fmt.Sprintf("%s/%d", o.URL, i+1), fields...)
		b.records(i + 1) // they are written after the answer, in any order
	}
	to.got(2) // of the last one
	heads, records := o.got(), b.records(4)
	for i, want := range []string{"", "", clientTrace, ""} {
		field := heads[i].Get("Traceparent")
		if len(field) != 55 || !strings.HasSuffix(field, "-00") || want != "" && field[3:35] != want {
			t.Errorf("request %d: the upstream got %q", i, field)
		}
	}
	if heads[0].Get("Traceparent") != heads[1].Get("Traceparent") || heads[2].Get("Tracestate") != "foo=1" || heads[3]["Tracestate"] != nil {
		t.Errorf("%v", heads)
	}
	for i, n := range []int{0, 2, 3, 4} {
		records[i].want(t, map[string]any{"trace_id": heads[n].Get("Traceparent")[3:35]})
	}
}

// With tracing off, or without leave to propagate, upstreams get what the client sent; the record has the trace all the same.
func TestTraceUntouched(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newNoted(t, false, fine)
	for _, config := range []string{"", "tracing: off\n", fmt.Sprintf("tracing: {otlp: %q, propagate: false}\n", to.url)} {
		b := start(t, config)
		before := len(o.got())
		traced(t, b.client(), o.URL+"/", "Traceparent", clientField, "Tracestate", "B@D", "Tracestate", "foo=1", "Baggage", "user=7")
		b.records(1) // they are written after the answer, in any order
		traced(t, b.client(), o.URL+"/", "Traceparent", "nonsense")
		heads, records := o.got()[before:], b.records(2)
		if h := heads[0]; h.Get("Traceparent") != clientField || !slices.Equal(h["Tracestate"], []string{"B@D", "foo=1"}) || h.Get("Baggage") != "user=7" ||
			heads[1].Get("Traceparent") != "nonsense" {
			t.Errorf("%q: the upstream got %v", config, heads)
		}
		records[0].want(t, map[string]any{"trace_id": clientTrace})
		if id := records[1].text("trace_id"); (id != "") != strings.Contains(config, "otlp") {
			t.Errorf("%q: the record has %q", config, id)
		}
	}
}

// No byte that the collector gets holds a secret, whatever part of a request it came in.
func TestTraceHoldsNoSecrets(t *testing.T) {
	t.Parallel()
	const planted, card = "sk_live_51PlantedSecretOfTheTest00", "4111111111111111"
	to := httpCollector(t)
	o := newNoted(t, false, fine)
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1}\ndefaults: {redact: {patterns: [\"ours-[0-9]+\"]}}\n", to.url))
	send := func(head string) {
		c := b.dialProxy()
		c.send(head)
		c.answer(http.MethodGet)
	}
	host := o.Listener.Addr().String()
	for _, head := range []string{
		"GET http://" + host + "/pay/" + card + "?api_key=" + planted + "&next=http%3A%2F%2Fu%3A" + planted + "%40h%2F&x=ours-123 HTTP/1.1\r\nHost: " + host +
			"\r\nAuthorization: Bearer " + planted + "\r\nTraceparent: " + clientField + "\r\nTracestate: k=" + planted + "\r\nBaggage: key=" + planted +
			"\r\nUser-Agent: " + planted + "\r\nCookie: session=" + planted + "\r\nX-Request-Id: " + planted + "\r\n\r\n",
		"GET http://user:" + planted + "@" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		planted + " http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"CONNECT user:" + planted + "@" + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
	} {
		send(head)
	}
	b.records(4)
	_ = b.Shutdown(context.Background())
	to.mu.Lock()
	defer to.mu.Unlock()
	if len(to.spans) < 5 {
		t.Fatalf("%d spans: %+v", len(to.spans), to.spans)
	}
	for _, secret := range []string{planted, card, "ours-123"} {
		if i := strings.Index(to.raw.String(), secret); i >= 0 {
			t.Errorf("the collector got %q", to.raw.String()[max(0, i-80):i+len(secret)])
		}
	}
	methods := map[string]bool{}
	for _, s := range to.spans {
		methods[s.attrs["http.request.method"]] = true
		if s.name != "GET" && s.name != "HTTP" && s.name != "CONNECT" && s.name != "connect" {
			t.Errorf("a span is called %s", s.name)
		}
	}
	if !methods["_OTHER"] {
		t.Errorf("methods %v", methods)
	}
}

// A collector that is away costs spans, and nothing else.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := l.Addr().String()
	l.Close()
	o := newNoted(t, false, fine)
	for _, url := range []string{"http://" + away, "grpc://" + away} {
		b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1, timeout: 300ms}\n", url))
		c := b.client()
		for range 50 {
			if a := get(t, c, o.URL+"/"); a.StatusCode != 200 {
				t.Fatal(a.Status)
			}
		}
		b.waitFor(t, "httpowerd_trace_spans_dropped_total", 100) // a slow machine makes several batches of them
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(b.log.String(), "could not be exported") && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond) // the log hears of it behind the metric
		}
		metrics := b.admin(http.MethodGet, "/metrics", "").body
		if n := strings.Count(b.log.String(), "could not be exported"); n != 1 || !strings.Contains(metrics, `httpowerd_trace_spans_dropped_total{reason="export"} 100`) {
			t.Errorf("%s: the log has it %d times\n%s", url, n, metrics)
		}
		begin := time.Now()
		b.stop()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: the end took %v", url, took)
		}
	}
}

// A collector that refuses some spans has taken the others, and one that only says something has taken all (partial success in OTLP).
func TestCollectorTakesPart(t *testing.T) {
	t.Parallel()
	o := newNoted(t, false, fine)
	for name, open := range map[string]func(*testing.T) *collector{"HTTP": httpCollector, "gRPC": grpcCollector} {
		for _, row := range []struct{ refused, exported, dropped, failures int }{{0, 2, 0, 0}, {1, 1, 1, 1}, {99, 0, 2, 1}} {
			c := open(t)
			c.partial = &collectorpb.ExportTracePartialSuccess{RejectedSpans: int64(row.refused), ErrorMessage: "said the collector"}
			b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1}\n", c.url))
			get(t, b.client(), o.URL+"/")
			c.got(2)
			for deadline := time.Now().Add(10 * time.Second); !strings.Contains(b.log.String(), "said the collector") && time.Now().Before(deadline); {
				time.Sleep(10 * time.Millisecond)
			}
			metrics := b.admin(http.MethodGet, "/metrics", "").body
			for metric, want := range map[string]int{"exported_total": row.exported, `dropped_total{reason="export"}`: row.dropped} {
				if !strings.Contains(metrics, fmt.Sprintf("\nhttpowerd_trace_spans_%s %d\n", metric, want)) {
					t.Errorf("%s, %d refused: %s is not %d", name, row.refused, metric, want)
				}
			}
			if !strings.Contains(metrics, fmt.Sprintf("\nhttpowerd_trace_export_failures_total %d\n", row.failures)) {
				t.Errorf("%s, %d refused: failures are not %d", name, row.refused, row.failures)
			}
			if log := b.log.String(); !strings.Contains(log, "said the collector") || strings.Contains(log, "could not be exported") != (row.refused > 0) {
				t.Errorf("%s, %d refused: the log says\n%s", name, row.refused, log)
			}
			b.stop()
		}
	}
}

// A change acts at once, without a restart.
func TestTracingReloads(t *testing.T) {
	t.Parallel()
	first, second := httpCollector(t), grpcCollector(t)
	o := newNoted(t, false, fine)
	b := start(t, "")
	c := b.client()
	get(t, c, o.URL+"/off")
	for i, to := range []*collector{first, second} {
		b.write(fmt.Sprintf("tracing: {otlp: %q, sample: 1}\n", to.url))
		if err := b.Reload(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		get(t, c, fmt.Sprintf("%s/%d", o.URL, i+1))
		for _, s := range to.got(2) {
			if !strings.HasSuffix(s.attrs["url.full"], fmt.Sprint("/", i+1)) {
				t.Errorf("collector %d got %v", i, s.attrs)
			}
		}
	}
	b.write("tracing: off\n")
	if err := b.Reload(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	get(t, c, o.URL+"/off")
	if heads := o.got(); heads[0]["Traceparent"] != nil || heads[1]["Traceparent"] == nil || heads[3]["Traceparent"] != nil {
		t.Errorf("%v", heads)
	}
	b.stop()
	first.got(2)
	second.got(2)
}

// Shutdown sends what waits.
func TestShutdownSendsSpans(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newNoted(t, false, fine)
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1}\n", to.url))
	get(t, b.client(), o.URL+"/")
	b.stop()
	to.mu.Lock()
	defer to.mu.Unlock()
	if len(to.spans) != 2 {
		t.Errorf("%d spans", len(to.spans))
	}
}

// Sampled exchanges leave their trace beside the durations, for scrapers that ask for OpenMetrics, and the whole page keeps the rules of naming.
func TestExemplars(t *testing.T) {
	t.Parallel()
	to := httpCollector(t)
	o := newNoted(t, false, fine)
	b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 0}\n", to.url))
	c := b.client()
	traced(t, c, o.URL+"/", "Traceparent", clientField)
	traced(t, c, o.URL+"/", "Traceparent", "00-"+strings.Repeat("c", 32)+"-"+clientSpan+"-00")
	b.records(2)
	text := b.admin(http.MethodGet, "/metrics", "", "Accept", "application/openmetrics-text; version=1.0.0").body
	for _, name := range []string{"httpowerd_request_duration_seconds_bucket", "httpowerd_attempt_duration_seconds_bucket"} {
		found := false
		for line := range strings.Lines(text) {
			found = found || strings.HasPrefix(line, name) && strings.Contains(line, `# {trace_id="`+clientTrace+`"}`)
		}
		if !found {
			t.Errorf("%s has no exemplar:\n%s", name, text)
		}
	}
	if strings.Contains(text, strings.Repeat("c", 32)) {
		t.Error("a trace that nobody reads is an exemplar")
	}
	problems, err := promlint.New(strings.NewReader(b.admin(http.MethodGet, "/metrics", "").body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", err, problems)
	}
}

// The environment says nothing about tracing: not where to, not with what, not about whom.
func TestTracingIgnoresTheEnvironment(t *testing.T) {
	wrong := httpCollector(t)
	o := newNoted(t, false, fine)
	ca := originCA(t, newNoted(t, true, fine).Server)
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": wrong.url, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": wrong.url + "/v1/traces", "OTEL_EXPORTER_OTLP_HEADERS": "planted=1",
		"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_COMPRESSION": "none", "OTEL_EXPORTER_OTLP_CERTIFICATE": ca, "OTEL_EXPORTER_OTLP_INSECURE": "false",
		"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_RESOURCE_ATTRIBUTES": "planted=1,service.name=wrong", "OTEL_SERVICE_NAME": "wrong", "OTEL_TRACES_SAMPLER": "always_off",
		"OTEL_SDK_DISABLED": "true", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1",
	} {
		t.Setenv(name, value)
	}
	for _, to := range []*collector{httpCollector(t), grpcCollector(t)} {
		b := start(t, fmt.Sprintf("tracing: {otlp: %q, sample: 1}\n", to.url))
		get(t, b.client(), o.URL+"/")
		of(to.got(2), "SERVER")[0].want(t, map[string]string{"http.request.method": "GET", "http.response.status_code": "200"})
		to.mu.Lock()
		if to.resource["service.name"] != "httpowerd" || to.resource["planted"] != "" || to.heads[0].Get("Planted") != "" {
			t.Errorf("%v %v", to.resource, to.heads[0])
		}
		to.mu.Unlock()
	}
	wrong.got(0)
}
