package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"httpowerd/internal/policy"
)

// flapping answers the n-th question for a name with the n-th of its words, and those beyond with the last one: ok, servfail, nxdomain, empty or hang.
type flapping struct {
	mu    sync.Mutex
	names map[string][]string
	asked map[string]int
}

func (f *flapping) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	f.mu.Lock()
	words := f.names[host]
	word := words[min(f.asked[host], len(words)-1)]
	f.asked[host]++
	f.mu.Unlock()
	switch word {
	case "servfail":
		return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	case "nxdomain":
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	case "broken":
		return nil, errors.New("the name server's answer makes no sense")
	case "empty":
		return nil, nil
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

// TestFlappingNames is the row of the chaos matrix that needs a name server: nothing was sent, so every method may be repeated.
func TestFlappingNames(t *testing.T) {
	origin := newRawOrigin(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	_, port, _ := net.SplitHostPort(origin.addr)
	const dns = "upstream_dns"
	rows := []struct {
		answers, attempts, notRetried string
		status, asked                 int
	}{
		{"ok", "200", "", 200, 1},
		{"servfail ok", dns + ", dns 200", "", 200, 2},
		{"servfail broken servfail ok", dns + ", dns " + dns + ", dns " + dns + ", dns 200", "", 200, 4},
		{"servfail", dns + ", dns " + dns + ", dns " + dns + ", dns " + dns, "attempts", 502, 4},
		{"servfail nxdomain", dns + ", dns " + dns, "", 502, 2},
		{"nxdomain ok", dns, "", 502, 1}, // it does not exist: no other attempt would find it
		{"empty ok", dns, "", 502, 1},
		{"hang ok", "upstream_timeout", "", 504, 1}, // who asks again waits for the same answer, so this is the deadline's
	}
	f := &flapping{names: map[string][]string{}, asked: map[string]int{}}
	config := "defaults: {timeout: {connect: 200ms, attempt: 200ms, total: 10s}, retry: {backoff: {base: 1ms}}}\nhosts:\n"
	name := func(i int, method string) string { return fmt.Sprintf("%s-%d.example.com", strings.ToLower(method), i) }
	methods := []string{http.MethodGet, http.MethodPut, http.MethodPost}
	for i, row := range rows {
		for _, method := range methods {
			f.names[name(i, method)] = strings.Fields(row.answers)
			config += fmt.Sprintf("  %s: {}\n", name(i, method))
		}
	}
	b := startWith(t, config, f)
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(b.proxyURL()), DisableKeepAlives: true}, Timeout: 20 * time.Second}
	for i, row := range rows {
		for _, method := range methods {
			host := name(i, method)
			t.Run(strings.ReplaceAll(row.answers, " ", "-")+"/"+method, func(t *testing.T) {
				if row.answers == "hang ok" {
					hanging(t, b, client, method, "http://"+net.JoinHostPort(host, port)+"/")
					return
				}
				before := len(origin.requests())
				a := do(t, client, request(t, method, "http://"+net.JoinHostPort(host, port)+"/", ""))
				switch {
				case row.status == 200 && (a.StatusCode != 200 || a.body != "ok"):
					t.Errorf("%s %q", a.Status, a.body)
				case row.status != 200:
					refused(t, a, 502, dns)
				}
				if n := len(origin.requests()) - before; (n == 1) != (row.status == 200) || n > 1 {
					t.Errorf("the upstream received %d requests", n)
				}
				f.mu.Lock()
				asked := f.asked[host]
				f.mu.Unlock()
				if asked != row.asked {
					t.Errorf("the name server was asked %d times; want %d", asked, row.asked)
				}
				r := b.recordOf(host)
				if got := attemptsOf(r); got != row.attempts || r.text("not_retried") != row.notRetried {
					t.Errorf("attempts %q, not retried for %q; want %q, %q", got, r.text("not_retried"), row.attempts, row.notRetried)
				}
				checkRetries(t, b, host, row.attempts, row.notRetried)
			})
		}
	}
}

// hanging: a name server that does not answer takes the time of the connection for each attempt, and no more.
func hanging(t *testing.T, b *box, client *http.Client, method, target string) {
	refused(t, do(t, client, request(t, method, target, "")), 504, "upstream_timeout")
	u, _ := url.Parse(target)
	want := "upstream_timeout" + strings.Repeat(", timeout upstream_timeout", 3)
	if r := b.recordOf(u.Hostname()); attemptsOf(r) != want || r.text("not_retried") != "attempts" {
		t.Errorf("attempts %q, not retried for %q; want %q", attemptsOf(r), r.text("not_retried"), want)
	}
}

// recordOf is the host's only record.
func (b *box) recordOf(host string) (found record) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); found == nil && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		data, _ := os.ReadFile(b.audit)
		for line := range strings.Lines(string(data)) {
			var r record
			if json.Unmarshal([]byte(line), &r) == nil && r.text("host") == host {
				found = r
			}
		}
	}
	if found == nil {
		b.t.Fatalf("there is no record of %s", host)
	}
	return found
}

// attemptsOf is a record's attempts, each with the reason for it, where there is one, and its end.
func attemptsOf(r record) string {
	list, _ := r["attempts"].([]any)
	var out []string
	for _, item := range list {
		a := record(item.(map[string]any))
		ended := a.text("error")
		if ended == "" {
			ended = fmt.Sprint(a["status"])
		}
		out = append(out, strings.TrimSpace(a.text("reason")+" "+ended))
	}
	return strings.Join(out, ", ")
}

// checkRetries compares the metrics of the retry block with what the attempts come to.
func checkRetries(t *testing.T, b *box, host, attempts, notRetried string) {
	t.Helper()
	families, err := b.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	count := func(family, reason string) (n float64) {
		for _, f := range families {
			for _, m := range f.GetMetric() {
				labels := map[string]string{}
				for _, l := range m.GetLabel() {
					labels[l.GetName()] = l.GetValue()
				}
				if f.GetName() == family && labels["host"] == host && (reason == "" || slices.Contains([]string{labels["reason"], labels["result"]}, reason)) {
					n += m.GetCounter().GetValue()
				}
			}
		}
		return n
	}
	retries := float64(strings.Count(attempts, "dns "))
	if n := count("httpowerd_retries_total", "dns"); n != retries {
		t.Errorf("%v retries were counted; want %v", n, retries)
	}
	if n := count("httpowerd_attempts_total", ""); n != retries+1 {
		t.Errorf("%v attempts were counted; want %v", n, retries+1)
	}
	want := 0.0
	if notRetried != "" {
		want = 1
	}
	if n := count("httpowerd_retries_refused_total", notRetried); n != want {
		t.Errorf("%v refused retries were counted; want %v", n, want)
	}
}

// startWith is start with a resolver.
func startWith(t *testing.T, config string, resolver *flapping) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{t: t, config: filepath.Join(dir, "httpowerd.yaml"), audit: filepath.Join(dir, "audit.jsonl"), log: &buffer{}}
	b.write(config)
	admin, state := "127.0.0.1:0", filepath.Join(dir, "state")
	d, err := Start(Options{Version: "test", Log: b.log, Resolver: resolver, Source: policy.Source{Path: b.config, Overrides: policy.Overrides{
		Listen: []string{"127.0.0.1:0"}, Admin: &admin, AuditOutput: &b.audit, StateDir: &state, Wire: wireOf()}}})
	if err != nil {
		t.Fatal(err)
	}
	b.Daemon = d
	running.Add(1)
	t.Cleanup(b.stop)
	return b
}
