package wire

import (
	"encoding/binary"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ConnectAhead is a net.Dialer's Control that begins to connect its new socket, where that is not bound first. To a place on the same machine that takes longer than
// the scheduler lets a call have. The dialer's own connect then finds that it is under way, or done.
func ConnectAhead(to netip.AddrPort) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) error {
		addr := to.Addr().Unmap()
		if addr.Zone() != "" || addr.Is4() != (network == "tcp4") {
			return nil // the dialer knows what to do with those
		}
		var errno syscall.Errno
		if err := c.Control(func(fd uintptr) { errno = connect(fd, addr, to.Port()) }); err != nil {
			return err
		}
		switch errno {
		case 0, unix.EINPROGRESS, unix.EINTR:
			return nil
		}
		return os.NewSyscallError("connect", errno)
	}
}

// connect is connect(2) on a socket that does not wait.
func connect(fd uintptr, addr netip.Addr, port uint16) syscall.Errno {
	port = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port)) // in the network's order
	if addr.Is4() {
		to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: addr.As4()}
		_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&to)), unix.SizeofSockaddrInet4)
		return errno
	}
	to := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: addr.As16()}
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&to)), unix.SizeofSockaddrInet6)
	return errno
}
