package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary a bare proxy where the benchmark starts it as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bareCommand {
		fmt.Fprintln(os.Stderr, run(context.Background(), os.Args[1:], nil))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestEveryCell runs the whole benchmark in little time: every proxy answers in every scenario.
func TestEveryCell(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-httpowerd", binary(t), "-duration", "100ms", "-rounds", "1"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bare ReverseProxy", "httpowerd"} {
		_, row, _ := strings.Cut(out.String(), "\n"+name+" ")
		row, _, _ = strings.Cut(row, "\n")
		if got := strings.Count(row, "/s"); got != len(scenarios) {
			t.Errorf("%d results of %s; want %d:\n%s", got, name, len(scenarios), &out)
		}
	}
}

// TestEveryRow runs the tables of growth with little of everything.
func TestEveryRow(t *testing.T) {
	var out bytes.Buffer
	g := plan{httpowerd: binary(t), duration: 20 * time.Millisecond}.growth(&out)
	g.connections, g.blocks, g.bodies = []int{1, 20}, []int{1, 20}, []int64{1 << 10, 1 << 20}
	if err := g.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Count(out.String(), "\n| "), 4*(2+2); got != want {
		t.Errorf("%d lines of tables, headings among them; want %d:\n%s", got, want, &out)
	}
}

// TestWrongAnswer: an answer with another status or length is an error.
func TestWrongAnswer(t *testing.T) {
	o := newOrigin()
	defer o.Close()
	good, upload := get(o.address, 100_000), post(o.address, 100_000)
	for name, row := range map[string]struct {
		request
		want string
	}{
		"a good one":   {good, ""},
		"an upload":    {upload, ""},
		"a length":     {request{head: good.head, answer: 1}, "was to come"},
		"a status":     {request{head: bytes.Replace(good.head, []byte("/100000 "), []byte("/none "), 1), answer: 8}, "404"},
		"a short body": {request{head: bytes.Replace(upload.head, []byte("/100000 "), []byte("/100001 "), 1), rest: upload.rest}, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := newRing(o.address, 2, []request{row.request})
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			n, err := r.send(t.Context(), 0, 4)
			if row.want == "" && (err != nil || n != 4) || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("%d answers, %v; want %q", n, err, row.want)
			}
		})
	}
}

// binary is the daemon's, built where it is not given.
func binary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("HTTPOWERD_BINARY"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "httpowerd")
	if out, err := exec.Command("go", "build", "-o", path, "httpowerd/cmd/httpowerd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}
