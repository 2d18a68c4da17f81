package proxy

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipes keeps idle pipes, so that a busy tunnel does not make one for every burst.
var pipes = make(chan pipe, 32)

const pipeSize = 256 << 10

type pipe struct{ r, w int }

func getPipe() (pipe, error) {
	select {
	case p := <-pipes:
		return p, nil
	default:
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // a smaller one works too
	return pipe{fds[0], fds[1]}, nil
}

func (p pipe) put() {
	select {
	case pipes <- p:
	default:
		p.close()
	}
}

func (p pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// splicer is a pump's part that moves bytes without copying them into the process.
type splicer struct {
	pipe pipe
	held int // bytes in the pipe
	err  error
	open bool
}

func socketOf(c *net.TCPConn) syscall.RawConn {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

func readSocket(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err == syscall.EINTR {
			continue
		}
		return max(n, 0), err
	}
}

// runSplice is run by way of a pipe. It falls back to copying where the kernel does not splice these sockets.
func (p *pump) runSplice() (pumpSide, error) {
	s := &p.splice
	defer s.drop()
	for {
		if err := p.in.Read(p.spliceIn); err != nil {
			return sourceSide, err
		}
		switch {
		case s.err == unix.EINVAL || s.err == unix.ENOSYS || s.err == unix.EMFILE || s.err == unix.ENFILE:
			p.in = nil
			return p.run()
		case s.err != nil:
			return sourceSide, s.err
		case s.held == 0:
			return sourceSide, nil
		}
		if err := p.out.Write(p.spliceOut); err != nil {
			return sinkSide, err
		}
		if s.err != nil {
			p.unsent = s.held
			return sinkSide, s.err
		}
	}
}

// spliceIn fills the pipe; an empty pipe is handed back before the wait.
func (p *pump) spliceIn(fd uintptr) bool {
	s := &p.splice
	if !s.open {
		var err error
		if s.pipe, err = getPipe(); err != nil {
			s.err = unix.EMFILE
			return true
		}
		s.open = true
	}
	n, err := spliceOnce(int(fd), s.pipe.w, pipeSize)
	if err == unix.EAGAIN {
		s.open = false
		s.pipe.put()
		return false
	}
	s.held, s.err = n, err
	return true
}

// spliceOut empties the pipe.
func (p *pump) spliceOut(fd uintptr) bool {
	s := &p.splice
	for s.held > 0 {
		n, err := spliceOnce(s.pipe.r, int(fd), s.held)
		if err == unix.EAGAIN {
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
		p.moved.Add(int64(n))
	}
	return true
}

func spliceOnce(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err == unix.EINTR {
			continue
		}
		return int(max(n, 0)), err
	}
}

// drop gives the pipe up; one that still holds bytes must not serve another tunnel.
func (s *splicer) drop() {
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
