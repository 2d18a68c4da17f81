//go:build unix

package daemon

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// descriptorsTest makes the test's process the daemon.
const descriptorsTest = "HTTPOWERD_TEST_DESCRIPTORS"

// TestNoDescriptors: a process without a free file descriptor says overloaded to clients that come and to requests that need an upstream, its operators reach it, it costs no CPU, and
// it is well again when descriptors are (A70). The daemon is a process of its own, as the limit is the process's; clients and upstream stay here.
func TestNoDescriptors(t *testing.T) {
	if os.Getenv(descriptorsTest) != "" {
		withoutDescriptors(t)
		return
	}
	o := newRawOrigin(t, okAnswer)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestNoDescriptors$")
	cmd.Env = append(os.Environ(), descriptorsTest+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	say := func(what string) {
		if _, err := io.WriteString(in, what+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(word string) []string {
		t.Helper()
		for lines.Scan() {
			if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == "DAEMON" && f[1] == word {
				return f[2:]
			}
		}
		t.Fatalf("the daemon ended before it said %s", word)
		return nil
	}
	defer func() {
		_ = in.Close()
		for lines.Scan() { // until it ends
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	at := hear("started")
	proxy, admin := at[0], at[1]

	here := dialRaw(t, proxy) // came before, and has no upstream yet
	here.send("GET " + o.url("/own") + " HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
	if a := here.answer("GET"); a.body != "ok" {
		t.Fatal(a.Status)
	}
	fill := func() { // again: a client that has left gave its descriptor back
		t.Helper()
		say("fill")
		hear("full")
	}
	fill()
	for _, page := range []string{"/healthz", "/metrics"} {
		c := dialRaw(t, admin)
		c.send("GET " + page + " HTTP/1.1\r\nHost: " + admin + "\r\nConnection: close\r\n\r\n")
		if a := c.answer("GET"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", page, a.Status)
		}
		c.rest() // until the daemon has closed it, or its descriptor comes back behind the next fill
	}
	fill()
	for range 3 {
		c := dialRaw(t, proxy)
		c.send("GET " + o.url("/") + " HTTP/1.1\r\nHost: " + o.addr + "\r\n\r\n")
		a := c.answer("GET")
		refused(t, a, 503, "overloaded")
		if a.Header.Get("Retry-After") == "" {
			t.Error("Retry-After is missing")
		}
	}
	other := newRawOrigin(t, okAnswer) // no kept connection leads there
	for _, method := range []string{"POST", "CONNECT"} {
		fill()
		target := other.url("/")
		if method == "CONNECT" {
			target = other.addr
		}
		here.send(method + " " + target + " HTTP/1.1\r\nHost: " + other.addr + "\r\nContent-Length: 0\r\n\r\n")
		refused(t, here.answer(method), 503, "overloaded")
	}
	fill()
	say("cpu")
	if used, err := time.ParseDuration(hear("cpu")[0]); err != nil || used > 500*time.Millisecond {
		t.Errorf("a second without a descriptor took %v of CPU time (%v)", used, err)
	}
	say("free")
	hear("free")
	c := dialRaw(t, proxy)
	c.send("GET " + other.url("/") + " HTTP/1.1\r\nHost: " + other.addr + "\r\nConnection: close\r\n\r\n")
	if a := c.answer("GET"); a.body != "ok" {
		t.Errorf("it does not recover: %s", a.Status)
	}
	if n := len(other.requests()); n != 1 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// withoutDescriptors is the daemon's side.
func withoutDescriptors(t *testing.T) {
	limit := syscall.Rlimit{Cur: 96, Max: 96}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	b := start(t, "defaults: {breaker: off}")
	if !strings.Contains(b.log.String(), "proxy.limits.connections is lowered") {
		t.Error("the log does not say that 10,000 connections do not fit")
	}
	fmt.Println("DAEMON started", b.ProxyAddrs()[0], b.AdminAddr())
	var fillers []*os.File
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		switch commands.Text() {
		case "fill":
			for {
				f, err := os.Open(os.DevNull)
				if err != nil {
					break
				}
				fillers = append(fillers, f)
			}
			fmt.Println("DAEMON full", len(fillers))
		case "cpu":
			before := cpuTime(t)
			time.Sleep(time.Second)
			fmt.Println("DAEMON cpu", cpuTime(t)-before)
		case "free":
			for _, f := range fillers {
				f.Close()
			}
			fmt.Println("DAEMON free")
		}
	}
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestFitting(t *testing.T) {
	for _, c := range []struct {
		connections, limit, want int
		says                     string
	}{{100, 1000, 100, ""}, {1000, 1000, 875, "is lowered"}, {600, 1000, 600, "fits only"}, {100, 0, 100, ""}} {
		log := &buffer{}
		d := &Daemon{log: slog.New(slog.NewTextHandler(log, nil))}
		if got := d.fitting(c.connections, c.limit); got != c.want || !strings.Contains(log.String(), c.says) || c.says == "" && log.String() != "" {
			t.Errorf("%d with %d: %d, %q", c.connections, c.limit, got, log.String())
		}
	}
}
