package egress

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"httpowerd/internal/proxy/h2"
)

// objecting is an upstream's HTTP/2 connection that counts what comes and goes, and the streams which the upstream resets with PROTOCOL_ERROR, and keeps windows. net/http sends the
// requests of those streams again where they have no body, writes too, and does not say why: after REFUSED_STREAM and GOAWAY, for which it does the same, nothing can have
// been done (RFC 9113 section 8.7), but here it can.
type objecting struct {
	*tls.Conn
	objections atomic.Int64
	reads      atomic.Int64          // that brought something
	writes     atomic.Int64          // that the upstream has taken
	broke      atomic.Pointer[error] // why there is no more to read; nil: there may be
	windows    windows

	settled chan struct{} // closed when the upstream's first frame is here, its SETTINGS, or nothing can come any more
	told    bool          // it is

	in   h2.Frames
	code uint32 // what has come of a RST_STREAM's
	held []byte // the beginning of a WINDOW_UPDATE, or of a header that may be one's
}

func newObjecting(c *tls.Conn) *objecting {
	o := &objecting{Conn: c, settled: make(chan struct{})}
	o.windows.open()
	return o
}

// firstInLine is longer than a sync.Mutex has somebody wait who is first in line.
const firstInLine = 2 * time.Millisecond

// Write follows the frames that are written. The first request goes at once. Others wait until the upstream has said how many it takes: before, net/http sends it up to a hundred,
// and it refuses what is too much. net/http takes that up under the lock that is held here, and has to get it before the requests behind this one.
func (o *objecting) Write(p []byte) (int, error) {
	if o.windows.sent(p) {
		<-o.settled
		time.Sleep(firstInLine)
	}
	n, err := o.Conn.Write(p)
	o.writes.Add(1)
	return n, err
}

// Read follows the frames that are read. Headers are read into a buffer that has room for what is held.
func (o *objecting) Read(p []byte) (int, error) {
	if len(p) <= len(o.held) {
		return 0, io.ErrShortBuffer
	}
	for {
		held := copy(p, o.held)
		o.held = o.held[:0]
		n, err := o.Conn.Read(p[held:])
		if n > 0 {
			o.reads.Add(1)
		}
		if err != nil {
			o.broke.Store(&err)
			o.settle()
		}
		n, refused := o.pass(p[:held+n])
		if refused != nil {
			return 0, refused
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// pass returns how many bytes of p go on, from its beginning.
func (o *objecting) pass(p []byte) (passed int, err error) {
	for len(p) > passed {
		rest := p[passed:]
		if o.in.Left == 0 {
			whole, wanted, err := o.windowUpdate(rest)
			switch {
			case err != nil:
				return 0, err
			case !whole:
				o.held = append(o.held, rest...)
				return passed, nil
			case !wanted:
				p = append(p[:passed], rest[windowUpdateSize:]...)
				continue
			}
		}
		payload, left, begun := o.in.Next(rest)
		passed += len(rest) - len(left)
		if begun {
			o.begin()
		} else if err := o.payload(payload); err != nil {
			return 0, err
		}
		if !o.told && o.in.Between() {
			o.settle()
		}
	}
	return passed, nil
}

func (o *objecting) settle() {
	if !o.told {
		o.told = true
		close(o.settled)
	}
}

// windowUpdate looks at a frame's beginning. wanted: it is no WINDOW_UPDATE, or one that net/http may see.
func (o *objecting) windowUpdate(p []byte) (whole, wanted bool, err error) {
	if len(p) < h2.HeaderSize {
		return false, false, nil
	}
	f := h2.Frames{Header: [h2.HeaderSize]byte(p)}
	id := f.Stream()
	if f.Kind() != h2.WindowUpdate || id == 0 || p[0] != 0 || p[1] != 0 || p[2] != windowUpdateSize-h2.HeaderSize {
		return true, true, nil
	}
	if len(p) < windowUpdateSize {
		return false, false, nil
	}
	wanted, err = o.windows.grow(id, binary.BigEndian.Uint32(p[h2.HeaderSize:]))
	return true, wanted, err
}

// begin is called when a frame's header is complete.
func (o *objecting) begin() {
	o.code, o.windows.at = 0, 0
	if o.in.Kind() == h2.Reset {
		o.windows.end(o.in.Stream())
	}
}

func (o *objecting) payload(p []byte) error {
	switch o.in.Kind() {
	case h2.Settings:
		return o.windows.settings(p)
	case h2.Reset:
		for _, b := range p {
			o.code = o.code<<8 | uint32(b)
		}
		if o.in.Left == 0 && o.code == codeProtocol {
			o.objections.Add(1)
		}
	}
	return nil
}

// watchObjections has a transport read HTTP/2 through objecting.
func watchObjections(t *http.Transport) {
	t.CloseIdleConnections() // which puts the implementation into TLSNextProto
	open := t.TLSNextProto[h2.Unencrypted]
	if open == nil {
		return
	}
	t.TLSNextProto["h2"] = func(authority string, c *tls.Conn) http.RoundTripper {
		return open(authority, h2.Conn(newObjecting(c)))
	}
}
