package setting

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Target is a place on the network, or a socket, that records are sent to.
type Target struct {
	Scheme  string // one of the Target constants
	Address string // host:port, or the path of a socket
	Path    string // of an OTLP endpoint
}

// The schemes of targets.
const (
	SyslogUnix = "syslog+unix"
	SyslogUDP  = "syslog+udp"
	SyslogTCP  = "syslog+tcp"
	SyslogTLS  = "syslog+tls"
	OTLPHTTP   = "otlp+http"
	OTLPHTTPS  = "otlp+https"
)

// targetPorts are where each is listened on by custom.
var targetPorts = map[string]string{SyslogUDP: "514", SyslogTCP: "601", SyslogTLS: "6514", OTLPHTTP: "4318", OTLPHTTPS: "4318"}

// IsTarget tells whether s is meant as one, and not as a file's path.
func IsTarget(s string) bool { return strings.Contains(s, "://") }

// ParseTarget reads syslog+unix:///dev/log, syslog+udp://host:514, syslog+tcp://host:601, syslog+tls://host:6514, otlp+http://host:4318/v1/logs and
// otlp+https://…. Its errors are Faults without a key.
func ParseTarget(s string) (Target, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Target{}, Faultf("", "is not a URL")
	}
	t := Target{Scheme: u.Scheme}
	if t.Scheme == SyslogUnix {
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || u.Path == "/" || u.RawQuery != "" || u.Fragment != "" {
			return t, Faultf("", "must name a socket's absolute path after three slashes: syslog+unix:///dev/log")
		}
		t.Address = u.Path
		return t, nil
	}
	port, known := targetPorts[t.Scheme]
	switch {
	case !known:
		return t, Faultf("", "must be of %s, is %s://", Words(TargetSchemes()), t.Scheme)
	case u.User != nil:
		return t, Faultf("", "must not hold credentials, for URLs are shown in logs and metrics: use a client certificate")
	case u.Hostname() == "" || strings.ContainsAny(u.Hostname(), " \t%"):
		return t, Faultf("", "has no host")
	case u.RawQuery != "" || u.Fragment != "":
		return t, Faultf("", "has a query or a fragment, which mean nothing here")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return t, Faultf("", "has an impossible port, %s", port)
	}
	t.Address = net.JoinHostPort(u.Hostname(), port)
	switch otlp := t.Scheme == OTLPHTTP || t.Scheme == OTLPHTTPS; {
	case otlp && (u.Path == "" || u.Path == "/"):
		t.Path = "/v1/logs"
	case otlp:
		t.Path = u.EscapedPath()
	case u.Path != "" && u.Path != "/":
		return t, Faultf("", "has a path, which means nothing to syslog")
	}
	return t, nil
}

// TargetSchemes are the schemes, sorted.
func TargetSchemes() []string {
	return slices.Sorted(slices.Values([]string{SyslogUnix, SyslogUDP, SyslogTCP, SyslogTLS, OTLPHTTP, OTLPHTTPS}))
}

// Private tells whether nobody on the way can read what is sent: it is encrypted, or does not leave the machine.
func (t Target) Private() bool {
	switch t.Scheme {
	case SyslogUnix, SyslogTLS, OTLPHTTPS:
		return true
	}
	host, _, _ := net.SplitHostPort(t.Address)
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
