package proxy

import (
	"slices"
	"strings"
	"testing"
)

// TestFieldTable: what a client says of its table after its first SETTINGS becomes a setting that nobody knows, however its bytes come; less than it granted is refused.
func TestFieldTable(t *testing.T) {
	const data, headers, settings = 0, 1, 4
	table := func(value string) string { return "\x00\x01" + value }
	const (
		none, small, usual, huge = "\x00\x00\x00\x00", "\x00\x00\x01\x00", "\x00\x00\x10\x00", "\xff\xff\xff\xff"
		window                   = "\x00\x04\x00\x00\x00\x01" // whose value ends like the table's number
	)
	gone := func(value string) string { return "\x00\xf1" + value }
	for name, row := range map[string]struct {
		sent, read []string // read: nil: as it was sent
		ends       bool
	}{
		"first":                    {sent: []string{http2Frame(settings, 0, table(none)+window+table(huge))}},
		"larger":                   {sent: []string{http2Frame(settings, 0, table(none)), http2Frame(settings, 0, table(usual))}, read: []string{http2Frame(settings, 0, table(none)), http2Frame(settings, 0, gone(usual))}},
		"the same, among others":   {sent: []string{http2Frame(settings, 0, ""), http2Frame(settings, 0, window+table(usual)+window)}, read: []string{http2Frame(settings, 0, ""), http2Frame(settings, 0, window+gone(usual)+window)}},
		"less of what is not used": {sent: []string{http2Frame(settings, 0, table(huge)), http2Frame(settings, 0, table(usual))}, read: []string{http2Frame(settings, 0, table(huge)), http2Frame(settings, 0, gone(usual))}},
		"smaller":                  {sent: []string{http2Frame(settings, 0, ""), http2Frame(settings, 0, table(small))}, ends: true},
		"smaller again":            {sent: []string{http2Frame(settings, 0, table(small)), http2Frame(settings, 0, table(usual)), http2Frame(settings, 0, table(none))}, ends: true},
		"no settings":              {sent: []string{http2Frame(settings, 0, ""), http2Frame(headers, 4, table(none)), http2Frame(data, 0, table(none)+table(none)), http2Frame(settings, 1, "")}},
	} {
		sent, want := strings.Join(row.sent, ""), strings.Join(row.read, "")
		if row.read == nil {
			want = sent
		}
		for _, size := range []int{1, 2, 5, 9, 10, len(sent)} {
			guard := fieldTable{size: usedTable}
			var read []byte
			var err error
			for part := range slices.Chunk([]byte(sent), size) {
				if err = guard.pass(part); err != nil {
					break
				}
				read = append(read, part...)
			}
			if (err != nil) != row.ends || err == nil && string(read) != want {
				t.Errorf("%s, %d bytes at a time: %q, %v; want %q", name, size, read, err, want)
			}
		}
	}
}
