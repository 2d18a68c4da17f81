package policy

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// told is all that somebody may be shown of loading a configuration that does not hold.
func told(t testing.TB, path string, env func(string) (string, bool)) (text string, faults Faults) {
	t.Helper()
	f, faults := load(Source{Path: path, Env: env})
	all, err := json.Marshal([]any{faults, f.Warnings()})
	if err != nil {
		t.Fatal(err)
	}
	return string(all) + faults.Error(), faults
}

// What may be a secret in the wrong place, or came from a variable, is in no fault and in no warning.
func TestFaultsQuoteNoSecrets(t *testing.T) {
	const secret = "Zq9s" + "EcReTvAlUe77"
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"TK": secret, "X": secret, "HOOK": "https://hooks.example.com/T0/" + secret, "REDIS_URL": "redis://u:" + secret + "@h:1/" + secret,
			"PIN": "48151623", "WAIT": "48151623h", "SIZE": "48151623TiB", "UPPER": strings.ToUpper(secret)}[name]
		return v, ok
	}
	dir := t.TempDir()
	for _, text := range []string{
		// a scalar where a mapping, list, number or word is wanted
		`notify: {ops: "https://hooks.example.com/T0/SECRET"}`, `notify: {ops: "SECRET"}`, `notify: "${HOOK}"`, `notify: {ops: {url: {a: "${HOOK}"}}}`, `notify: {ops: [SECRET]}`,
		`tracing: {otlp: "http://h", headers: "x-api-key=${TK}"}`, `tracing: {otlp: "http://h", headers: "x-api-key=SECRET"}`, `tracing: {otlp: "http://h", headers: [SECRET]}`,
		`tracing: "${TK}"`, `tracing: {otlp: "http://u:SECRET@h"}`, `tracing: {otlp: "${TK}"}`, `tracing: {otlp: "ftp://${TK}"}`, `tracing: {otlp: "http://h", protocol: "${TK}"}`,
		`tracing: {otlp: "http://h", sample: "${PIN}"}`, `tracing: {otlp: "http://h", sample: ${PIN}}`, `tracing: {otlp: "http://h", resource: "SECRET@h"}`,
		`tenants: {a: SECRET}`, `tenants: SECRET`, `tenants: {a: {auth: SECRET}}`, `tenants: {a: {auth: [SECRET]}}`, `tenants: {a: {auth: [{basic: SECRET}]}}`,
		`tenants: {a: {auth: [{source: ["${TK}"]}]}}`, `tenants: {a: {auth: [{basic: {password: long-enough}}], only: "${TK}"}}`, `tenants: {a: {auth: [{basic: {password: long-enough}}], only: ["${TK}!"]}}`,
		`tenants: {a: {auth: [{signature: {algorithm: "${TK}", secret: "${TK}"}}]}}`, `tenants: {a: {auth: [{jwt: {jwks: "${TK}"}}]}}`, `tenants: {a: {auth: [{jwt: {jwks: "${HOOK}"}}]}}`,
		`tenants: {a: {auth: [{mtls: {name: "${TK}"}}]}, b: {auth: [{mtls: {name: "${TK}"}}]}}`,
		`state: "${REDIS_URL}"`, `state: SECRET`, `state: {backend: "${REDIS_URL}"}`, `state: {backend: "redis://u:SECRET@h:1/SECRET"}`, `state: {backend: redis, url: {a: "${TK}"}}`,
		`state: {backend: redis, url: "redis://h?SECRET=1&SECRET=2"}`, `state: {backend: redis, url: "redis://h", prefix: "${TK}!"}`, `state: {backend: redis, url: "redis://h", share: ${PIN}}`,
		`state: {backend: redis, url: "redis://h", timeout: "${WAIT}"}`, `state: {backend: redis, url: "redis://h", ca: "${TK}.pem"}`,
		`admin: "${TK}"`, `admin: SECRET`, `admin: {listen: "${TK}"}`, `admin: {listen: "https://u:SECRET@h/x"}`, `admin: {token: [SECRET]}`, `admin: {metrics_auth: "${TK}"}`,
		`defaults: {upstream: "http://u:SECRET@proxy:1"}`, `defaults: {upstream: "u:SECRET@proxy:1"}`, `defaults: {upstream: "${HOOK}"}`, `defaults: {upstream: ["http://u:SECRET@proxy:1"]}`,
		`defaults: {upstream: {proxy: "gopher://u:SECRET@proxy:1"}}`, `defaults: {upstream: {proxy: "http://u:SEC RET SECRET"}}`, `defaults: {upstream: {dns: "http://u:SECRET@proxy:1"}}`,
		`defaults: {upstream: {dns: "${TK}"}}`, `defaults: {upstream: {bind: "${TK}"}}`, `defaults: {upstream: {ca: "${TK}"}}`, `defaults: {upstream: {resolve: {a.example.com: "${TK}"}}}`,
		`defaults: {upstream: {max_idle: ${PIN}}}`, `defaults: {upstream: {idle: "${WAIT}"}}`, `defaults: {upstream: {min_version: "${TK}"}}`,
		`audit: {also: "otlp+https://u:SECRET@h/x"}`, `audit: {also: ["otlp+https://u:SECRET@h/x"]}`, `audit: {also: ["gopher://u:SECRET@h/x"]}`, `audit: {output: "syslog+udp://h/SECRET"}`,
		`audit: {output: "otlp+http://h/SECRET"}`, `audit: {output: "otlp+http://${TK}/x"}`, `audit: "${TK}"`, `audit: {sync: "${TK}"}`, `audit: {max_size: "${SIZE}"}`, `audit: {max_age: "${WAIT}"}`,
		`audit: {also_on_full: "${TK}"}`, `audit: {tls: {ca: "${TK}"}}`, `log: {level: "${TK}"}`, `log: {level: "x${TK}x"}`, `log: "${TK}"`,
		`proxy: {listen: "${TK}"}`, `proxy: {listen: ["${TK}:1", "${TK}:1"]}`, `proxy: {wire: "${TK}"}`, `proxy: {open: "${TK}"}`, `proxy: {limits: {memory: "${TK}", header_bytes: "${TK}"}}`,
		`proxy: {limits: {connections: "${PIN}", tunnels: ${PIN}, header_bytes: "${SIZE}", idle: "${WAIT}", header_timeout: "${WAIT}"}}`, `drain: {timeout: "${WAIT}"}`,
		`ca: {cert: "${TK}", key: "${TK}"}`, `metrics: {hosts: "${TK}"}`, `destinations: {allow: ["${TK}"], private: "${TK}", ports: ["${TK}"]}`, `destinations: {ports: [${PIN}]}`,
		`defaults: {redact: {patterns: ["(${TK}"], paths: ["${TK}", "$.a[${TK}]", "$.a b${TK}"], hide: ["${TK}"], headers: ["${TK} x"]}}`, `defaults: {redact: "${TK}"}`,
		`defaults: {retry: "${TK}"}`, `defaults: {retry: {methods: ["${TK}"]}}`, `defaults: {retry: {statuses: ["${TK}"]}}`, `defaults: {retry: {attempts: ${PIN}}}`, `defaults: {retry: {backoff: {base: "${WAIT}"}}}`,
		`defaults: {timeout: {attempt: "${WAIT}"}}`, `defaults: {breaker: {open: "${WAIT}", notify: ["${TK}"], mode: "${TK}"}}`, `defaults: {breaker: {failure_when: "${TK} +"}}`,
		`defaults: {rate_limit: {requests: 1, per: "${WAIT}", key: ["${TK}"], on_limit: "${TK}"}}`, `defaults: {rate_limit: {requests: 1, per: 1s, cost: "${TK} + 'x"}}`,
		`defaults: {tls: "${TK}", upgrade: "${UPPER}", profile: "${TK}", provider: "${TK}"}`, `defaults: {sanitize: {response: {remove: ["${TK} x"]}}}`, `defaults: {hedge: {after: "${WAIT}"}}`,
		`defaults: {dedup: {methods: ["${TK}"]}}`, `defaults: {concurrency: {scope: "${TK}"}}`, `defaults: "${TK}"`, `hosts: "${TK}"`, `hosts: {a.example.com: "${TK}"}`,
		`hosts: {a.example.com: {routes: "${TK}"}}`, `hosts: {a.example.com: {routes: [{match: "${TK}"}]}}`, `hosts: {a.example.com: {routes: [{match: {path: "${TK}", methods: ["${TK}!"], when: "${TK} +"}}]}}`,
		`hosts: {a.example.com: {routes: [{name: "${TK}", match: {}}, {name: "${TK}", match: {}}]}}`, `hosts: {"http://u:SECRET@h/SECRET": {}}`, `notify: {"https://h/SECRET": {}}`,
		`include: "${TK}"`, `include: ["${TK}/*.yaml"]`, `include: ["${TK}[*"]`, `include: {a: "${TK}"}`,
		// what YAML takes for something else
		`admin: {token: !SECRET x}`, `admin: {token: !!SECRET x}`, `admin: {token: *SECRET }`, `admin: {token: "pa${1SECRET}"}`, `admin: {token: "pa${SECRET:x}"}`, `admin: &SECRET {a: *SECRET }`,
	} {
		doc := "version: 1\n" + strings.ReplaceAll(text, "SECRET", secret) + "\n"
		all, faults := told(t, write(t, filepath.Join(dir, "c.yaml"), doc), env)
		if len(faults) == 0 && !strings.Contains(all, "message") {
			t.Errorf("%s: nothing is told", text)
		}
		for _, part := range []string{secret[:6], secret[6:12], secret[11:], "48151623", "2006317d"} {
			if strings.Contains(strings.ToLower(all), strings.ToLower(part)) {
				t.Errorf("%s:\n%s", text, all)
				break
			}
		}
	}
	_, faults := told(t, write(t, filepath.Join(dir, "c.yaml"), "version: \"${TK}\"\n"), env)
	if got := faults.Error(); !strings.HasSuffix(got, "version: must be 1, is a text from ${…}") {
		t.Error(got)
	}
}

