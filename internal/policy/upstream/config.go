// Package upstream holds the settings of connections to upstreams; internal/proxy/egress acts on them.
package upstream

import (
	"net/netip"
	"net/url"
	"slices"

	"httpowerd/internal/exchange"
	"httpowerd/internal/setting"
)

// Config is the block upstream. Start from Default.
type Config struct {
	// Proxy sends everything through another proxy: http://, https:// or socks5://, with userinfo where it wants credentials.
	Proxy string `yaml:"proxy"`
	// DNS says who resolves names behind Proxy: parent sends it the name, local resolves here and checks the addresses first.
	DNS string `yaml:"dns"`
	// CA is a PEM file of roots that hold beside the system's.
	CA string `yaml:"ca"`
	// ClientCert and ClientKey are PEM files of the certificate shown to upstreams that ask for one.
	ClientCert string `yaml:"client_cert"`
	ClientKey  string `yaml:"client_key"`
	// MinVersion is the least TLS version spoken: "1.0" to "1.3".
	MinVersion string `yaml:"min_version"`
	// HTTP2 is spoken with https upstreams for clients that speak it; without it every request in flight has a connection of its own.
	HTTP2 bool `yaml:"http2"`
	// Bind is the local address that connections are made from.
	Bind string `yaml:"bind"`
	// MaxIdle is how many connections to one authority are kept for later.
	MaxIdle int `yaml:"max_idle"`
	// MaxConnections bounds the connections to one authority, 0 does not; a request beyond it waits within its timeouts.
	MaxConnections int `yaml:"max_connections"`
	// Idle is how long a kept connection may lie unused.
	Idle setting.Duration `yaml:"idle"`
	// Warm is how many idle connections are kept ready, TLS done, to an authority that was reached, and from the load on to a host that is written out. Each costs the
	// upstream a connection that may never be used.
	Warm int `yaml:"warm"`
	// Early is the URL of what is kept warm from the load on; "": nothing. The policy knows it.
	Early string `yaml:"-"`
	// Resolve gives names an address, or an address and port, without asking DNS. Destinations are checked all the same.
	Resolve map[string]string `yaml:"resolve"`
	// InsecureSkipVerify accepts any certificate. Whoever stands between can read and change everything.
	InsecureSkipVerify bool `yaml:"insecure_skip_verify"`
}

// Who resolves names behind a proxy.
const (
	DNSParent = "parent"
	DNSLocal  = "local"
)

// Default is the block with nothing written in it.
func Default() Config {
	return Config{DNS: DNSParent, MinVersion: "1.2", HTTP2: true, MaxIdle: 100, Idle: setting.Duration(90e9)}
}

// MaxWarm is the most that warm may be.
const MaxWarm = 100

var versions = []string{"1.0", "1.1", "1.2", "1.3"}

// Validate returns every fault of the block. Files are looked at when the policy is compiled.
func (c Config) Validate() []setting.Fault {
	var faults []setting.Fault
	if c.Proxy != "" {
		if _, err := c.Parent(); err != nil {
			faults = append(faults, setting.Faultf("proxy", "%v", err))
		}
	}
	if c.DNS != DNSParent && c.DNS != DNSLocal {
		faults = append(faults, setting.Faultf("dns", "must be parent or local, is %q", c.DNS))
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		faults = append(faults, setting.Faultf("client_cert", "and client_key belong together: write both"))
	}
	if !slices.Contains(versions, c.MinVersion) {
		faults = append(faults, setting.Faultf("min_version", "must be one of %s (quoted), is %q", setting.Words(versions), c.MinVersion))
	}
	if c.Bind != "" {
		if _, err := netip.ParseAddr(c.Bind); err != nil {
			faults = append(faults, setting.Faultf("bind", "%q is not an address", c.Bind))
		}
	}
	count := func(key string, v, most int) {
		if v < 0 || v > most {
			faults = append(faults, setting.Faultf(key, "must be from 0 to %d, is %d", most, v))
		}
	}
	count("max_idle", c.MaxIdle, 100_000)
	count("max_connections", c.MaxConnections, 100_000)
	count("warm", c.Warm, MaxWarm)
	if c.Warm > 0 && c.Warm > c.MaxIdle && c.Warm <= MaxWarm {
		faults = append(faults, setting.Faultf("warm", "must be at most max_idle, %d, is %d", c.MaxIdle, c.Warm))
	}
	if c.Idle <= 0 || c.Idle.D() > 24*3600e9 {
		faults = append(faults, setting.Faultf("idle", "must be above 0s and at most 1d, is %s", c.Idle))
	}
	return append(faults, c.validateResolve()...)
}

func (c Config) validateResolve() (faults []setting.Fault) {
	names := make([]string, 0, len(c.Resolve))
	for name := range c.Resolve {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if canonical, err := exchange.CanonicalHost(name); err != nil || canonical != name {
			faults = append(faults, setting.Faultf("resolve", "%q is not a host name in lower case", name))
		}
		if _, _, err := ParseAddress(c.Resolve[name]); err != nil {
			faults = append(faults, setting.Faultf("resolve", "%q is neither an address nor an address with a port", c.Resolve[name]))
		}
	}
	return faults
}

// ParseAddress reads ADDR or ADDR:PORT; port is 0 where there is none.
func ParseAddress(s string) (netip.Addr, uint16, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Unmap(), 0, nil
	}
	ap, err := netip.ParseAddrPort(s)
	return ap.Addr().Unmap(), ap.Port(), err
}

// Parent is the upstream proxy, nil where there is none.
func (c Config) Parent() (*Parent, error) {
	if c.Proxy == "" {
		return nil, nil
	}
	u, err := url.Parse(c.Proxy)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, setting.Faultf("", "is not a URL such as http://proxy.example.com:3128")
	}
	port, ok := map[string]uint16{"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}[u.Scheme]
	if !ok {
		return nil, setting.Faultf("", "must begin with http://, https:// or socks5://")
	}
	a, err := exchange.ParseAuthority(u.Host, port)
	if err != nil {
		return nil, setting.Faultf("", "names no host that could be reached")
	}
	p := &Parent{Scheme: u.Scheme, Authority: a, HasUser: u.User != nil}
	if p.HasUser {
		p.User = u.User.Username()
		p.password, _ = u.User.Password()
	}
	return p, nil
}
