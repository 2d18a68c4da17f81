package test

import (
	"fmt"
	"os"
	"regexp"
	"testing"
)

// TestNoCoreFile: a crash leaves no core file, which would hold credentials (A47).
func TestNoCoreFile(t *testing.T) {
	d := start(t, "")
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("%s", limits)
	}
	d.stop()
}
