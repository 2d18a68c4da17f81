package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"httpowerd/internal/exchange"
)

// serverConn is a client's connection. It has a buffer only while a request is read or served.
type serverConn struct {
	net.Conn
	server *Server
	base   context.Context // of its requests
	remote string
	since  time.Time

	raw  syscall.RawConn // of the socket below; nil: unknown
	bare bool            // the connection adds nothing to the socket's bytes
	io   rawIO
	out  RawWriter // where bare
	tls  *UnderTLS // below TLS, whose reads can be told not to wait; nil: there is none
	id   uint64    // the watcher's; 0: it is not watched

	watched bool // it has been asked to be

	spent  *served // the exchange behind which turn must not go on
	fate   fate    // of the connection behind spent
	failed error   // what TLS said in the place of bytes

	state    atomic.Int32
	parkedAt atomic.Uint32 // how many sweeps there had been; see Server.sweep
	patience uint32        // sweeps it may wait before it rests; under Server.mu
	restedAt time.Time     // when it last began to; under Server.mu
	kept     bool          // a request has been served
	in       *buffer
	r, w     int       // what is read and not consumed: in.b[r:w]
	deadline time.Time // of reads, as far as it is known; zero: none, or unknown
	unknown  bool      // somebody else may have changed it

	mu     sync.Mutex
	serves *exchange.Root // the context of the request that is served
	gone   bool           // the client has closed its side
	ending atomic.Bool    // it has, perhaps behind bytes that were not read yet
}

func newServerConn(s *Server, c net.Conn) *serverConn {
	sc := &serverConn{Conn: c, server: s, base: context.Background(), remote: c.RemoteAddr().String(), since: time.Now(), patience: 1}
	if s.Context != nil {
		sc.base = s.Context(sc.base, c)
	}
	socket, bare := socketOf(c)
	if socket != nil && rawCalls {
		if raw, err := socket.SyscallConn(); err == nil {
			sc.raw, sc.bare = raw, bare
			sc.io.bind(raw)
			if canRest {
				sc.io.turn = sc.turn
			}
			if bare {
				sc.out.Bind(raw)
			} else {
				sc.tls = underTLS(c)
			}
		}
	}
	return sc
}

// Transparent is a connection around another one whose bytes it passes on as they are.
type Transparent interface {
	NetConn() net.Conn
	Transparent() bool // false while it has bytes of its own to give first
}

// socketOf finds the socket below wrappers, and tells whether they add nothing to its bytes.
func socketOf(c net.Conn) (_ *net.TCPConn, bare bool) {
	bare = true
	for {
		switch v := c.(type) {
		case *net.TCPConn:
			return v, bare
		case Transparent:
			bare = bare && v.Transparent()
			c = v.NetConn()
		case interface{ NetConn() net.Conn }: // TLS
			bare = false
			c = v.NetConn()
		default:
			return nil, false
		}
	}
}

// serve answers requests until the connection ends, is taken over, or rests.
func (c *serverConn) serve() (rests bool) {
	if c.kept { // it has rested
		c.server.watch.expect(c, false)
		c.setDeadline(c.deadline)
	} else {
		c.setDeadline(c.since.Add(c.server.HeaderTimeout))
	}
	for {
		e, refusal, err := c.next()
		if c.state.Load() == nudged && errors.Is(err, os.ErrDeadlineExceeded) {
			if c.server.rest(c) {
				return true
			}
			c.setDeadline(c.deadline)
			if !c.waits() {
				_ = c.Conn.Close()
				return false
			}
			continue
		}
		if err == errSpent {
			c.conclude(c.spent, c.fate)
			return false
		}
		if err != nil {
			c.free()
			_ = c.Conn.Close()
			return false
		}
		if e == nil && refusal == nil {
			return false // Shutdown closed it
		}
		if refusal != nil {
			e = c.refused()
		}
		if f := c.exchange(e, refusal); f != goesOn {
			c.conclude(e, f)
			return false
		}
		if !c.park() {
			_ = c.Conn.Close()
			return false
		}
	}
}

// park readies the connection for another request; false: as with waits.
func (c *serverConn) park() bool {
	c.kept = true
	if c.r == c.w {
		c.free()
		c.await()
	}
	c.parkedAt.Store(c.server.sweeps.Load())
	return c.waits()
}

// waits says that the connection does; false: it is for the caller to close it instead.
func (c *serverConn) waits() bool {
	c.state.Store(parked)
	return !c.server.draining.Load() || !c.dismiss(false)
}

// dismiss tells whether the connection may be closed, as it waits for a request; one that never had one may be only if silent.
func (c *serverConn) dismiss(silent bool) bool {
	return c.state.CompareAndSwap(parked, finished) || silent && c.state.CompareAndSwap(fresh, finished)
}

