package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"syscall"
)

// dialer connects, and guards what comes.
type dialer struct {
	plain *net.Dialer
	tls   *tls.Config
	ca    string // read again for each connection, so that it can be renewed; while it cannot be read, what tls has holds
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.plain.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if d.tls == nil {
		if s, ok := c.(syscall.Conn); ok {
			return &guardedSocket{guarded{Conn: c}, s}, nil
		}
		return &guarded{Conn: c}, nil
	}
	config := d.tls.Clone()
	config.ServerName, _, _ = net.SplitHostPort(address)
	if d.ca != "" {
		if pool, err := roots(d.ca); err == nil {
			config.RootCAs = pool
		}
	}
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return &guarded{Conn: t}, nil
}

// roots are the CAs of a file.
func roots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("state.ca holds no certificate that can be read")
	}
	return pool, nil
}

// guarded is a connection that ends where what comes is no reply (RESP2, or RESP3 as sentinels are asked) of a sensible size: the client
// library makes room for whatever length a reply announces, and goes as deep as it nests.
type guarded struct {
	net.Conn
	frames frames
}

// Read implements net.Conn.
func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if e := g.frames.feed(p[:n]); e != nil {
		_ = g.Conn.Close()
		return 0, e
	}
	return n, err
}

// guardedSocket lets the client library look whether an idle connection is still there.
type guardedSocket struct {
	guarded
	syscall.Conn
}

// Bounds of a reply.
const (
	maxLine     = 64 << 10
	maxBulk     = 32 << 20
	maxElements = 1 << 16
	maxDepth    = 16
	maxReply    = 64 << 20
)

var errReply = errors.New("what the server sent is no reply")

// frames follows replies as they come, without keeping them.
type frames struct {
	skip   int      // bytes of a bulk string that are still to come, with the line's end behind it
	head   [16]byte // how the line begins
	length int      // of the line so far
	open   []int    // how many elements each array still misses
	size   int      // of the reply so far
}

func (f *frames) feed(p []byte) error {
	f.size += len(p)
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(p))
			f.skip -= n
			p = p[n:]
			if f.skip == 0 {
				f.done(len(p))
			}
			continue
		}
		c := p[0]
		p = p[1:]
		if c != '\n' {
			if f.length < len(f.head) {
				f.head[f.length] = c
			}
			if f.length++; f.length > maxLine {
				return errReply
			}
			continue
		}
		if err := f.line(len(p)); err != nil {
			return err
		}
	}
	if f.size > maxReply {
		return errReply
	}
	return nil
}

// line takes in a line that is complete; rest is what was read behind it.
func (f *frames) line(rest int) error {
	n := f.length
	f.length = 0
	if n == 0 {
		return errReply
	}
	kind := f.head[0]
	switch kind {
	case '+', '-', ':', '_', '#', ',', '(':
		f.done(rest)
		return nil
	}
	announced, ok := number(f.head[1:min(n, len(f.head))])
	if !ok || n > len(f.head) {
		return errReply
	}
	switch kind {
	case '$', '=', '!':
		if announced > maxBulk {
			return errReply
		}
		f.skip = announced + 2
	case '%':
		announced *= 2
		fallthrough
	case '*', '~', '>':
		if announced > maxElements || len(f.open) == maxDepth {
			return errReply
		}
		if announced > 0 {
			f.open = append(f.open, announced)
			return nil
		}
	default:
		return errReply
	}
	if announced < 0 || f.skip == 0 {
		f.skip = 0
		f.done(rest)
	}
	return nil
}

// number is what is announced: digits, or -1.
func number(b []byte) (int, bool) {
	if len(b) > 0 && b[len(b)-1] == '\r' {
		b = b[:len(b)-1]
	}
	if string(b) == "-1" {
		return -1, true
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0') // of at most 14 digits
	}
	return n, len(b) > 0
}

// done ends an element, and the arrays that it was the last of.
func (f *frames) done(rest int) {
	for len(f.open) > 0 {
		last := len(f.open) - 1
		if f.open[last]--; f.open[last] > 0 {
			return
		}
		f.open = f.open[:last]
	}
	f.size = rest
}
