package state

import (
	"slices"
	"sync"
	"time"
)

// Event is one change of a limit, a gate or the like, as the admin API shows it.
type Event struct {
	Time   time.Time `json:"time"`
	From   string    `json:"from,omitempty"`
	To     string    `json:"to"`
	Reason string    `json:"reason,omitempty"`
}

// maxEvents is how many changes are remembered of one thing.
const maxEvents = 16

// Recent remembers the last changes of one thing. Its zero value is ready, and takes no memory before the first change.
type Recent struct {
	mu     sync.Mutex
	events []Event
}

// Add notes a change that happens now; the oldest is forgotten where there are too many.
func (r *Recent) Add(from, to, reason string) {
	e := Event{Time: time.Now(), From: from, To: to, Reason: reason}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == maxEvents {
		copy(r.events, r.events[1:])
		r.events[maxEvents-1] = e
		return
	}
	r.events = append(r.events, e)
}

// List is a copy of the changes, the oldest first.
func (r *Recent) List() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// WholeSecond is a time that is saved: near enough, at most a tenth of a second early, and the same when it is reckoned anew from another reading of
// the clock.
func WholeSecond(t time.Time) time.Time { return t.Add(400 * time.Millisecond).Round(time.Second) }
