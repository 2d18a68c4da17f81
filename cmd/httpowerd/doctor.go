package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"httpowerd/internal/daemon"
	"httpowerd/internal/policy"
	"httpowerd/internal/proxy/intercept"
	"httpowerd/internal/trust"
)

func doctorCommand(io stdio) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Try out, runtime by runtime, who reaches the proxy, honours its variables and trusts the CA",
		Long: "Starts a private proxy and a probe server and lets every runtime on this machine fetch from it with the variables of\n" +
			"`httpowerd env`. Nothing leaves this machine.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			return doctor(ctx, io)
		},
	}
	cmd.Flags().DurationVar(&wait, "timeout", 2*time.Minute, "for all checks together")
	return cmd
}

func doctor(ctx context.Context, io stdio) error {
	dir, err := os.MkdirTemp("", "httpowerd-doctor-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	probe, err := newProbe(dir)
	if err != nil {
		return err
	}
	defer probe.close()
	d, err := daemon.Start(daemon.Options{Source: probe.source(dir), Version: version(), Log: devNull{}, NoAdmin: true, NoState: true, NoWatch: true})
	if err != nil {
		return err
	}
	defer func() {
		quit, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.Shutdown(quit)
	}()
	ca, err := d.CA()
	if err != nil {
		return err
	}
	settings, err := trustFiles(ca, dir)
	if err != nil {
		return err
	}
	if settings.Proxy, err = proxyURL(d.ProxyAddrs()[0], false); err != nil {
		return err
	}
	checks := trust.Doctor(ctx, trust.Probe{HTTPURL: probe.httpURL, HTTPSURL: probe.httpsURL, Settings: settings, Seen: probe.seen})
	table := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	bad := 0
	for _, c := range checks {
		verdict := "ok"
		switch {
		case c.Absent:
			verdict = "absent"
		case !c.OK:
			verdict = "FAILS"
			bad++
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", c.Runtime, c.Check, verdict, c.Detail)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if bad > 0 {
		return &exitError{code: 1}
	}
	return nil
}

type devNull struct{}

func (devNull) Write(p []byte) (int, error) { return len(p), nil }

// probe is the server that runtimes are sent to. It notes which requests came by way of the proxy.
type probe struct {
	httpURL, httpsURL string
	servers           []*http.Server
	ca                string

	mu  sync.Mutex
	saw map[string]bool // marker: by way of the proxy
}

func newProbe(dir string) (*probe, error) {
	p := &probe{saw: map[string]bool{}, ca: dir + "/probe-ca.pem"}
	ca, err := intercept.Create(dir + "/probe")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.ca, ca.PEM(), 0o600); err != nil {
		return nil, err
	}
	for _, secure := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		url := "http://" + probeHost + ":" + port
		if secure {
			url = "https://" + probeHost + ":" + port
			p.httpsURL = url
			l = tls.NewListener(l, ca.ServerConfig(probeHost, false))
		} else {
			p.httpURL = url
		}
		s := &http.Server{Handler: http.HandlerFunc(p.answer), ReadHeaderTimeout: 10 * time.Second}
		p.servers = append(p.servers, s)
		go func() { _ = s.Serve(l) }()
	}
	return p, nil
}

// probeHost resolves only at the proxy: a runtime that reaches it did go there, and none takes it for loopback.
const probeHost = "doctor.httpowerd.test"

// source lets the private proxy find the probe and trust it.
func (p *probe) source(dir string) policy.Source {
	_, httpPort, _ := net.SplitHostPort(p.httpURL[len("http://"):])
	_, httpsPort, _ := net.SplitHostPort(p.httpsURL[len("https://"):])
	text := fmt.Sprintf("version: 1\nproxy: {listen: \"127.0.0.1:0\"}\naudit: {output: off}\nstate: {dir: %q}\nhosts:\n"+
		"  %q: {tls: intercept, upstream: {resolve: {%q: \"127.0.0.1:%s\"}, ca: %q}}\n"+
		"  %q: {upstream: {resolve: {%q: \"127.0.0.1:%s\"}}}\n",
		dir, probeHost+":"+httpsPort, probeHost, httpsPort, p.ca, probeHost+":"+httpPort, probeHost, httpPort)
	path := dir + "/doctor.yaml"
	_ = os.WriteFile(path, []byte(text), 0o600) // a failure shows when it is loaded
	return policy.Source{Path: path}
}

func (p *probe) answer(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.saw[r.URL.Query().Get("marker")] = r.Header.Get("Via") != ""
	p.mu.Unlock()
	_, _ = w.Write([]byte("httpowerd doctor\n"))
}

// seen tells whether a request with this marker came, and by way of the proxy.
func (p *probe) seen(marker string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.saw[marker]
}

func (p *probe) close() {
	for _, s := range p.servers {
		_ = s.Close()
	}
}
