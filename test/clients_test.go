package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// client is a program that is given GETURL POSTURL BODY and prints "STATUS BODY" for each answer.
type client struct {
	name    string
	http2   bool // offers HTTP/2 over TLS by itself
	command func(t *testing.T) []string
}

var clients = []client{
	{"curl", true, script("sh", "shell/curl.sh", "curl")},
	{"wget", false, script("sh", "shell/wget.sh", "wget", "awk")},
	{"urllib", false, script("/usr/bin/python3", "python/with_urllib.py")},
	{"requests", false, script("/usr/bin/python3", "python/with_requests.py")},
	{"httpx", false, script("/usr/bin/python3", "python/with_httpx.py")},
	{"aiohttp", false, script("/usr/bin/python3", "python/with_aiohttp.py")},
	{"undici-fetch", false, script("node", "node/undici-fetch.mjs")},
	{"undici-request", false, script("node", "node/undici-request.mjs")},
	{"axios", false, script("node", "node/with-axios.mjs")},
	{"java", true, javaClient},
	{"go", true, goClient},
}

// script runs a file of test/clients with an interpreter; needs are the programs it calls.
func script(interpreter, file string, needs ...string) func(*testing.T) []string {
	return func(t *testing.T) []string {
		need(t, append(needs, interpreter)...)
		path, err := filepath.Abs(filepath.Join("clients", file))
		if err != nil {
			t.Fatal(err)
		}
		return []string{interpreter, path}
	}
}

func javaClient(t *testing.T) []string {
	need(t, "javac", "java")
	compile(t, "javac", "-d", clientsDir, "clients/java/Client.java")
	// One short run gains nothing from the optimising compiler.
	return []string{"java", "-XX:TieredStopAtLevel=1", "-cp", clientsDir, "Client"}
}

func goClient(t *testing.T) []string {
	need(t, "go")
	path := filepath.Join(clientsDir, "client")
	compile(t, "go", "build", "-o", path, "./clients/go")
	return []string{path}
}

func compile(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// way is how a host is reached: in clear, through a tunnel, or intercepted, on an upstream of either protocol.
type way struct {
	name, scheme, mode string
	http2              bool
}

var ways = []way{
	{"plain", "http", "plain", false},
	{"tunnel-h1", "https", "tunnel", false},
	{"tunnel-h2", "https", "tunnel", true},
	{"intercept-h1", "https", "intercept", false},
	{"intercept-h2", "https", "intercept", true},
}

const (
	getTarget  = "/v1/items%2Fone/a;b=1?q=caf%C3%A9&plus=a+b&space=%20&list=1,2&empty=&q=2"
	postTarget = "/v1/orders?dry_run=true"
	postBody   = `{"amount": 4200, "currency": "eur", "note": "naïve ✓"}`
)

func hostOf(c client, w way) string { return c.name + "-" + w.name + ".example.com" }

// TestClients sends each client on each way, and looks at what the upstream received, what the audit says and what the client printed.
func TestClients(t *testing.T) {
	// One authority signs the upstreams and, as the configured CA, the intercepted hosts: what `httpowerd env` prints makes clients trust both.
	ca := newAuthority(t)
	upstream := &recorder{}
	addresses := map[string]string{
		"plain":     serve(t, nil, false, upstream),
		"tunnel-h1": serve(t, ca, false, upstream), "tunnel-h2": serve(t, ca, true, upstream),
	}
	addresses["intercept-h1"], addresses["intercept-h2"] = addresses["tunnel-h1"], addresses["tunnel-h2"]

	var config strings.Builder
	fmt.Fprintf(&config, "ca: {cert: %s, key: %s}\nhosts:\n", ca.certFile, ca.keyFile)
	for _, c := range clients {
		for _, w := range ways {
			host, intercept, trust := hostOf(c, w), "", ""
			if w.mode == "intercept" {
				intercept, trust = "tls: intercept, ", ", ca: "+ca.certFile
			}
			fmt.Fprintf(&config, "  %s: {%supstream: {resolve: {%s: \"%s\"}%s}}\n", host, intercept, host, addresses[w.name], trust)
		}
	}
	d := start(t, config.String())
	env := d.environment()

	t.Run("each", func(t *testing.T) {
		for _, c := range clients {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				command := c.command(t)
				for _, w := range ways {
					t.Run(w.name, func(t *testing.T) {
						host := hostOf(c, w)
						base := w.scheme + "://" + host
						printed := runClient(t, env, append(slices.Clone(command), base+getTarget, base+postTarget, postBody)...)
						want := "200 " + answerOf("GET", host) + "\n201 " + answerOf("POST", host) + "\n"
						if printed != want {
							t.Errorf("the client printed\n%swant\n%s", printed, want)
						}
						checkReceived(t, upstream.of(host), c, w)
						checkAudit(t, d, host, w)
					})
				}
			})
		}
	})
	d.stop()
}

