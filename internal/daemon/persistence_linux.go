package daemon

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ephemeral tells whether what is written to dir is gone with the container or the machine's memory: the folder, or the nearest one above it that
// exists, lies on a container's own layer or on a RAM disk.
func ephemeral(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return false
	}
	return fs.Type == unix.OVERLAYFS_SUPER_MAGIC || fs.Type == unix.TMPFS_MAGIC
}
