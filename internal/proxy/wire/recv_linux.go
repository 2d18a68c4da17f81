package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Calls on sockets never wait here, so the scheduler is not told of them. Else it takes the processor away from each that lasts for more than 20 µs, which a
// write to a socket of the same machine does, and a thread of its own wakes up for that as often.

// recv reads from a socket without waiting. The library's own call allocates room for an address, which a connected socket does not tell.
func recv(fd int, p []byte, flags int) (int, error) {
	return socketCall(unix.SYS_RECVFROM, fd, p, flags)
}

// send writes to a socket what it takes without waiting.
func send(fd int, p []byte) (int, error) {
	return socketCall(unix.SYS_SENDTO, fd, p, unix.MSG_NOSIGNAL)
}

func socketCall(call uintptr, fd int, p []byte, flags int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
