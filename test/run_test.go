package test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestRun starts each client with `httpowerd run --intercept`: the client trusts a CA that was not there before, and knows nothing of it.
func TestRun(t *testing.T) {
	ca := newAuthority(t)
	upstream := &recorder{}
	address := serve(t, ca, true, upstream)
	w := way{"run", "https", "intercept", true}
	var config strings.Builder
	config.WriteString("version: 1\nhosts:\n")
	for _, c := range clients {
		host := hostOf(c, w)
		fmt.Fprintf(&config, "  %s: {upstream: {resolve: {%s: \"%s\"}, ca: %s}}\n", host, host, address, ca.certFile)
	}
	file := filepath.Join(t.TempDir(), "httpowerd.yaml")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			host := hostOf(c, w)
			args := append([]string{"run", "--intercept", "--summary", "--config", file, "--"}, c.command(t)...)
			cmd := exec.CommandContext(t.Context(), binary, append(args, "https://"+host+getTarget, "https://"+host+postTarget, postBody)...)
			var stdout, stderr bytes.Buffer
			home := t.TempDir()
			cmd.Dir, cmd.Stdout, cmd.Stderr = home, &stdout, &stderr
			cmd.Env = []string{"HOME=" + home, "STATE_DIRECTORY=" + filepath.Join(home, "state"), "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
			}
			if want := "200 " + answerOf("GET", host) + "\n201 " + answerOf("POST", host) + "\n"; stdout.String() != want {
				t.Errorf("the client printed\n%swant\n%s", &stdout, want)
			}
			row := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(host) + ` +2 +0 +0 +0 +0$`)
			if !row.MatchString(stderr.String()) {
				t.Errorf("the summary has no line of two requests to %s:\n%s", host, &stderr)
			}
			checkReceived(t, upstream.of(host), c, w)
		})
	}
}

// TestRunSignalsOutsideTheCommand: one that comes before there is a command, or when it is gone, ends in order: nothing is left behind, and the code says what happened.
func TestRunSignalsOutsideTheCommand(t *testing.T) {
	begin := func(t *testing.T, script string) (cmd *exec.Cmd, dir, temporary string) {
		dir, temporary = t.TempDir(), t.TempDir()
		config := "version: 1\nhosts:\n"
		for i := range 1000 { // takes its time to load
			config += fmt.Sprintf("  h%d.example.com: {rate_limit: {requests: 10, per: 1s}}\n", i)
		}
		if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd = exec.CommandContext(t.Context(), binary, "run", "--config", "c.yaml", "--", "sh", "-c", script)
		cmd.Dir = dir
		cmd.Env = []string{"HOME=" + dir, "STATE_DIRECTORY=" + filepath.Join(dir, "state"), "TMPDIR=" + temporary, "PATH=" + os.Getenv("PATH")}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, dir, temporary
	}
	end := func(t *testing.T, cmd *exec.Cmd, temporary string, code int) {
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("it ended with %v; want the code %d", cmd.ProcessState, code)
		}
		if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	t.Run("before", func(t *testing.T) {
		cmd, _, temporary := begin(t, "sleep 60")
		eventually(t, "it begins", func() error {
			if begun, _ := os.ReadDir(temporary); len(begun) == 0 {
				return fmt.Errorf("no folder in %s", temporary)
			}
			return nil
		})
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		end(t, cmd, temporary, 128+int(syscall.SIGTERM))
	})
	t.Run("after", func(t *testing.T) {
		arrived, release := make(chan struct{}), make(chan struct{})
		upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(arrived)
			<-release
		}))
		defer upstream.Close()
		defer close(release)
		cmd, dir, temporary := begin(t, `echo $http_proxy >proxy; mv proxy there; until test -e go; do sleep 0.02; done; echo $$ >pid; exit 7`)
		var proxy *url.URL
		eventually(t, "the command runs", func() (err error) {
			text, err := os.ReadFile(filepath.Join(dir, "there"))
			if err == nil {
				proxy, err = url.Parse(strings.TrimSpace(string(text)))
			}
			return err
		})
		client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}}
		defer client.CloseIdleConnections()
		go func() { // what the daemon waits for
			if resp, err := client.Get(upstream.URL); err == nil {
				resp.Body.Close()
			}
		}()
		<-arrived
		if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the command is gone", func() error {
			text, err := os.ReadFile(filepath.Join(dir, "pid"))
			if err != nil {
				return err
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err == nil && syscall.Kill(pid, 0) == nil {
				err = fmt.Errorf("%d is there", pid)
			}
			return err
		})
		_ = cmd.Process.Signal(syscall.SIGTERM) // on a slow machine it may be gone by now
		end(t, cmd, temporary, 7)
	})
}
