package egress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/upstream"
)

// How long a connection of the daemon's own may take to come about.
const callConnect, callTLS = 10 * time.Second, 10 * time.Second

// Calls makes requests of the daemon's own, such as notifications: their addresses are checked by the same rules as those of clients' requests, they go
// through no proxy, neither a configured nor the environment's, and redirects are not followed. No connection outlives its request.
func (e *Egress) Calls(rules *destination.Rules) (http.RoundTripper, error) {
	up := upstream.Default()
	config, _, err := tlsConfig(up)
	if err != nil {
		return nil, err
	}
	return e.calls(rules, config), nil
}

func (e *Egress) calls(rules *destination.Rules, config *tls.Config) *http.Transport {
	config.NextProtos = []string{"http/1.1"}
	c := &calls{&pool{Egress: e, settings: settings{connect: callConnect, tls: callTLS, rules: rules}, tlsConfig: config}}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            c.dial,
		DialTLSContext:         c.dialTLS,
		Protocols:              protocols,
		DisableCompression:     true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// calls dials without an exchange: nobody's label counts these connections.
type calls struct{ pool *pool }

func (c *calls) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	target, err := exchange.ParseAuthority(addr, 0)
	if err != nil {
		return nil, err
	}
	return c.connect(ctx, target)
}

func (c *calls) connect(ctx context.Context, target exchange.Authority) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.pool.connect, errConnectTimeout)
	defer cancel()
	conn, err := c.pool.direct(ctx, target)
	if err != nil {
		return nil, dialFailure(ctx, err)
	}
	return conn, nil
}

func (c *calls) dialTLS(ctx context.Context, _, addr string) (net.Conn, error) {
	target, err := exchange.ParseAuthority(addr, 0)
	if err != nil {
		return nil, err
	}
	conn, err := c.connect(ctx, target)
	if err != nil {
		return nil, err
	}
	secure, err := c.pool.handshake(ctx, conn, target.Host, c.pool.tlsConfig)
	if err != nil {
		return nil, err
	}
	return secure, nil
}
