package trust

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clinic is a proxy that listens, and a folder of made-up runtimes that is all of PATH.
type clinic struct {
	t       *testing.T
	bin     string
	arrived string // runtimes put a file here for each marker that they would have sent
	probe   Probe
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &clinic{t: t, bin: t.TempDir(), arrived: t.TempDir()}
	c.probe = Probe{HTTPURL: "http://probe.example.com", HTTPSURL: "https://probe.example.com/x?y=1",
		Settings: Settings{Proxy: "http://billing:obviously-fake-pw@" + l.Addr().String()},
		Env:      []string{"PATH=/usr/bin:/bin", "ARRIVED=" + c.arrived},
		Seen: func(marker string) bool {
			_, err := os.Stat(filepath.Join(c.arrived, marker))
			return err == nil
		}}
	t.Setenv("PATH", c.bin)
	return c
}

// install makes a runtime. Its script knows $url (the last argument), $marker, and arrive, which sends the request by way of the proxy.
func (c *clinic) install(name, script string) {
	c.t.Helper()
	head := "#!/bin/sh\nfor url; do :; done\nmarker=${url##*marker=}\narrive() { [ -n \"$http_proxy\" ] && : > \"$ARRIVED/$marker\"; }\n"
	put(c.t, filepath.Join(c.bin, name), []byte(head+script+"\n"))
}

func (c *clinic) examine(probes ...runtimeProbe) []Check {
	c.t.Helper()
	checks := c.probe.examine(c.t.Context(), probes)
	if len(checks) == 0 || checks[0].Runtime != "proxy" {
		c.t.Fatalf("%+v", checks)
	}
	return checks[1:]
}

func TestDoctor(t *testing.T) {
	const onlyHTTP = `case $url in http:*) arrive;; *) `
	for _, row := range []struct {
		name, script string
		http, https  string // the beginning of the detail; ! in front: not OK
	}{
		{"good", `arrive`, "comes by way of the proxy", "comes by way of the proxy and accepts"},
		{"arrives and fails", `arrive; exit 3`, "comes by way of the proxy", "comes by way of the proxy and accepts"},
		{"distrusts", onlyHTTP + `echo "SSL certificate problem: unable to get local issuer" >&2; exit 60;; esac`,
			"comes by way of the proxy", "!reaches the proxy, but does not trust the CA: the hint of trust: SSL certificate problem"},
		{"never looks", `echo "getaddrinfo ENOTFOUND probe.example.com" >&2; exit 1`,
			"!never came by way of the proxy: the hint of proxies: getaddrinfo ENOTFOUND", "!never came by way of the proxy: the hint of proxies: getaddrinfo"},
		{"says nothing", `exit 0`, "!never came by way of the proxy: the hint of proxies", "!never came"},
		{"prints odd things", `printf '\033[31mred\033[0m\n\n  obviously-fake-pw  \200\n'; exit 1`,
			"!never came by way of the proxy: the hint of proxies: [31mred [0m [redacted]", "!never came"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newClinic(t)
			c.install("fake", row.script)
			checks := c.examine(runtimeProbe{name: "fake", bin: "fake", args: []string{"-x", "URL"}, proxyHint: "the hint of proxies", trustHint: "the hint of trust"})
			if len(checks) != 2 || checks[0].Check != CheckHTTP || checks[1].Check != CheckHTTPS {
				t.Fatalf("%+v", checks)
			}
			for i, want := range []string{row.http, row.https} {
				detail, bad := strings.CutPrefix(want, "!")
				if got := checks[i]; got.OK == bad || got.Absent || got.Runtime != "fake" || !strings.HasPrefix(got.Detail, detail) {
					t.Errorf("got %+v, want %q", got, want)
				}
			}
		})
	}
}

