package wire

import "errors"

// turn serves the requests that are here, and is called by the poller with what has just come. To wait for the next one it only returns: the poller's next look at the
// connection is the one that finds something, where a read after an answer would nearly always find nothing, at the price of a system call. What needs more of the
// connection than the bytes that are here is left for serve.
//
// While it is at work nobody else may read the connection, and whoever closes it waits until the handler has returned: that is how Go's poller keeps a descriptor from
// being closed under a call.
func (c *serverConn) turn(b *buffer, n int) afterTurn {
	full := n == len(b.b)
	if c.tls != nil {
		c.tls.ahead, c.tls.r, c.tls.w = b, 0, n
	} else {
		c.in, c.r, c.w = b, 0, n
	}
	for c.tls == nil || c.decrypt() {
		for c.in != nil {
			if !c.simple() {
				return turnStops
			}
		}
		if c.tls == nil {
			break
		}
	}
	switch {
	case c.failed != nil:
		return turnStops
	case full || c.id == 0 || c.ending.Load():
		return turnLooks
	}
	return turnWaits
}

// afterTurn is what the poller does behind a turn.
type afterTurn uint8

const (
	turnWaits afterTurn = iota // until more comes
	turnLooks                  // whether more is here, or the end: nothing may come that tells
	turnStops                  // it returns
)

// decrypt reads what TLS has, without waiting; false: there is no more.
func (c *serverConn) decrypt() bool {
	in := getBuffer()
	in.b = in.b[:cap(in.b)]
	n, err := c.tls.try(c.Conn, in.b)
	if n > 0 {
		c.in, c.r, c.w = in, 0, n
		return true
	}
	putBuffer(in)
	if err != errNothingHere {
		c.failed = err
	}
	return false
}

// simple serves one request that is here to its end; false: it is none, or the connection does not go on behind it.
func (c *serverConn) simple() bool {
	h := headScan{}
	at := 0
	refusal, done := c.scan(&h, &at)
	if refusal != nil || !done || h.mayLeave() || h.chunked || h.length > int64(c.w-c.r-at) || h.finish() != nil || !c.wake() {
		return false
	}
	e := c.request(&h, at)
	f := c.exchange(e, nil)
	if f == goesOn && !c.park() {
		f = ends
	}
	if f != goesOn {
		c.spent, c.fate = e, f
		return false
	}
	return true
}

// errSpent is for a connection that turn must not go on with.
var errSpent = errors.New("the connection is at its end")

// turned is the error of a wait in which there may have been turns.
func (c *serverConn) turned(err error) error {
	switch {
	case c.fate != goesOn:
		return errSpent
	case err == nil:
		err = c.failed
	}
	return err
}
