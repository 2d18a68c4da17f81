//go:build unix

package descriptor

import (
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Limit is how many descriptors the process may have; 0: nobody says. Go has raised it to the hard limit by now.
func Limit() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil || l.Cur > math.MaxInt32 {
		return 0
	}
	return int(l.Cur)
}

// waiting tells whether a client waits in a listener's queue, or the listener has ended. A reserve that were given up for nobody would go to whoever dials.
func waiting(l net.Listener) bool {
	socket, ok := l.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	ready := true
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ready = n != 0 || err != nil && err != unix.EINTR
	})
	return ready
}