// What is no secret is quoted, with what to write instead.
func TestFaultsQuoteWords(t *testing.T) {
	for text, want := range map[string]string{
		`notify: {ops: "https://hooks.example.com/T0/x"}`:                  `notify.ops: must be a mapping, is a URL of host hooks.example.com`,
		`notify: {ops: onn}`:                                               `notify.ops: must be a mapping, is a text`,
		`notify: {ops: on}`:                                                `notify.ops: must be a mapping, is "on"`,
		`admin: true`:                                                      `admin: must be a mapping, is true`,
		`defaults: {retry: onn}`:                                           `defaults.retry: must be a mapping or off, is "onn"`,
		`defaults: {retry: 5}`:                                             `defaults.retry: must be a mapping or off, is 5`,
		`defaults: {upstream: "http://u:p@proxy.example.com:1"}`:           `defaults.upstream: must be a mapping or off, is a URL of host proxy.example.com:1`,
		`defaults: {upstream: "http://u:p/w@proxy.example.com:1"}`:         `defaults.upstream: must be a mapping or off, is a URL`,
		`defaults: {redact: {headers: X-Key}}`:                             `defaults.redact.headers: must be a list, is "X-Key": write [X-Key]`,
		`audit: {also: "otlp+https://h/x"}`:                                `audit.also: must be a list, is a URL of host h`,
		`log: {level: infoo}`:                                              `log.level: must be one of debug, info, warn, error, is "infoo": did you mean info?`,
		`log: {level: "${LEVEL}"}`:                                         `log.level: must be one of debug, info, warn, error, is "[redacted]": did you mean debug?`,
		`drain: {timeout: "${WAIT}"}`:                                      `drain.timeout: must be from 0s to 1d, is [redacted]`,
		`log: {format: "${LEVEL:-jsn}"}`:                                   `log.format: must be one of json, text, is "[redacted]"`,
		`log: {format: "${UNSET:-jsn}"}`:                                   `log.format: must be one of json, text, is "jsn": did you mean json?`,
		`defaults: {upstream: {ca: "/nowhere/${LEVEL}.pem"}}`:              `defaults.upstream.ca: cannot read /nowhere/[redacted].pem: no such file or directory`,
		`defaults: {upstream: {proxy: "${LEVEL}"}}`:                        `defaults.upstream.proxy: is not a URL such as http://proxy.example.com:3128`,
		`defaults: {retry: {attempts: "${LEVEL}"}}`:                        `defaults.retry.attempts: must be a whole number, is a text from ${…}`,
		`audit: {also: ["otlp+https://h/x", "syslog+unix://x"]}`:           `audit.also[1]: must name a socket's absolute path after three slashes: syslog+unix:///dev/log`,
		`defaults: {upstream: {dns: "http://proxy.example.com:3128/x?y"}}`: `defaults.upstream.dns: must be parent or local, is "http://proxy.example.com:3128/…"`,
	} {
		path := write(t, filepath.Join(t.TempDir(), "c.yaml"), "version: 1\n"+text+"\n")
		_, faults := told(t, path, func(name string) (string, bool) {
			v, ok := map[string]string{"LEVEL": "debugg", "WAIT": "900h"}[name]
			return v, ok
		})
		if len(faults) != 1 || faults[0].Path+": "+faults[0].Message != want {
			t.Errorf("%s: %v; want %s", text, faults, want)
		}
	}
}

