package policy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// counted is a held Holder that counts its loads: each asks once for LEVEL.
type counted struct {
	held
	loads int
}

func count(t *testing.T, path string) *counted {
	t.Helper()
	c := &counted{held: hold(t, path)}
	c.source.Env = func(name string) (string, bool) {
		if name == "LEVEL" {
			c.loads++
		}
		return "info", true
	}
	return c
}

// watch looks once, as a watch does when it begins, and tells how often the configuration was loaded and how many reloads there were.
func (c *counted) watch() (loads, reloads int) {
	before := c.loads
	ended, end := context.WithCancel(context.Background())
	end()
	c.Watch(ended)
	for ; len(c.told) > 0; reloads++ {
		<-c.told
	}
	return c.loads - before, reloads
}

// TestWatchBeginsWithoutALoad: a watch that begins loads only what has changed since the configuration was read (A69).
func TestWatchBeginsWithoutALoad(t *testing.T) {
	const level = "log: {level: \"${LEVEL}\"}\n"
	path := write(t, filepath.Join(t.TempDir(), "c.yaml"), denyA+level)
	for name, begin := range map[string]func(*counted) error{
		"read by itself": func(c *counted) error { return c.Reload(t.Context(), "start") },
		"read before": func(c *counted) error {
			f, faults := Load(c.source)
			if len(faults) > 0 {
				return faults
			}
			return c.Start(f)
		},
	} {
		write(t, path, denyA+level)
		c := count(t, path)
		if err := begin(c); err != nil {
			t.Fatal(err)
		}
		if a := accessOfA(t, c.next(t)); a != Deny || c.loads != 1 {
			t.Errorf("%s: %s after %d loads", name, a, c.loads)
		}
		if loads, reloads := c.watch(); loads != 0 || reloads != 0 {
			t.Errorf("%s: %d loads and %d reloads without a change", name, loads, reloads)
		}
		write(t, path, allowA+level)
		if loads, reloads := c.watch(); loads != 1 || reloads != 1 {
			t.Errorf("%s: %d loads and %d reloads after a change between load and watch", name, loads, reloads)
		}
		if a := c.Load().Host(authority(t, "a.example.com")).Base.Access; a != Allow {
			t.Errorf("%s: %s after a change between load and watch", name, a)
		}
		if err := c.Reload(t.Context(), "signal"); err != nil || c.loads != 3 {
			t.Errorf("%s: %d loads after a reload that was asked for: %v", name, c.loads, err)
		}
	}
}

// TestWatchLooksAtEveryFile: a change of any file that the configuration names is a reload, and without one nothing is loaded. What the files hold here
// makes no configuration: faulty ones are watched in the same way.
func TestWatchLooksAtEveryFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	main := write(t, at("c.yaml"), `version: 1
include: [one.yaml, conf.d/*.yaml]
log: {level: "${LEVEL}"}
admin: {token: "${file:token}"}
proxy: {tls: {cert: proxy.crt, key: proxy.key, client_ca: clients.crt}}
ca: {cert: ca.crt, key: ca.key}
state: {backend: redis, url: "rediss://redis.example.com", ca: redis.crt}
audit: {output: "syslog+tls://log.example.com:6514", tls: {ca: log.crt, cert: audit.crt, key: audit.key}}
tenants:
  team:
    auth:
      - {jwt: {jwks: jwks.json, issuer: "https://id.example.com", audience: proxy}}
      - {signature: {algorithm: ed25519, public_key: signer.pem}}
defaults: {upstream: {ca: roots.crt, client_cert: client.crt, client_key: client.key}}
hosts: {a.example.com: {upstream: {ca: host.crt}, routes: [{match: {path: /a}, upstream: {ca: route.crt}}]}}
`)
	names := []string{"one.yaml", "conf.d/a.yaml", "token", "proxy.crt", "proxy.key", "clients.crt", "ca.crt", "ca.key", "redis.crt", "log.crt", "audit.crt", "audit.key",
		"jwks.json", "signer.pem", "roots.crt", "client.crt", "client.key", "host.crt", "route.crt"}
	for _, name := range names {
		write(t, at(name), "# one\n")
	}
	c := count(t, main)
	if err := c.Reload(t.Context(), "start"); err == nil {
		t.Fatal("files that hold nothing were loaded")
	}
	c.next(t)
	expect := func(what string, loads, reloads int) {
		t.Helper()
		if l, r := c.watch(); l != loads || r != reloads {
			t.Errorf("%s: %d loads and %d reloads, want %d and %d", what, l, r, loads, reloads)
		}
	}
	expect("no change", 0, 0)
	for _, name := range append(names, "conf.d/new.yaml") {
		for _, change := range []struct {
			what string
			act  func() error
		}{
			{"written", func() error { return os.WriteFile(at(name), []byte("# two\n"), 0o600) }},
			{"removed", func() error { return os.Remove(at(name)) }},
			{"there again", func() error { return os.WriteFile(at(name), []byte("# one\n"), 0o600) }},
		} {
			if err := change.act(); err != nil {
				t.Fatal(err)
			}
			expect(fmt.Sprint(name, " ", change.what), 1, 1)
			expect(fmt.Sprint(name, " ", change.what, " and nothing since"), 0, 0)
		}
	}
	write(t, at("conf.d/README"), "somebody else's")
	expect("a file that no pattern matches", 0, 0)

	if err := os.Remove(at("token")); err != nil {
		t.Fatal(err)
	}
	expect("a file is gone", 1, 1)
	if err := os.Mkdir(at("token"), 0o700); err != nil {
		t.Fatal(err)
	}
	expect("it is missing for another reason, which changes nothing", 1, 0)
	expect("it is still missing for that", 0, 0)
}

// A file that changed while it was read twice is read again, though one of both readings shows what it still holds.
func TestLooksThatContradict(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "secret"), "one")
	var l looks
	for _, text := range []string{"one", "two", "one"} {
		l.add(lookAt(path, maxFilledFile, []byte(text), nil))
		if got, want := l.again(), text == "one" && len(l.files) == 1; got != want {
			t.Errorf("after a reading of %q: %t, want %t", text, got, want)
		}
	}
}
