package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script/*.txt. Each script has httpowerd in its PATH, two free addresses $PROXY and $ADMIN, and an upstream at
// $UPSTREAM; besides the usual commands of testscript it may say
//
//	ready          waits until the daemon at $ADMIN is ready
//	signal NAME    sends TERM, HUP or INT to the programs in the background
//	exits CODE CMD runs CMD and expects its exit code; stdout and stderr are in the files of these names
func TestScripts(t *testing.T) {
	need(t, "curl", "sh")
	bin := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "httpowerd")); err != nil {
		t.Fatal(err)
	}
	var scripts atomic.Int64
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			return setup(env, bin, int(scripts.Add(1)))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"ready": ready, "signal": sendSignal, "exits": exits},
	})
}

// setup gives each script a loopback address of its own, so that scripts can run side by side on fixed ports.
func setup(env *testscript.Env, bin string, n int) error {
	s := httptest.NewServer(scriptUpstream())
	env.Defer(s.Close)
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	pid := os.Getpid()
	address := fmt.Sprintf("127.%d.%d.%d", 64+pid>>8&63, pid&255, n)
	env.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	env.Setenv("HOME", home)
	env.Setenv("STATE_DIRECTORY", filepath.Join(home, "state")) // the only one that root's processes heed too
	env.Setenv("ADDRESS", address)
	env.Setenv("PROXY", address+":3128")
	env.Setenv("ADMIN", address+":9128")
	env.Setenv("UPSTREAM", s.Listener.Addr().String())
	return nil
}

// scriptUpstream greets; below /flaky each path fails once with 503, and below /down always.
func scriptUpstream() http.Handler {
	var flaky atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s\n", r.URL.Path)
	})
	mux.HandleFunc("/flaky", func(w http.ResponseWriter, _ *http.Request) {
		if flaky.Add(1) == 1 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "now\n")
	})
	mux.HandleFunc("/down", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusInternalServerError) })
	return mux
}

func ready(ts *testscript.TestScript, neg bool, _ []string) {
	if neg {
		ts.Fatalf("ready cannot be negated")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		resp, err := client.Get("http://" + ts.Getenv("ADMIN") + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(resp.Status)
		}
		last = err
	}
	ts.Fatalf("the daemon is not ready: %v", last)
}

func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "INT": syscall.SIGINT}
	if neg || len(args) != 1 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal TERM|HUP|INT")
	}
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(signals[args[0]]))
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE CMD ARG…")
	}
	const wrapper = `want=$1; shift; "$@" >stdout 2>stderr; code=$?; cat stdout; cat stderr >&2; [ $code = "$want" ] || { echo "exit code $code"; exit 1; }`
	if err := ts.Exec("sh", append([]string{"-c", wrapper, "sh"}, args...)...); err != nil {
		ts.Fatalf("%s: not exit code %s", strings.Join(args[1:], " "), args[0])
	}
}

// TestScriptsDial makes sure that this machine has the whole of 127.0.0.0/8, which the scripts need.
func TestScriptsDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.64.0.1:0")
	if err != nil {
		t.Fatalf("scripts need all of 127.0.0.0/8 on loopback: %v", err)
	}
	l.Close()
}
