// Package test runs the built binary as its users do: with real clients, from scripts, under load and on large bodies.
//
// HTTPOWERD_BINARY names the binary; without it one is built. Nothing here is skipped: a client that is missing fails its test, and
// `make deps` installs it.
package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the program under test, and clientsDir where clients that need it are compiled to; TestMain settles both.
var binary, clientsDir string

func TestMain(m *testing.M) {
	if identity := os.Getenv(scriptedEnv); identity != "" {
		os.Exit(runScripted(identity))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "httpowerd-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	clientsDir = dir
	if binary = os.Getenv("HTTPOWERD_BINARY"); binary == "" {
		binary = filepath.Join(dir, "httpowerd")
		if out, err := exec.Command("go", "build", "-o", binary, "httpowerd/cmd/httpowerd").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the binary: %v\n%s", err, out)
			return 1
		}
	}
	if binary, err = filepath.Abs(binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
