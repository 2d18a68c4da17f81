//go:build !unix

package wire

import (
	"errors"
	"syscall"
)

// rawCalls: sockets cannot be asked without waiting here. A kept connection that turns out dead is told by Error.Stale.
const rawCalls = false

type rawIO struct {
	turn func(*buffer, int) afterTurn
}

func (*rawIO) bind(syscall.RawConn) {}
func (*rawIO) peek() waiting        { return silent }

func (*rawIO) read([]byte) (int, error) { return 0, errors.ErrUnsupported }

func (*rawIO) exchange(_, _ []byte) (n, sent int, err error) { return 0, -1, errors.ErrUnsupported }

func (*rawIO) arrive() (*buffer, int, error) { return nil, 0, errors.ErrUnsupported }
func (*rawIO) try([]byte) (int, error)       { return 0, errors.ErrUnsupported }
func (*rawIO) more([]byte) (int, error)      { return 0, errors.ErrUnsupported }

// RawWriter is for plain sockets, of which there are none here.
type RawWriter struct{}

// Bind does nothing.
func (*RawWriter) Bind(syscall.RawConn) {}

func (*RawWriter) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

func peekEnd(syscall.RawConn) bool { return false }
