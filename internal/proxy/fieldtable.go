package proxy

import (
	"encoding/binary"
	"errors"
)

// fieldTable reads along with a client's HTTP/2 connection and keeps the size of the table that answers' fields are coded with (RFC 9113 section 6.5.2) as the
// client's first SETTINGS had it. net/http changes it while another goroutine codes with it, and two goroutines at one map end the process.
type fieldTable struct {
	started bool   // the first SETTINGS are over
	size    uint32 // that the client grants, as far as it is used

	header [9]byte // of the frame that is read
	n      int     // bytes of it that are here
	left   int     // bytes of the payload that are still to come
	entry  [6]byte // of SETTINGS
	at     int     // bytes of it that are here

	data int64 // of all payloads that count against the connection's window
}

// usedTable is how much of the table net/http uses of what a client grants (RFC 7541 section 4.2).
const usedTable = 4096

// A setting that nobody has defined, which has to be ignored. It differs from the table's size in the second byte alone: the first may be gone when that comes.
const (
	tableSizeSetting = 0x0001
	noSetting        = 0x00f1
)

var errSmallerTable = errors.New("the client makes its table of fields smaller in mid-connection")

// pass makes p what the server may read. A larger table than the one in use need not be used; a smaller one cannot be granted any more.
func (t *fieldTable) pass(p []byte) error {
	const data, settings = 0, 4
	for len(p) > 0 {
		if t.left == 0 {
			n := copy(t.header[t.n:], p)
			p = p[n:]
			if t.n += n; t.n < len(t.header) {
				return nil
			}
			t.n, t.at = 0, 0
			t.left = int(t.header[0])<<16 | int(t.header[1])<<8 | int(t.header[2])
			if t.header[3] == data {
				t.data += int64(t.left)
			}
		}
		part := p[:min(t.left, len(p))]
		p = p[len(part):]
		t.left -= len(part)
		if t.header[3] == settings {
			if err := t.settings(part); err != nil {
				return err
			}
		}
		t.started = t.started || t.left == 0
	}
	return nil
}

// settings looks at a part of a SETTINGS frame's payload.
func (t *fieldTable) settings(p []byte) error {
	for i := range p {
		t.entry[t.at] = p[i]
		t.at++
		id := binary.BigEndian.Uint16(t.entry[:])
		switch {
		case t.at == 2 && id == tableSizeSetting && t.started:
			p[i] = noSetting & 0xff
		case t.at < len(t.entry):
			continue
		case id == tableSizeSetting:
			size := min(binary.BigEndian.Uint32(t.entry[2:]), usedTable)
			if t.started && size < t.size {
				return errSmallerTable
			}
			if !t.started {
				t.size = size
			}
		}
		t.at %= len(t.entry)
	}
	return nil
}
