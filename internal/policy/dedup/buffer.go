package dedup

import "sync/atomic"

// memoryLimit is what bodies may take over all policies: of answers that are shared or linger, and of keyed writes in flight.
const memoryLimit = 64 << 20

// budget bounds memory.
type budget struct {
	limit int64
	used  atomic.Int64
	short func() bool // memory is; nil: it never is
}

// take reserves n bytes, or nothing.
func (b *budget) take(n int) bool {
	if b.short != nil && b.short() {
		return false
	}
	if b.used.Add(int64(n)) <= b.limit {
		return true
	}
	b.used.Add(int64(-n))
	return false
}

func (b *budget) give(n int) { b.used.Add(int64(-n)) }

// buffer grows within a bound of its own and the budget. What was added never moves for those who hold data.
type buffer struct {
	budget *budget
	max    int
	expect int // the length that was announced; negative: none
	data   []byte
}

const (
	smallest = 512
	// trusted is how much memory an announced length is worth before its bytes are here.
	trusted = 64 << 10
)

// add appends p. It is false, and changes nothing, where that is too much.
func (b *buffer) add(p []byte) bool {
	need := len(b.data) + len(p)
	if need > b.max {
		return false
	}
	if need > cap(b.data) {
		size := min(max(need, 2*cap(b.data), smallest), b.max)
		if b.data == nil && b.expect >= need {
			size = min(b.expect, trusted, b.max)
			size = max(size, need)
		}
		if !b.budget.take(size - cap(b.data)) {
			return false
		}
		grown := make([]byte, len(b.data), size)
		copy(grown, b.data)
		b.data = grown
	}
	b.data = append(b.data, p...)
	return true
}

// free gives the memory back. data must not be used any more.
func (b *buffer) free() {
	if cap(b.data) == 0 {
		return
	}
	b.budget.give(cap(b.data))
	b.data = nil
}
