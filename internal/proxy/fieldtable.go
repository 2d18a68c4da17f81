package proxy

import (
	"encoding/binary"
	"errors"

	"httpowerd/internal/proxy/h2"
)

// fieldTable reads along with a client's HTTP/2 connection and keeps the size of the table that answers' fields are coded with (RFC 9113 section 6.5.2) as the
// client's first SETTINGS had it. net/http changes it while another goroutine codes with it, and two goroutines at one map end the process.
type fieldTable struct {
	started bool   // the first SETTINGS are over
	size    uint32 // that the client grants, as far as it is used

	frames h2.Frames
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
	for len(p) > 0 {
		payload, rest, begun := t.frames.Next(p)
		p = rest
		if begun {
			t.at = 0
			if t.frames.Kind() == h2.Data {
				t.data += int64(t.frames.Left)
			}
		}
		if t.frames.Kind() == h2.Settings {
			if err := t.settings(payload); err != nil {
				return err
			}
		}
		t.started = t.started || t.frames.Between()
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
