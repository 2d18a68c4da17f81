package test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTerminateBehindHangups: however many hangups wait to be acted on, the signal to end is heard.
func TestTerminateBehindHangups(t *testing.T) {
	d := start(t, "")
	for range 300 {
		d.signal(syscall.SIGHUP)
		time.Sleep(300 * time.Microsecond) // or the kernel makes one of them
	}
	d.stop()
	if !strings.Contains(d.log.String(), `"why":"signal"`) {
		t.Error("no hangup was acted on")
	}
}

// TestServiceManager: what the service manager is told, in this order, and nothing behind the end.
func TestServiceManager(t *testing.T) {
	manager, env := notifySocket(t)
	d := start(t, "", env)
	told(t, manager, "READY=1")
	d.signal(syscall.SIGHUP)
	told(t, manager, "RELOADING=1\nMONOTONIC_USEC=")
	told(t, manager, "READY=1")
	d.stop()
	told(t, manager, "STOPPING=1")
	_ = manager.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := manager.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes behind STOPPING", n)
	}
}

// TestServiceManagerHangs: a service manager that reads nothing holds up neither a reload nor the end.
func TestServiceManagerHangs(t *testing.T) {
	manager, env := notifySocket(t)
	d := start(t, "", env)
	told(t, manager, "READY=1")
	fill, err := net.Dial("unixgram", manager.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for err == nil {
		_ = fill.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = fill.Write([]byte("full"))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	d.signal(syscall.SIGHUP)
	eventually(t, "the configuration is loaded again", func() error {
		if !strings.Contains(d.log.String(), `"why":"signal"`) {
			return errors.New("not yet")
		}
		return nil
	})
	d.stop()
}

// notifySocket is a service manager's end of the notification protocol, and the variable that names it.
func notifySocket(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, "NOTIFY_SOCKET=" + path
}

// told waits for a message that begins like this.
func told(t *testing.T, manager *net.UnixConn, want string) {
	t.Helper()
	_ = manager.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1000)
	n, err := manager.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), want) {
		t.Fatalf("the service manager was told %q, %v; want %q", b[:n], err, want)
	}
}
