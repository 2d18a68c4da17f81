package wire

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher notices clients that leave while their request is served, and those that speak again after a rest. It costs a request nothing.
type watcher struct{ epoll Epoll }

const leaves = unix.EPOLLRDHUP | unix.EPOLLET

// add watches a connection; 0: it cannot be watched.
func (w *watcher) add(c *serverConn) uint64 {
	if c.raw == nil {
		return 0
	}
	return w.epoll.Add(c.raw, c, leaves)
}

// canRest: the watcher can tell when something comes.
const canRest = true

// expect says whether the watcher is to rouse a connection when something comes, or is here already. It is false where that cannot be.
func (w *watcher) expect(c *serverConn, wanted bool) bool {
	if wanted {
		return w.epoll.Change(c.id, leaves|unix.EPOLLIN)
	}
	return w.epoll.Change(c.id, leaves)
}

// SocketEvent makes it Watched.
func (c *serverConn) SocketEvent(_ uint64, events uint32) {
	if !c.server.rouse(c) && c.hasLeft(events) {
		c.left()
		c.giveUp()
	}
}

// giveUp ends the wait of a connection whose client has left: the poller may have said so before the wait began.
func (c *serverConn) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Load() == parked {
		_ = c.SetReadDeadline(longAgo)
	}
}

// hasLeft tells whether an event means that nobody is there any more. A client that has closed its side behind a request that is not read yet still waits for the
// answer to the one before; what TLS leaves unread there is its goodbye. No other event will come: whoever reads the rest must look (drained).
func (c *serverConn) hasLeft(events uint32) bool {
	if events&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) == 0 {
		return false
	}
	c.ending.Store(true) // before the look: who reads the rest in between sees it
	return events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 || !c.bare || nothingUnread(c.raw)
}

// nothingUnread tells whether a socket holds nothing more to read.
func nothingUnread(raw syscall.RawConn) bool {
	unread := 0
	err := raw.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return err != nil || unread == 0
}

func (w *watcher) remove(id uint64) { w.epoll.Remove(id) }

func (w *watcher) close() { w.epoll.Close() }
