package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"

	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/h2"
)

// secured is an HTTPS listener: what it accepts has done its handshake, so that slow ones hold nobody up. Clients that chose HTTP/2 go to the inner server, and
// Accept returns the others.
type secured struct {
	net.Listener // of connections that may come in
	server       *Server
	config       *tls.Config
	ready        chan accepted
	ctx          context.Context // until Close
	cancel       context.CancelFunc
	wg           sync.WaitGroup
}

type accepted struct {
	net.Conn
	err error
}

func (s *Server) secure(l net.Listener, config *tls.Config) *secured {
	t := &secured{Listener: l, server: s, config: config, ready: make(chan accepted)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.run)
	return t
}

// run accepts until the listener below ends for good.
func (t *secured) run() {
	for {
		c, err := t.Listener.Accept()
		if err == nil {
			t.wg.Go(func() { t.shake(c.(*conn)) })
			continue
		}
		t.give(accepted{err: err}) // whoever serves waits a moment where it is worth it
		if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// give tells Accept; false: nobody accepts any more.
func (t *secured) give(a accepted) bool {
	select {
	case t.ready <- a:
		return true
	case <-t.ctx.Done():
		return false
	}
}

func (t *secured) shake(c *conn) {
	ctx, cancel := context.WithTimeout(t.ctx, t.server.limits.handshake)
	defer cancel()
	inside := tls.Server(c, t.config)
	if err := inside.HandshakeContext(ctx); err != nil {
		t.server.log.Debug("a client's TLS handshake with the proxy failed", "client", c.RemoteAddr().String(), "error", err)
		_ = inside.Close()
		return
	}
	if inside.ConnectionState().NegotiatedProtocol == "h2" {
		c.secure = inside
		if !t.server.feed.push(inside) {
			_ = inside.Close()
		}
		return
	}
	outer := &conn{Conn: inside, server: t.server, guard: t.server.guard()}
	if !t.give(accepted{Conn: outer}) {
		_ = outer.Close()
	}
}

// Accept returns the next client that speaks HTTP/1.1.
func (t *secured) Accept() (net.Conn, error) {
	select {
	case a := <-t.ready:
		return a.Conn, a.err
	case <-t.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends Accept, and handshakes that are under way.
func (t *secured) Close() error {
	t.cancel()
	return t.Listener.Close()
}

// wait returns when nothing of the listener runs any more.
func (t *secured) wait() {
	_ = t.Close() // a second time does no harm
	t.wg.Wait()
}

// asSent is net/http's handler for HTTP/2 without what it does to requests: it sets TLS on those whose scheme is http as well, and there is nothing else that tells.
type asSent struct {
	http.Handler
	above interface{ BaseContext() context.Context }
}

// BaseContext hands net/http's own context down.
func (h asSent) BaseContext() context.Context { return h.above.BaseContext() }

// keepScheme has a server of HTTP/2 pass requests on asSent. Serve is what puts the implementation into TLSNextProto, so it is called with a listener that has ended.
func keepScheme(s *http.Server) {
	ended := newFeed()
	_ = ended.Close()
	_ = s.Serve(ended)
	for _, protocol := range []string{"h2", h2.Unencrypted} {
		serve := s.TLSNextProto[protocol]
		if serve == nil {
			continue
		}
		s.TLSNextProto[protocol] = func(server *http.Server, c *tls.Conn, h http.Handler) {
			if above, ok := h.(interface{ BaseContext() context.Context }); ok {
				h = asSent{server.Handler, above}
			}
			serve(server, c, h)
		}
	}
}

// absolute makes the target of an HTTP/2 request what HTTP/1.1 would have: there its parts come as fields of their own (RFC 9113 section 8.3.1). Of the scheme the
// server tells no more than whether it is https, and refuses what is neither that nor http.
func absolute(r *http.Request) error {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	path := r.RequestURI
	if path == "*" {
		path = ""
	}
	if r.Host == "" || path != "" && path[0] != '/' {
		return exchange.Refuse(exchange.BadRequest, "the request names no authority, or its path does not begin with a slash")
	}
	if strings.ContainsAny(r.Host, "/?") { // put together it would be another URL than the one that goes on, and a signature for that would do for this
		return exchange.Refuse(exchange.BadRequest, "the request's authority has a part of a path or query")
	}
	r.RequestURI = scheme + "://" + r.Host + path
	r.URL.Scheme, r.URL.Host = scheme, r.Host
	if path == "" {
		r.URL.Path = ""
	}
	return nil
}
