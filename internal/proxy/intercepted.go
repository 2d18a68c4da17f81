package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/egress"
	"httpowerd/internal/proxy/intercept"
	"httpowerd/internal/proxy/wire"
)

// intercept terminates the client's TLS, or takes plaintext HTTP, and hands the connection to the inner server.
func (l *link) intercept() {
	v := l.v
	v.Mode = exchange.ModeIntercept
	ca, err := v.server.ca()
	if err != nil {
		l.refuse(&exchange.Refusal{Code: exchange.Internal, Detail: "the interception CA is not available", Cause: err})
		return
	}
	l.established("proxy")
	l.bound(time.Now().Add(v.server.limits.handshake))
	head, what := l.peek()
	switch what {
	case tlsHello:
		t := l.newTunnel("https", exchange.ModeIntercept)
		below := &wire.UnderTLS{Conn: &prefixed{Conn: wire.Raw(l.client), ahead: head}}
		inside := tls.Server(&conn{Conn: below, server: v.server, tunnel: t, onClose: t.end},
			ca.ServerConfig(v.Target.Host, true))
		if l.shake(inside) {
			l.hand(inside, t)
		}
	case plainHTTP:
		_ = l.client.SetDeadline(noDeadline)
		l.hand(&prefixed{Conn: l.client, ahead: head}, l.newTunnel("http", exchange.ModePlain))
	case opaque:
		detail := "what the client sent is neither TLS nor HTTP"
		if bytes.HasPrefix(head, []byte("PRI *")) {
			detail = "HTTP/2 without TLS passes through tunnels alone: write tls: tunnel for this host"
		}
		l.cut(exchange.BadRequest, detail)
	default:
		l.cut(exchange.ClientGone, "the client left, or sent nothing, before a TLS handshake")
	}
}

// peek reads the client's first bytes until they tell TLS from HTTP.
func (l *link) peek() (head []byte, what protocol) {
	var b [1 << 10]byte
	for {
		n, err := l.client.Read(b[:])
		head = append(head, b[:n]...)
		if len(head) > 0 && head[0] == recordHandshake {
			return head, tlsHello
		}
		if what = sniffHTTP(head); len(head) > 0 && what != undecided {
			return head, what
		}
		if err != nil {
			return nil, undecided
		}
	}
}

// shake does the client's handshake.
func (l *link) shake(c *tls.Conn) bool {
	if err := c.Handshake(); err != nil { // a context would cost a goroutine; who cuts the tunnel moves the deadline
		l.v.server.log.Debug("the client's TLS handshake failed", "id", l.v.ID, "error", err)
		l.cut(shaken(err))
		return false
	}
	if name := c.ConnectionState().ServerName; name != "" && l.checkName(tlsHello, hello{serverName: name}, true) != "" {
		l.cut(exchange.SNIMismatch, sideDetail[exchange.SNIMismatch])
		return false
	}
	_ = l.client.SetDeadline(noDeadline)
	return true
}

// shaken says who ended a handshake, and why.
func shaken(err error) (why exchange.Code, detail string) {
	var record tls.RecordHeaderError
	var network net.Error // the client's alerts among them, and those that cannot be read: OpenSSL sends some unencrypted
	switch {
	case errors.As(err, new(*intercept.ServerNameError)):
		return exchange.SNIMismatch, sideDetail[exchange.SNIMismatch]
	case errors.As(err, new(*intercept.CertificateError)):
		return exchange.Internal, "no certificate could be made for this host"
	case errors.As(err, &record):
		return exchange.BadRequest, "the client's TLS is malformed"
	case errors.As(err, &network) && network.Timeout():
		return exchange.ClientGone, "the client did not finish the TLS handshake in time"
	case network != nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return exchange.ClientGone, "the client broke the TLS handshake off; it may not trust the CA"
	}
	return exchange.Unsupported, "the client's TLS handshake has no version, cipher suite or protocol that this proxy accepts"
}

// govern makes plaintext HTTP in a tunnel ordinary requests; the first of them uses the connection that CONNECT dialled.
func (l *link) govern() {
	up := l.up
	_ = up.SetReadDeadline(noDeadline)
	l.tunnel.Detach()
	_ = l.granted.Close() // the requests inside are admitted one by one
	l.granted = nil
	t := l.newTunnel("http", exchange.ModePlain)
	t.context = func(ctx context.Context) context.Context { return egress.Offer(ctx, t.authority, up) }
	t.offered = up
	if l.hand(l.client, t); !l.handed {
		_ = up.Close()
	}
}

// hand gives the client's connection to the inner server.
func (l *link) hand(c net.Conn, t *tunnel) {
	l.mu.Lock()
	cut := l.why != ""
	l.mu.Unlock()
	if cut {
		return
	}
	t.unused.Store(l)
	if inside, ok := c.(*tls.Conn); !ok || inside.ConnectionState().NegotiatedProtocol != "h2" {
		guarded := &conn{Conn: c, server: l.v.server, tunnel: t, guard: l.v.server.guard()}
		if !ok { // below TLS there is a conn that does it
			guarded.onClose = t.end
		}
		if l.v.server.wireInner != nil {
			l.handed = true
			l.v.server.wireInner.Take(guarded)
			return
		}
		c = guarded
	}
	if l.handed = l.v.server.feed.push(c); !l.handed {
		t.unused.Store(nil)
		l.cut(exchange.Draining, cutDetail)
	}
}

// waste records a CONNECT that was answered, and whose connection has ended without a request: else nothing would tell of it. Whoever closes it does not wait for that.
func (l *link) waste() {
	s := l.v.server
	why, detail := exchange.ClientGone, "the client left, or sent no whole request"
	if s.draining.Load() {
		why, detail = exchange.Draining, cutDetail
	}
	s.served.Add(1)
	go func() {
		defer s.served.Add(-1)
		l.count(why, detail)
		l.v.record()
	}()
}

// linger reads on for a moment, so that the answer reaches the client before a reset does (RFC 9112 section 9.6). A drain that has no more time grants none.
func (l *link) linger() {
	l.mu.Lock()
	if l.why == "" {
		_ = l.client.SetReadDeadline(time.Now().Add(lingerTime))
	} else {
		_ = l.client.SetReadDeadline(time.Now().Add(arrived))
	}
	l.mu.Unlock()
	_, _ = io.CopyN(io.Discard, l.client, lingerBytes)
}
