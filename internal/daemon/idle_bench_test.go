//go:build unix

package daemon

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"
)

// The Idle benchmarks open connections, use each once, leave them alone, and report what each of them keeps in the process: heap, stacks and descriptors. Of the
// client and the origin nothing stays but the sockets. IDLE_PROFILE names a folder for heap profiles.

func BenchmarkIdlePlain(b *testing.B)       { benchIdle(b, "tunnel", false) }
func BenchmarkIdleTunnel(b *testing.B)      { benchIdle(b, "tunnel", true) }
func BenchmarkIdleIntercepted(b *testing.B) { benchIdle(b, "intercept", true) }

func benchIdle(b *testing.B, mode string, secure bool) {
	const clients = 2000
	o := newBenchOrigin(b, secure, 1<<10)
	held := make([]*os.File, 0, 2*clients)
	defer func() {
		for _, f := range held {
			_ = f.Close()
		}
	}()
	var open func() net.Conn
	if !secure {
		address := benchDaemon(b, "{}").ProxyAddrs()[0]
		open = func() net.Conn { return benchDial(b, address) }
	} else {
		host, address, roots := o.behind(b, mode)
		name, _, _ := net.SplitHostPort(host)
		if mode == "tunnel" { // the origin says nothing, and keeps but sockets
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			host = l.Addr().String()
			open = func() net.Conn {
				c := benchConnectTo(b, address, host)
				up, err := l.Accept()
				if err != nil {
					b.Fatal(err)
				}
				hello := "\x16\x03\x01\x00\x04\x01\x00\x00\x00" // a ClientHello as far as the relay looks
				_, _ = io.WriteString(c, "SSH-2.0-"+hello+"\r\n")
				_, _ = io.ReadFull(up, make([]byte, 8+len(hello)+2))
				_, _ = io.WriteString(up, "hello")
				_, _ = io.ReadFull(c, make([]byte, 5))
				held = append(held, socketAlone(b, up))
				return c
			}
		} else {
			config := &tls.Config{RootCAs: roots, ServerName: name}
			open = func() net.Conn { return tls.Client(benchConnectTo(b, address, host), config) }
		}
	}
	target := ""
	if !secure {
		target = o.URL
	}
	one := func() {
		c := open()
		if mode != "tunnel" || !secure {
			fmt.Fprintf(c, "GET %s/v1/items HTTP/1.1\r\nHost: %s\r\n\r\n", target, o.Listener.Addr())
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				b.Fatal(err)
			}
			o.check(b, resp)
		}
		held = append(held, socketAlone(b, c))
	}
	for range 50 {
		one() // what is made once is made now
	}
	for b.Loop() {
		heap, stacks, files := resting()
		for range clients {
			one()
		}
		after, stacksAfter, filesAfter := resting()
		held := filesAfter - files - clients // less the client's own
		if secure && mode == "tunnel" {
			held -= clients // and the origin's
		}
		b.ReportMetric(float64(after-heap)/clients, "heap-B/conn")
		b.ReportMetric(float64(stacksAfter-stacks)/clients, "stack-B/conn")
		b.ReportMetric(float64(after-heap+stacksAfter-stacks)/clients/1024, "KiB/conn")
		b.ReportMetric(float64(held)/clients, "fds/conn")
	}
	if dir := os.Getenv("IDLE_PROFILE"); dir != "" {
		f, err := os.Create(filepath.Join(dir, filepath.Base(b.Name())+".pprof"))
		if err != nil {
			b.Fatal(err)
		}
		_ = pprof.WriteHeapProfile(f)
		_ = f.Close()
		g, err := os.Create(filepath.Join(dir, filepath.Base(b.Name())+".goroutines"))
		if err == nil {
			_ = pprof.Lookup("goroutine").WriteTo(g, 1)
			_ = g.Close()
		}
	}
}

// resting is what the process holds when all has come to rest.
func resting() (heap, stacks int64, files int) {
	time.Sleep(200 * time.Millisecond)
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	open, _ := os.ReadDir("/proc/self/fd")
	return int64(m.HeapAlloc), int64(m.StackInuse), len(open)
}

// socketAlone keeps a connection's socket and lets go of the rest, TLS without its goodbye.
func socketAlone(b *testing.B, c net.Conn) *os.File {
	b.Helper()
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		b.Fatal(err)
	}
	_ = c.Close()
	return f
}

func benchDial(b *testing.B, address string) net.Conn {
	b.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func benchConnectTo(b *testing.B, address, host string) net.Conn {
	b.Helper()
	c := benchDial(b, address)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("CONNECT: %v, %v", resp, err)
	}
	return c
}
