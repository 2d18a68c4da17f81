// Package h2 is what both sides need in order to stand between net/http's HTTP/2 and its connections.
package h2

import (
	"crypto/tls"
	"encoding/binary"
	"math"
	"net"
)

// Preface begins what a client sends (RFC 9113 section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// HeaderSize is how long a frame's header is (RFC 9113 section 4.1).
const HeaderSize = 9

// Types of frames (RFC 9113 section 6).
const (
	Data         = 0
	Headers      = 1
	Reset        = 3
	Settings     = 4
	WindowUpdate = 8
)

// Flags of frames.
const (
	EndStream  = 1
	Ack        = 1 // of SETTINGS
	EndHeaders = 4
)

// Frames follows the frames of a stream of bytes, however these come.
type Frames struct {
	Header [HeaderSize]byte // of the frame that has begun last
	Left   int              // bytes of its payload that are still to come

	n int // bytes of the next one's header that are here
}

// Kind is the frame's type.
func (f *Frames) Kind() byte { return f.Header[3] }

// Has tells whether the frame has one of these flags.
func (f *Frames) Has(flags byte) bool { return f.Header[4]&flags != 0 }

// Stream is the frame's stream; 0: the connection.
func (f *Frames) Stream() uint32 { return binary.BigEndian.Uint32(f.Header[5:]) & math.MaxInt32 }

// Between tells whether nothing of a frame is still to come.
func (f *Frames) Between() bool { return f.Left == 0 && f.n == 0 }

// Next takes what is missing of a frame's header, or some of its payload, from p. begun: the header is complete with that, and the payload is what follows.
func (f *Frames) Next(p []byte) (payload, rest []byte, begun bool) {
	if f.Left > 0 {
		n := min(f.Left, len(p))
		f.Left -= n
		return p[:n], p[n:], false
	}
	n := copy(f.Header[f.n:], p)
	if f.n += n; f.n < HeaderSize {
		return nil, p[n:], false
	}
	f.n = 0
	f.Left = int(f.Header[0])<<16 | int(binary.BigEndian.Uint16(f.Header[1:]))
	return nil, p[n:], true
}

// Unencrypted is the key under which net/http keeps its HTTP/2 for connections that are none of crypto/tls, in TLSNextProto.
const Unencrypted = "unencrypted_http2"

// Conn makes of a connection what net/http takes by Unencrypted: a *tls.Conn around one that has UnencryptedNetConn. A server takes it behind the preface.
func Conn(c net.Conn) *tls.Conn { return tls.Client(handedOver{c}, nil) }

type handedOver struct{ net.Conn }

// UnencryptedNetConn is for net/http.
func (h handedOver) UnencryptedNetConn() net.Conn { return h.Conn }
