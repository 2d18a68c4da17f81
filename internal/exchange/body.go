package exchange

import "io"

// Ready tells whether a request's body can be read to its end without waiting for the client. Bodies that know have a method of that name, and so have
// those that wrap them.
func Ready(body io.Reader) bool {
	b, ok := body.(interface{ Ready() bool })
	return ok && b.Ready()
}
