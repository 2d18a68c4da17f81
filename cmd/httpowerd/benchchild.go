package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// benchChild is a daemon in a process of its own, so that its CPU time is its own.
type benchChild struct {
	cmd     *exec.Cmd
	address string // of the proxy
	admin   string
	config  string // its file
	dir     string
	state   string // further keys of that block
	ca      []byte
}

const benchConfig = `version: 1
admin: {listen: %q}
proxy: {listen: %q, limits: {connections: 20000}}
state: {dir: %q%s}
audit: {output: %q}
log: {level: error}
%s`

func startBenchChild(ctx context.Context, s benchScenario, caFile, dir string) (*benchChild, error) {
	mode := "tunnel"
	if s.intercept {
		mode = "intercept"
	}
	c, err := launchBenchChild(ctx, dir, benchOptions{}, fmt.Sprintf("defaults: {tls: %s, upstream: {ca: %q}}\n", mode, caFile))
	if err != nil {
		return nil, err
	}
	if s.intercept {
		if c.ca, err = exec.CommandContext(ctx, c.cmd.Path, "ca", "show", "--config", c.config).Output(); err != nil {
			c.stop()
			return nil, fmt.Errorf("reading the CA: %w", err)
		}
	}
	return c, nil
}

// benchOptions are what few daemons need.
type benchOptions struct {
	state       string   // further keys of that block
	environment []string // further variables
}

// launchBenchChild starts a daemon with a state of its own. policies are the blocks after the fixed ones.
func launchBenchChild(ctx context.Context, dir string, o benchOptions, policies string) (*benchChild, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	own, err := os.MkdirTemp(dir, "daemon-")
	if err != nil {
		return nil, err
	}
	c := &benchChild{config: filepath.Join(own, "bench.yaml"), dir: own, state: o.state}
	if c.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if c.admin, err = freeAddress(); err != nil {
		return nil, err
	}
	if err := c.configure(policies); err != nil {
		return nil, err
	}
	c.cmd = exec.CommandContext(ctx, self, "serve", "--config", c.config)
	c.cmd.Stderr, c.cmd.Env = os.Stderr, append(os.Environ(), o.environment...)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if err := c.await(ctx); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// configure writes the configuration.
func (c *benchChild) configure(policies string) error {
	text := fmt.Sprintf(benchConfig, c.admin, c.address, c.dir, c.state, filepath.Join(c.dir, "audit.jsonl"), policies)
	return os.WriteFile(c.config, []byte(text), 0o600)
}

// await waits until the daemon accepts.
func (c *benchChild) await(ctx context.Context) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		d := net.Dialer{Timeout: time.Second}
		conn, err := d.DialContext(ctx, "tcp", c.address)
		if err == nil {
			return conn.Close()
		}
	}
	return fmt.Errorf("the daemon did not start")
}

func (c *benchChild) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	_ = c.cmd.Wait() // its exit code says nothing about the measurement
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// cpu is the process's CPU time so far; 0 where the system does not tell (anything but Linux) or there is no child.
func (c *benchChild) cpu() time.Duration {
	if c == nil {
		return 0
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(c.cmd.Process.Pid) + "/stat")
	if err != nil {
		return 0
	}
	// The second field is the command in parentheses; utime and stime are the 14th and 15th (proc_pid_stat(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticksPerSecond
}

// writePEM writes a certificate.
func writePEM(path string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
