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
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// child is what the test binary does when it is run as a daemon: it writes until it is killed, or so many records to standard output.
func child(mode string) int {
	cfg := Default()
	cfg.Output, cfg.MaxSize, cfg.MaxFiles = mode, 256<<10, 0
	if mode != Stdout {
		cfg.Checkpoint = CheckpointConfig{Every: time.Minute, Records: 100, Key: mode + ".key"}
	}
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

// killsOf is how often TestKill kills; make kill says 50.
func killsOf(t *testing.T) int {
	t.Helper()
	s := os.Getenv("KILLS")
	if s == "" {
		return 5
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal("KILLS:", err)
	}
	return n
}

// holds verifies the trail that a killed daemon left, up to its last complete record, and tells how many bytes of another one follow.
func holds(t *testing.T, path string) (r *Report, torn int) {
	t.Helper()
	text := ""
	if _, err := os.Stat(path); err == nil { // else it was killed between the two renames of a rotation
		text = read(t, path)
	}
	whole := text[:strings.LastIndexByte(text, '\n')+1]
	files := trailFiles(t, path)
	if len(whole) == 0 { // killed in its first write, in a rotation, or just after one
		if files = files[:len(files)-1]; len(files) == 0 {
			return &Report{}, len(text)
		}
	} else {
		files[len(files)-1] = put(t, filepath.Join(t.TempDir(), "audit.jsonl"), whole)
	}
	evidence := Evidence{Checkpoints: path + checkpointSuffix}
	if _, err := os.Stat(evidence.Checkpoints); err != nil {
		evidence = Evidence{} // killed before there was one
	}
	r, err := Verify(evidence, files...)
	if err != nil {
		t.Fatal(err)
	}
	return r, len(text) - len(whole)
}

// TestKill: a daemon that is killed at any moment, in the middle of a rotation or a write too, leaves a trail that is right up to its last complete
// record and as long as its last checkpoint says, and that the next one goes on with.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	kills, tears, behind := killsOf(t), 0, uint64(0)
	for i := range kills {
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
		<-time.After(time.Duration(rand.IntN(60_000)) * time.Microsecond * time.Duration(1+40*(i%2))) // any moment, before the first checkpoint and behind some
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if strings.Contains(said.String(), "level=ERROR") {
			t.Error(said.String())
		}
		r, torn := holds(t, path)
		if torn > 0 {
			tears++
		}
		behind = max(behind, r.Last.Seq-min(r.Last.Seq, r.Checked.Seq))
	}
	at(t, path, func(c *Config) {
		c.MaxFiles, c.Checkpoint = 0, CheckpointConfig{Every: time.Minute, Key: path + ".key"}
	}).end() // repairs what the last one left
	files := trailFiles(t, path)
	r := verified(t, files...)
	if r.Starts < 2 || r.Starts > kills+1 { // some are killed before their first record is written
		t.Errorf("%d starts", r.Starts)
	}
	want(t, "chains", len(r.Chains), 0)
	want(t, "first", r.First.Seq, 1)
	want(t, "records", r.Records, r.Last.Seq)
	want(t, "missing", r.Missing, 0)
	want(t, "the end", r.Checked.Seq, r.Last.Seq)
	t.Logf("%d kills: %d records in %d files, %d torn ends, %d repairs, %d checkpoints in the file and %d in the trail, at most %d records behind the last",
		kills, r.Records, len(files), tears, r.Repairs, r.Witnessed, r.Checkpoints, behind)
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
