package audit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// child is what the test binary does when it is run as a daemon: it writes until it is killed, or so many records to standard output.
func child(mode string) int {
	cfg := Default()
	cfg.Output, cfg.MaxSize, cfg.MaxFiles = mode, 256<<10, 0
	l, err := Open(cfg, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	if mode == Stdout {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test has closed the other end of standard output
		l.Event(KindConfig, slog.String("event", "loaded"))
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		fmt.Fprintln(os.Stderr, l.Close(ctx))
		return 0
	}
	fmt.Println("ready")
	for {
		l.Exchange(typical(), nil)
	}
}

func childCommand(mode string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "AUDIT_TEST_CHILD="+mode)
	return cmd
}

// TestKill: a daemon that is killed at any moment, in the middle of a rotation or a write too, leaves a trail that the next one goes on with.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	const kills = 10
	for range kills {
		cmd := childCommand(path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("%q, %v, %s", line, err, said.String())
		}
		<-time.After(time.Duration(rand.IntN(60_000)) * time.Microsecond) // any moment
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if strings.Contains(said.String(), "level=ERROR") {
			t.Error(said.String())
		}
	}
	at(t, path, func(c *Config) { c.MaxFiles = 0 }).end() // repairs what the last one left
	files := trailFiles(t, path)
	r := verified(t, files...)
	if r.Starts < 2 || r.Starts > kills+1 { // some are killed before their first record is written
		t.Errorf("%d starts", r.Starts)
	}
	want(t, "chains", len(r.Chains), 0)
	want(t, "first", r.First.Seq, 1)
	want(t, "records", r.Records, r.Last.Seq)
	want(t, "missing", r.Missing, 0)
	t.Logf("%d records in %d files, %d repairs", r.Records, len(files), r.Repairs)
}

// TestClosedStandardOutput: a reader that goes away neither kills the daemon nor keeps it from stopping.
func TestClosedStandardOutput(t *testing.T) {
	cmd := childCommand(Stdout)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, startEvent) {
		t.Fatalf("%q, %v", line, err)
	}
	out.Close()
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, said.String())
	}
	wantText(t, "standard error", said.String(), "2 audit records are lost", "broken pipe", "level=ERROR")
}
