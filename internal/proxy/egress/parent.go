package egress

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"httpowerd/internal/exchange"
)

// throughParent makes a connection to the target through the parent proxy.
func (p *pool) throughParent(ctx context.Context, target exchange.Authority) (net.Conn, error) {
	ask, err := p.askable(ctx, target)
	if err != nil {
		return nil, err
	}
	c, err := p.connectParent(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	var ready net.Conn
	if p.parent.Socks() {
		ready, err = c, p.socks(c, ask)
	} else {
		ready, err = p.connectMethod(ctx, c, ask)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return ready, nil
}

const (
	parentRefused = "the parent proxy refused the connection"
	parentAuth    = "the parent proxy does not accept the configured credentials"
	parentBroken  = "the parent proxy's answer is malformed"
)

type viaKey struct{}

// dialContext lets the dialer tell a parent proxy whom the request has passed.
func (p *pool) dialContext(ctx context.Context, r *http.Request) context.Context {
	if p.parent == nil || p.parent.Socks() {
		return ctx
	}
	return context.WithValue(ctx, viaKey{}, r.Header["Via"])
}

// connectMethod asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6). Via ends a circle of proxies that are each other's parents.
func (p *pool) connectMethod(ctx context.Context, c net.Conn, target exchange.Authority) (net.Conn, error) {
	authority := target.String()
	head := make([]byte, 0, 256)
	head = append(append(append(head, "CONNECT "...), authority...), " HTTP/1.1\r\nHost: "...)
	head = append(append(head, authority...), "\r\n"...)
	via, _ := ctx.Value(viaKey{}).([]string)
	for _, line := range via {
		head = append(append(append(head, "Via: "...), line...), "\r\n"...)
	}
	if auth := p.parent.Authorization(); auth != "" {
		head = append(append(append(head, "Proxy-Authorization: "...), auth...), "\r\n"...)
	}
	if _, err := c.Write(append(head, "\r\n"...)); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: c, N: maxHead}
	br := bufio.NewReaderSize(limited, 4<<10)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		if number, ok := alertOf(err); ok {
			return nil, ofParent(alerted(number, false, err))
		}
		if broken(err) && limited.N > 0 {
			return nil, closer(fail(exchange.UpstreamConnect, "the parent proxy closed the connection", false, err), "connection_terminated")
		}
		return nil, closer(fail(exchange.UpstreamConnect, parentBroken, false, err), "http_protocol_error")
	}
	switch {
	case resp.StatusCode/100 == 2:
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return nil, &exchange.Failure{Code: exchange.UpstreamConnect, Detail: parentAuth, Permanent: true, ProxyStatus: "proxy_configuration_error"}
	case resp.StatusCode/100 == 5:
		return nil, fail(exchange.UpstreamConnect, parentRefused, false, nil)
	default:
		return nil, &exchange.Failure{Code: exchange.UpstreamConnect, Detail: parentRefused, Permanent: true}
	}
	if n := br.Buffered(); n > 0 { // the upstream speaks first
		ahead, _ := br.Peek(n)
		return &readAhead{Conn: c, ahead: append([]byte(nil), ahead...)}, nil
	}
	return c, nil
}

// readAhead gives bytes first that were read with the proxy's answer.
type readAhead struct {
	net.Conn
	ahead []byte
}

func (c *readAhead) Read(b []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(b, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// NetConn is the connection below.
func (c *readAhead) NetConn() net.Conn { return c.Conn }

// CloseWrite half-closes where the connection can.
func (c *readAhead) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

var errSocks = errors.New("not a SOCKS5 answer")

// socks asks a SOCKS5 proxy for a connection (RFC 1928, with user and password by RFC 1929).
func (p *pool) socks(c net.Conn, target exchange.Authority) error {
	greeting := []byte{5, 1, 0}
	if p.parent.HasUser {
		greeting = []byte{5, 2, 0, 2}
	}
	var b [262]byte
	if _, err := c.Write(greeting); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return socksBroken(err)
	}
	switch {
	case b[0] != 5:
		return socksBroken(errSocks)
	case b[1] == 0:
	case b[1] == 2 && p.parent.HasUser:
		if err := p.socksLogin(c); err != nil {
			return err
		}
	default:
		return &exchange.Failure{Code: exchange.UpstreamConnect, Detail: parentAuth, Permanent: true, ProxyStatus: "proxy_configuration_error"}
	}
	if _, err := c.Write(socksRequest(target)); err != nil {
		return err
	}
	return socksReply(c, b[:])
}

func (p *pool) socksLogin(c net.Conn) error {
	user, password := p.parent.User, p.parent.Password()
	if len(user) == 0 || len(user) > 255 || len(password) > 255 {
		return &exchange.Failure{Code: exchange.UpstreamConnect, Detail: parentAuth, Permanent: true, ProxyStatus: "proxy_configuration_error"}
	}
	b := append([]byte{1, byte(len(user))}, user...)
	b = append(append(b, byte(len(password))), password...)
	if _, err := c.Write(b); err != nil {
		return err
	}
	var answer [2]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return socksBroken(err)
	}
	if answer[1] != 0 {
		return &exchange.Failure{Code: exchange.UpstreamConnect, Detail: parentAuth, Permanent: true, ProxyStatus: "proxy_configuration_error"}
	}
	return nil
}

func socksRequest(target exchange.Authority) []byte {
	b := []byte{5, 1, 0}
	if addr, err := netip.ParseAddr(target.Host); err != nil {
		b = append(append(b, 3, byte(len(target.Host))), target.Host...)
	} else if addr.Is4() {
		b = append(append(b, 1), addr.AsSlice()...)
	} else {
		b = append(append(b, 4), addr.AsSlice()...)
	}
	return binary.BigEndian.AppendUint16(b, target.Port)
}

// socksReply reads the answer to the end, so that the next byte is the upstream's.
func socksReply(c io.Reader, b []byte) error {
	if _, err := io.ReadFull(c, b[:5]); err != nil {
		return socksBroken(err)
	}
	var rest int
	switch {
	case b[0] != 5:
		return socksBroken(errSocks)
	case b[1] != 0:
		detail := map[byte]string{3: "the upstream's network cannot be reached", 4: "the upstream's network cannot be reached",
			5: "the upstream refused the connection"}[b[1]]
		if detail == "" {
			detail = parentRefused
		}
		f := &exchange.Failure{Code: exchange.UpstreamConnect, Detail: detail, Permanent: b[1] == 2 || b[1] > 6}
		if b[1] == 3 || b[1] == 4 {
			f.ProxyStatus = unroutable
		}
		return f
	case b[3] == 1:
		rest = 4 + 2 - 1
	case b[3] == 4:
		rest = 16 + 2 - 1
	case b[3] == 3:
		rest = int(b[4]) + 2
	default:
		return socksBroken(errSocks)
	}
	if _, err := io.ReadFull(c, b[:rest]); err != nil {
		return socksBroken(err)
	}
	return nil
}

func socksBroken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errSocks) {
		return fail(exchange.UpstreamConnect, parentBroken, false, err)
	}
	return err
}
