//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd

package state

import "os"

// lockFile does nothing where there is no advisory lock of this kind.
func lockFile(*os.File) error { return nil }

// syncDir does nothing where folders are not synced.
func syncDir(string) error { return nil }
