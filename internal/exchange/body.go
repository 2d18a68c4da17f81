package exchange

import (
	"errors"
	"io"
	"syscall"
)

// BrokeOff tells of an error of reading a request's body whether the client ended its side, or the connection, before the body was whole.
func BrokeOff(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Ready tells whether a request's body can be read to its end without waiting for the client. Bodies that know have a method of that name, and so have
// those that wrap them.
func Ready(body io.Reader) bool {
	b, ok := body.(interface{ Ready() bool })
	return ok && b.Ready()
}
