package daemon

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"httpowerd/internal/policy"
)

// TestLoadedOnce: a start reads and assembles its configuration once, the watch that begins included; each reload that is asked for does so again.
func TestLoadedOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "httpowerd.yaml")
	if err := os.WriteFile(path, []byte("version: 1\nlog: {level: \"${LEVEL}\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var loads atomic.Int32
	env := func(name string) (string, bool) {
		if name != "LEVEL" {
			return "", false
		}
		loads.Add(1) // asked once for each load
		return "error", true
	}
	admin, output, state := "", filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "state")
	d, err := Start(Options{Version: "test", Log: &buffer{}, Source: policy.Source{Path: path, Env: env, Overrides: policy.Overrides{
		Listen: []string{"127.0.0.1:0"}, Admin: &admin, AuditOutput: &output, StateDir: &state, Wire: wireOf()}}})
	if err != nil {
		t.Fatal(err)
	}
	if n := loads.Load(); n != 1 {
		t.Errorf("%d loads at the start", n)
	}
	if err := d.Reload(context.Background(), "signal"); err != nil {
		t.Error(err)
	}
	if err := d.Shutdown(context.Background()); err != nil { // waits for the watch, which has looked by then
		t.Error(err)
	}
	if n := loads.Load(); n != 2 {
		t.Errorf("%d loads after a start and a reload", n)
	}
}
