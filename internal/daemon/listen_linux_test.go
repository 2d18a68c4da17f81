package daemon

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKeepAliveProbes: a client that is gone without a word is noticed as by Go's own listeners.
func TestKeepAliveProbes(t *testing.T) {
	options := func(listen func(string) (net.Listener, error)) (values [4]int) {
		t.Helper()
		l, err := listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			for i, o := range [4][2]int{{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.SOL_TCP, unix.TCP_KEEPIDLE}, {unix.SOL_TCP, unix.TCP_KEEPINTVL}, {unix.SOL_TCP, unix.TCP_KEEPCNT}} {
				if values[i], err = unix.GetsockoptInt(int(fd), o[0], o[1]); err != nil {
					t.Error(err)
				}
			}
		})
		return values
	}
	theirs := options(func(a string) (net.Listener, error) { return net.Listen("tcp", a) })
	if ours := options(listenTCP); ours != theirs || ours[0] != 1 {
		t.Errorf("%v, of Go's own %v", ours, theirs)
	}
}
