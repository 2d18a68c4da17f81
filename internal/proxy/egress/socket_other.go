//go:build !linux

package egress

import (
	"net/netip"
	"syscall"
)

type control = func(network, address string, c syscall.RawConn) error

var bindWithoutPort control

func connectAhead(netip.AddrPort) control { return nil }
