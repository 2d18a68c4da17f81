package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// hanging is an upstream that begins an answer to /stream, gives a lot to /long and none to anything else.
func hanging(t *testing.T, secure bool) *httptest.Server {
	o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			return
		case "/stream":
			_, _ = io.WriteString(w, "first ")
			_ = http.NewResponseController(w).Flush()
		case "/long":
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	o.EnableHTTP2 = true
	if secure {
		o.StartTLS()
	} else {
		o.Start()
	}
	t.Cleanup(func() { o.CloseClientConnections(); o.Close() })
	return o
}

// TestCutOff: a request that is still under way when a drain has no more time ended because of that, wherever it is, and not because its client had left. Whose answer
// has not begun is answered, where that takes no time; else the record tells of no answer.
func TestCutOff(t *testing.T) {
	plain, secure := hanging(t, false), hanging(t, true)
	at, secureAt := plain.Listener.Addr().String(), secure.Listener.Addr().String()
	r := newRig(t, fmt.Sprintf(`
defaults: {upstream: {insecure_skip_verify: true, resolve: {lim.test: %q, con.test: %[1]q, ded.test: %[1]q, hed.test: %[1]q, int.test: %q}}}
hosts:
  int.test: {tls: intercept}
  lim.test: {rate_limit: {requests: 1, per: 30m, wait: 40m}, timeout: {total: 50m}}
  con.test: {concurrency: {max: 1, wait: 1m}}
  ded.test: {dedup: {}}
  hed.test: {hedge: {after: 10ms}}`, at, secureAt), ends{}, standardLimits())
	get := func(host, rest string) *peer {
		p := r.dial()
		p.send(fmt.Sprintf("GET http://%s%s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", host, rest))
		return p
	}
	peers := map[string]*peer{"hangs": get(at, "/hang"), "streams": get(at, "/stream"), "does not read": get(at, "/long"), "hedged": get("hed.test", "/hang"),
		"leads": get("ded.test", "/hang"), "holds the place": get("con.test", "/hang")}
	upload := "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 100000\r\n\r\nabc"
	peers["uploads"] = r.dial()
	peers["uploads"].send(fmt.Sprintf(upload, "http://"+at+"/hang", at))
	peers["inside"] = r.connect("int.test:443").secure("http/1.1")
	peers["inside"].send("GET /hang HTTP/1.1\r\nHost: int.test\r\n\r\n")
	peers["uploads inside"] = r.connect("int.test:443").secure("http/1.1")
	peers["uploads inside"].send(fmt.Sprintf(upload, "/hang", "int.test"))
	first := get("lim.test", "/ok")
	if resp, _ := first.answer(http.MethodGet); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	_ = first.Close()
	over2 := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: r.addr}), TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true}}
	defer over2.CloseIdleConnections()
	if resp, err := over2.Get("https://int.test/ok"); err != nil || resp.ProtoMajor != 2 { // the others use its connection
		t.Fatal(resp, err)
	}
	http2 := make(chan string, 3)
	for _, path := range []string{"/hang", "/stream", "/upload"} {
		body := io.Reader(http.NoBody)
		if path == "/upload" {
			rest, end := io.Pipe()
			defer end.Close()
			body = io.MultiReader(strings.NewReader("abc"), rest)
		}
		go func() {
			resp, err := over2.Post("https://int.test"+path, "text/plain", body)
			if err != nil {
				http2 <- path + " is not answered"
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			http2 <- fmt.Sprintf("%s %d %s %t", path, resp.StatusCode, resp.Header.Get("Httpowerd-Error"), err != nil || len(text) == 0)
		}()
	}
	time.Sleep(100 * time.Millisecond) // who follows or waits must come behind who leads
	peers["follows"], peers["waits for a place"], peers["waits for its turn"] = get("ded.test", "/hang"), get("con.test", "/hang"), get("lim.test", "/hang")
	time.Sleep(400 * time.Millisecond) // all of them are where they are meant to be

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if err := r.Shutdown(ctx); err == nil {
		t.Error("nobody says that requests have been cut")
	}
	if took := time.Since(began); took > goodbye+settling+time.Second {
		t.Errorf("it took %v to cut what was left", took)
	}
	standing := map[string]bool{"streams": true, "does not read": true, "uploads": standardWire, "uploads inside": standardWire}
	for name, p := range peers {
		if standing[name] {
			continue
		}
		resp, body := p.answer(http.MethodGet)
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Httpowerd-Error") != "draining" || !resp.Close || !strings.Contains(body, `"code":"draining"`) {
			t.Errorf("%s: %s %v %s", name, resp.Status, resp.Header, body)
		}
	}
	for range 3 {
		switch got := <-http2; got {
		case "/hang 503 draining false", "/stream 200  true", "/upload is not answered", "/upload 503 draining false":
		default:
			t.Errorf("over HTTP/2: %s", got)
		}
	}
	const ended = 2
	records := r.records(len(peers) + 3 + ended)
	for _, record := range records {
		status, by := record["status"], record["status_by"]
		bytes, _ := record["response_bytes"].(float64)
		switch {
		case strings.HasSuffix(record["url"].(string), "/ok"):
			continue
		case record["outcome"] != "draining":
			t.Errorf("outcome %v: %v", record["outcome"], record)
		case status == nil && (by != nil || bytes != 0), status == 503.0 && (by != "proxy" || bytes < 100), status == 200.0 && (by != "upstream" || bytes == 0):
			t.Errorf("status %v by %v with %v bytes: %v", status, by, bytes, record)
		}
	}
	if n := countOf(t, r.metrics.requests, "draining"); n != len(records)-ended {
		t.Errorf("%d requests were counted as draining, %d recorded", n, len(records)-ended)
	}
}

// countOf adds up a counter's series of one outcome.
func countOf(t *testing.T, c prometheus.Collector, outcome string) (n int) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.Metric {
			for _, label := range m.Label {
				if label.GetName() == "outcome" && label.GetValue() == outcome {
					n += int(m.GetCounter().GetValue())
				}
			}
		}
	}
	return n
}

// TestCutOffConnect: a CONNECT that still waits for its upstream when a drain has no more time is answered and recorded like that.
func TestCutOffConnect(t *testing.T) {
	dials := make(chan struct{})
	r := newRig(t, "", ends{tunnels: trip(func(r *http.Request) (*http.Response, error) {
		close(dials)
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	})}, standardLimits())
	p := r.dial()
	p.send("CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n")
	<-dials
	r.tunnels.cut()
	if resp, _ := p.answer(http.MethodGet); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Httpowerd-Error") != "draining" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	if record := r.records(1)[0]; record["outcome"] != "draining" || record["status"] != 503.0 || record["kind"] != "tunnel" {
		t.Errorf("the record is %v", record)
	}
}

type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
