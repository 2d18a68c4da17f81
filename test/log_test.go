package test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestLogIsAllJSON: what libraries say by themselves, of upstreams that break the protocol, stands in the daemon's log as records like all others (A48).
func TestLogIsAllJSON(t *testing.T) {
	ca := newAuthority(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.certificate(t)}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, "\x00\x00\x08\x06\x00\x00\x00\x00\x0001234567") // a PING where SETTINGS is due
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	d := start(t, fmt.Sprintf("log: {level: debug}\nhosts: {h2.example.com: {tls: intercept, retry: off, upstream: {resolve: {h2.example.com: %q}, ca: %s}}}\n",
		l.Addr(), ca.certFile))
	client := proxied(t, d, ca)
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	resp, err := client.Get("https://h2.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.Header.Get("Httpowerd-Error"); resp.StatusCode != http.StatusBadGateway || !strings.HasPrefix(code, "upstream_") {
		t.Errorf("%s %s", resp.Status, code)
	}
	body(t, resp)
	eventually(t, "net/http says something", func() error {
		if text := d.log.String(); !strings.Contains(text, "before a SETTINGS frame") {
			return fmt.Errorf("the log so far:\n%s", text)
		}
		return nil
	})
	client.CloseIdleConnections()
	d.stop()
	for line := range strings.Lines(d.log.String()) {
		var record struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Level == "" || record.Msg == "" {
			t.Errorf("%v: %q", err, line)
		}
	}
}
