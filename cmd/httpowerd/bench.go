package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// benchPlan says how long and how hard each scenario is measured.
type benchPlan struct {
	duration time.Duration
	clients  int
	size     int
}

// benchScenario is one way to reach the origin.
type benchScenario struct {
	name               string
	https, h2, proxied bool
	intercept          bool
}

var benchScenarios = []benchScenario{
	{name: "http, direct"},
	{name: "http, proxied", proxied: true},
	{name: "https, direct", https: true},
	{name: "https, tunnelled", https: true, proxied: true},
	{name: "https, intercepted", https: true, proxied: true, intercept: true},
	{name: "h2, direct", https: true, h2: true},
	{name: "h2, intercepted", https: true, h2: true, proxied: true, intercept: true},
}

func benchCommand(io stdio) *cobra.Command {
	plan, resilience := benchPlan{}, false
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the proxy's own overhead on this machine: direct against proxied",
		Long: "Starts an origin and daemons with the default policy on loopback and sends requests over kept-alive connections.\n" +
			"CPU is the daemon's alone, in microseconds for each request; it holds on a busy machine where latencies do not.\n\n" +
			"--resilience measures instead what retries, budgets, breakers and limits come to against an upstream that fails, in about 90 seconds.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if resilience {
				return benchResilience(cmd.Context(), io)
			}
			return plan.run(cmd.Context(), io)
		},
	}
	cmd.Flags().BoolVar(&resilience, "resilience", false, "measure retries, budgets, breakers and limits instead; the other flags mean nothing then")
	cmd.Flags().DurationVar(&plan.duration, "duration", 3*time.Second, "for each scenario")
	cmd.Flags().IntVar(&plan.clients, "clients", 8, "requests in flight")
	cmd.Flags().IntVar(&plan.size, "size", 1024, "bytes of an answer's body")
	return cmd
}

func (p benchPlan) run(ctx context.Context, io stdio) error {
	if p.clients < 1 || p.duration <= 0 || p.size < 0 {
		return fmt.Errorf("--clients and --duration must be above 0, --size 0 or more")
	}
	dir, err := os.MkdirTemp("", "httpowerd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	origin, err := newBenchOrigin(dir, p.size)
	if err != nil {
		return err
	}
	defer origin.close()
	table := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "scenario\trequests/s\tp50 µs\tp90 µs\tp99 µs\tCPU µs/request\t")
	for _, s := range benchScenarios {
		r, err := p.measure(ctx, s, origin, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		cpu := "-"
		if s.proxied {
			cpu = fmt.Sprintf("%.1f", float64(r.cpu.Microseconds())/float64(len(r.latencies)))
		}
		fmt.Fprintf(table, "%s\t%.0f\t%d\t%d\t%d\t%s\t\n", s.name, float64(len(r.latencies))/r.elapsed.Seconds(),
			r.percentile(50), r.percentile(90), r.percentile(99), cpu)
	}
	return table.Flush()
}

// benchOrigin answers on http and https.
type benchOrigin struct {
	plain, secure *httptest.Server
	caFile        string
}

func newBenchOrigin(dir string, size int) (*benchOrigin, error) {
	body := make([]byte, size)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(body)
	})
	o := &benchOrigin{plain: httptest.NewServer(handler), secure: httptest.NewUnstartedServer(handler), caFile: filepath.Join(dir, "origin.pem")}
	o.secure.EnableHTTP2 = true
	o.secure.StartTLS()
	return o, writePEM(o.caFile, o.secure.Certificate().Raw)
}

func (o *benchOrigin) close() {
	o.plain.Close()
	o.secure.Close()
}

// benchResult is what one scenario gave.
type benchResult struct {
	latencies []time.Duration // sorted
	elapsed   time.Duration
	cpu       time.Duration // of the daemon
}

func (r *benchResult) percentile(p int) int64 {
	return r.latencies[min(len(r.latencies)-1, len(r.latencies)*p/100)].Microseconds()
}

func (p benchPlan) measure(ctx context.Context, s benchScenario, o *benchOrigin, dir string) (*benchResult, error) {
	roots := x509.NewCertPool()
	roots.AddCert(o.secure.Certificate())
	transport := &http.Transport{MaxIdleConnsPerHost: p.clients, DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(true)
	transport.Protocols.SetHTTP2(s.h2)
	defer transport.CloseIdleConnections()
	var child *benchChild
	if s.proxied {
		var err error
		if child, err = startBenchChild(ctx, s, o.caFile, dir); err != nil {
			return nil, err
		}
		defer child.stop()
		transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: child.address})
		if s.intercept {
			roots.AppendCertsFromPEM(child.ca)
		}
	}
	target := o.plain.URL
	if s.https {
		target = o.secure.URL
	}
	load := benchLoad{client: &http.Client{Transport: transport}, url: target, clients: p.clients}
	if _, err := load.run(ctx, p.duration/10); err != nil { // warm up
		return nil, err
	}
	before := child.cpu()
	r, err := load.run(ctx, p.duration)
	if err != nil {
		return nil, err
	}
	r.cpu = child.cpu() - before
	return r, nil
}

// benchLoad sends requests as fast as they are answered.
type benchLoad struct {
	client  *http.Client
	url     string
	clients int
}

func (l benchLoad) run(ctx context.Context, d time.Duration) (*benchResult, error) {
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	start := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	r := &benchResult{}
	for range l.clients {
		wg.Go(func() {
			latencies, err := l.worker(ctx, start.Add(d))
			mu.Lock()
			defer mu.Unlock()
			r.latencies = append(r.latencies, latencies...)
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	r.elapsed = time.Since(start)
	slices.Sort(r.latencies)
	if failed == nil && len(r.latencies) == 0 {
		failed = fmt.Errorf("no request was answered")
	}
	return r, failed
}

func (l benchLoad) worker(ctx context.Context, until time.Time) (latencies []time.Duration, err error) {
	for {
		start := time.Now()
		if start.After(until) {
			return latencies, nil
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
		if err != nil {
			return nil, err
		}
		resp, err := l.client.Do(r)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the answer was %s", resp.Status)
		}
		latencies = append(latencies, time.Since(start))
	}
}

// freeAddress is a loopback address that nobody listens on just now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
