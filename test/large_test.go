package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	large   = 2 << 30 // bytes of each body
	mostRSS = 100 << 20
	chunk   = 256 << 10
)

// TestLargeBodies moves 2 GiB up and down on each way; the daemon must not keep what it passes on.
func TestLargeBodies(t *testing.T) {
	ca := newAuthority(t)
	plain := serve(t, nil, false, http.HandlerFunc(bulk))
	h1 := serve(t, ca, false, http.HandlerFunc(bulk))
	d := start(t, fmt.Sprintf(`hosts:
  plain.example.com: {upstream: {resolve: {plain.example.com: "%s"}}}
  tunnel.example.com: {upstream: {resolve: {tunnel.example.com: "%s"}}}
  intercept.example.com: {tls: intercept, upstream: {resolve: {intercept.example.com: "%s"}, ca: %s}}
`, plain, h1, h1, ca.certFile))
	roots := ca.pool()
	if !roots.AppendCertsFromPEM([]byte(d.ask("/ca.pem"))) {
		t.Fatal("/ca.pem has no certificate")
	}
	transport := &http.Transport{Proxy: http.ProxyURL(d.proxyURL()), TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true,
		ReadBufferSize: chunk, WriteBufferSize: chunk}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 2 * time.Minute}
	for _, base := range []string{"http://plain.example.com", "https://tunnel.example.com", "https://intercept.example.com"} {
		mode, _, _ := strings.Cut(strings.SplitAfter(base, "//")[1], ".")
		t.Run(mode+"/down", func(t *testing.T) {
			resp, err := client.Get(base + "/")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if n, err := drain(resp.Body); n != large || err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("received %d bytes, %v, status %d", n, err, resp.StatusCode)
			}
		})
		t.Run(mode+"/up", func(t *testing.T) {
			r, err := http.NewRequest(http.MethodPut, base+"/", struct{ io.Reader }{io.LimitReader(zeros{}, large)})
			if err != nil {
				t.Fatal(err)
			}
			r.ContentLength = large
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := body(t, resp); got != strconv.Itoa(large) {
				t.Errorf("the upstream received %s bytes", got)
			}
		})
	}
	if rss := residentSize(t, d.cmd.Process.Pid, "VmHWM:"); rss > mostRSS {
		t.Errorf("the daemon needed %d MiB; want at most %d", rss>>20, mostRSS>>20)
	} else {
		t.Logf("the daemon needed %d MiB", rss>>20)
	}
	transport.CloseIdleConnections() // lets the tunnel end
	d.stop()
}

// bulk sends large bytes to a GET, and counts what it is sent.
func bulk(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		w.Header().Set("Content-Length", strconv.Itoa(large))
		b := make([]byte, chunk)
		for range large / chunk {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
		return
	}
	n, err := drain(r.Body)
	if err != nil {
		return
	}
	fmt.Fprint(w, n)
}

func drain(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, chunk))
}

// zeros is an endless body that costs nothing to make.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// residentSize is a process's VmRSS: or VmHWM: (the most it ever was), in bytes.
func residentSize(t testing.TB, pid int, field string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("there is no %s", field)
	return 0
}
