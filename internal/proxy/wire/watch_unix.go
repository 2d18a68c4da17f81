//go:build unix && !linux

package wire

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// peekEnd tells whether nothing but the end waits on a socket.
func peekEnd(raw syscall.RawConn) bool {
	ended := false
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, err := recv(int(fd), b[:], unix.MSG_PEEK)
		ended = n == 0 && err == nil || err != nil && err != unix.EAGAIN
	})
	return ended
}
