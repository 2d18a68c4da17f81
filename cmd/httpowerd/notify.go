package main

import (
	"net"
	"os"
	"strconv"
)

// notifier speaks systemd's notification protocol (sd_notify(3)); without NOTIFY_SOCKET it is silent.
type notifier struct{ socket string }

func newNotifier() *notifier {
	socket := os.Getenv("NOTIFY_SOCKET")
	_ = os.Unsetenv("NOTIFY_SOCKET") // it is meant for this process alone
	if len(socket) > 1 && socket[0] == '@' {
		socket = "\x00" + socket[1:] // Linux's abstract namespace
	}
	return &notifier{socket}
}

func (n *notifier) ready()    { n.send("READY=1") }
func (n *notifier) stopping() { n.send("STOPPING=1") }

// reloading tells the time too, as systemd asks of who says RELOADING.
func (n *notifier) reloading() {
	n.send("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(monotonic().Microseconds(), 10))
}

func (n *notifier) send(state string) {
	if n.socket == "" {
		return
	}
	c, err := net.Dial("unixgram", n.socket)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
