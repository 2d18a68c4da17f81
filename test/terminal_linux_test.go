package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal makes a pseudo-terminal: our end of it, and the one of a program.
func terminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	return ours, theirs
}

// TestRunOnATerminal: what Ctrl-C does reaches the command once. The terminal sends it to the command itself; a second one means "at once" to many programs.
func TestRunOnATerminal(t *testing.T) {
	need(t, "node")
	ours, theirs := terminal(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	program := `const fs = require("fs"), say = s => fs.appendFileSync("out", s + "\n");
process.on("SIGINT", () => say("INT")); process.on("SIGTERM", () => { say("TERM"); process.exit(0) }); say("up"); setInterval(() => {}, 1000)`
	cmd := exec.CommandContext(t.Context(), binary, "run", "--", "node", "-e", program)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, theirs, theirs, theirs
	cmd.Env = []string{"HOME=" + dir, "STATE_DIRECTORY=" + filepath.Join(dir, "state"), "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	written := func(what string) {
		eventually(t, what, func() error {
			text, err := os.ReadFile(out)
			if err == nil && !strings.HasSuffix(string(text), what+"\n") {
				err = fmt.Errorf("the command wrote %q", text)
			}
			return err
		})
	}
	written("up")
	if _, err := ours.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	written("INT")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // which is ours to pass on
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if text, err := os.ReadFile(out); err != nil || !bytes.Equal(text, []byte("up\nINT\nTERM\n")) {
		t.Errorf("the command got %q, %v", text, err)
	}
}