// alone is the block of a document that a path begins with: the others need not be loaded again and again.
func alone(doc *yaml.Node, path string) *yaml.Node {
	root := *doc.Content[0]
	var kept []*yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		if key := root.Content[i].Value; key == "version" || strings.HasPrefix(path, key) {
			kept = append(kept, root.Content[i:i+2]...)
		}
	}
	root.Content = kept
	return &root
}

// At each place of the reference, what came from a variable is not shown, whatever shape it has and whatever is wanted there.
func TestVariablesAreNotQuoted(t *testing.T) {
	data, err := os.ReadFile("../../configs/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	plain := func(n *yaml.Node) {
		n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	}
	marker := rand.Text()
	digits := "4815162342"
	shapes := map[string]string{
		`"${HARMLESS}"`: marker, `${HARMLESS}`: digits, `"x${HARMLESS}/y"`: marker, `["${HARMLESS}"]`: marker, `[${HARMLESS}, "${HARMLESS}"]`: digits, `{a: "${HARMLESS}"}`: marker,
		`"${HARMLESS} "`: "http://" + marker + ":" + marker + "@" + marker + ".example.com/" + marker, `"${HARMLESS}h"`: digits, `"${HARMLESS}  "`: "(" + marker + "[", `[{a: "${HARMLESS}"}]`: marker,
	}
	path := filepath.Join(t.TempDir(), "c.yaml")
	places, faulty := 0, 0
	try := func(where string, n *yaml.Node) {
		places++
		was := *n
		defer func() { *n = was }()
		for shape, value := range shapes {
			var in yaml.Node
			if err := yaml.Unmarshal([]byte(strings.ReplaceAll(shape, "${HARMLESS}, ", `"${HARMLESS}", `)), &in); err != nil {
				in = yaml.Node{Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: shape}}}
			}
			*n = *in.Content[0]
			text, err := yaml.Marshal(alone(&doc, where))
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, string(text))
			all, faults := told(t, path, func(name string) (string, bool) {
				if name == "HARMLESS" {
					return value, true
				}
				return "value-of-" + strings.ToLower(name), true
			})
			if len(faults) > 0 {
				faulty++
			}
			for _, part := range []string{marker[:8], marker[9:17], marker[18:], digits} {
				if strings.Contains(strings.ToLower(all), strings.ToLower(part)) {
					t.Errorf("%s as %s:\n%s", where, shape, all)
					break
				}
			}
		}
	}
	var walk func(where string, n *yaml.Node)
	walk = func(where string, n *yaml.Node) {
		plain(n)
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				plain(n.Content[i])
				walk(join(where, n.Content[i].Value), n.Content[i+1])
			}
		case yaml.SequenceNode:
			for i, item := range n.Content {
				walk(fmt.Sprintf("%s[%d]", where, i), item)
			}
		}
		if where != "" {
			try(where, n)
		}
	}
	walk("", doc.Content[0])
	if places < 150 || faulty < places {
		t.Errorf("%d places, %d faulty", places, faulty)
	}
}
