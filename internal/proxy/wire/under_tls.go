package wire

import (
	"io"
	"net"
)

// UnderTLS is a client's connection as the TLS above reads it. While the client says nothing, neither the server nor TLS needs a buffer for it: what TLS holds
// already is asked for without waiting, and the wait is the socket's. Where that cannot be, it passes everything on.
type UnderTLS struct {
	net.Conn
	dry   bool    // reads do not wait
	ahead *buffer // what came while nobody had a buffer: ahead.b[r:w]; nil: nothing
	r, w  int
}

// Read gives what came ahead first.
func (u *UnderTLS) Read(p []byte) (int, error) {
	switch {
	case u.ahead != nil:
		n := copy(p, u.ahead.b[u.r:u.w])
		if u.r += n; u.r == u.w {
			putBuffer(u.ahead)
			u.ahead = nil
		}
		return n, nil
	case u.dry:
		return 0, errNothingHere
	}
	return u.Conn.Read(p)
}

// NetConn is the connection below.
func (u *UnderTLS) NetConn() net.Conn { return u.Conn }

// CloseWrite half-closes where the connection can.
func (u *UnderTLS) CloseWrite() error { return closeWrite(u.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// try reads through the TLS that is top, or through both where there is one inside the other, what is there already. Its error is errNothingHere where that is no
// whole record.
func (u *UnderTLS) try(top net.Conn, p []byte) (int, error) {
	u.dry = true
	n, err := top.Read(p)
	u.dry = false
	return n, err
}

// arrive waits for bytes on the socket.
func (u *UnderTLS) arrive(socket *rawIO) error {
	b, n, err := socket.arrive()
	if b != nil {
		u.ahead, u.r, u.w = b, 0, n
	}
	return err
}

// underTLS finds the lowest UnderTLS of a connection; nil: there is none, or something between it and the socket has bytes of its own.
func underTLS(c net.Conn) *UnderTLS {
	var found *UnderTLS
	for {
		switch v := c.(type) {
		case *UnderTLS:
			found, c = v, v.Conn
			continue
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
			continue
		}
		if found != nil {
			if _, bare := socketOf(found.Conn); !bare {
				return nil
			}
		}
		return found
	}
}

// nothingHere is a read's error where it would have to wait. crypto/tls takes an error for the connection's end unless it is temporary.
type nothingHere struct{}

var errNothingHere error = nothingHere{}

func (nothingHere) Error() string   { return "nothing is here yet" }
func (nothingHere) Timeout() bool   { return true }
func (nothingHere) Temporary() bool { return true }

// Patient reads from a client through TLS, and has no buffer while it waits.
type Patient struct {
	conn  net.Conn
	below *UnderTLS
	io    rawIO
}

// NewPatient makes one for c; nil: c has to be read with a buffer at hand.
func NewPatient(c net.Conn) *Patient {
	below := underTLS(c)
	if below == nil || !rawCalls {
		return nil
	}
	socket, _ := socketOf(below.Conn)
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	p := &Patient{conn: c, below: below}
	p.io.bind(raw)
	return p
}

// Read waits for bytes. take is called when there may be some, drop where there were none.
func (p *Patient) Read(take func() []byte, drop func()) (int, error) {
	for {
		n, err := p.below.try(p.conn, take())
		if n > 0 {
			return n, nil // an error comes again
		}
		drop()
		if err == errNothingHere {
			if err = p.below.arrive(&p.io); err == io.EOF {
				n, err = p.conn.Read(take()) // it is for TLS to say whether this end is one, or breaks a record off
				if n == 0 {
					drop()
				}
				return n, err
			}
		}
		if err != nil {
			return 0, err
		}
	}
}
