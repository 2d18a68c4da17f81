// Package pipe moves bytes between sockets within the kernel: by way of a pipe, with splice(2). Where the system cannot, there are no pipes.
package pipe

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
)

// Size is how many bytes a pipe holds at most.
const Size = 256 << 10

// most is how many pipes may be held by those who keep one while they wait.
const most = 128

// errNone is for whoever wants a pipe and gets none: the system cannot splice, has no descriptor left, or gives only small ones.
var errNone = errors.New("there is no pipe")

// Splicer moves the bytes of one direction. It is not safe for concurrent use.
type Splicer struct {
	moved   *atomic.Int64 // bytes that left the pipe; nil: nobody counts
	lasting bool          // it has a pipe from the beginning, and keeps it
	pipe    pipe
	open    bool
	held    int // bytes in the pipe
	most    int
	err     error
	in, out func(fd uintptr) bool // fill and empty, bound once
}

// kept counts the lasting pipes.
var kept atomic.Int32

// New makes a Splicer that has a pipe only while bytes are in it, for connections that may be silent for long. What leaves the pipe is added to moved.
func New(moved *atomic.Int64) *Splicer {
	s := &Splicer{moved: moved}
	s.in, s.out = s.fill, s.empty
	return s
}

// Lasting makes one that has its pipe already, so that it cannot fail for want of one; nil: there is none.
func Lasting() *Splicer {
	if kept.Add(1) > most || !works() {
		kept.Add(-1)
		return nil
	}
	p, err := get()
	if err != nil {
		kept.Add(-1)
		return nil
	}
	s := New(nil)
	s.lasting, s.pipe, s.open = true, p, true
	return s
}

// Held is how many bytes are in the pipe.
func (s *Splicer) Held() int { return s.held }

// Move fills the empty pipe from the socket. It is an exchange.Mover.
func (s *Splicer) Move(socket syscall.RawConn, most int64) (int, error) {
	s.most, s.err = int(min(most, Size)), nil
	if err := socket.Read(s.in); err != nil {
		return 0, err
	}
	return s.held, s.err
}

// Drain empties the pipe into the socket, and says how much of it was taken.
func (s *Splicer) Drain(socket syscall.RawConn) (int, error) {
	before := s.held
	s.err = nil
	err := socket.Write(s.out)
	if err == nil {
		err = s.err
	}
	return before - s.held, err
}

// Unavailable tells whether an error of Move means that nothing was moved because there is no way to: the bytes have to be copied.
func Unavailable(err error) bool {
	return err == errNone || errors.Is(err, errors.ErrUnsupported) || err == syscall.EINVAL
}

// Close gives the pipe up; one that still holds bytes must not serve another.
func (s *Splicer) Close() {
	if s.lasting {
		s.lasting = false
		kept.Add(-1)
	}
	if !s.open {
		return
	}
	s.open = false
	if s.held > 0 {
		s.pipe.close()
		return
	}
	s.pipe.put()
}

// fill takes what the socket has. Before the wait an empty pipe that is not lasting is handed back.
func (s *Splicer) fill(fd uintptr) bool {
	if !s.open {
		if s.pipe, s.err = get(); s.err != nil {
			return true
		}
		s.open = true
	}
	n, err := splice(int(fd), s.pipe.w, s.most)
	if err == syscall.EAGAIN {
		if !s.lasting {
			s.open = false
			s.pipe.put()
		}
		return false
	}
	s.held, s.err = n, err
	return true
}

// empty writes what the pipe holds.
func (s *Splicer) empty(fd uintptr) bool {
	for s.held > 0 {
		n, err := splice(s.pipe.r, int(fd), s.held)
		if err == syscall.EAGAIN {
			return false
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			s.err = err
			return true
		}
		s.held -= n
		if s.moved != nil {
			s.moved.Add(int64(n))
		}
	}
	return true
}
