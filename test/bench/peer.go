package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// kind is a proxy that can be measured. command makes what starts it in a folder of its own.
type kind struct {
	name    string
	h2      bool // it can speak HTTP/2 to clients that it intercepts
	command func(l *lab, dir, address string, intercept bool) (*exec.Cmd, error)
}

// peer is one kind at work: a process that relays CONNECT, and one that intercepts it.
type peer struct {
	kind                  kind
	tunnels, intercepting *process
}

func (p *peer) process(s scenario) *process {
	if s.intercept {
		return p.intercepting
	}
	return p.tunnels
}

func (p *peer) stop() {
	p.tunnels.stop()
	p.intercepting.stop()
}

// start starts all kinds that this machine has. What was started is returned with an error too.
func (p plan) start(ctx context.Context, l *lab) (peers []*peer, err error) {
	kinds := []kind{{"bare ReverseProxy", true, bareProxy}, {"httpowerd", true, p.daemon}}
	if _, err := exec.LookPath("squid"); err == nil {
		kinds = append(kinds, kind{"squid", false, squid})
	}
	for _, k := range kinds {
		peer := &peer{kind: k}
		peers = append(peers, peer)
		if peer.tunnels, err = launch(ctx, k, l, false); err != nil {
			return peers, err
		}
		if peer.intercepting, err = launch(ctx, k, l, true); err != nil {
			return peers, err
		}
	}
	return peers, nil
}

const daemonConfig = `version: 1
admin: {listen: %q}
proxy: {listen: %q}
state: {dir: %q}
audit: {output: %q}
log: {level: error}
ca: {cert: %q, key: %q}
defaults: {tls: %s, upstream: {ca: %q, resolve: {%s: 127.0.0.1}}}
`

func (p plan) daemon(l *lab, dir, address string, intercept bool) (*exec.Cmd, error) {
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	mode := "tunnel"
	if intercept {
		mode = "intercept"
	}
	file := filepath.Join(dir, "httpowerd.yaml")
	text := fmt.Sprintf(daemonConfig, admin, address, filepath.Join(dir, "state"), filepath.Join(dir, "audit.jsonl"), l.caPEM(), l.caKey(), mode, l.originPEM(),
		originName)
	return exec.Command(p.httpowerd, "serve", "--config", file), os.WriteFile(file, []byte(text), 0o600)
}

// process is a proxy.
type process struct {
	cmd     *exec.Cmd
	address string
	exited  chan struct{}
}

func launch(ctx context.Context, k kind, l *lab, intercept bool) (*process, error) {
	dir, err := os.MkdirTemp(l.dir, "")
	if err != nil {
		return nil, err
	}
	p := &process{exited: make(chan struct{})}
	if p.address, err = freeAddress(); err != nil {
		return nil, err
	}
	if p.cmd, err = k.command(l, dir, p.address, intercept); err != nil {
		return nil, fmt.Errorf("%s: %w", k.name, err)
	}
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p.cmd.Stdout, p.cmd.Stderr = output, output
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	if err := p.await(ctx); err != nil {
		p.stop()
		said, _ := os.ReadFile(output.Name())
		return nil, fmt.Errorf("%s: %w\n%s", k.name, err, said)
	}
	return p, nil
}

// await waits until the proxy accepts.
func (p *process) await(ctx context.Context) error {
	d := net.Dialer{Timeout: time.Second}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		c, err := d.DialContext(ctx, "tcp", p.address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.exited:
			return fmt.Errorf("it ended: %s", p.cmd.ProcessState)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	return errors.New("it did not start")
}

func (p *process) stop() {
	if p != nil {
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// memory is a line of /proc/PID/status in bytes: VmRSS is what is resident, VmHWM its peak (proc_pid_status(5)).
func (p *process) memory(line string) int64 {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status")
	_, value, _ := strings.Cut(string(status), "\n"+line+":")
	value, _, _ = strings.Cut(value, " kB\n")
	kib, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return kib << 10
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// cpu is the process's CPU time so far.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
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