// wake tells that a request has begun. It is false where Shutdown was faster.
func (c *serverConn) wake() bool {
	if c.state.CompareAndSwap(parked, active) || c.state.CompareAndSwap(fresh, active) {
		return true
	}
	if c.state.CompareAndSwap(nudged, active) {
		c.settled()
		c.setDeadline(time.Now().Add(c.server.HeaderTimeout))
	}
	return c.state.Load() == active
}

// setDeadline sets the read deadline.
func (c *serverConn) setDeadline(t time.Time) {
	c.deadline, c.unknown = t, false
	_ = c.SetReadDeadline(t)
}

// await sets the deadline for a kept connection's next request. One that is nearly as good stays: to move it costs.
func (c *serverConn) await() {
	idle := c.server.Idle
	if idle <= 0 {
		c.anyTime()
		return
	}
	now := exchange.Now()
	if c.unknown || c.deadline.IsZero() || c.deadline.Before(now.Add(idle-idle/8)) || c.deadline.After(now.Add(idle)) {
		c.setDeadline(now.Add(idle))
	}
}

// anyTime lifts the read deadline.
func (c *serverConn) anyTime() {
	if c.unknown || !c.deadline.IsZero() {
		c.setDeadline(time.Time{})
	}
}

// next reads a request's head. It blocks without a buffer while nothing comes.
func (c *serverConn) next() (*served, *exchange.Refusal, error) {
	h := headScan{}
	at := 0 // where the next line begins, behind c.r
	partial := false
	for {
		if refusal, done := c.scan(&h, &at); refusal != nil {
			if !c.wake() {
				return nil, nil, nil
			}
			return nil, refusal, nil
		} else if done {
			if !c.wake() {
				return nil, nil, nil
			}
			if refusal := h.finish(); refusal != nil {
				return nil, refusal, nil
			}
			e := c.request(&h, at)
			return e, nil, nil
		}
		if c.w > c.r && !partial {
			partial = true
			if !c.wake() {
				return nil, nil, nil
			}
			if c.kept || c.deadline.IsZero() {
				c.setDeadline(time.Now().Add(c.server.HeaderTimeout))
			}
		}
		if err := c.fill(); err != nil {
			return nil, nil, err
		}
	}
}

// scan judges the lines that are complete.
func (c *serverConn) scan(h *headScan, at *int) (refusal *exchange.Refusal, done bool) {
	most := c.server.MaxHead
	for c.w > c.r {
		b := c.in.b[c.r:c.w]
		if len(b) > most {
			b = b[:most]
		}
		rest := b[*at:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			if len(b) >= most {
				return h.tooLarge(), false
			}
			return h.partial(rest), false
		}
		line := rest[:end]
		if end == 0 || line[end-1] != '\r' {
			return h.refuse(line, "a line ends without a carriage return"), false
		}
		*at += end + 1
		line = line[:end-1]
		if len(line) == 0 {
			if done, refusal := h.emptyLine(); done || refusal != nil {
				return refusal, done
			}
			continue
		}
		if refusal := h.add(line); refusal != nil {
			return refusal, false
		}
	}
	return nil, false
}

