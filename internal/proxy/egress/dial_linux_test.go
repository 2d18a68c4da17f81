package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBind: connections come from the address that is set, and connect chooses their port.
func TestBind(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := l.Addr().(*net.TCPAddr).AddrPort()
	p := &pool{bind: netip.MustParseAddr("127.0.0.9")}
	c, err := p.connectTo(t.Context(), to.Addr(), to.Port())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	seen, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	if from := seen.RemoteAddr().(*net.TCPAddr); from.IP.String() != "127.0.0.9" {
		t.Error("it comes from", from)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if late, err := unix.GetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT); err != nil || late != 1 {
			t.Error("bind chose the port", late, err)
		}
	})
}

// TestConnectAhead: a connection that is begun before the dialer's own call ends as one that is not.
func TestConnectAhead(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		to := l.Addr().(*net.TCPAddr).AddrPort()
		c, err := new(pool).connectTo(t.Context(), to.Addr(), to.Port())
		if err != nil {
			t.Fatal(at, err)
		}
		seen, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if c.RemoteAddr().String() != to.String() || c.LocalAddr().String() != seen.RemoteAddr().String() {
			t.Error(at, c.LocalAddr(), c.RemoteAddr(), seen.RemoteAddr())
		}
		if _, err := seen.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if n, err := c.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Error(at, n, err)
		}
		_, _, _ = c.Close(), seen.Close(), l.Close()
		_, err = new(pool).connectTo(t.Context(), to.Addr(), to.Port())
		_, plain := new(net.Dialer).DialContext(t.Context(), "tcp", to.String())
		if err == nil || plain == nil || err.Error() != plain.Error() {
			t.Errorf("%s refused: %v, and by net %v", at, err, plain)
		}
	}
}

// TestConnectAheadWaits: a host that does not answer is waited for as long as the context lets.
func TestConnectAheadWaits(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for range 8 { // nobody accepts: the queue is full after one or two, and the kernel ignores who comes then
		c, err := new(pool).connectTo(ctx, netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
		if err != nil {
			var op *net.OpError
			if !errors.As(err, &op) || op.Op != "dial" || !op.Timeout() {
				t.Error(err)
			}
			return
		}
		defer c.Close()
	}
	t.Error("all of them were connected")
}