// runClient runs a client in a folder of its own and returns what it printed.
func runClient(t *testing.T, env []string, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = t.TempDir(), env, &stdout, &stderr
	err := cmd.Run()
	switch missing := stderr.String(); {
	case err == nil:
	case strings.Contains(missing, "ModuleNotFoundError"), strings.Contains(missing, "ERR_MODULE_NOT_FOUND"):
		t.Fatalf("a client's library is missing: run make deps\n%s", missing)
	default:
		t.Fatalf("the client failed: %v\n%s%s", err, &stdout, &stderr)
	}
	return stdout.String()
}

// checkReceived compares what an upstream got with what the client was told to send.
func checkReceived(t *testing.T, got []received, c client, w way) {
	t.Helper()
	proto := "HTTP/1.1"
	if w.http2 && c.http2 {
		proto = "HTTP/2.0"
	}
	if len(got) != 2 {
		t.Fatalf("the upstream received %d requests; want 2: %v", len(got), got)
	}
	for i, want := range []received{{method: "GET", target: getTarget}, {method: "POST", target: postTarget, body: postBody}} {
		r := got[i]
		if r.method != want.method || r.target != want.target || r.body != want.body || r.host != hostOf(c, w) {
			t.Errorf("the upstream received %s %s for %s with %q;\nwant %s %s for %s with %q",
				r.method, r.target, r.host, r.body, want.method, want.target, hostOf(c, w), want.body)
		}
		if r.proto != proto {
			t.Errorf("the upstream received the %s by %s; want %s", r.method, r.proto, proto)
		}
		for name := range r.header {
			if w.mode == "tunnel" {
				break // wget speaks of the proxy inside too, where nobody can change it
			}
			if strings.HasPrefix(name, "Proxy-") || strings.HasPrefix(name, "Httpowerd-") || name == "X-Forwarded-For" || name == "Forwarded" {
				t.Errorf("the upstream received %s: %q", name, r.header[name])
			}
		}
		if want.body != "" && !strings.HasPrefix(r.header.Get("Content-Type"), "application/json") {
			t.Errorf("the upstream received the Content-Type %q", r.header.Get("Content-Type"))
		}
	}
}

// checkAudit expects a record for each request, or for each tunnel where nobody can see inside.
func checkAudit(t *testing.T, d *daemon, host string, w way) {
	t.Helper()
	want := []string{"request GET 200", "request POST 201"}
	if w.mode == "tunnel" {
		want = []string{"tunnel CONNECT 200"}
	}
	var found []record
	eventually(t, "audit records of "+host, func() error {
		found = d.records(t, func(r record) bool { return strings.Contains(r.line, host) })
		if len(found) < len(want) {
			return fmt.Errorf("there are %d: %v", len(found), found)
		}
		return nil
	})
	for i, r := range found {
		got := fmt.Sprintf("%s %s %d", r.Kind, r.Method, r.Status)
		expected := want[min(i, len(want)-1)] // a client may open a tunnel for each request
		if got != expected || r.Mode != w.mode || r.Outcome != "ok" || r.StatusBy != "upstream" || (w.mode != "tunnel" && i >= len(want)) {
			t.Errorf("audit record %d is %q, mode %s, outcome %s, status_by %s; want %q, mode %s, outcome ok\n%s",
				i, got, r.Mode, r.Outcome, r.StatusBy, expected, w.mode, r.line)
		}
		if w.mode != "tunnel" && !strings.Contains(r.URL, host+"/v1/") {
			t.Errorf("audit record %d has the url %q", i, r.URL)
		}
	}
}

// TestClientsWithoutProxy sends each client to an upstream directly: what it sends on its own is what TestClients expects through the proxy.
func TestClientsWithoutProxy(t *testing.T) {
	upstream := &recorder{}
	address := serve(t, nil, false, upstream)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			_, port, _ := strings.Cut(address, ":")
			host := "localhost:" + port
			env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8"}
			before := len(upstream.of(host))
			printed := runClient(t, env, append(c.command(t), "http://"+host+getTarget, "http://"+host+postTarget, postBody)...)
			if want := "200 " + answerOf("GET", host) + "\n201 " + answerOf("POST", host) + "\n"; printed != want {
				t.Errorf("the client printed\n%swant\n%s", printed, want)
			}
			got := upstream.of(host)[before:]
			if len(got) != 2 || got[0].target != getTarget || got[1].target != postTarget || got[1].body != postBody {
				t.Errorf("the upstream received %v", got)
			}
		})
	}
}
