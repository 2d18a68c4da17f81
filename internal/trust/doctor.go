package trust

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Probe is what the doctor needs: two addresses that only the proxy can reach, and somebody who tells what arrived there.
type Probe struct {
	// HTTPURL and HTTPSURL are fetched by every runtime, with ?marker=… added. Their host must not be a loopback name or address, which many
	// runtimes never send to a proxy, and had best resolve at the proxy only. The proxy must intercept HTTPSURL.
	HTTPURL, HTTPSURL string
	// Settings are the variables to try out.
	Settings Settings
	// Env is the environment they come on top of, as os.Environ writes it; nil is the process's own.
	Env []string
	// Seen tells whether a request with this marker arrived by way of the proxy. It is called from several goroutines.
	Seen func(marker string) bool
}

// Check is one finding.
type Check struct {
	Runtime string // "curl", "python requests", …; "proxy" for the proxy itself
	Check   string // one of the constants below
	OK      bool
	Absent  bool   // not installed here, so nothing was tried; OK is false
	Detail  string // what it means, and what to do where it is not OK
}

// What is checked.
const (
	CheckReach = "reaches the proxy"  // of the proxy itself
	CheckHTTP  = "honours variables"  // an http URL arrives by way of the proxy
	CheckHTTPS = "trusts the CA"      // an https URL does, which takes the variables and the CA
	CheckFound = "is on this machine" // of what is absent
)

const (
	runLimit  = 60 * time.Second // of one program: Java and Go compile theirs first
	dialLimit = 5 * time.Second
)

// runtimeProbe is a program that fetches one URL.
type runtimeProbe struct {
	name, bin            string
	file, source         string // written before it runs, where there is one
	args                 []string
	tail                 string // what the runtime adds to the marker
	proxyHint, trustHint string
}

// Doctor lets every runtime found on PATH fetch both URLs with the variables, and tells which arrived. Findings are in a fixed order. Where the
// proxy itself does not answer, that is the only one. What ctx cuts short is reported as not OK.
func Doctor(ctx context.Context, p Probe) []Check {
	return p.examine(ctx, runtimes)
}

func (p Probe) examine(ctx context.Context, probes []runtimeProbe) []Check {
	reach := p.reach(ctx)
	if !reach.OK {
		return []Check{reach}
	}
	dir, err := os.MkdirTemp("", "httpowerd-probe-")
	if err != nil {
		return []Check{reach, {Runtime: "doctor", Check: CheckFound, Detail: "no temporary directory: " + err.Error()}}
	}
	defer os.RemoveAll(dir)
	env := p.environment()
	found := make([][]Check, len(probes))
	slots := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	var wg sync.WaitGroup
	for i, r := range probes {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[i] = p.try(ctx, r, dir, env)
		})
	}
	wg.Wait()
	return append([]Check{reach}, slices.Concat(found...)...)
}

// reach tells a proxy that is not there from runtimes that do not go there.
func (p Probe) reach(ctx context.Context) Check {
	c := Check{Runtime: "proxy", Check: CheckReach}
	host, port := p.Settings.hostPort()
	if host == "" {
		c.Detail = "no proxy is set, or it is not a URL such as http://127.0.0.1:3128"
		return c
	}
	d := net.Dialer{Timeout: dialLimit}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	switch {
	case err != nil && ctx.Err() != nil:
		c.Detail = cutShort
		return c
	case err != nil:
		c.Detail = "nobody answers at " + net.JoinHostPort(host, port) + ": is httpowerd running, and listening there?"
		return c
	}
	conn.Close()
	c.OK, c.Detail = true, "it listens at "+net.JoinHostPort(host, port)
	return c
}

func (p Probe) environment() []string {
	env := p.Env
	if env == nil {
		env = os.Environ()
	}
	env = slices.Clone(env)
	for _, v := range p.Settings.Vars() {
		env = append(env, v.Name+"="+v.Value) // the last one counts
	}
	// A question on the terminal would hang, and a toolchain from the network is none of this machine's.
	return append(env, "GIT_TERMINAL_PROMPT=0", "GOTOOLCHAIN=local", "GO111MODULE=off", "GOFLAGS=", "DOTNET_NOLOGO=1", "DOTNET_CLI_TELEMETRY_OPTOUT=1")
}

