package trust

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func variables(s Settings) map[string]string {
	out := map[string]string{}
	for _, v := range s.Vars() {
		out[v.Name] = v.Value
	}
	return out
}

// env is an environment of NAME=value.
func env(lines ...string) func(string) string {
	return func(name string) string {
		for _, l := range lines {
			if n, v, _ := strings.Cut(l, "="); n == name {
				return v
			}
		}
		return ""
	}
}

func TestVars(t *testing.T) {
	s := Settings{Proxy: "http://127.0.0.1:3128", CAFile: "/run/ca.pem", BundleFile: "/run/bundle.pem", JavaTrustStore: "/run/trust.jks"}
	got := variables(s)
	for value, names := range map[string][]string{
		"http://127.0.0.1:3128": {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "grpc_proxy"},
		"1":                     {"NODE_USE_ENV_PROXY", "PERL_LWP_ENV_PROXY"},
		"/run/ca.pem":           {"NODE_EXTRA_CA_CERTS", "DENO_CERT"},
		"/run/bundle.pem": {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "npm_config_cafile", "AWS_CA_BUNDLE",
			"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "CARGO_HTTP_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "PERL_LWP_SSL_CA_FILE"},
	} {
		for _, name := range names {
			if got[name] != value {
				t.Errorf("%s=%q, want %q", name, got[name], value)
			}
		}
	}
	if got["NO_PROXY"] != got["no_proxy"] || !strings.Contains(got["NO_PROXY"], "169.254.169.254") || strings.Contains(got["NO_PROXY"], "localhost") {
		t.Errorf("NO_PROXY=%q", got["NO_PROXY"])
	}
	for _, want := range []string{"-Dhttp.proxyHost=127.0.0.1", "-Dhttps.proxyPort=3128", "-Djavax.net.ssl.trustStore=/run/trust.jks",
		"-Djavax.net.ssl.trustStorePassword=changeit", "-Dhttp.nonProxyHosts=169.254.169.254|"} {
		if !strings.Contains(got["JAVA_TOOL_OPTIONS"], want) {
			t.Errorf("JAVA_TOOL_OPTIONS=%q lacks %q", got["JAVA_TOOL_OPTIONS"], want)
		}
	}
	if !slices.Equal(s.Vars(), s.Vars()) {
		t.Error("no fixed order")
	}
}

// TestVarsAlone: what is not set leaves its variables alone.
func TestVarsAlone(t *testing.T) {
	if got := (Settings{}).Vars(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	proxyOnly := variables(Settings{Proxy: "http://127.0.0.1:3128"})
	for _, name := range []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"} {
		if _, set := proxyOnly[name]; set {
			t.Errorf("%s is set without a CA", name)
		}
	}
	if strings.Contains(proxyOnly["JAVA_TOOL_OPTIONS"], "trustStore") {
		t.Error("Java's store is replaced without a CA")
	}
	if _, set := variables(Settings{BundleFile: "/run/bundle.pem"})["HTTP_PROXY"]; set {
		t.Error("HTTP_PROXY is set without a proxy")
	}
}

func TestNoProxy(t *testing.T) {
	tail := strings.Join(metadata, ",")
	for _, row := range []struct {
		name string
		s    Settings
		want string
	}{
		{"loopback", Settings{Proxy: "http://[::1]:3128"}, tail},
		{"elsewhere: localhost is not the proxy's", Settings{Proxy: "http://proxy.example.com:3128"}, tail + ",localhost,127.0.0.1,::1"},
		{"continued, once each", Settings{Proxy: "http://localhost:1", NoProxy: []string{"b.example.com", "A.example.com"},
			Getenv: env("NO_PROXY=a.example.com, b.example.com", "no_proxy=c.example.com 169.254.169.254")},
			"a.example.com,b.example.com,c.example.com,169.254.169.254," + strings.Join(metadata[1:], ",")},
	} {
		if got := variables(row.s)["NO_PROXY"]; got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.name, got, row.want)
		}
	}
}

