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
	binary := os.Getenv("HTTPOWERD_BINARY")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "httpowerd")
		if out, err := exec.Command("go", "build", "-o", binary, "httpowerd/cmd/httpowerd").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-httpowerd", binary, "-duration", "100ms", "-rounds", "1"}, &out); err != nil {
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
