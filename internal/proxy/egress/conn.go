package egress

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"httpowerd/internal/exchange"
)

// conn is an upstream connection as records and metrics know it.
type conn struct {
	net.Conn
	address string // for records
	http2   bool   // set before the connection is used
	written atomic.Int64
	closed  atomic.Bool
	active  prometheus.Gauge
	onClose func() // nil: nobody wants to know
}

// track counts c as active until it is closed.
func (p *pool) track(ctx context.Context, c net.Conn) *conn {
	t := &conn{Conn: c, address: c.RemoteAddr().String(), active: p.metrics.host(p.label(exchange.From(ctx))).active}
	t.active.Inc()
	return t
}

// Write counts the bytes, so that it is known whether an attempt was sent. They count before they are on their way: the answer may be here, or the
// end of the connection, before Write returns.
func (c *conn) Write(b []byte) (int, error) {
	c.written.Add(int64(len(b)))
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n - len(b)))
	return n, err
}

// Close closes the connection once.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.active.Dec()
	err := c.Conn.Close()
	if c.onClose != nil {
		c.onClose()
	}
	return err
}

// NetConn is the connection below.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite half-closes where the connection can.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// tracked is the conn below what the transport knows.
func tracked(c net.Conn) *conn {
	for {
		switch v := c.(type) {
		case *conn:
			return v
		case *answers:
			c = v.Conn
		case *objecting:
			c = v.NetConn()
		case *tls.Conn:
			c = v.NetConn()
		default:
			return nil
		}
	}
}
