package main

import (
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// notifier speaks systemd's notification protocol (sd_notify(3)); without NOTIFY_SOCKET it is silent.
type notifier struct {
	socket string

	mu   sync.Mutex
	left bool // nothing follows what says so
}

// unread is how long a manager may leave messages unread before the next one is given up: neither a reload nor the end hangs on it.
const unread = time.Second

func newNotifier() *notifier {
	socket := os.Getenv("NOTIFY_SOCKET")
	_ = os.Unsetenv("NOTIFY_SOCKET") // it is meant for this process alone
	if len(socket) > 1 && socket[0] == '@' {
		socket = "\x00" + socket[1:] // Linux's abstract namespace
	}
	return &notifier{socket: socket}
}

func (n *notifier) ready()    { n.send("READY=1", false) }
func (n *notifier) stopping() { n.send("STOPPING=1", true) }

// reloading tells the time too, as systemd asks of who says RELOADING.
func (n *notifier) reloading() {
	n.send("RELOADING=1\nMONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10), false)
}

func (n *notifier) send(state string, last bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.socket == "" || n.left {
		return
	}
	n.left = last
	c, err := net.Dial("unixgram", n.socket)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(unread))
	_, _ = c.Write([]byte(state))
}
