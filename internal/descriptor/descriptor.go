// Package descriptor keeps the daemon answering when the process has no file descriptor left: some are held back, and given up one by one to accept those
// who must be answered even then.
package descriptor

import (
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
)

// Exhausted tells whether err says that the process or the machine has no descriptor left.
func Exhausted(err error) bool {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return true
	}
	var dns *net.DNSError // keeps of a socket's error nothing but its text
	return errors.As(err, &dns) && (strings.Contains(dns.Err, syscall.EMFILE.Error()) || strings.Contains(dns.Err, syscall.ENFILE.Error()))
}

// Reserve holds descriptors back. A nil one holds none.
type Reserve struct {
	size int
	open func() (*os.File, error)

	mu     sync.Mutex
	held   []*os.File
	closed bool
}

// NewReserve holds n descriptors back, or as many as there are.
func NewReserve(n int) *Reserve {
	r := &Reserve{size: n, open: func() (*os.File, error) { return os.Open(os.DevNull) }}
	r.Refill()
	return r
}

// Release gives one up. It is false where none is left.
func (r *Reserve) Release() bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.held) == 0 {
		return false
	}
	last := len(r.held) - 1
	_ = r.held[last].Close()
	r.held[last] = nil
	r.held = r.held[:last]
	return true
}

// Refill holds back again what was given up, as far as that can be had.
func (r *Reserve) Refill() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.closed && len(r.held) < r.size {
		f, err := r.open()
		if err != nil {
			return
		}
		r.held = append(r.held, f)
	}
}

// Close gives all of them up for good.
func (r *Reserve) Close() {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	for r.Release() {
	}
}

// Most returns how many client connections fit under a limit of descriptors, of which a connection takes one, and another one for its upstream while it
// is busy: an eighth is left for files, name servers and upstreams. tight tells whether they do not fit where all are busy at once. A limit of 0 is none.
func Most(connections, limit int) (fit int, tight bool) {
	if limit <= 0 {
		return connections, false
	}
	return max(1, min(connections, limit-(limit+7)/8)), connections > limit/2
}
