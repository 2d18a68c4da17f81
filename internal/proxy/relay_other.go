//go:build !linux

package proxy

import (
	"net"
	"syscall"
)

// splicer is empty where the system cannot splice.
type splicer struct{}

func socketOf(*net.TCPConn) syscall.RawConn { return nil }

func readSocket(uintptr, []byte) (int, error) { return 0, syscall.ENOTSUP }

func (p *pump) runSplice() (pumpSide, error) {
	p.in = nil
	return p.run()
}
