package upstream

import (
	"strings"
	"testing"
)

func TestDefaultIsValid(t *testing.T) {
	if faults := Default().Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		key    string
	}{
		"scheme":     {func(c *Config) { c.Proxy = "ftp://proxy.example.com" }, "proxy"},
		"no host":    {func(c *Config) { c.Proxy = "http://" }, "proxy"},
		"path":       {func(c *Config) { c.Proxy = "http://proxy.example.com/x" }, "proxy"},
		"odd host":   {func(c *Config) { c.Proxy = "http://127.1:80" }, "proxy"},
		"dns":        {func(c *Config) { c.DNS = "both" }, "dns"},
		"half pair":  {func(c *Config) { c.ClientCert = "cert.pem" }, "client_cert"},
		"version":    {func(c *Config) { c.MinVersion = "1.4" }, "min_version"},
		"bind":       {func(c *Config) { c.Bind = "eth0" }, "bind"},
		"idle":       {func(c *Config) { c.Idle = 0 }, "idle"},
		"negative":   {func(c *Config) { c.MaxIdle = -1 }, "max_idle"},
		"warm":       {func(c *Config) { c.Warm = 101 }, "warm"},
		"too warm":   {func(c *Config) { c.Warm, c.MaxIdle = 2, 1 }, "warm"},
		"upper case": {func(c *Config) { c.Resolve = map[string]string{"API.example.com": "192.0.2.1"} }, "resolve"},
		"no address": {func(c *Config) { c.Resolve = map[string]string{"api.example.com": "other.example.com"} }, "resolve"},
	} {
		config := Default()
		c.change(&config)
		faults := config.Validate()
		if len(faults) != 1 || faults[0].Key != c.key {
			t.Errorf("%s: %v; want one fault of %s", name, faults, c.key)
		}
	}
}

func TestParent(t *testing.T) {
	for in, want := range map[string]string{
		"http://proxy.example.com":        "http proxy.example.com:80",
		"https://PROXY.example.com:3129/": "https proxy.example.com:3129",
		"socks5://user:pw@192.0.2.1":      "socks5 192.0.2.1:1080",
		"socks5h://[2001:db8::1]:9050":    "socks5h [2001:db8::1]:9050",
	} {
		p, err := Config{Proxy: in}.Parent()
		if err != nil || p.Scheme+" "+p.Authority.String() != want {
			t.Errorf("%s: %v, %v", in, p, err)
		}
		if p.HasUser != strings.Contains(in, "@") {
			t.Errorf("%s: userinfo is %v", in, p.User)
		}
	}
}
