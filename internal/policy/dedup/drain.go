package dedup

import (
	"context"
	"time"

	"httpowerd/internal/exchange"
)

// errCut ends writes that are still under way when a drain has no more time.
var errCut = &exchange.Refusal{Code: exchange.Draining, Detail: "this proxy shut down", Close: true}

// Cut ends the writes that run. Those that go on without their clients do not hear of it otherwise.
func (r *Room) Cut() {
	r.running.Range(func(w, _ any) bool {
		w.(*write).cancel(errCut)
		return true
	})
}

// lastWord is how long a store has to hear of writes that were cut.
const lastWord = time.Second

// Drain waits until the store knows how the writes ended that run, or have an answer that is read on for their clients' repeats: another daemon, or this one when it is
// back, would hold the repeats up for as long as the claims last, and then send them. ctx ends with Cut.
func (r *Room) Drain(ctx context.Context) {
	var over <-chan time.Time
	r.running.Range(func(w, _ any) bool {
		settled := w.(*write).settled
		select {
		case <-settled:
			return true
		case <-ctx.Done():
		}
		if over == nil {
			over = time.After(lastWord)
		}
		select {
		case <-settled:
			return true
		case <-over:
			return false
		}
	})
}
