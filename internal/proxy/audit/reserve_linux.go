package audit

import (
	"os"
	"syscall"
)

// keepSize is FALLOC_FL_KEEP_SIZE (fallocate(2)).
const keepSize = 1

// allocate finds blocks for n bytes of the file from the given one on, beyond its end too.
func allocate(f *os.File, from, n int64) error {
	return control(f, func(fd int) error { return syscall.Fallocate(fd, keepSize, from, n) })
}
