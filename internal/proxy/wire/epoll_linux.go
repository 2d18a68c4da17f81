package wire

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Epoll tells of events on sockets that no goroutine waits for. It takes one descriptor and one goroutine from the first socket on. Its zero value is empty.
type Epoll struct {
	mu     sync.Mutex
	fd     int
	file   *os.File // the same, as Go's own poller waits for it; nil: there was no socket yet
	places map[uint64]onEpoll
	last   uint64
	closed bool
}

// Watched hears of its socket's events, in the one goroutine and without a lock: it must not wait.
type Watched interface {
	SocketEvent(id uint64, events uint32)
}

type onEpoll struct {
	socket syscall.RawConn
	who    Watched
}

// Add begins to look for these events; 0: that cannot be.
func (e *Epoll) Add(socket syscall.RawConn, who Watched, events uint32) (id uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || !e.open() {
		return 0
	}
	e.last++
	if !e.control(socket, unix.EPOLL_CTL_ADD, e.last, events) {
		return 0
	}
	e.places[e.last] = onEpoll{socket, who}
	return e.last
}

// Change looks for these events instead, and tells of what is there already. It is false where that cannot be.
func (e *Epoll) Change(id uint64, events uint32) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.places[id]
	return ok && e.control(p.socket, unix.EPOLL_CTL_MOD, id, events)
}

// Remove ends it, and tells whether it was still so.
func (e *Epoll) Remove(id uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.places[id]
	if ok {
		delete(e.places, id)
		e.control(p.socket, unix.EPOLL_CTL_DEL, id, 0) // a closed one has left by itself
	}
	return ok
}

// Close ends all of it. Nobody is told.
func (e *Epoll) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.file != nil {
		_ = e.file.Close()
		e.file, e.places = nil, nil
	}
}

// control is epoll_ctl(2). e.mu is held.
func (e *Epoll) control(socket syscall.RawConn, op int, id uint64, events uint32) bool {
	event := unix.EpollEvent{Events: events, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	epoll := e.fd
	var failed error
	err := socket.Control(func(fd uintptr) { failed = unix.EpollCtl(epoll, op, int(fd), &event) })
	return err == nil && failed == nil
}

// open makes the epoll. e.mu is held.
func (e *Epoll) open() bool {
	if e.file != nil {
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
	e.fd, e.file = fd, os.NewFile(uintptr(fd), "epoll")
	e.places = map[uint64]onEpoll{}
	go e.run(e.file)
	return true
}

func (e *Epoll) run(file *os.File) {
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
		for _, event := range events[:n] {
			id := uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32
			e.mu.Lock()
			p, ok := e.places[id]
			e.mu.Unlock()
			if ok {
				p.who.SocketEvent(id, event.Events)
			}
		}
	}
}
