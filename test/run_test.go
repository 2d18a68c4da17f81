package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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
