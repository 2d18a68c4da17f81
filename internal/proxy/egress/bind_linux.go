package egress

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// bindWithoutPort leaves the choice of the local port to connect, which knows where to: the same port serves connections to other places (ip(7),
// IP_BIND_ADDRESS_NO_PORT). A kernel that does not know it binds as ever.
func bindWithoutPort(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) })
}
