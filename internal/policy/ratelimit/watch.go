package ratelimit

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// GateChange is what OnGate hears: an upstream's gates closed, or are all open again. Accounts are not told apart.
type GateChange struct {
	Time      time.Time
	Policy    string
	Tenant    string
	Authority string
	Host      string // metrics label
	Closed    bool
	Reason    string
	After     time.Duration // for how long it is closed, as far as is known now; 0 where it is open
}

// OnGate makes f hear of it when the first gate of a policy, tenant and authority closes for more than two seconds, and when the last of them is open
// again; one change after the other, outside of every lock. It is set once, before Import and before traffic; f must not block.
func (r *Room) OnGate(f func(GateChange)) { r.watch.hear = f }

// subject is what gate changes are about.
type subject struct {
	policy, tenant string
	authority      exchange.Authority
}

// watch knows which gates were told to be closed, so that each is told to be open once. One timer serves all of them.
type watch struct {
	hear  func(GateChange) // nil: nobody listens, and nothing is noted
	count atomic.Int64     // of subjects: 0 spares the lock

	mu       sync.Mutex
	subjects map[subject]*shut
	accounts int // of all subjects
	timer    *time.Timer
	next     time.Time // when the timer fires; zero: it does not
	told     []GateChange
	telling  bool
}

// shut is a subject with a closed gate.
type shut struct {
	host  string
	until map[string]time.Time // by credential
}

func (s *shut) end() (end time.Time) {
	for _, t := range s.until {
		if t.After(end) {
			end = t
		}
	}
	return end
}

// maxWatched bounds the accounts whose gates are watched. What closes beyond it is not told.
const maxWatched = state.MaxEntries

// closed hears that an account's gate closed, or stays closed for longer.
func (w *watch) closed(g *gates, a *account, host, reason string) {
	if w.hear == nil {
		return
	}
	w.mu.Lock()
	at := subjectOf(g, a)
	known := w.subjects[at] != nil
	if d := longestClosed(a); d > 0 && w.shut(at, a.key.Credential, host, d) && !known {
		w.told = append(w.told, GateChange{Time: time.Now(), Policy: at.policy, Tenant: at.tenant, Authority: at.authority.String(), Host: host,
			Closed: true, Reason: reason, After: d})
	}
	w.mu.Unlock()
	w.tell()
}

// expect notes a gate that an earlier process told of.
func (w *watch) expect(at subject, credential, host string, closed time.Duration) {
	if w.hear == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shut(at, credential, host, closed)
}

// heard looks at an account again after an answer that may have opened its gate. It costs next to nothing while none is closed.
func (w *watch) heard(g *gates, a *account) {
	if w.count.Load() == 0 {
		return
	}
	w.mu.Lock()
	at := subjectOf(g, a)
	if s := w.subjects[at]; s != nil && !s.until[a.key.Credential].IsZero() {
		if d := longestClosed(a); d > 0 {
			w.shut(at, a.key.Credential, s.host, d)
		} else {
			delete(s.until, a.key.Credential)
			w.accounts--
			w.open(at, s, "the upstream says that there is more")
		}
	}
	w.mu.Unlock()
	w.tell()
}

func subjectOf(g *gates, a *account) subject { return subject{g.policy, a.key.Tenant, a.key.Authority} }

// shut notes for how long a gate is closed, unless there are too many. mu is held.
func (w *watch) shut(at subject, credential, host string, d time.Duration) bool {
	s := w.subjects[at]
	if s == nil || s.until[credential].IsZero() {
		if w.accounts >= maxWatched {
			return false
		}
		w.accounts++
	}
	if s == nil {
		if w.subjects == nil {
			w.subjects = map[subject]*shut{}
		}
		s = &shut{host: host, until: map[string]time.Time{}}
		w.subjects[at] = s
		w.count.Store(int64(len(w.subjects)))
	}
	end := time.Now().Add(d)
	s.until[credential] = end
	w.wake(end)
	return true
}

// wake makes the timer fire no later. mu is held.
func (w *watch) wake(at time.Time) {
	if !w.next.IsZero() && !at.Before(w.next) {
		return
	}
	w.next = at
	if w.timer == nil {
		w.timer = time.AfterFunc(time.Until(at), w.look)
		return
	}
	w.timer.Reset(time.Until(at))
}

// open tells of a subject that has no closed gate any more. mu is held.
func (w *watch) open(at subject, s *shut, reason string) {
	if len(s.until) > 0 {
		return
	}
	delete(w.subjects, at)
	w.count.Store(int64(len(w.subjects)))
	w.told = append(w.told, GateChange{Time: time.Now(), Policy: at.policy, Tenant: at.tenant, Authority: at.authority.String(), Host: s.host, Reason: reason})
}

// look finds what is open by now, and when it has to look again. Gates of one subject that open one after the other are looked at when the last does.
func (w *watch) look() {
	w.mu.Lock()
	w.next = time.Time{}
	now := time.Now()
	var next time.Time
	for at, s := range w.subjects {
		before := len(s.until)
		maps.DeleteFunc(s.until, func(_ string, end time.Time) bool { return !end.After(now) })
		w.accounts -= before - len(s.until)
		if end := s.end(); next.IsZero() || len(s.until) > 0 && end.Before(next) {
			next = end
		}
		w.open(at, s, "the announced time is over")
	}
	if !next.IsZero() {
		w.wake(next)
	}
	w.mu.Unlock()
	w.tell()
}

// tell tells what has not been told, in order: whoever comes while somebody tells leaves it to them.
func (w *watch) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.telling {
		return
	}
	w.telling = true
	defer func() { w.telling = false }()
	for len(w.told) > 0 {
		batch := w.told
		w.told = nil
		func() {
			w.mu.Unlock()
			defer w.mu.Lock()
			for _, c := range batch {
				w.hear(c)
			}
		}()
	}
}
