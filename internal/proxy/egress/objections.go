package egress

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/http"
	"sync/atomic"
)

// objecting is an upstream's HTTP/2 connection that counts the streams which the upstream resets with PROTOCOL_ERROR. net/http sends their requests again where they have
// no body, writes too, and does not say why: after REFUSED_STREAM and GOAWAY, for which it does the same, nothing can have been done (RFC 9113 section 8.7), but here it can.
type objecting struct {
	*tls.Conn
	objections atomic.Int64

	header [9]byte // of the frame that is read (RFC 9113 section 4.1)
	n      int     // bytes of it that are here
	left   int     // bytes of the payload that are still to come
	code   uint32  // what has come of a RST_STREAM's
}

// Read follows the frames that are read.
func (o *objecting) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	o.pass(p[:n])
	return n, err
}

func (o *objecting) pass(p []byte) {
	const reset = 3
	for len(p) > 0 {
		if o.left == 0 {
			n := copy(o.header[o.n:], p)
			p = p[n:]
			if o.n += n; o.n < len(o.header) {
				return
			}
			o.n, o.code = 0, 0
			o.left = int(o.header[0])<<16 | int(binary.BigEndian.Uint16(o.header[1:]))
		}
		part := p[:min(o.left, len(p))]
		p = p[len(part):]
		o.left -= len(part)
		if o.header[3] != reset {
			continue
		}
		for _, b := range part {
			o.code = o.code<<8 | uint32(b)
		}
		if o.left == 0 && o.code == codeProtocol {
			o.objections.Add(1)
		}
	}
}

// unencryptedHTTP2 is the key under which net/http keeps its HTTP/2 for connections that are none of crypto/tls, in TLSNextProto. It takes them in a *tls.Conn
// around a connection that has UnencryptedNetConn.
const unencryptedHTTP2 = "unencrypted_http2"

type handedOver struct{ net.Conn }

// UnencryptedNetConn is for net/http.
func (h handedOver) UnencryptedNetConn() net.Conn { return h.Conn }

// watchObjections has a transport read HTTP/2 through objecting.
func watchObjections(t *http.Transport) {
	t.CloseIdleConnections() // which puts the implementation into TLSNextProto
	open := t.TLSNextProto[unencryptedHTTP2]
	if open == nil {
		return
	}
	t.TLSNextProto["h2"] = func(authority string, c *tls.Conn) http.RoundTripper {
		return open(authority, tls.Client(handedOver{&objecting{Conn: c}}, nil))
	}
}
