//go:build unix

package wire

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawCalls: sockets can be asked without waiting.
const rawCalls = true

// rawIO does an exchange's system calls on a plain socket within one call of the poller: look whether the kept connection is silent, write, wait, read.
// The look takes the place of the read that would find nothing anyway.
type rawIO struct {
	raw  syscall.RawConn
	call func(fd uintptr) bool // one func for each connection, not for each call
	what rawCall
	p    []byte // to write, or to read into
	in   []byte // of an exchange: to read into
	got  *buffer
	n    int
	err  error
	turn func(b *buffer, n int) afterTurn // of callArrive: takes the buffer; nil: got does
}

type rawCall uint8

const (
	callRead rawCall = iota
	callPeek
	callExchange
	callAnswer // the write is done, the read follows
	callArrive // read into a buffer that is taken when there is something
	callTry    // read what is there
)

func (x *rawIO) bind(raw syscall.RawConn) {
	x.raw = raw
	x.call = x.run
}

// run is called by the poller with the descriptor; false: call again when there is something to read.
func (x *rawIO) run(fd uintptr) bool {
	switch x.what {
	case callPeek:
		x.n, x.err = recv(int(fd), x.p, unix.MSG_PEEK)
		return true
	case callExchange:
		var b [1]byte
		if n, err := recv(int(fd), b[:], unix.MSG_PEEK); err != unix.EAGAIN {
			x.n, x.err = 0, errDead
			if n > 0 {
				x.err = errUnasked
			}
			return true
		}
		if x.n, x.err = send(int(fd), x.p); x.err != nil || x.n < len(x.p) {
			return true
		}
		x.what, x.p = callAnswer, x.in
		return false
	case callTry:
		x.n, x.err = recv(int(fd), x.p, 0)
		return true
	case callArrive:
		return x.arrived(int(fd))
	}
	x.n, x.err = recv(int(fd), x.p, 0)
	return x.err != unix.EAGAIN
}

// arrived reads what has come, if so.
func (x *rawIO) arrived(fd int) bool {
	for {
		b := getBuffer()
		b.b = b.b[:cap(b.b)]
		n, err := recv(fd, b.b, 0)
		if err != nil || n == 0 {
			putBuffer(b)
			x.n, x.err = 0, err
			return err != unix.EAGAIN
		}
		if x.turn == nil {
			x.got, x.n, x.err = b, n, nil
			return true
		}
		switch x.turn(b, n) {
		case turnWaits:
			return false
		case turnStops:
			x.n, x.err = n, nil
			return true
		}
	}
}

func (x *rawIO) do(what rawCall, p []byte) (int, error) {
	x.what, x.p, x.n, x.err = what, p, 0, nil
	err := x.raw.Read(x.call)
	x.p, x.in = nil, nil
	if err != nil {
		return 0, err
	}
	return x.n, x.err
}

// peek says what waits on the socket.
func (x *rawIO) peek() waiting {
	var b [1]byte
	n, err := x.do(callPeek, b[:])
	switch {
	case err == unix.EAGAIN:
		return silent
	case err == nil && n > 0:
		return somethingWaits
	}
	return ended
}

// read waits for bytes.
func (x *rawIO) read(p []byte) (int, error) { return received(x.do(callRead, p)) }

func received(n int, err error) (int, error) {
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return n, named("read", err)
}

func named(call string, err error) error {
	if err == nil {
		return nil // before errno is made, which errors.As takes to the heap
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return os.NewSyscallError(call, errno)
	}
	return err
}

// exchange looks whether the kept connection is silent, writes out, and reads the first of the answer into in. sent is how much the socket took; less than all: the rest
// has to go the usual way, and nothing was read; negative: the connection is not silent, the error says in which way.
func (x *rawIO) exchange(out, in []byte) (n, sent int, err error) {
	x.in = in
	n, err = x.do(callExchange, out)
	switch {
	case x.what == callAnswer:
		n, err = received(n, err)
		return n, len(out), err
	case err == errDead || err == errUnasked:
		return 0, -1, err
	case err != nil && err != unix.EAGAIN:
		return 0, n, named("write", err)
	}
	return 0, n, nil
}

// arrive waits for bytes, and takes a buffer when they come. Where there is a turn it is that which takes it; the wait ends when a turn says so.
func (x *rawIO) arrive() (*buffer, int, error) {
	n, err := received(x.do(callArrive, nil))
	b := x.got
	x.got = nil
	return b, n, err
}

// try reads what is there without waiting.
func (x *rawIO) try(p []byte) (int, error) { return x.do(callTry, p) }

// more is try for whom nothing is no error.
func (x *rawIO) more(p []byte) (int, error) {
	n, err := x.try(p)
	if err == unix.EAGAIN {
		return 0, nil
	}
	return received(n, err)
}