// fill reads more behind what is there.
func (c *serverConn) fill() error {
	if c.in == nil {
		if c.bare {
			return c.firstBytes()
		}
		if c.tls != nil {
			return c.firstRecord()
		}
		c.in = getBuffer()
		c.in.b = c.in.b[:cap(c.in.b)]
		c.r, c.w = 0, 0
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.w == len(c.in.b) {
		if c.r > 0 {
			c.w = copy(c.in.b, c.in.b[c.r:c.w])
			c.r = 0
		} else {
			c.in.b = append(c.in.b, make([]byte, len(c.in.b))...)
			c.in.b = c.in.b[:cap(c.in.b)]
		}
	}
	n, err := c.readConn(c.in.b[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// firstBytes waits for a request and takes a buffer when it comes.
func (c *serverConn) firstBytes() error {
	in, n, err := c.io.arrive()
	if in != nil {
		c.in, c.r, c.w = in, 0, n
	}
	return c.turned(err)
}

// firstRecord is firstBytes for TLS, which may hold a part of the request, or of a record, already.
func (c *serverConn) firstRecord() error {
	for !c.decrypt() {
		if c.failed != nil {
			return c.failed
		}
		if err := c.turned(c.tls.arrive(&c.io)); err != nil || c.in != nil {
			return err
		}
	}
	return nil
}

func (c *serverConn) readConn(p []byte) (int, error) {
	if c.bare {
		return c.io.read(p)
	}
	for {
		n, err := c.Conn.Read(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// here reads without waiting what has come, so that n bytes are in the buffer; false: they are not.
func (c *serverConn) here(n int64) bool {
	if int64(c.w-c.r) >= n {
		return true
	}
	if !c.bare || n > int64(len(c.in.b)) {
		return false
	}
	if int64(len(c.in.b)-c.r) < n {
		c.w = copy(c.in.b, c.in.b[c.r:c.w])
		c.r = 0
	}
	m, _ := c.io.try(c.in.b[c.w:]) // what is wrong shows at the read that waits
	c.w += m
	return int64(c.w-c.r) >= n
}

func (c *serverConn) free() {
	if c.in != nil {
		c.in.b = c.in.b[:cap(c.in.b)]
		putBuffer(c.in)
		c.in = nil
	}
	c.r, c.w = 0, 0
}

// left tells the connection that its client has closed it.
func (c *serverConn) left() { c.leave(nil) }

// leave ends the request that is served, and those to come.
func (c *serverConn) leave(cause error) {
	c.mu.Lock()
	c.gone = true
	serves := c.serves
	c.mu.Unlock()
	if serves != nil {
		serves.Cancel(cause)
	}
}

// begin gives a request its context.
func (c *serverConn) begin(e *served) {
	e.root.From(c.base)
	e.req = *e.req.WithContext(&e.root)
	if !c.watched && e.req.Method != http.MethodConnect { // a tunnel's connection is taken over
		c.watched = true
		c.id = c.server.watch.add(c)
	}
	c.mu.Lock()
	c.serves = &e.root
	gone := c.gone && (c.r == c.w || c.server.cutBy() != nil)
	c.mu.Unlock()
	if gone {
		e.root.Cancel(c.server.cutBy())
	}
	c.drained()
}

// drained looks, where a request has been read to its end, whether its client left behind it: the watcher said so while there was more to read.
func (c *serverConn) drained() {
	if c.ending.Load() && c.r == c.w && nothingUnread(c.raw) {
		c.left()
	}
}

func (c *serverConn) end() {
	c.mu.Lock()
	serves := c.serves
	c.serves = nil
	c.mu.Unlock()
	if serves != nil {
		serves.Cancel(nil)
	}
}

// fate is what becomes of a connection behind an exchange.
type fate uint8

const (
	goesOn  fate = iota // another request may follow
	taken               // it is somebody else's
	ends                // it is to be closed
	lingers             // the same, when its client has had time to see the answer
	breaks              // the same, and its client is not to take the answer for whole
)

// exchange runs the handler.
func (c *serverConn) exchange(e *served, refusal *exchange.Refusal) fate {
	c.begin(e)
	defer c.end()
	w := &e.w
	switch panicked := c.handle(e, refusal); {
	case w.hijacked:
		return taken
	case panicked:
		if w.abort() {
			return breaks
		}
		return ends
	}
	err := w.finish()
	c.end() // whoever still works for this request should know that nobody waits
	switch {
	case err != nil:
		return ends
	case refusal == nil && !w.last && e.body.rest():
		if w.boundedWrites.Load() {
			_ = c.SetWriteDeadline(time.Time{})
		}
		c.unknown = c.unknown || w.boundedReads.Load()
		return goesOn
	}
	return lingers
}

// conclude ends a connection.
func (c *serverConn) conclude(e *served, f fate) {
	switch f {
	case taken:
		return
	case breaks:
		c.reset()
	case lingers:
		c.linger(e)
	}
	e.body.stop()
	c.free()
	_ = c.Conn.Close()
}

// handle calls the handler, and tells whether it panicked.
func (c *serverConn) handle(e *served, refusal *exchange.Refusal) (panicked bool) {
	defer func() {
		if p := recover(); p != nil {
			panicked = true
			if p != http.ErrAbortHandler {
				c.server.logger().Error("a handler panicked", "panic", p, "stack", string(debug.Stack()))
			}
		}
	}()
	if refusal != nil {
		c.server.Refused(&e.w, &e.req, refusal)
		return false
	}
	c.server.Handler.ServeHTTP(&e.w, &e.req)
	return false
}

// lingerTime and lingerBytes bound what is still read from a client whose connection ends, so that the answer reaches it before a reset does (RFC 9112
// section 9.6). Of an upload that is on its way more is read.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// linger half-closes, and reads on for a moment where the client may still be sending: an upload for as long as a head may take, for many clients look at no answer
// before they have written all of it. One that goes on is then given a moment more in which nothing is read: it has to stop, and sees its answer.
func (c *serverConn) linger(e *served) {
	sending := !e.body.stop()
	if !sending && c.r == c.w && !e.w.refusing {
		return
	}
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	wait, most := lingerTime, int64(lingerBytes)
	if sending {
		wait, most = max(wait, c.server.HeaderTimeout), math.MaxInt64
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	n, err := io.CopyN(io.Discard, c.Conn, most)
	if err == nil || n >= lingerBytes && errors.Is(err, os.ErrDeadlineExceeded) {
		time.Sleep(lingerTime)
	}
}

// reset makes the end of the connection look like none, for an answer that only that end frames.
func (c *serverConn) reset() {
	if socket, _ := socketOf(c.Conn); socket != nil {
		_ = socket.SetLinger(0)
		_ = socket.Close()
	}
}
