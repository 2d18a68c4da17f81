package daemon

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"

	"github.com/elazarl/goproxy"
)

// allocationBudget is how many allocations a plain request may take with all default stages, beyond those of goproxy's own handling.
const allocationBudget = 12

// BenchmarkAllocationBudget fails where a request takes more. make unit runs it, without the race detector, which changes what is allocated.
func BenchmarkAllocationBudget(b *testing.B) {
	o := newBenchOrigin(b, false, 1<<10)
	direct := allocations(b, o, o.Listener.Addr().String(), b.N)
	proxied := allocations(b, o, benchDaemon(b, "{}").ProxyAddrs()[0], b.N)
	theirs := goproxyAllocations(b.N)
	own := proxied - direct - theirs
	b.ReportMetric(own, "own-allocs/op")
	b.ReportMetric(theirs, "goproxy-allocs/op")
	if b.N >= 1000 && own > allocationBudget {
		b.Errorf("%.1f allocations for each request, %.1f of them by client and origin and %.1f by goproxy; the rest may be %d", proxied, direct, theirs, allocationBudget)
	}
}

// allocations is how many a GET takes in this process, on one connection that is kept.
func allocations(b *testing.B, o *benchOrigin, address string, n int) float64 {
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	request := []byte("GET " + o.URL + "/v1/items?page=2 HTTP/1.1\r\nHost: " + o.Listener.Addr().String() + "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	r := bufio.NewReader(c)
	get := func() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		length, status := int64(-1), 0
		for { // by hand: a client that parses the fields that a proxy adds would allocate for them
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
			switch {
			case status == 0:
				status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
			case len(line) > 16 && string(line[:16]) == "Content-Length: ":
				for _, d := range line[16 : len(line)-2] {
					length = max(length, 0)*10 + int64(d-'0')
				}
			}
		}
		if _, err := r.Discard(int(length)); err != nil || status != http.StatusOK || length != int64(o.size) {
			b.Fatal(status, length, err)
		}
	}
	for range 100 {
		get()
	}
	return perCall(n, get)
}

// goproxyAllocations is how many goproxy itself takes for a request whose answer is there.
func goproxyAllocations(n int) float64 {
	header := http.Header{"Content-Type": {"text/plain"}, "Content-Length": {strconv.Itoa(2)}}
	answer := &http.Response{StatusCode: http.StatusOK, Header: header, Body: nothing{}}
	p := &goproxy.ProxyHttpServer{KeepAcceptEncoding: true, KeepDestinationHeaders: true, Logger: silent{}}
	p.OnRequest().DoFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) { return r, answer })
	r := httptest.NewRequest(http.MethodGet, "http://api.example.com/v1/items?page=2", nil)
	w := &discarding{header: http.Header{}}
	return perCall(n, func() {
		clear(w.header)
		p.ServeHTTP(w, r)
	})
}

func perCall(n int, f func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n)
}

type nothing struct{}

func (nothing) Read([]byte) (int, error)             { return 0, io.EOF }
func (nothing) Close() error                         { return nil }
func (nothing) WriteTo(io.Writer) (n int64, _ error) { return 0, nil }

type discarding struct{ header http.Header }

func (d *discarding) Header() http.Header         { return d.header }
func (d *discarding) Write(p []byte) (int, error) { return len(p), nil }
func (d *discarding) WriteHeader(int)             {}

type silent struct{}

func (silent) Printf(string, ...any) {}
