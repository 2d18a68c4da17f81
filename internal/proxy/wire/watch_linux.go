package wire

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher notices clients that leave while their request is served, and those that speak again after a rest: one epoll for all connections, which costs a request
// nothing.
type watcher struct {
	mu     sync.Mutex
	epoll  int      // its descriptor
	file   *os.File // the same, as Go's own poller waits for it; nil: nobody was watched yet
	conns  map[uint64]*serverConn
	last   uint64
	closed bool
}

// add watches a connection; 0: it cannot be watched.
func (w *watcher) add(c *serverConn) uint64 {
	if c.raw == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || !w.open() {
		return 0
	}
	w.last++
	id := w.last
	if !w.control(c, unix.EPOLL_CTL_ADD, id, 0) {
		return 0
	}
	w.conns[id] = c
	return id
}

// control changes what the epoll tells of a connection: that its client leaves, and other events. w.mu is held.
func (w *watcher) control(c *serverConn, op int, id uint64, events uint32) bool {
	event := unix.EpollEvent{Events: events | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	epoll := w.epoll
	var failed error
	err := c.raw.Control(func(fd uintptr) { failed = unix.EpollCtl(epoll, op, int(fd), &event) })
	return err == nil && failed == nil
}

// canRest: the watcher can tell when something comes.
const canRest = true

// expect says whether the watcher is to rouse a connection when something comes, or is here already. It is false where that cannot be.
func (w *watcher) expect(c *serverConn, wanted bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.id == 0 || w.file == nil {
		return false
	}
	events := uint32(0)
	if wanted {
		events = unix.EPOLLIN
	}
	return w.control(c, unix.EPOLL_CTL_MOD, c.id, events)
}

// open makes the epoll. w.mu is held.
func (w *watcher) open() bool {
	if w.file != nil {
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
	w.epoll, w.file = fd, os.NewFile(uintptr(fd), "epoll")
	w.conns = map[uint64]*serverConn{}
	go w.run(w.file)
	return true
}

func (w *watcher) run(file *os.File) {
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
			w.mu.Lock()
			c := w.conns[id]
			w.mu.Unlock()
			if c != nil && !c.server.rouse(c) && w.left(c, e.Events) {
				c.left()
			}
		}
	}
}

// left tells whether an event means that nobody is there any more. A client that has closed its side behind a request that is not read yet still waits for the
// answer to the one before; what TLS leaves unread there is its goodbye. No other event will come: whoever reads the rest must look (drained).
func (w *watcher) left(c *serverConn, events uint32) bool {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		return true
	}
	if events&unix.EPOLLRDHUP == 0 {
		return false
	}
	if !c.bare {
		return true
	}
	c.ending.Store(true) // before the look: who reads the rest in between sees it
	return nothingUnread(c.raw)
}

// nothingUnread tells whether a socket holds nothing more to read.
func nothingUnread(raw syscall.RawConn) bool {
	unread := 0
	err := raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return err != nil || unread == 0
}

func (w *watcher) remove(id uint64) {
	if id == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.conns[id]
	if c == nil || w.file == nil {
		return
	}
	delete(w.conns, id)
	_ = c.raw.Control(func(fd uintptr) { _ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, int(fd), nil) }) // a closed one has left by itself
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
		w.conns = nil
	}
}
