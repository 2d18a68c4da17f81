package proxy

import (
	"net/http"
	"testing"
	"unsafe"

	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/proxy/egress"
)

// TestVisitSize: what every request takes fits in 2 KiB of memory, of which the allocator needs a word. The next size costs some 2 % of a request's CPU.
func TestVisitSize(t *testing.T) {
	size := unsafe.Sizeof(visit{}) + unsafe.Sizeof(egress.Spare{}) + unsafe.Sizeof(breaker.Spare{})
	if most := 2048 - unsafe.Sizeof(uintptr(0)); size > most {
		t.Errorf("a visit and what is allocated with it take %d bytes, at most %d fit (a request alone is %d)", size, most, unsafe.Sizeof(http.Request{}))
	}
}
