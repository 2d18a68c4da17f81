package redis

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"httpowerd/internal/redact"
)

// Config says where the shared state is.
type Config struct {
	// URL is redis://, rediss:// or unix://, as CheckURL wants it; it may hold a password.
	URL redact.Secret
	// Prefix begins every name in Redis: daemons share what they keep below the same one.
	Prefix string
	// Timeout bounds each call.
	Timeout time.Duration
	// Secret is the same for all daemons: names are hashed and stored answers encrypted with keys that are derived from it.
	Secret redact.Secret
	// CA is a file of CAs that the server's certificate is checked against; "": the system's.
	CA string
}

// target is a URL taken apart.
type target struct {
	addresses          []string
	socket             bool
	tls                bool
	cluster            bool
	master             string // of the sentinels at addresses
	username, password string
	sentinelPassword   string
	db                 int
}

// CheckURL tells what is wrong with a URL. No error repeats any of it: it may hold a password.
func CheckURL(text string) error {
	_, err := parseURL(text)
	return err
}

// Encrypted tells whether a URL is of a server that is spoken to in TLS.
func Encrypted(text string) bool {
	t, err := parseURL(text)
	return err == nil && t.tls
}

// Local tells whether a URL is of a server on this machine, so that nobody is on the way.
func Local(text string) bool {
	t, err := parseURL(text)
	return err == nil && (t.socket || !slices.ContainsFunc(t.addresses, func(address string) bool {
		host, _, _ := net.SplitHostPort(address)
		ip, err := netip.ParseAddr(host)
		return host != "localhost" && (err != nil || !ip.IsLoopback())
	}))
}

var errURL = errors.New("is no URL of a Redis: write redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH")

func parseURL(text string) (*target, error) {
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		return nil, errURL
	}
	t := &target{username: u.User.Username(), tls: u.Scheme == "rediss", socket: u.Scheme == "unix"}
	t.password, _ = u.User.Password()
	if strings.ContainsAny(t.username+t.password, "\r\n\x00") {
		return nil, errors.New("has a control character in its user or password")
	}
	switch u.Scheme {
	case "redis", "rediss":
		err = t.hosts(u)
	case "unix":
		err = t.path(u)
	default:
		return nil, errURL
	}
	if err != nil {
		return nil, err
	}
	return t, t.query(u)
}

// hosts takes the host and the database out of a URL.
func (t *target) hosts(u *url.URL) error {
	address, err := hostPort(u.Host)
	if err != nil {
		return err
	}
	t.addresses = []string{address}
	return t.database(strings.TrimPrefix(u.Path, "/"))
}

func (t *target) database(text string) error {
	if text == "" {
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1<<16 {
		return errors.New("names a database that is no number: write redis://HOST:PORT/0")
	}
	t.db = n
	return nil
}

func (t *target) path(u *url.URL) error {
	if u.Host != "" || !path.IsAbs(u.Path) || path.Clean(u.Path) == "/" {
		return errors.New("names no socket: write unix:///PATH, with three slashes")
	}
	t.addresses = []string{path.Clean(u.Path)}
	return nil
}

func (t *target) query(u *url.URL) error {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errURL
	}
	for key, values := range q {
		if key != "addr" && len(values) != 1 {
			return errors.New("has a parameter more than once that may stand there once")
		}
		if t.socket && key != "db" {
			return errors.New("has a parameter that a socket cannot have: only db")
		}
		switch key {
		case "addr":
			for _, v := range values {
				address, err := hostPort(v)
				if err != nil {
					return err
				}
				t.addresses = append(t.addresses, address)
			}
		case "cluster":
			if t.cluster, err = strconv.ParseBool(values[0]); err != nil {
				return errors.New("has a cluster that is neither true nor false")
			}
		case "master_name":
			t.master = values[0]
		case "sentinel_password":
			t.sentinelPassword = values[0]
		case "db":
			if err := t.database(values[0]); err != nil {
				return err
			}
		default:
			return errors.New("has a parameter that is not known: there are addr, cluster, master_name, sentinel_password and db")
		}
	}
	t.cluster = t.cluster || len(t.addresses) > 1 && t.master == ""
	switch {
	case t.cluster && t.master != "":
		return errors.New("is of a cluster and of sentinels at once")
	case t.cluster && t.db != 0:
		return errors.New("names a database, which a cluster does not have")
	case t.sentinelPassword != "" && t.master == "":
		return errors.New("has a sentinel_password without a master_name")
	}
	return nil
}

// hostPort is an address with its port, 6379 where there is none.
func hostPort(s string) (string, error) {
	u := url.URL{Host: s}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = "6379"
	}
	if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 || strings.ContainsAny(host, " /@%\r\n\x00") {
		return "", errors.New("has an address that is none: write HOST:PORT")
	}
	return net.JoinHostPort(host, port), nil
}

// How many calls go at once, and how many connections there may be: one for each, the probe's, the subscription's and one to spare.
const (
	workers     = 4
	connections = 3
	dialTimeout = 2 * time.Second
)

// options are the client library's. It repeats nothing by itself: what is asked twice would be granted twice.
func (t *target) options(c Config) (*goredis.UniversalOptions, error) {
	d := dialer{plain: &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}}
	if t.tls {
		d.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if c.CA != "" {
			pool, err := roots(c.CA)
			if err != nil {
				return nil, err
			}
			d.tls.RootCAs, d.ca = pool, c.CA
		}
	}
	return &goredis.UniversalOptions{
		Addrs: t.addresses, DB: t.db, Username: t.username, Password: t.password, MasterName: t.master, IsClusterMode: t.cluster,
		SentinelPassword: t.sentinelPassword, Dialer: d.dial,
		Protocol: 2, DisableIdentity: true,
		MaxRetries: -1, DialerRetries: 1, DialTimeout: dialTimeout,
		ReadTimeout: dialTimeout, WriteTimeout: dialTimeout, ContextTimeoutEnabled: true, // contexts are shorter
		PoolSize: connections, PipelinePoolSize: workers, MaxActiveConns: connections, PoolTimeout: c.Timeout,
		ReadBufferSize: 16 << 10, WriteBufferSize: 16 << 10, PipelineReadBufferSize: 32 << 10, PipelineWriteBufferSize: 32 << 10,
		ConnMaxIdleTime: time.Minute,
	}, nil
}
