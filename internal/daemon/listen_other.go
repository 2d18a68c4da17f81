//go:build !linux

package daemon

import "net"

func listenTCP(address string) (net.Listener, error) { return net.Listen("tcp", address) }
