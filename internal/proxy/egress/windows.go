package egress

import (
	"encoding/binary"
	"math"
	"sync"

	"httpowerd/internal/proxy/h2"
)

const (
	windowUpdateSize  = h2.HeaderSize + 4
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
	first   uint32 // stream
	acked   bool   // the upstream's SETTINGS were acknowledged: what they say has been taken up

	out   h2.Frames         // what is written
	entry [settingSize]byte // of SETTINGS
	at    int               // bytes of it that are here
}

// open begins a connection, whose first bytes are the client's preface (RFC 9113 section 3.4).
func (w *windows) open() {
	w.initial, w.left, w.out.Left = firstWindow, map[uint32]int64{}, len(h2.Preface)
}

// sent looks at what is about to be written. early: it begins a stream that is not the first, and the upstream's SETTINGS were not acknowledged.
func (w *windows) sent(p []byte) (early bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(p) > 0 {
		_, rest, begun := w.out.Next(p)
		if p = rest; !begun {
			continue
		}
		id, ends := w.out.Stream(), w.out.Has(h2.EndStream)
		left, known := w.left[id]
		switch w.out.Kind() {
		case h2.Headers:
			if w.first == 0 {
				w.first = id
			}
			early = early || !w.acked && id != w.first
			switch {
			case known && ends: // trailers
				delete(w.left, id)
			case !known && !ends:
				w.left[id] = w.initial
			}
		case h2.Data:
			if ends {
				delete(w.left, id)
			} else if known {
				w.left[id] = left - int64(w.out.Left)
			}
		case h2.Reset:
			delete(w.left, id)
		case h2.Settings:
			w.acked = w.acked || w.out.Has(h2.Ack)
		}
	}
	return early
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
