package egress

import (
	"net"
	"net/netip"
	"testing"

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
