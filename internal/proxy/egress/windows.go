package egress

import (
	"encoding/binary"
	"math"
	"sync"
)

// Types and flags of frames (RFC 9113 section 6).
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	frameWindowUpdate = 8
	flagEndStream     = 1
)

const (
	headerSize        = 9
	windowUpdateSize  = headerSize + 4
	settingSize       = 6
	windowSizeSetting = 4
	firstWindow       = 65535 // of a stream, before the upstream's SETTINGS
)

// windows are how much the upstream lets be sent on each stream that has a request's body to send. net/http locks up where a WINDOW_UPDATE makes one larger than it may
// be, and with the connection all others of the transport: it never gets to see such a frame, and none for another stream either, to which it means nothing.
type windows struct {
	mu      sync.Mutex
	initial int64
	left    map[uint32]int64

	out   frames            // what is written
	entry [settingSize]byte // of SETTINGS
	at    int               // bytes of it that are here
}

// frames follows the frames of a stream of bytes (RFC 9113 section 4.1).
type frames struct {
	header [headerSize]byte
	n      int // bytes of it that are here
	left   int // bytes of the payload that are still to come
}

func (f *frames) kind() byte     { return f.header[3] }
func (f *frames) ends() bool     { return f.header[4]&flagEndStream != 0 }
func (f *frames) stream() uint32 { return binary.BigEndian.Uint32(f.header[5:]) & math.MaxInt32 }

// next takes what is left of a frame's header, or some of its payload, from p. begun: the header is complete with that.
func (f *frames) next(p []byte) (n int, begun bool) {
	if f.left > 0 {
		n = min(f.left, len(p))
		f.left -= n
		return n, false
	}
	n = copy(f.header[f.n:], p)
	if f.n += n; f.n < len(f.header) {
		return n, false
	}
	f.n = 0
	f.left = int(f.header[0])<<16 | int(binary.BigEndian.Uint16(f.header[1:]))
	return n, true
}

// open begins a connection, whose first bytes are the client's preface (RFC 9113 section 3.4).
func (w *windows) open() {
	w.initial, w.left, w.out.left = firstWindow, map[uint32]int64{}, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
}

// sent looks at what is about to be written.
func (w *windows) sent(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(p) > 0 {
		n, begun := w.out.next(p)
		if p = p[n:]; !begun {
			continue
		}
		id, ends := w.out.stream(), w.out.ends()
		left, known := w.left[id]
		switch w.out.kind() {
		case frameHeaders:
			switch {
			case known && ends: // trailers
				delete(w.left, id)
			case !known && !ends:
				w.left[id] = w.initial
			}
		case frameData:
			if ends {
				delete(w.left, id)
			} else if known {
				w.left[id] = left - int64(w.out.left)
			}
		case frameReset:
			delete(w.left, id)
		}
	}
}

// grow takes a WINDOW_UPDATE for a stream. wanted: it means something.
func (w *windows) grow(id, by uint32) (wanted bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	left, known := w.left[id]
	if !known {
		return false, nil
	}
	if left += int64(by & math.MaxInt32); left > math.MaxInt32 {
		return false, tooLarge()
	}
	w.left[id] = left
	return true, nil
}

// end forgets a stream that the upstream has reset.
func (w *windows) end(id uint32) {
	w.mu.Lock()
	delete(w.left, id)
	w.mu.Unlock()
}

// settings reads a part of the payload of SETTINGS (RFC 9113 section 6.9.2).
func (w *windows) settings(p []byte) error {
	for _, b := range p {
		w.entry[w.at] = b
		if w.at++; w.at < settingSize {
			continue
		}
		w.at = 0
		if binary.BigEndian.Uint16(w.entry[:]) != windowSizeSetting {
			continue
		}
		if err := w.resize(int64(binary.BigEndian.Uint32(w.entry[2:]))); err != nil {
			return err
		}
	}
	return nil
}

func (w *windows) resize(initial int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	by := initial - w.initial
	w.initial = initial
	for id, left := range w.left {
		if left+by > math.MaxInt32 {
			return tooLarge()
		}
		w.left[id] = left + by
	}
	return nil
}

func tooLarge() error { return malformed("the upstream lets more be sent than HTTP/2 can count") }
