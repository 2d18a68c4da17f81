package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"

	"httpowerd/internal/proxy/wire"
)

// lot is where sockets wait that nobody waits for.
type lot struct{ epoll wire.Epoll }

// parked waits in a lot.
type parked struct {
	lot   *lot
	ready func(ticket uint64)
}

// SocketEvent makes it wire.Watched.
func (p *parked) SocketEvent(ticket uint64, _ uint32) {
	if p.lot.epoll.Remove(ticket) { // else it has left
		go p.ready(ticket)
	}
}

// wait calls ready, once, in a goroutine of its own, when there is something to read; 0: that cannot be.
func (l *lot) wait(socket syscall.RawConn, ready func(ticket uint64)) (ticket uint64) {
	return l.epoll.Add(socket, &parked{l, ready}, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLONESHOT)
}

// leave gives a place up. Where ready is called already, it is called.
func (l *lot) leave(ticket uint64) { l.epoll.Remove(ticket) }

// close ends all waits. Nobody is told.
func (l *lot) close() { l.epoll.Close() }
