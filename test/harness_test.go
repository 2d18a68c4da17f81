package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything that must happen may take on a busy machine.
const patience = 15 * time.Second

// daemon is a running httpowerd with everything it writes.
type daemon struct {
	t            testing.TB
	cmd          *exec.Cmd
	dir          string
	config       string // its configuration file
	audit        string // its audit file
	proxy, admin string // addresses
	log          *buffer
	exited       chan struct{}
	err          error // of the process, when exited is closed
}

// start runs the daemon with a configuration, to which version, free ports, folders and the audit file are added, and stops it with the test. env is added to its
// environment.
func start(t testing.TB, config string, env ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{t: t, dir: dir, config: filepath.Join(dir, "httpowerd.yaml"), audit: filepath.Join(dir, "audit.jsonl"), log: &buffer{},
		exited: make(chan struct{})}
	d.write(config)
	d.cmd = exec.Command(binary, "serve", "--config", d.config, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	d.cmd.Env = append([]string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}, env...)
	if wire := os.Getenv("HTTPOWERD_WIRE"); wire != "" {
		d.cmd.Env = append(d.cmd.Env, "HTTPOWERD_WIRE="+wire)
	}
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(d.kill)
	d.waitStarted()
	return d
}

// write replaces the configuration file in one step, so that no reload sees half of it.
func (d *daemon) write(config string) {
	d.t.Helper()
	text := "version: 1\n" + config
	if !strings.Contains(config, "state:") {
		text += "\nstate: {dir: " + filepath.Join(d.dir, "state") + "}\n"
	}
	if !strings.Contains(config, "audit: {output") {
		text += "\naudit: {output: " + d.audit + "}\n"
	}
	if !strings.Contains(config, "drain:") {
		text += "\ndrain: {timeout: 10s}\n"
	}
	next := d.config + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(next, d.config); err != nil {
		d.t.Fatal(err)
	}
}

// waitStarted reads the addresses from the line that the daemon logs when it listens.
func (d *daemon) waitStarted() {
	d.t.Helper()
	line := d.logged("started")
	var l struct{ Proxy, Admin string }
	if err := json.Unmarshal([]byte(line), &l); err != nil || l.Proxy == "" || l.Admin == "" {
		d.t.Fatalf("the line that says the daemon started has no addresses: %s", line)
	}
	d.proxy, d.admin = l.Proxy, l.Admin
}

// logged waits for a log line with this message.
func (d *daemon) logged(message string) string {
	d.t.Helper()
	var found string
	eventually(d.t, "the log says "+message, func() error {
		for line := range strings.Lines(d.log.String()) {
			if strings.Contains(line, `"msg":"`+message+`"`) {
				found = line
				return nil
			}
		}
		select {
		case <-d.exited:
			d.t.Fatalf("the daemon ended: %v\n%s", d.err, d.log)
		default:
		}
		return fmt.Errorf("the log so far:\n%s", d.log)
	})
	return found
}

func (d *daemon) signal(s os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// stop ends the daemon as an init system does, and expects it to leave in order.
func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatalf("the daemon did not end on SIGTERM:\n%s", d.log)
	}
	if d.err != nil {
		d.t.Errorf("the daemon ended with %v:\n%s", d.err, d.log)
	}
}

// kill ends what a failed test left running, and shows what the daemon had to say.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
	if d.t.Failed() {
		d.t.Logf("the daemon's log:\n%s", tail(d.log.String(), 4000))
	}
	if strings.Contains(d.log.String(), "panic") {
		d.t.Errorf("something panicked:\n%s", d.log)
	}
}

func (d *daemon) proxyURL() *url.URL { return &url.URL{Scheme: "http", Host: d.proxy} }

// ask gets a page of the admin listener.
func (d *daemon) ask(path string) string {
	d.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + d.admin + path)
	if err != nil {
		d.t.Fatal(err)
	}
	return body(d.t, resp)
}

// environment is what `httpowerd env` tells a shell, on top of what any process has.
func (d *daemon) environment() []string {
	d.t.Helper()
	cmd := exec.Command("sh", "-c", `eval "$("$0" env --config "$1" --proxy "$2")" && exec env`, binary, d.config, d.proxyURL().String())
	cmd.Env = []string{"HOME=" + d.dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		d.t.Fatalf("httpowerd env: %v\n%s", err, &stderr)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// record is one audit record.
type record struct {
	ID, Kind, Method, URL, Host, Mode, Outcome string
	Status                                     int
	StatusBy                                   string  `json:"status_by"`
	ResponseBytes                              float64 `json:"response_bytes"`
	Breaker, Dedup                             string
	NotRetried                                 string  `json:"not_retried"`
	LimitWait                                  float64 `json:"limit_wait_ms"`
	Attempts                                   []attempt
	line                                       string
}

// attempt is one of a record.
type attempt struct {
	N, Status     int
	Error, Reason string
	Wait          float64 `json:"wait_ms"`
}

// records reads the audit records of requests and tunnels that match.
func (d *daemon) records(t testing.TB, match func(record) bool) []record {
	t.Helper()
	data, err := os.ReadFile(d.audit)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var out []record
	for line := range bytes.Lines(data) {
		r := record{line: string(line)}
		if !bytes.HasSuffix(line, []byte("\n")) {
			continue // still being written
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("an audit record is no JSON: %v\n%s", err, line)
		}
		if (r.Kind == "request" || r.Kind == "tunnel") && match(r) {
			out = append(out, r)
		}
	}
	return out
}

// eventually repeats check until it is content.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// need fails a test whose client is not installed.
func need(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is missing: run make deps", name)
		}
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
