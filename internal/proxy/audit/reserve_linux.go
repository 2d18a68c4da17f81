package audit

import (
	"errors"
	"os"
	"syscall"
)

// keepSize is FALLOC_FL_KEEP_SIZE (fallocate(2)).
const keepSize = 1

// allocate finds blocks for n bytes of the file from the given one on, beyond its end too.
func allocate(f *os.File, from, n int64) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Control(func(fd uintptr) {
		for {
			if failed = syscall.Fallocate(int(fd), keepSize, from, n); !errors.Is(failed, syscall.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, failed)
}
