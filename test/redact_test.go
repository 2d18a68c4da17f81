package test

import (
	"bufio"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestRedactStream: a log that is being written goes on line by line, and a line is not kept for the next one.
func TestRedactStream(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), binary, "redact", "--stream")
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
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	secret := "correct-horse-" + "battery"
	for _, text := range []string{"user=ada password=" + secret + " ok\n", "plain\n"} {
		if _, err := io.WriteString(in, text); err != nil {
			t.Fatal(err)
		}
		select {
		case line := <-lines:
			if begin, _, _ := strings.Cut(text, secret); !strings.HasPrefix(line+"\n", begin) || strings.Contains(line, secret) {
				t.Errorf("%q became %q", text, line)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%q is kept", text)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	for line := range lines {
		t.Errorf("one line more: %q", line)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestRedactType: a mistyped content type is told, not taken for none.
func TestRedactType(t *testing.T) {
	for kind, code := range map[string]int{"json": 2, "a/b/c": 2, "text/plain; charset": 2, "application/json; charset=utf-8": 1} {
		cmd := exec.CommandContext(t.Context(), binary, "redact", "--check", "--type", kind)
		cmd.Stdin = strings.NewReader(`{"password": "correct-horse"}`)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != code || (code == 2) != strings.Contains(string(out), "--type") {
			t.Errorf("--type %q: exit %d, %s", kind, cmd.ProcessState.ExitCode(), out)
		}
	}
}
