package proxy

import (
	"io"
	"net"
	"net/netip"
	"time"

	"httpowerd/internal/descriptor"
	"httpowerd/internal/exchange"
	"httpowerd/internal/proxy/wire"
)

// acceptor admits clients and puts a guard before each.
type acceptor struct {
	net.Listener
	server *Server
	secure bool // clients speak TLS: a guard would read ciphertext, and an answer be none
}

// Accept returns the next admitted connection. Where no descriptor is left clients are told so, rather than left waiting in the kernel's queue.
func (a *acceptor) Accept() (net.Conn, error) {
	s := a.server
	for {
		c, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		code, detail := s.admit(c)
		if code != "" {
			s.turnAway(c, code, detail, a.secure)
			continue
		}
		s.connections.Add(1)
		s.metrics.connections.Inc()
		wrapped := &conn{Conn: c, server: s}
		if a.secure {
			wrapped.Conn = &wire.UnderTLS{Conn: wire.Raw(c)}
		} else {
			wrapped.guard = s.guard()
		}
		wrapped.onClose = func() {
			s.connections.Add(-1)
			s.metrics.connections.Dec()
		}
		return wrapped, nil
	}
}

// admit says whether a client may stay, and why not.
func (s *Server) admit(c net.Conn) (code exchange.Code, detail string) {
	if s.open == OpenPrivate {
		addr, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if ip := addr.Addr().Unmap(); err != nil || !ip.IsPrivate() && !ip.IsLoopback() {
			return exchange.Denied, "this proxy serves clients on private networks only"
		}
	}
	if descriptor.Borrowed(c) {
		return exchange.Overloaded, "this proxy has no file descriptor left"
	}
	if s.connections.Load() >= int64(s.limits.connections) {
		return exchange.Overloaded, "this proxy has as many connections as it may have"
	}
	return "", ""
}

// turnAway tells a client why it is not served, without waiting for its request. One that speaks TLS is not worth a handshake, and is only recorded.
func (s *Server) turnAway(c net.Conn, code exchange.Code, detail string, secure bool) {
	v := &visit{server: s, conn: &conn{Conn: c, server: s}}
	v.Exchange = exchange.Exchange{ID: newID(), OwnID: true, Kind: exchange.KindRequest, Mode: exchange.ModePlain, Start: time.Now(),
		Client: c.RemoteAddr().String(), Host: otherHost}
	d := verdict{code: code, status: code.Info().Status, detail: detail, close: true, final: code.Info().Final}
	v.Update(func(s *exchange.Story) {
		s.Outcome, s.Detail = code, detail
		if !secure { // it is told nothing there
			s.Status, s.StatusBy = d.status, "proxy"
		}
	})
	if secure {
		v.problem(d)
		v.record()
		_ = c.Close()
		return
	}
	_ = c.SetDeadline(time.Now().Add(s.limits.refusalTime))
	v.writeRaw(c, d)
	v.record()
	_ = closeWrite(c)
	_ = c.SetReadDeadline(time.Now().Add(arrived))
	_, _ = io.CopyN(io.Discard, c, turnedAwayBytes)
	_ = c.Close()
}

// What is read of a client that is turned away: only what has come already, or closing would reset the connection before the client has the answer. The next
// client waits meanwhile.
const (
	arrived         = time.Millisecond
	turnedAwayBytes = 16 << 10
)
