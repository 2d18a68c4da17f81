package exchange

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Stopwatch measures how long an upstream takes for an answer: from the last byte of the request, wherever it was written last. Waits, connecting and a slow
// upload are no part of it. It is a context, which ends with its parent.
type Stopwatch struct {
	WrittenContext
	request http.Request
	at      atomic.Int64 // when it was written, after origin; 0: it is not
}

// Start is r as whoever sends it gets it.
func (s *Stopwatch) Start(r *http.Request) *http.Request {
	s.Within(r.Context(), s)
	s.request = *r.WithContext(s)
	return &s.request
}

// Written implements Writer.
func (s *Stopwatch) Written() { s.at.Store(int64(time.Since(origin)) | 1) }

// Took is the time since then. It is false where not all was written yet: then the answer is quick, but nobody knows how quick.
func (s *Stopwatch) Took() (time.Duration, bool) {
	at := s.at.Load()
	if at == 0 {
		return 0, false
	}
	return max(0, time.Since(origin)-time.Duration(at)), true
}
