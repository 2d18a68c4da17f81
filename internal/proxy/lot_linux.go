package proxy

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lot is where sockets wait that nobody waits for: one epoll for all. Its zero value is empty.
type lot struct {
	mu     sync.Mutex
	epoll  int      // its descriptor
	file   *os.File // the same, as Go's own poller waits for it; nil: nobody was here yet
	places map[uint64]place
	last   uint64
	closed bool
}

type place struct {
	socket syscall.RawConn
	ready  func(ticket uint64)
}

// wait calls ready, once, in a goroutine of its own, when there is something to read; 0: that cannot be.
func (l *lot) wait(socket syscall.RawConn, ready func(ticket uint64)) (ticket uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.open() {
		return 0
	}
	l.last++
	id := l.last
	l.places[id] = place{socket, ready}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	if !l.control(socket, unix.EPOLL_CTL_ADD, &event) {
		delete(l.places, id)
		return 0
	}
	return id
}

// leave gives a place up. Where ready is called already, it is called.
func (l *lot) leave(ticket uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(ticket)
}

// take ends a wait. l.mu is held.
func (l *lot) take(ticket uint64) (place, bool) {
	p, ok := l.places[ticket]
	if ok {
		delete(l.places, ticket)
		l.control(p.socket, unix.EPOLL_CTL_DEL, nil)
	}
	return p, ok
}

func (l *lot) control(socket syscall.RawConn, op int, event *unix.EpollEvent) bool {
	var failed error
	err := socket.Control(func(fd uintptr) { failed = unix.EpollCtl(l.epoll, op, int(fd), event) })
	return err == nil && failed == nil
}

// open makes the epoll. l.mu is held.
func (l *lot) open() bool {
	if l.file != nil {
		return true
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	if unix.SetNonblock(fd, true) != nil {
		_ = unix.Close(fd)
		return false
	}
	l.epoll, l.file = fd, os.NewFile(uintptr(fd), "epoll")
	l.places = map[uint64]place{}
	go l.run(l.file)
	return true
}

func (l *lot) run(file *os.File) {
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	var events [64]unix.EpollEvent
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
			l.mu.Lock()
			p, ok := l.take(id)
			l.mu.Unlock()
			if ok {
				go p.ready(id)
			}
		}
	}
}

// close ends all waits. Nobody is told.
func (l *lot) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.file != nil {
		_ = l.file.Close()
		l.file, l.places = nil, nil
	}
}
