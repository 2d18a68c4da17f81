package daemon

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMemoryLimit: under a flood of uploads that would take more memory than there may be, the process lives, refuses with overloaded, and recovers. It runs in a process of its own, as
// the limit is the process's.
func TestMemoryLimit(t *testing.T) {
	if os.Getenv("HTTPOWERD_TEST_MEMORY") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestMemoryLimit$", "-test.v")
		cmd.Env = append(os.Environ(), "HTTPOWERD_TEST_MEMORY=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	o := newRawOrigin(t, okAnswer)
	b := start(t, "proxy: {limits: {memory: 64MiB}}\ndefaults: {retry: {buffer: 8MiB}, breaker: off}")
	if answer := get(t, b.client(), o.url("/")); answer.body != "ok" {
		t.Fatal(answer.Status)
	}
	hold := make([][]byte, 0, 64)
	refusedOnce := false
	for range 64 { // what holds memory here is the test itself: the process is one
		piece := make([]byte, 1<<20)
		for i := range piece {
			piece[i] = byte(i)
		}
		hold = append(hold, piece)
		time.Sleep(30 * time.Millisecond)
		a := get(t, b.client(), o.url("/"))
		if a.StatusCode == http.StatusServiceUnavailable {
			refused(t, a, 503, "overloaded")
			if a.Header.Get("Retry-After") == "" {
				t.Error("Retry-After is missing")
			}
			refusedOnce = true
			break
		}
	}
	if !refusedOnce {
		t.Errorf("nothing was refused while %d MiB were held", len(hold))
	}
	c := b.dialProxy()
	if a := c.connect(o.addr); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("CONNECT: %s", a.Status)
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(b.log.String(), "memory pressure: refusal"); time.Sleep(10 * time.Millisecond) { // said when it is so already
		if time.Now().After(end) {
			t.Fatal("the log does not say so")
		}
	}
	hold = nil
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if a := get(t, b.client(), o.url("/")); a.body == "ok" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not recover")
		}
	}
	_ = hold
}
