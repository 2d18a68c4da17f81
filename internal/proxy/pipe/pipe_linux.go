package pipe

import (
	"sync"

	"golang.org/x/sys/unix"
)

// idle keeps pipes for the next one, so that a busy connection does not make one for every burst.
var idle = make(chan pipe, 32)

type pipe struct{ r, w int }

// least is what a pipe must hold. Users with many pipes get ever smaller ones (fs.pipe-user-pages-soft, pipe(7)), by which a body would go in crumbs.
const least = 64 << 10

func get() (pipe, error) {
	select {
	case p := <-idle:
		return p, nil
	default:
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return pipe{}, errNone
	}
	p := pipe{fds[0], fds[1]}
	if n, err := unix.FcntlInt(uintptr(p.r), unix.F_SETPIPE_SZ, Size); err == nil && n >= Size {
		return p, nil
	}
	if n, err := unix.FcntlInt(uintptr(p.r), unix.F_GETPIPE_SZ, 0); err == nil && n >= least {
		return p, nil
	}
	p.close()
	return pipe{}, errNone
}

func (p pipe) put() {
	select {
	case idle <- p:
	default:
		p.close()
	}
}

func (p pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

func splice(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err == unix.EINTR {
			continue
		}
		return int(max(n, 0)), err
	}
}

// works tries once whether splice may be used at all: sandboxes forbid it.
var works = sync.OnceValue(func() bool {
	p, err := get()
	if err != nil {
		return false
	}
	defer p.close()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(ends[0]); _ = unix.Close(ends[1]) }()
	if _, err := unix.Write(ends[0], []byte{1}); err != nil {
		return false
	}
	n, err := splice(ends[1], p.w, 1)
	return n == 1 && err == nil
})
