package descriptor

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// patience is how long a listener rests before it looks for clients again while no descriptor is free: accept fails at once then, whether anybody waits or not.
// It also bounds the wait for a client that has left since.
const patience = 20 * time.Millisecond

// Listener accepts clients from its reserve when no other descriptor is left.
type Listener struct {
	net.Listener
	reserve *Reserve
}

// Keep makes a Listener. Its reserve may be shared, and is not closed with it.
func Keep(l net.Listener, r *Reserve) *Listener { return &Listener{Listener: l, reserve: r} }

// Accept returns the next client. One that came by the reserve is Borrowed: it gives its descriptor back when it is closed, and should be soon. The error of
// exhausted descriptors is returned when the reserve is used up too; it is temporary.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err == nil || !Exhausted(err) {
			return c, err
		}
		l.reserve.Refill() // somebody else may have taken what was given up before
		if !waiting(l.Listener) {
			time.Sleep(patience)
			continue
		}
		if !l.reserve.Release() {
			return nil, err
		}
		if c, err = l.borrow(); err == nil {
			return &borrowed{Conn: c, reserve: l.reserve}, nil
		}
		l.reserve.Refill()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
	}
}

func (l *Listener) borrow() (net.Conn, error) {
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(time.Now().Add(patience))
		defer func() { _ = d.SetDeadline(time.Time{}) }()
	}
	return l.Listener.Accept()
}

// Borrowed tells whether a client came by the reserve.
func Borrowed(c net.Conn) bool { _, ok := c.(*borrowed); return ok }

// borrowed is a connection on a descriptor of the reserve.
type borrowed struct {
	net.Conn
	reserve *Reserve
	once    sync.Once
}

// Close closes the connection, and the reserve takes its descriptor.
func (b *borrowed) Close() error {
	err := b.Conn.Close()
	b.once.Do(b.reserve.Refill)
	return err
}

// CloseWrite half-closes where the connection can.
func (b *borrowed) CloseWrite() error {
	if half, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// NetConn is the connection below.
func (b *borrowed) NetConn() net.Conn { return b.Conn }
