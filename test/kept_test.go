package test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestKeptConnectionsAreNoAttempts: a request that kills what it meets is sent once for each attempt, on the retry block's account, however many kept connections
// there are that it could go through.
func TestKeptConnectionsAreNoAttempts(t *testing.T) {
	u := startScripted(t)
	const host, kept = "many.example.com", 20
	d := start(t, fmt.Sprintf("hosts:\n  %s: {upstream: {resolve: {%s: \"%s\"}}, retry: {backoff: {base: 1ms}}}\n", host, host, u.address))
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(d.proxyURL()), DisableKeepAlives: true}, Timeout: 2 * patience}
	url := "http://" + host + "/" + strings.Repeat("slow/", kept) + "reset"
	var wg sync.WaitGroup
	for range kept { // all of them at once, so that each has a connection of its own
		wg.Go(func() {
			resp, err := client.Get(url)
			if err != nil {
				t.Error(err)
				return
			}
			body(t, resp)
		})
	}
	wg.Wait()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	if body(t, resp); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("%s", resp.Status)
	}
	var records []record
	eventually(t, "it is recorded", func() error {
		if records = d.records(t, func(r record) bool { return r.Status == http.StatusBadGateway }); len(records) != 1 {
			return fmt.Errorf("%d records", len(records))
		}
		return nil
	})
	const want = 4
	if n := len(u.seen(t, host)) - kept; n != want || len(records[0].Attempts) != want {
		t.Errorf("the upstream received it %d times, and %d are recorded; want %d", n, len(records[0].Attempts), want)
	}
	d.stop()
}
