package exchange

import (
	"io"
	"syscall"
)

// Mover moves bytes from a socket to where they go without anybody reading them.
type Mover interface {
	// Move waits for bytes on the socket and takes at most so many of them. 0 without an error is the end of what comes.
	Move(socket syscall.RawConn, most int64) (int, error)
}

// Direct is an answer's body whose bytes can be moved. A stage that wraps a body only to count, to bound or to free something passes this on; one that has to see the bytes does
// not, and they are read.
type Direct interface {
	// Unseen is how many bytes are to come that can be moved; 0: what comes next has to be read.
	Unseen() int64
	// Take is a Read by m. It may be called only where Unseen is not 0.
	Take(m Mover) (int, error)
}

// Unseen asks a body how many of its bytes can be moved.
func Unseen(body io.Reader) int64 {
	if d, ok := body.(Direct); ok {
		return d.Unseen()
	}
	return 0
}

// Take has m read from a body whose Unseen is not 0.
func Take(body io.Reader, m Mover) (int, error) { return body.(Direct).Take(m) }
