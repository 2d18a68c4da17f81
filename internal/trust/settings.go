// Package trust points programs at the proxy: the variables that make each runtime use it and trust its CA, the files those variables name,
// and the doctor that tries both out.
package trust

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Settings is what programs must be told.
type Settings struct {
	// Proxy is the proxy's URL, such as http://127.0.0.1:3128 or http://billing:PW@proxy.example.com:3128.
	Proxy string
	// CAFile is the interception CA alone, for the runtimes that add it to their roots. Each of the three files that is "" leaves its variables out:
	// where nothing is intercepted leave out all three, because a replaced root set can only do harm then.
	CAFile string
	// BundleFile is the system's roots and the CA in one PEM, for the runtimes whose variables replace their roots.
	BundleFile string
	// JavaTrustStore is the same as a Java key store (JKS), and JavaTrustStorePassword its password; "" is DefaultStorePassword.
	JavaTrustStore, JavaTrustStorePassword string
	// NoProxy are further hosts that programs reach directly. The addresses of cloud metadata services always are among them.
	NoProxy []string
	// Getenv is the environment the variables come on top of: its NO_PROXY and JAVA_TOOL_OPTIONS are continued instead of replaced. nil is an
	// empty one, which suits variables meant for another machine or a container.
	Getenv func(string) string
}

// Var is one environment variable.
type Var struct{ Name, Value string }

// DefaultStorePassword is what the Java world writes where a trust store must have a password; it protects nothing.
const DefaultStorePassword = "changeit"

// metadata are the addresses where cloud machines and containers get their own credentials. Libraries that honour NO_PROXY must not send them
// through a proxy, which refuses them. The services' IPv6 forms are left out: several parsers of NO_PROXY take their first group for a host.
var metadata = []string{"169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "metadata.google.internal"}

// Vars lists every variable, in a fixed order.
//
// ALL_PROXY is not among them: with the other two set it would only send schemes here that an HTTP proxy for http and https does not carry.
func (s Settings) Vars() []Var {
	var vars []Var
	add := func(value string, names ...string) {
		if value == "" {
			return
		}
		for _, name := range names {
			vars = append(vars, Var{name, value})
		}
	}
	if s.Proxy != "" {
		// Both cases: curl ignores HTTP_PROXY, because a CGI server lets clients set it; wget ignores all upper case; others prefer it.
		add(s.Proxy, "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "grpc_proxy")
		add(strings.Join(s.noProxy(), ","), "NO_PROXY", "no_proxy")
		add("1", "NODE_USE_ENV_PROXY", "PERL_LWP_ENV_PROXY")
	}
	add(s.CAFile, "NODE_EXTRA_CA_CERTS", "DENO_CERT") // these add to the roots
	add(s.BundleFile, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "npm_config_cafile", "AWS_CA_BUNDLE",
		"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "CARGO_HTTP_CAINFO", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "PERL_LWP_SSL_CA_FILE",
		"HTTPLIB2_CA_CERTS", "BUNDLE_SSL_CA_CERT", "HEX_CACERTS_PATH", "NIX_SSL_CERT_FILE")
	add(s.javaOptions(), "JAVA_TOOL_OPTIONS")
	return vars
}

// Check says what makes the settings useless. It is an error that no program could be told of.
func (s Settings) Check() error {
	u, err := url.Parse(s.Proxy)
	switch {
	case s.Proxy == "":
		return nil
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("the proxy is not a URL such as http://127.0.0.1:3128 (a user and password before the address are percent-encoded)")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the proxy's URL has more than an address: write it as http://127.0.0.1:3128")
	}
	return nil
}

// Move makes the variables name the same files in dir.
func (s *Settings) Move(dir string) {
	for _, file := range []*string{&s.CAFile, &s.BundleFile, &s.JavaTrustStore} {
		if *file != "" {
			*file = path.Join(dir, filepath.Base(*file))
		}
	}
}

// Warnings says which of the settings some runtime will not understand, or that would switch the proxy off. Of settings that Check refuses it says nothing.
func (s Settings) Warnings() []string {
	if s.Check() != nil {
		return nil
	}
	var out []string
	u, _ := url.Parse(s.Proxy)
	if s.Proxy != "" && u.Scheme != "http" {
		out = append(out, fmt.Sprintf("the proxy's scheme is %q: only curl, Go and a few more speak TLS to a proxy", u.Scheme))
	}
	if s.Proxy != "" && u.User != nil {
		out = append(out, "Java takes no proxy credentials from a variable: let the proxy know its programs by their address, or set an Authenticator")
	}
	for _, entry := range s.noProxy() {
		switch {
		case entry == "*":
			out = append(out, `NO_PROXY is "*": nothing will use the proxy`)
		case strings.Contains(entry, "*"):
			out = append(out, fmt.Sprintf("NO_PROXY has %q: most runtimes know no wildcards there; a bare name covers what is below it", entry))
		case strings.Contains(entry, "/"):
			out = append(out, fmt.Sprintf("NO_PROXY has %q: only curl, requests, Go, axios and Ruby know networks there", entry))
		case hasPort(entry):
			out = append(out, fmt.Sprintf("NO_PROXY has %q: curl, wget, git, aiohttp and LWP do not understand a port there", entry))
		}
	}
	if s.getenv("REQUEST_METHOD") != "" {
		out = append(out, "REQUEST_METHOD is set: Go, Python and Perl take that for CGI and ignore HTTP_PROXY; unset it")
	}
	return out
}

func hasPort(entry string) bool {
	_, port, err := net.SplitHostPort(entry)
	return err == nil && port != ""
}

func (s Settings) getenv(name string) string {
	if s.Getenv == nil {
		return ""
	}
	return s.Getenv(name)
}

// noProxy is what the user had, what the settings add, and what must never come here.
func (s Settings) noProxy() []string {
	var list []string
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		list = append(list, splitNoProxy(s.getenv(name))...)
	}
	for _, entry := range s.NoProxy {
		list = append(list, splitNoProxy(entry)...)
	}
	list = append(list, metadata...)
	if !s.loopback() {
		list = append(list, "localhost", "127.0.0.1", "::1") // there a program's localhost is not the proxy's
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(entry string) bool {
		known := seen[strings.ToLower(entry)]
		seen[strings.ToLower(entry)] = true
		return known
	})
}

// splitNoProxy reads commas and blanks as separators: the curl family allows both, and only commas are understood everywhere.
func splitNoProxy(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
}

func (s Settings) loopback() bool {
	host, _ := s.hostPort()
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (s Settings) hostPort() (host, port string) {
	u, err := url.Parse(s.Proxy)
	if err != nil {
		return "", ""
	}
	port = "80"
	if u.Scheme == "https" {
		port = "443"
	}
	return u.Hostname(), cmp.Or(u.Port(), port)
}
