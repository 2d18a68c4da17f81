//go:build hostile

package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// How many connections press on the daemon, and how a healthy client is measured: from the time at which each request was due.
const (
	dripping  = 5_000
	resting   = 10_000
	healthy   = 200 // requests/s
	measuring = 10 * time.Second
)

// TestHealthyClientAmongSlowOnes: 5,000 clients that send a head byte by byte and 10,000 that send nothing at all cost a healthy client's 99th percentile no more than it was without them again.
func TestHealthyClientAmongSlowOnes(t *testing.T) {
	o := "http://" + serve(t, nil, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })) + "/"
	d := start(t, "proxy: {limits: {connections: 16000, header_timeout: 5m, idle: 10m}}\n")
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(d.proxyURL()), MaxIdleConnsPerHost: 100}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	measure(t, client, o) // warm
	before := measure(t, client, o)
	var slow []net.Conn
	defer func() {
		for _, c := range slow {
			_ = c.Close()
		}
	}()
	for i := range dripping + resting {
		c, err := net.Dial("tcp", d.proxy)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		slow = append(slow, c)
		if i >= dripping { // a kept connection: it had its answer, and rests
			if _, err := io.WriteString(c, "GET "+o+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
		}
	}
	stop, dripped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(dripped)
		head := "GET http://example.com/ HTTP/1.1\r\nX-Slow: " + strings.Repeat("a", 1000)
		tick := time.NewTicker(time.Second / dripping * 10)
		defer tick.Stop()
		for i := 0; ; i += 10 { // a byte a second for each
			for j := i; j < i+10; j++ {
				if _, err := slow[j%dripping].Write([]byte{head[(j/dripping)%len(head)]}); err != nil {
					return
				}
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	among := measure(t, client, o)
	close(stop)
	<-dripped
	t.Logf("p50 %v, p99 %v; among %d slow and %d resting clients p50 %v, p99 %v; resident %d MiB", before.p50, before.p99, dripping, resting, among.p50, among.p99,
		residentSize(t, d.cmd.Process.Pid, "VmRSS:")>>20)
	if among.p99 > 2*before.p99 {
		t.Errorf("the 99th percentile rose from %v to %v", before.p99, among.p99)
	}
}

type latency struct{ p50, p99 time.Duration }

// measure sends requests at a steady pace.
func measure(t *testing.T, client *http.Client, url string) latency {
	t.Helper()
	n := int(measuring / (time.Second / healthy))
	took, begin := make([]time.Duration, n), time.Now()
	failed := make(chan error, n)
	done := make(chan struct{}, n)
	for i := range n {
		due := begin.Add(time.Duration(i) * time.Second / healthy)
		time.Sleep(time.Until(due))
		go func() {
			defer func() { done <- struct{}{} }()
			resp, err := client.Get(url)
			if err != nil {
				failed <- err
				return
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			took[i] = time.Since(due)
			if err != nil || resp.StatusCode != http.StatusOK {
				failed <- fmt.Errorf("%s %w", resp.Status, err)
			}
		}()
	}
	for range n {
		<-done
	}
	if len(failed) > 0 {
		t.Fatalf("%d of %d requests failed: %v", len(failed), n, <-failed)
	}
	slices.Sort(took)
	return latency{took[n/2], took[n*99/100]}
}
