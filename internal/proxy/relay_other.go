//go:build !linux

package proxy

import (
	"net"
	"syscall"
)

func socketOf(*net.TCPConn) syscall.RawConn { return nil }

func readSocket(uintptr, []byte) (int, error) { return 0, syscall.ENOTSUP }
