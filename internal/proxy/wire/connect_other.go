//go:build !linux

package wire

import (
	"net/netip"
	"syscall"
)

// ConnectAhead is nothing: the dialer connects.
func ConnectAhead(netip.AddrPort) func(network, address string, c syscall.RawConn) error { return nil }