func TestJavaOptions(t *testing.T) {
	s := Settings{Proxy: "http://proxy.example.com", JavaTrustStore: "/opt/my store/it's.jks", JavaTrustStorePassword: "pw",
		NoProxy: []string{"example.org", ".example.net", "*.example.com", "10.0.0.0/8", "x.example.com:8080", "2001:db8::1", "192.0.2.1"},
		Getenv:  env(`JAVA_TOOL_OPTIONS=-Xmx1g -Dhttp.proxyHost=old "-Dmy.name=two words" -Djavax.net.ssl.trustStore=old.jks`)}
	options := splitJava(variables(s)["JAVA_TOOL_OPTIONS"])
	for _, want := range []string{"-Xmx1g", "-Dmy.name=two words", "-Dhttp.proxyHost=proxy.example.com", "-Dhttp.proxyPort=80",
		"-Djavax.net.ssl.trustStore=/opt/my store/it's.jks", "-Djavax.net.ssl.trustStorePassword=pw"} {
		if !slices.Contains(options, want) {
			t.Errorf("%q lacks %q", options, want)
		}
	}
	if slices.Contains(options, "-Dhttp.proxyHost=old") || slices.Contains(options, "-Djavax.net.ssl.trustStore=old.jks") {
		t.Errorf("old values stay: %q", options)
	}
	i := slices.IndexFunc(options, func(o string) bool { return strings.HasPrefix(o, "-Dhttp.nonProxyHosts=") })
	if i < 0 {
		t.Fatal("no hosts that Java reaches directly")
	}
	want := "example.org|*.example.org|example.net|*.example.net|example.com|*.example.com|[2001:db8::1]|192.0.2.1|"
	if !strings.HasPrefix(strings.TrimPrefix(options[i], "-Dhttp.nonProxyHosts="), want) {
		t.Errorf("%s", options[i])
	}
	if got := javaNonProxy([]string{"a", "*"}); got != "*" {
		t.Errorf("%q", got)
	}
	if options := variables(Settings{Proxy: "https://user:pw-obviously-fake@proxy.example.com"})["JAVA_TOOL_OPTIONS"]; strings.Contains(options, "fake") || !strings.Contains(options, "Port=443") {
		t.Errorf("%s", options)
	}
}

func TestJavaQuotes(t *testing.T) {
	for _, want := range []string{"-Dx=plain", "-Dx=two words", `-Dx=it's`, `-Dx="quoted"`, `-Dx=it's "both"`} {
		if got := splitJava("-Da=1 " + quoteJava(want) + " -Db=2"); !slices.Equal(got, []string{"-Da=1", want, "-Db=2"}) {
			t.Errorf("%s comes back as %q", want, got)
		}
	}
}

func TestWarnings(t *testing.T) {
	for want, s := range map[string]Settings{
		"":                    {Proxy: "http://127.0.0.1:3128", NoProxy: []string{"example.org"}},
		"scheme is \"https\"": {Proxy: "https://proxy.example.com"},
		"Java takes no proxy": {Proxy: "http://u:p@proxy.example.com"},
		"nothing will use":    {Proxy: "http://127.0.0.1:1", NoProxy: []string{"*"}},
		"know no wildcards":   {NoProxy: []string{"*.example.com"}},
		"know networks":       {NoProxy: []string{"10.0.0.0/8"}},
		"understand a port":   {NoProxy: []string{"example.com:80"}},
		"REQUEST_METHOD":      {Getenv: env("REQUEST_METHOD=GET")},
	} {
		got := strings.Join(s.Warnings(), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %q", want, got)
		}
	}
}

func TestCheck(t *testing.T) {
	for proxy, want := range map[string]string{
		"": "", "http://127.0.0.1:3128": "", "https://proxy.example.com/": "", "http://[::1]:3128": "", "http://u:p%20w@proxy.example.com": "",
		"127.0.0.1:3128": "is not a URL", "bogus": "is not a URL", "proxy.example.com:3128": "is not a URL", "http://u:a pw@h:1": "is not a URL", "socks5://h:1": "is not a URL",
		"http://h:1/path": "more than an address", "http://h:1?q": "more than an address",
	} {
		s := Settings{Proxy: proxy}
		if err := s.Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", proxy, err, want)
		} else if err != nil && s.Warnings() != nil {
			t.Errorf("%q: %q", proxy, s.Warnings())
		}
	}
}

