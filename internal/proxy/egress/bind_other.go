//go:build !linux

package egress

import "syscall"

var bindWithoutPort func(network, address string, c syscall.RawConn) error