func TestDoctorAbsent(t *testing.T) {
	c := newClinic(t)
	c.install("library", "exit 77")
	c.install("noTLS", `case $url in https:*) exit 77;; esac; arrive`)
	c.install("launcher", `echo "error: module jdk.compiler not found" >&2; exit 1`)
	var got []string
	for _, r := range c.examine(runtimeProbe{name: "missing", bin: "missing"}, runtimeProbe{name: "library", bin: "library", args: []string{"URL"}},
		runtimeProbe{name: "noTLS", bin: "noTLS", args: []string{"URL"}}, runtimeProbe{name: "launcher", bin: "launcher", args: []string{"URL"}}) {
		verdict := "fails"
		switch {
		case r.Absent && r.OK:
			t.Errorf("absent and fine: %+v", r)
		case r.Absent:
			verdict = "absent"
		case r.OK:
			verdict = "ok"
		}
		if r.Detail == "" {
			t.Errorf("no detail: %+v", r)
		}
		got = append(got, r.Runtime+" "+verdict)
	}
	if want := "missing absent,library absent,noTLS ok,noTLS absent,launcher absent"; strings.Join(got, ",") != want {
		t.Errorf("got %v", got)
	}
}

// TestDoctorRuns: the program's source is written, the variables are set, the marker is where the runtime puts it.
func TestDoctorRuns(t *testing.T) {
	c := newClinic(t)
	c.install("reader", `grep -q "the program" "$1" && [ -n "$SSL_CERT_FILE" ] && [ "$NO_PROXY" = "$no_proxy" ] && : > "$ARRIVED/$marker.tail"`)
	c.probe.Settings.BundleFile = "/run/bundle.pem"
	for _, r := range c.examine(runtimeProbe{name: "reader", bin: "reader", file: "p.txt", source: "the program\n", args: []string{"FILE", "URL"}, tail: ".tail"}) {
		if !r.OK {
			t.Errorf("%+v", r)
		}
	}
}

func TestDoctorNoProxy(t *testing.T) {
	c := newClinic(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, proxy := range []string{"http://" + l.Addr().String(), "", "no URL"} {
		c.probe.Settings.Proxy = proxy
		if got := Doctor(t.Context(), c.probe); len(got) != 1 || got[0].OK || got[0].Check != CheckReach || got[0].Detail == "" {
			t.Errorf("%q: %+v", proxy, got)
		}
	}
}

// TestDoctorStops: the end of the context ends a program that hangs, and those that it started.
func TestDoctorStops(t *testing.T) {
	c := newClinic(t)
	started := filepath.Join(c.arrived, "started")
	c.install("hangs", ": > "+started+"\nsleep 60")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(started); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	})
	got := c.probe.examine(ctx, []runtimeProbe{{name: "hangs", bin: "hangs", args: []string{"URL"}, proxyHint: "it looks at no variable"}})
	wg.Wait()
	if len(got) != 3 || got[1].OK || got[1].Detail != cutShort || got[2].Detail != cutShort {
		t.Errorf("%+v", got)
	}
	if got := c.probe.examine(ctx, nil); len(got) != 1 || got[0].OK || got[0].Detail != cutShort { // of the proxy nothing is known either
		t.Errorf("%+v", got)
	}
}

// TestRuntimes: each is found by its name, and fetches what it is told.
func TestRuntimes(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range runtimes {
		if r.name == "" || r.bin == "" || seen[r.name] {
			t.Errorf("%q: no name of its own", r.name)
		}
		seen[r.name] = true
		args := strings.Join(r.command("/tmp/source", "http://probe.example.com/"), "\x00")
		if !strings.HasSuffix(args, "http://probe.example.com/") || strings.Contains(args, "/tmp/source") != (r.file != "") || (r.file == "") != (r.source == "") {
			t.Errorf("%s: %q", r.name, args)
		}
	}
	t.Setenv("PATH", t.TempDir())
	c := newClinic(t)
	for _, r := range Doctor(t.Context(), c.probe)[1:] {
		if !r.Absent {
			t.Errorf("found on an empty PATH: %+v", r)
		}
	}
}