func TestMove(t *testing.T) {
	s := Settings{CAFile: "/var/lib/x/trust/ca.pem", BundleFile: "/var/lib/x/trust/bundle.pem"}
	s.Move("/etc/ca")
	if s.CAFile != "/etc/ca/ca.pem" || s.BundleFile != "/etc/ca/bundle.pem" || s.JavaTrustStore != "" {
		t.Errorf("%+v", s)
	}
}

// awkward is a value with everything that some format gives a meaning to.
const awkward = "a b'c\"d\\e$HOME$(id)`id`%PATH%!#&<>*?~;|‘’ ü"

func TestFormat(t *testing.T) {
	vars := []Var{{"A", awkward}, {"B", "http://127.0.0.1:3128"}, {"C", "it's"}, {"D", "a b"}}
	for format, want := range map[string][]string{
		"sh":         {`export B='http://127.0.0.1:3128'`, `export C='it'\''s'`},
		"fish":       {`set -gx B 'http://127.0.0.1:3128'`, `set -gx C 'it\'s'`, `d\\e$HOME`},
		"powershell": {`$env:B = 'http://127.0.0.1:3128'`, `$env:C = 'it''s'`, "‘‘’’"},
		"dotenv":     {"\nB=http://127.0.0.1:3128\n", `C="it's"`, "D='a b'", "\\$HOME\\$(id)\\`id\\`", `d\\e`},
		"docker":     {`-e 'B=http://127.0.0.1:3128' \`, `-e 'C=it'\''s'`},
		"k8s":        {"env:\n  - name: A\n    value: \"a b'c\\\"d\\\\e$$HOME$$(id)", "  - name: B\n    value: \"http://127.0.0.1:3128\""},
	} {
		var b bytes.Buffer
		if err := Format(&b, format, vars); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s lacks %q:\n%s", format, w, b.String())
			}
		}
		if !strings.HasSuffix(b.String(), "\n") {
			t.Errorf("%s: no line break at the end", format)
		}
	}
}

// TestFormatShell lets a real shell read what is meant for one.
func TestFormatShell(t *testing.T) {
	var b bytes.Buffer
	if err := Format(&b, "sh", []Var{{"A", awkward}}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", b.String()+`printf %s "$A"`).Output()
	if err != nil || string(out) != awkward {
		t.Errorf("%q %v", out, err)
	}
	b.Reset()
	if err := Format(&b, "docker", []Var{{"A", awkward}, {"B", "x"}}); err != nil {
		t.Fatal(err)
	}
	out, err = exec.Command("sh", "-c", `printf '%s\n' `+b.String()).Output()
	if err != nil || string(out) != "-e\nA="+awkward+"\n-e\nB=x\n" {
		t.Errorf("%q %v", out, err)
	}
}

func TestFormatJava(t *testing.T) {
	s := Settings{Proxy: "http://127.0.0.1:3128", JavaTrustStore: `C:\my store\trust.jks`, Getenv: env("JAVA_TOOL_OPTIONS=-Xmx1g")}
	var b bytes.Buffer
	if err := Format(&b, "java", s.Vars()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"-Dhttp.proxyHost=127.0.0.1\n", `"-Djavax.net.ssl.trustStore=C:\\my store\\trust.jks"` + "\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "-Xmx1g") || strings.Contains(b.String(), "SSL_CERT_FILE") {
		t.Errorf("more than the properties:\n%s", b.String())
	}
}

func TestFormatRefused(t *testing.T) {
	var b bytes.Buffer
	for _, v := range []Var{{"A", "x\ny"}, {"A", "x\x00"}, {"A", "x\r"}, {"A B", "x"}, {"", "x"}, {"1A", "x"}} {
		if err := Format(&b, "sh", []Var{{"OK", "1"}, v}); err == nil {
			t.Errorf("%q was written", v)
		}
	}
	if err := Format(&b, "csh", nil); err == nil || !strings.Contains(err.Error(), "powershell") {
		t.Errorf("%v", err)
	}
	if b.Len() != 0 {
		t.Errorf("something was written: %q", b.String())
	}
}
