package daemon

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Keep-alive probes as Go sets them on every connection that it accepts.
const (
	probeAfter = 15 * time.Second
	probeEach  = 15 * time.Second
	probes     = 9
)

// listenTCP opens a listener whose connections inherit its keep-alive probes (socket(7), tcp(7)): Go would set them by four system calls on each.
func listenTCP(address string) (net.Listener, error) {
	inherited := true
	c := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			for _, o := range [...]struct{ level, name, value int }{
				{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{unix.SOL_TCP, unix.TCP_KEEPIDLE, int(probeAfter.Seconds())},
				{unix.SOL_TCP, unix.TCP_KEEPINTVL, int(probeEach.Seconds())},
				{unix.SOL_TCP, unix.TCP_KEEPCNT, probes},
			} {
				inherited = unix.SetsockoptInt(int(fd), o.level, o.name, o.value) == nil && inherited
			}
		})
	}}
	l, err := c.Listen(context.Background(), "tcp", address)
	if err != nil || inherited {
		return l, err
	}
	_ = l.Close()
	return net.Listen("tcp", address)
}
