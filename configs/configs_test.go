package configs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"httpowerd/configs"
	"httpowerd/internal/policy"
	"httpowerd/internal/setting"
)

// given is an environment in which every variable of the examples is set.
func given(string) (string, bool) { return "some-value", true }

// bare is one in which none is.
func bare(string) (string, bool) { return "", false }

func load(t *testing.T, path string, env func(string) (string, bool)) *policy.File {
	t.Helper()
	file, faults := policy.Load(policy.Source{Path: path, Env: env})
	if len(faults) > 0 {
		t.Fatalf("%v", faults)
	}
	return file
}

// strict is `validate --strict`.
func strict(t *testing.T, path string, env func(string) (string, bool)) {
	t.Helper()
	for _, w := range load(t, path, env).Warnings() {
		t.Errorf("warns: %s", w.String())
	}
}

func TestFilesLoadWithoutWarnings(t *testing.T) {
	strict(t, "reference.yaml", bare)
	strict(t, "minimal.yaml", bare)
	examples, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(examples) < 7 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	for _, path := range examples {
		t.Run(filepath.Base(path), func(t *testing.T) { strict(t, path, given) })
	}
}

// Whoever reads an example must learn why each line is there: it opens with what it is for, and has a comment at least every few lines.
func TestExamplesSayWhatTheyAreFor(t *testing.T) {
	paths, err := filepath.Glob("examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, "minimal.yaml") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines, comments := 0, 0
		for line := range strings.Lines(string(text)) {
			if strings.TrimSpace(line) == "" {
				continue
			}
			lines++
			if strings.Contains(line, "# ") {
				comments++
			}
		}
		if !bytes.HasPrefix(text, []byte("# ")) || comments*4 < lines {
			t.Errorf("%s: %d comments in %d lines", path, comments, lines)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		kind  string
		names []string
		read  func(string) ([]byte, error)
		want  string
	}{
		{"profile", configs.ProfileNames(), configs.Profile, "api finance high-volume mesh payments"},
		{"provider", configs.ProviderNames(), configs.Provider, "anthropic aws github google openai sendgrid shopify slack stripe twilio"},
	} {
		if got := strings.Join(c.names, " "); got != c.want || !slices.IsSorted(c.names) {
			t.Errorf("%ss %s, want %s", c.kind, got, c.want)
		}
		for _, name := range c.names {
			text, err := c.read(name)
			if err != nil || !bytes.HasPrefix(text, []byte("# ")) || !bytes.Contains(text, []byte("\npolicy:\n")) {
				t.Errorf("%s %s: %v, or no comment, or no policy", c.kind, name, err)
			}
			if c.kind == "provider" && !bytes.Contains(text, []byte("\n# Source: https://")) {
				t.Errorf("%s %s names no source", c.kind, name)
			}
		}
		for _, name := range []string{"", "none", "../reference", "../profiles/api", "Stripe", "stripe.yaml", "*"} {
			if text, err := c.read(name); err == nil || text != nil {
				t.Errorf("there is a %s %q", c.kind, name)
			}
		}
	}
}

// What one reader does to a file must not reach the next.
func TestFilesAreCopies(t *testing.T) {
	first := configs.Reference()
	first[0] = '!'
	if configs.Reference()[0] == '!' {
		t.Error("the reference was changed")
	}
}

// TestEverySetIsRead: a set beneath a host with every block on must change something, and warn of nothing.
func TestEverySetIsRead(t *testing.T) {
	for kind, names := range map[string][]string{"profile": configs.ProfileNames(), "provider": configs.ProviderNames()} {
		for _, name := range names {
			t.Run(kind+" "+name, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "c.yaml")
				host := "version: 1\nhosts:\n  api.example.com: {tls: intercept, rate_limit: {requests: 1, per: 1s}, concurrency: {}, " + kind + ": " + name + "}\n"
				if err := os.WriteFile(path, []byte(host), 0o600); err != nil {
					t.Fatal(err)
				}
				strict(t, path, bare)
				x, err := policy.Explain(load(t, path, bare), "GET", "https://api.example.com/", "", nil)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(x.Values, func(v policy.Value) bool { return v.Origin == kind && v.Where != "" }) {
					t.Errorf("no value comes from the %s", kind)
				}
			})
		}
	}
}

// A provider must not change what is on: chain, access and mode stay, whatever else is written.
func TestProvidersSwitchNothingOn(t *testing.T) {
	hosts := []string{"{}", "{tls: intercept}", "{retry: off, breaker: off, timeout: off}", "{rate_limit: off, upgrade: https}", "{concurrency: {max: 2}}"}
	for _, name := range configs.ProviderNames() {
		for _, host := range hosts {
			plain, with := filepath.Join(t.TempDir(), "c.yaml"), filepath.Join(t.TempDir(), "c.yaml")
			text := "version: 1\nhosts:\n  api.example.com: " + host + "\n"
			provided := strings.Replace(text, "{", "{provider: "+name+", ", 1)
			provided = strings.Replace(provided, ", }", "}", 1)
			for path, content := range map[string]string{plain: text, with: provided} {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var shapes []string
			for _, path := range []string{plain, with} {
				x, err := policy.Explain(load(t, path, bare), "POST", "http://api.example.com/", "", nil)
				if err != nil {
					t.Fatal(err)
				}
				shapes = append(shapes, x.Access+" "+x.Mode+" "+strings.Join(x.Chain, " "))
				for _, v := range x.Values {
					if text, _ := v.Value.(string); v.Path == "retry.idempotency_key" && strings.Contains(text, "inject: true") {
						t.Errorf("%s makes keys unasked", name)
					}
				}
			}
			if shapes[0] != shapes[1] {
				t.Errorf("%s on %s: %s, without it %s", name, host, shapes[1], shapes[0])
			}
		}
	}
}

func member(o policy.Object, key string) any {
	for _, m := range o {
		if m.Key == key {
			return m.Value
		}
	}
	return nil
}

// rate is how many requests a second a level of rate_limit lets through, 0 for one without a rate.
func rate(t *testing.T, level policy.Object) float64 {
	t.Helper()
	requests, _ := member(level, "requests").(int64)
	per, err := setting.ParseDuration(member(level, "per").(string))
	if err != nil {
		t.Fatal(err)
	}
	if requests == 0 {
		return 0
	}
	return float64(requests) / per.Seconds()
}

// TestExamplesLimitToWhatTheySay: limits add up, so a tighter one of a lower level, or of its profile, would make the one that is read untrue.
func TestExamplesLimitToWhatTheySay(t *testing.T) {
	paths, err := filepath.Glob("examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		for _, host := range member(load(t, path, given).Effective(), "hosts").(policy.Object) {
			policies := []policy.Object{host.Value.(policy.Object)}
			routes, _ := member(policies[0], "routes").([]any)
			for _, r := range routes {
				policies = append(policies, r.(policy.Object))
			}
			for _, p := range policies {
				levels, _ := member(p, "rate_limit").([]any)
				for i, lower := range levels {
					below := rate(t, lower.(policy.Object))
					for _, upper := range levels[i+1:] {
						if above := rate(t, upper.(policy.Object)); below > 0 && above > below {
							t.Errorf("%s, %s: %v a second are written, %v go", path, host.Key, above, below)
						}
					}
				}
			}
		}
	}
}
