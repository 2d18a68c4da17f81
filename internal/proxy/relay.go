package proxy

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"httpowerd/internal/proxy/pipe"
	"httpowerd/internal/proxy/wire"
)

// spliceAfter is how many bytes a direction copies before it splices: short exchanges never pay for a pipe.
const spliceAfter = 256 << 10

// pump moves one direction of a tunnel. While it waits it holds neither a buffer nor a pipe.
type pump struct {
	dst, src net.Conn
	moved    atomic.Int64

	in, out syscall.RawConn // of the sockets themselves; nil where TLS is between
	writer  wire.RawWriter  // to out
	buf     *[copyBuffer]byte
	n       int
	unsent  int         // bytes that a failed write left
	bye     atomic.Bool // what was passed last is TLS's goodbye
	err     error
	ready   func(fd uintptr) bool // p.fill, bound once
	patient *wire.Patient         // reads src without a buffer where TLS is between; nil: src is read as it is
}

func newPump(dst, src net.Conn) *pump {
	p := &pump{dst: dst, src: src, in: rawConn(src), out: rawConn(dst)}
	p.ready = p.fill
	if p.out != nil {
		p.writer.Bind(p.out)
	}
	if p.in == nil {
		p.patient = wire.NewPatient(src)
	}
	return p
}

// next waits for bytes. They stay valid until release.
func (p *pump) next() ([]byte, error) {
	if p.in == nil && p.patient != nil {
		p.n, p.err = p.patient.Read(p.take, p.release)
	} else if p.in == nil {
		p.n, p.err = p.src.Read(p.take())
	} else if err := p.in.Read(p.ready); err != nil {
		p.n, p.err = 0, err
	}
	if p.n == 0 && p.err == nil {
		p.err = io.EOF
	}
	if p.n > 0 {
		return p.buf[:p.n], nil
	}
	p.release()
	return nil, p.err
}

// fill reads what the socket has, or tells the poller to wait.
func (p *pump) fill(fd uintptr) bool {
	p.buf = buffers.Get().(*[copyBuffer]byte)
	p.n, p.err = readSocket(fd, p.buf[:])
	if p.err == syscall.EAGAIN {
		p.release()
		return false
	}
	return true
}

func (p *pump) take() []byte {
	p.buf = buffers.Get().(*[copyBuffer]byte)
	return p.buf[:]
}

func (p *pump) release() {
	if p.buf != nil {
		buffers.Put(p.buf)
		p.buf = nil
	}
}

// pass writes what next returned.
func (p *pump) pass(b []byte) error {
	if bye := len(b) <= farewellBytes && closesTLS(b); bye != p.bye.Load() {
		p.bye.Store(bye) // before it is written: what it leads to may be seen at once
	}
	var n int
	var err error
	if p.out != nil {
		n, err = p.writer.Write(b)
	} else {
		n, err = p.dst.Write(b)
	}
	p.moved.Add(int64(n))
	p.unsent = len(b) - n
	p.release()
	return err
}

// Which side of a pump failed.
type pumpSide uint8

const (
	sourceSide pumpSide = iota
	sinkSide
)

// run copies until the source ends (no error) or one side fails.
func (p *pump) run() (pumpSide, error) {
	for p.in == nil || p.out == nil || p.moved.Load() < spliceAfter {
		b, err := p.next()
		if err == io.EOF {
			return sourceSide, nil
		}
		if err != nil {
			return sourceSide, err
		}
		if err := p.pass(b); err != nil {
			return sinkSide, err
		}
	}
	return p.runSplice()
}

// runSplice is run by way of a pipe. It falls back to copying where the kernel does not splice these sockets.
func (p *pump) runSplice() (pumpSide, error) {
	s := pipe.New(&p.moved)
	defer s.Close()
	for {
		n, err := s.Move(p.in, pipe.Size)
		switch {
		case pipe.Unavailable(err):
			p.in = nil
			return p.run()
		case err != nil:
			return sourceSide, err
		case n == 0:
			return sourceSide, nil
		}
		if _, err = s.Drain(p.out); err != nil {
			p.unsent = s.Held()
			return sinkSide, err
		}
	}
}

// rawConn is the socket below c where nothing between changes or keeps bytes.
func rawConn(c net.Conn) syscall.RawConn {
	switch c := c.(type) {
	case *net.TCPConn:
		return socketOf(c)
	case *conn:
		if c.guard == nil {
			return rawConn(c.Conn)
		}
	case *prefixed:
		if len(c.ahead) == 0 {
			return rawConn(c.Conn)
		}
	}
	return nil
}
