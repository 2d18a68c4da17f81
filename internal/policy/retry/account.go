package retry

import "sync/atomic"

// memory is how much of all requests' bodies is kept at once, over the whole process.
const memory = 256 << 20

// account is what has been taken of a bounded amount of memory.
type account struct {
	limit int64
	used  atomic.Int64
	short func() bool // memory is, so nothing more is to be kept; nil: it never is
}

// take takes n bytes, or nothing where that would be too much.
func (a *account) take(n int) bool {
	if a.short != nil && a.short() {
		return false
	}
	if a.used.Add(int64(n)) > a.limit {
		a.used.Add(int64(-n))
		return false
	}
	return true
}

// force takes n bytes that are there already, whatever the limit says.
func (a *account) force(n int) { a.used.Add(int64(n)) }

// give gives n bytes back.
func (a *account) give(n int) { a.used.Add(int64(-n)) }
