//go:build soak

package test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestSoak is ten minutes of mixed load with a reload every ten seconds; SOAK sets another duration. No request may fail, a tunnel must stay
// open throughout, and memory must not grow once the daemon is warm.
func TestSoak(t *testing.T) {
	length := 10 * time.Minute
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	ca := newAuthority(t)
	hosts := loadConfig(t, ca)
	config := func(round int) string {
		return hosts + fmt.Sprintf("defaults: {timeout: {attempt: %ds}}\n", 30+round%10)
	}
	d := start(t, config(0))
	tunnel := openTunnel(t, d)
	_ = tunnel.conn.SetDeadline(time.Now().Add(length + time.Minute))
	load := startLoad(t, d, ca)
	begin, warm := time.Now(), 0
	for round := 1; time.Since(begin) < length; round++ {
		time.Sleep(min(10*time.Second, length/10))
		d.write(config(round))
		d.signal(syscall.SIGHUP)
		tunnel.echo(t, fmt.Sprintf("round %d\n", round))
		if warm == 0 && time.Since(begin) > length/5 {
			warm = residentSize(t, d.cmd.Process.Pid, "VmRSS:")
		}
	}
	asked, failures := load.stop()
	if len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failures), asked, failures[0])
	}
	end := residentSize(t, d.cmd.Process.Pid, "VmRSS:")
	t.Logf("%d requests in %s; %d MiB when warm, %d MiB at the end", asked, length, warm>>20, end>>20)
	if end > warm*3/2 {
		t.Errorf("the daemon grew from %d to %d MiB", warm>>20, end>>20)
	}
	tunnel.echo(t, "at the end\n")
	tunnel.close()
	d.stop()
}
