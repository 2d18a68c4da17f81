package audit

import "math"

// How much room is set aside at a time, and the least write that makes it worth while: the file of a daemon with little to say takes no more than its records.
const (
	reserveAhead = 4 << 20
	reserveFrom  = 16 << 10
)

// reserve has the file system set room aside behind the end of the file when many records come at once: one search for free blocks serves thousands of
// them. The size stays what it is. Where room cannot be had like that it is found write by write, as ever.
func (s *file) reserve(n int) {
	end := s.written + int64(n)
	if n < reserveFrom || end <= s.reserved {
		return
	}
	s.reserved = end + reserveAhead
	if s.size > 0 {
		s.reserved = max(end, min(s.reserved, s.size))
	}
	if allocate(s.f, s.written, s.reserved-s.written) != nil {
		s.reserved = math.MaxInt64
	}
}

// giveBack lets go of the room that was set aside and is not used.
func (s *file) giveBack() {
	if s.reserved == 0 || s.reserved == math.MaxInt64 {
		return
	}
	if info, err := s.f.Stat(); err == nil {
		_ = s.f.Truncate(info.Size()) // it stays with the file, otherwise
	}
	s.reserved = 0
}
