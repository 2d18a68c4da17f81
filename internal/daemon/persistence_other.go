//go:build !linux

package daemon

// ephemeral is known on Linux alone.
func ephemeral(string) bool { return false }
