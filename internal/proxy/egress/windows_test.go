package egress

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"httpowerd/internal/proxy/h2"
)

func h2Frame(kind, flags byte, stream uint32, payload string) string {
	head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return string(binary.BigEndian.AppendUint32(head, stream)) + payload
}

func windowUpdate(stream, by uint32) string {
	return h2Frame(h2.WindowUpdate, 0, stream, string(binary.BigEndian.AppendUint32(nil, by)))
}

func initialWindow(n uint32) string {
	return h2Frame(h2.Settings, 0, 0, "\x00\x03\x00\x00\x00\x64\x00\x04"+string(binary.BigEndian.AppendUint32(nil, n)))
}

// TestWindows: net/http sees no WINDOW_UPDATE that means nothing, and none by which a stream's window would be larger than 2^31-1 (RFC 9113 section 6.9.1).
func TestWindows(t *testing.T) {
	const most = 1<<31 - 1
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	begin := h2Frame(h2.Headers, 4, 1, "head")
	data := h2Frame(h2.Data, 0, 1, strings.Repeat("d", 1000))
	answer := h2Frame(h2.Headers, 4, 1, "head") + h2Frame(h2.Data, h2.EndStream, 1, strings.Repeat("\x00\x00\x04\x08", 9))
	for name, row := range map[string]struct {
		sent       string
		read, want string
		ends       bool
	}{
		"all that may be":        {begin, windowUpdate(1, most-firstWindow) + answer, windowUpdate(1, most-firstWindow) + answer, false},
		"one more":               {begin, answer + windowUpdate(1, most-firstWindow+1), "", true},
		"one more, in two":       {begin, windowUpdate(1, most-firstWindow) + windowUpdate(1, 1), "", true},
		"what was sent":          {begin + data, windowUpdate(1, most-firstWindow+1000) + answer, windowUpdate(1, most-firstWindow+1000) + answer, false},
		"more than was sent":     {begin + data, windowUpdate(1, most-firstWindow+1001), "", true},
		"larger at first":        {begin, initialWindow(most) + answer, initialWindow(most) + answer, false},
		"larger at first, grown": {begin, initialWindow(most) + windowUpdate(1, 1), "", true},
		"grown, larger at first": {begin, windowUpdate(1, 1) + initialWindow(most), "", true},
		"smaller at first":       {begin, initialWindow(0) + windowUpdate(1, most), initialWindow(0) + windowUpdate(1, most), false},
		"the connection's":       {begin, windowUpdate(0, most), windowUpdate(0, most), false},
		"no body":                {h2Frame(h2.Headers, 4|h2.EndStream, 1, "head"), windowUpdate(1, most) + answer + windowUpdate(1, most), answer, false},
		"no such stream":         {begin, answer + windowUpdate(7, most) + answer, answer + answer, false},
		"all sent":               {begin + data + h2Frame(h2.Data, h2.EndStream, 1, ""), windowUpdate(1, most) + answer, answer, false},
		"trailers sent":          {begin + data + h2Frame(h2.Headers, 4|h2.EndStream, 1, ""), windowUpdate(1, most) + answer, answer, false},
		"given up":               {begin + h2Frame(h2.Reset, 0, 1, "\x00\x00\x00\x08"), windowUpdate(1, most) + answer, answer, false},
		"reset":                  {begin, h2Frame(h2.Reset, 0, 1, "\x00\x00\x00\x01") + windowUpdate(1, most), h2Frame(h2.Reset, 0, 1, "\x00\x00\x00\x01"), false},
		"no increment":           {begin, windowUpdate(1, 0) + answer, windowUpdate(1, 0) + answer, false},
		"of another length":      {begin, h2Frame(h2.WindowUpdate, 0, 1, "12345") + answer, h2Frame(h2.WindowUpdate, 0, 1, "12345") + answer, false},
	} {
		for _, size := range []int{1, 3, 9, 12, 13, len(row.read)} {
			o := newObjecting(nil)
			for part := range slices.Chunk([]byte(preface+row.sent), size) {
				o.windows.sent(part)
			}
			var got []byte
			var err error
			for part := range slices.Chunk([]byte(row.read), size) {
				p := append(slices.Clone(o.held), part...)
				o.held = o.held[:0]
				var n int
				if n, err = o.pass(p); err != nil {
					break
				}
				got = append(got, p[:n]...)
			}
			if (err != nil) != row.ends || err == nil && string(got) != row.want {
				t.Errorf("%s, %d bytes at a time: %q, %v; want %q", name, size, got, err, row.want)
			}
			if name == "reset" && o.objections.Load() != 1 {
				t.Error("the objection is not counted")
			}
			if len(o.windows.left) > 1 || strings.Contains(row.want, "\x00\x00\x04\x03") && len(o.windows.left) > 0 {
				t.Errorf("%s: %v is kept", name, o.windows.left)
			}
		}
	}
}
