package redact

import "sync"

// memory is what one call works with, so that nothing is allocated where nothing is found.
type memory struct {
	scanners []*scanner
	buffers  [][]byte
}

var memories = sync.Pool{New: func() any { return new(memory) }}

func borrow() *memory { return memories.Get().(*memory) }

func (m *memory) release() { memories.Put(m) }

// scanner is one that reads by o. It must be given back.
func (m *memory) scanner(r *Redactor, o options) *scanner {
	var sc *scanner
	if n := len(m.scanners); n > 0 {
		sc, m.scanners = m.scanners[n-1], m.scanners[:n-1]
	} else {
		sc = &scanner{hits: make([]hit, 0, 8)}
	}
	sc.r, sc.m, sc.cut, sc.nesting, sc.raw, sc.formed = r, m, o.cut, o.nesting, o.raw, o.formed
	return sc
}

// The bounds of what is kept for the next call.
const (
	keepScanners = 8
	keepHits     = 1 << 10
	keepBuffer   = 64 << 10
)

func (m *memory) giveScanner(sc *scanner) {
	sc.s, sc.r, sc.m = "", nil, nil
	if len(m.scanners) < keepScanners && cap(sc.hits) <= keepHits && cap(sc.levels) <= keepHits {
		m.scanners = append(m.scanners, sc)
	}
}

// buffer is an empty one.
func (m *memory) buffer() []byte {
	if n := len(m.buffers); n > 0 {
		b := m.buffers[n-1]
		m.buffers = m.buffers[:n-1]
		return b[:0]
	}
	return make([]byte, 0, 512)
}

// giveBuffer takes a buffer back. What was decoded into it may have been secret: it is cleared.
func (m *memory) giveBuffer(b []byte) {
	clear(b)
	if len(m.buffers) < keepScanners && cap(b) <= keepBuffer {
		m.buffers = append(m.buffers, b)
	}
}