// try does both checks of one runtime, or finds it absent.
func (p Probe) try(ctx context.Context, r runtimeProbe, dir string, env []string) []Check {
	absent := Check{Runtime: r.name, Check: CheckFound, Absent: true}
	path, err := exec.LookPath(r.bin)
	if err != nil {
		absent.Detail = r.bin + " is not on PATH"
		return []Check{absent}
	}
	file := filepath.Join(dir, r.file)
	if r.file != "" {
		if err := os.WriteFile(file, []byte(r.source), 0o600); err != nil {
			return []Check{{Runtime: r.name, Check: CheckFound, Detail: err.Error()}}
		}
	}
	var checks []Check
	for _, kind := range []struct{ check, url string }{{CheckHTTP, p.HTTPURL}, {CheckHTTPS, p.HTTPSURL}} {
		if kind.url == "" {
			continue
		}
		marker := rand.Text()
		run := fetch{path: path, args: r.command(file, withMarker(kind.url, marker)), env: env, dir: dir}
		out, able := run.do(ctx)
		seen := p.Seen(marker) || r.tail != "" && p.Seen(marker+r.tail)
		if !seen && ctx.Err() != nil { // what the program said or left unsaid was for want of time
			checks = append(checks, Check{Runtime: r.name, Check: kind.check, Detail: cutShort})
			continue
		}
		if !able && !seen {
			absent.Detail = cmp.Or(out, "a library that it needs is not installed")
			if len(checks) == 0 {
				return []Check{absent}
			}
			return append(checks, absent)
		}
		checks = append(checks, r.judge(kind.check, seen, p.hide(out)))
	}
	return checks
}

func (r runtimeProbe) command(file, address string) []string {
	args := slices.Clone(r.args)
	for i, a := range args {
		switch a {
		case "FILE":
			args[i] = file
		case "URL":
			args[i] = address
		}
	}
	return args
}

// judge words the finding.
func (r runtimeProbe) judge(check string, seen bool, out string) Check {
	c := Check{Runtime: r.name, Check: check, OK: seen}
	switch {
	case seen && check == CheckHTTP:
		c.Detail = "comes by way of the proxy"
	case seen:
		c.Detail = "comes by way of the proxy and accepts its certificate"
	case check == CheckHTTPS && distrust.MatchString(out):
		c.Detail = join("reaches the proxy, but does not trust the CA", r.trustHint, out)
	case out == "":
		c.Detail = join("never came by way of the proxy", cmp.Or(r.proxyHint, "it does not look at the proxy variables"), "")
	default:
		c.Detail = join("never came by way of the proxy", r.proxyHint, out)
	}
	return c
}

// distrust is how TLS libraries word it. The probe's host cannot be reached but through the proxy, so the certificate was the proxy's.
var distrust = regexp.MustCompile(`(?i)certificate|CERT_|PKIX|self.signed|unknown ca\b|x509|trust anchor`)

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// fetch is one run of one program.
type fetch struct {
	path, dir string
	args, env []string
}

// do returns the end of what the program printed where it failed, and whether it was able to try at all.
func (f fetch) do(ctx context.Context) (out string, able bool) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.path, f.args...)
	cmd.Env, cmd.Dir = f.env, f.dir
	cmd.WaitDelay = time.Second // a child of the program may hold its output open
	text, err := cmd.CombinedOutput()
	if err == nil {
		return "", true
	}
	if ctx.Err() != nil {
		return "it did not end in time", true
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == exitAbsent {
		return "", false
	}
	for _, sign := range absentSigns {
		if strings.Contains(string(text), sign) {
			return "it cannot run a program from its source here", false
		}
	}
	return cmp.Or(lastWords(string(text)), err.Error()), true
}

const maxWords = 240 // bytes of a program's output in a Detail

// cutShort is what is known of a check that the time for all of them did not reach to.
const cutShort = "the time was over before this could be told"

// lastWords is the end of a text in one line, without what a terminal would obey.
func lastWords(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(s) > maxWords {
		s = "…" + strings.ToValidUTF8(s[len(s)-maxWords:], "")
	}
	return s
}

// hide takes the proxy's password out of what programs print.
func (p Probe) hide(s string) string {
	u, err := url.Parse(p.Settings.Proxy)
	if err != nil {
		return s
	}
	if pw, ok := u.User.Password(); ok && pw != "" {
		s = strings.ReplaceAll(strings.ReplaceAll(s, pw, "[redacted]"), url.QueryEscape(pw), "[redacted]")
	}
	return s
}

func withMarker(address, marker string) string {
	separator := "?"
	switch {
	case strings.Contains(address, "?"):
		separator = "&"
	case strings.Count(address, "/") < 3:
		separator = "/?"
	}
	return address + separator + "marker=" + marker
}
