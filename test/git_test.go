package test

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGit clones a repository in clear, through a tunnel and intercepted.
func TestGit(t *testing.T) {
	need(t, "git")
	ca := newAuthority(t)
	repositories := t.TempDir()
	commit := makeRepository(t, repositories)
	upstream := &recorder{}
	backend := gitBackend(t, repositories)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upstream.note(r)
		backend.ServeHTTP(w, r)
	})
	plain, tls := serve(t, nil, false, handler), serve(t, ca, true, handler)
	d := start(t, fmt.Sprintf(`ca: {cert: %s, key: %s}
hosts:
  git-plain.example.com: {upstream: {resolve: {git-plain.example.com: "%s"}}}
  git-tunnel.example.com: {upstream: {resolve: {git-tunnel.example.com: "%s"}}}
  git-intercept.example.com: {tls: intercept, upstream: {resolve: {git-intercept.example.com: "%s"}, ca: %s}}
`, ca.certFile, ca.keyFile, plain, tls, tls, ca.certFile))
	env := append(d.environment(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1")
	for _, w := range []way{{"plain", "http", "plain", false}, {"tunnel", "https", "tunnel", true}, {"intercept", "https", "intercept", true}} {
		t.Run(w.name, func(t *testing.T) {
			host := "git-" + w.name + ".example.com"
			clone := filepath.Join(t.TempDir(), "clone")
			runClient(t, env, "git", "clone", "--quiet", w.scheme+"://"+host+"/tiny.git", clone)
			if got := strings.TrimSpace(runClient(t, env, "git", "-C", clone, "rev-parse", "HEAD")); got != commit {
				t.Errorf("the clone is at %s; want %s", got, commit)
			}
			if content, err := os.ReadFile(filepath.Join(clone, "hello.txt")); string(content) != "hello\n" {
				t.Errorf("hello.txt is %q, %v", content, err)
			}
			checkGitReceived(t, upstream.of(host))
			checkGitAudit(t, d, host, w)
		})
	}
	d.stop()
}

// note remembers a request without reading its body.
func (r *recorder) note(q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[string][]received{}
	}
	r.seen[q.Host] = append(r.seen[q.Host], received{q.Method, q.RequestURI, q.Host, q.Proto, "", q.Header})
}

// makeRepository makes tiny.git with one commit and returns its name.
func makeRepository(t *testing.T, dir string) string {
	t.Helper()
	script := `set -eu
git init --quiet --initial-branch=main work && cd work
echo hello >hello.txt
git add hello.txt
git -c user.name=Test -c user.email=test@example.com commit --quiet --message=first
git rev-parse HEAD
git clone --quiet --bare . ../tiny.git`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("making a repository: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func gitBackend(t *testing.T, repositories string) http.Handler {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	return &cgi.Handler{Path: git, Args: []string{"http-backend"}, InheritEnv: []string{"PATH"},
		Env: []string{"GIT_PROJECT_ROOT=" + repositories, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1",
			"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
}

func checkGitReceived(t *testing.T, got []received) {
	t.Helper()
	want := []string{"GET /tiny.git/info/refs?service=git-upload-pack", "POST /tiny.git/git-upload-pack", "POST /tiny.git/git-upload-pack"}
	for i, r := range got {
		if i >= len(want) || r.method+" "+r.target != want[i] {
			t.Errorf("request %d was %s %s", i, r.method, r.target)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the upstream received %d requests; want %d", len(got), len(want))
	}
}

func checkGitAudit(t *testing.T, d *daemon, host string, w way) {
	t.Helper()
	kind, least := "request", 3
	if w.mode == "tunnel" {
		kind, least = "tunnel", 1
	}
	var found []record
	eventually(t, "audit records of "+host, func() error {
		if found = d.records(t, func(r record) bool { return strings.Contains(r.line, host) }); len(found) < least {
			return fmt.Errorf("there are %d", len(found))
		}
		return nil
	})
	for _, r := range found {
		if r.Kind != kind || r.Mode != w.mode || r.Status != http.StatusOK || r.Outcome != "ok" {
			t.Errorf("an audit record is %s", r.line)
		}
	}
}
