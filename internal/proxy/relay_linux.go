package proxy

import (
	"net"
	"syscall"

	"httpowerd/internal/proxy/wire"
)

func socketOf(c *net.TCPConn) syscall.RawConn {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

func readSocket(fd uintptr, p []byte) (int, error) { return wire.ReadRaw(fd, p) }
