package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// recv reads from a socket without waiting. The library's own call allocates room for an address, which a connected socket does not tell.
func recv(fd int, p []byte, flags int) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
