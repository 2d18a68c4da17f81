package breaker

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
)

// What Export writes and Import takes.
const (
	exportVersion = 1
	maxExport     = 3 << 19 // 1.5 MiB: the file that holds it, and what others export, has 4
	maxName       = 1024    // of a policy or tenant
)

// place is where a breaker belongs.
type place struct {
	policy string
	key    state.Key
}

// restored is a breaker that an earlier process left, until somebody asks for it.
type restored struct {
	until  time.Time // it is open until then; where it was half open, how long that is believed
	state  string
	opened int
	since  time.Time // when it was imported
}

// left is how long it is to stay open.
func (r *restored) left(now time.Time) time.Duration {
	if r.state == HalfOpen {
		return 0
	}
	return r.until.Sub(now)
}

type exported struct {
	Version  int               `json:"version"`
	Breakers []exportedBreaker `json:"breakers"`
	Forced   map[string]string `json:"forced,omitempty"` // authority: open or closed
}

type exportedBreaker struct {
	Policy    string    `json:"policy"`
	Tenant    string    `json:"tenant,omitempty"`
	Authority string    `json:"authority"`
	State     string    `json:"state"`
	Until     time.Time `json:"until"`
	Opened    int       `json:"opened"`
}

// Export is what should survive the process: breakers that are open or half open, and forced states. It is JSON, bounded, and the same as long as nothing
// changes. Where it is too much, forced states come first, then the breakers that are open the longest.
func (r *Room) Export() []byte {
	now := time.Now()
	var breakers []exportedBreaker
	for _, c := range r.all() {
		if b, ok := c.export(now); ok {
			breakers = append(breakers, b)
		}
	}
	r.mu.Lock()
	for at, l := range r.left {
		if l.until.After(now) {
			breakers = append(breakers, exportedBreaker{at.policy, at.key.Tenant, at.key.Authority.String(), l.state, l.until.UTC(), l.opened})
		}
	}
	forced := maps.Clone(r.forced)
	r.mu.Unlock()
	slices.SortFunc(breakers, func(a, b exportedBreaker) int {
		return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.Authority, b.Authority), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Tenant, b.Tenant))
	})
	out := exported{Version: exportVersion, Breakers: []exportedBreaker{}, Forced: map[string]string{}}
	left := maxExport - frame
	for _, authority := range slices.Sorted(maps.Keys(forced)) {
		if left -= len(authority) + len(forced[authority]) + len(`"":"",`); left < 0 || len(out.Forced) == state.MaxEntries {
			break
		}
		out.Forced[authority] = forced[authority]
	}
	for _, b := range breakers {
		text, err := json.Marshal(b)
		if left -= len(text) + 1; left < 0 || len(out.Breakers) == state.MaxEntries || err != nil {
			break
		}
		out.Breakers = append(out.Breakers, b)
	}
	text, _ := json.Marshal(out) // of texts, numbers and times that were marshaled above
	return text
}

// frame is more than what stands around the entries.
const frame = 64

// export is the breaker's own state, whatever is forced; ok is false where it is closed. One that is half open is believed for as long after its open
// time as it could be open: then nobody has asked for so long that nothing is known of the upstream any more.
func (c *circuit) export(now time.Time) (b exportedBreaker, ok bool) {
	c.mu.Lock()
	opened := c.opened
	c.mu.Unlock()
	b = exportedBreaker{Policy: c.group.policy, Tenant: c.key.Tenant, Authority: c.authority, State: Open, Opened: opened}
	gate := c.gate.Load()
	if gate == gateClosed || len(b.Policy) > maxName || len(b.Tenant) > maxName {
		return b, false
	}
	if gate == gateHalfOpen {
		gate = c.ended.Load()
	}
	left := time.Duration(gate - c.now())
	if left <= 0 {
		b.State = HalfOpen
		left += c.config().OpenMax.D()
	}
	b.Until = state.WholeSecond(now.Add(left)).UTC()
	return b, b.Until.After(now)
}

// Import takes what Export of an earlier process gave. What is over is dropped; the others are open for the time that is left, at most open_max,
// then half open. What this process has learnt or was told counts more. An error says what is wrong, and then nothing was changed.
func (r *Room) Import(data []byte) error {
	in, err := parseExport(data)
	if err != nil {
		return err
	}
	now := time.Now()
	left := map[place]*restored{}
	for _, b := range in.Breakers {
		at, err := b.check()
		if err != nil {
			return err
		}
		if b.Until.After(now) {
			left[at] = &restored{until: earlier(b.Until, now.Add(maxOpen)), state: b.State, opened: b.Opened, since: now}
		}
	}
	for authority, to := range in.Forced {
		a, err := exchange.ParseAuthority(authority, 0)
		if err != nil || a.String() != authority || to != Open && to != Closed {
			return errors.New("a forced state is none, or of no authority")
		}
	}
	r.adopt(left, in.Forced)
	return nil
}

func (r *Room) adopt(left map[place]*restored, forced map[string]string) {
	all := r.all()
	for _, c := range all {
		delete(left, place{c.group.policy, c.key})
	}
	fresh := map[string]string{}
	r.mu.Lock()
	for at, l := range left {
		r.left[at] = l
	}
	for authority, to := range forced {
		if _, told := r.forced[authority]; !told {
			r.forced[authority], fresh[authority] = to, to
		}
	}
	r.mu.Unlock()
	for _, c := range all {
		if to, ok := fresh[c.authority]; ok {
			c.force(to)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func parseExport(data []byte) (in exported, err error) {
	if len(data) > maxExport {
		return in, fmt.Errorf("saved breakers are larger than %d bytes", maxExport)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return in, fmt.Errorf("saved breakers cannot be read: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return in, errors.New("saved breakers are followed by something else")
	}
	if in.Version != exportVersion {
		return in, fmt.Errorf("saved breakers are of version %d, not %d", in.Version, exportVersion)
	}
	if len(in.Breakers) > state.MaxEntries || len(in.Forced) > state.MaxEntries {
		return in, fmt.Errorf("more than %d breakers are saved", state.MaxEntries)
	}
	return in, nil
}

// check tells where the breaker belongs.
func (b *exportedBreaker) check() (place, error) {
	a, err := exchange.ParseAuthority(b.Authority, 0)
	switch {
	case err != nil || a.String() != b.Authority:
		return place{}, errors.New("a saved breaker has no authority")
	case b.State != Open && b.State != HalfOpen:
		return place{}, errors.New("a saved breaker is neither open nor half open")
	case b.Opened < 0 || b.Opened > maxCount:
		return place{}, errors.New("a saved breaker opened an impossible number of times")
	case len(b.Policy) > maxName || len(b.Tenant) > maxName:
		return place{}, errors.New("a saved breaker's policy or tenant is too long")
	}
	return place{b.Policy, state.Key{Tenant: b.Tenant, Authority: a}}, nil
}

const byRestart = "it was so when the daemon stopped"

// restore opens a breaker that is new.
func (c *circuit) restore(l *restored) {
	if !l.until.After(time.Now()) {
		return
	}
	c.restoring = l
	if done, err := c.counts.Allow(); err == nil {
		done(&verdict{kind: hard})
	}
	c.restoring = nil
}

// begun sets a restored state; nobody is told what is no news. c.mu is held.
func (c *circuit) begun(now time.Time, clock int64) {
	left := min(max(0, c.restoring.left(now)), c.config().OpenMax.D())
	c.gate.Store(clock + int64(left))
	c.opened = c.restoring.opened
	c.own, c.shown, c.since, c.reason = Open, Open, c.restoring.since, byRestart
}

// waiting lists breakers that an earlier process left and nobody has asked for yet.
func (r *Room) waiting() []Status {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Status
	for at, l := range r.left {
		if !l.until.After(now) {
			delete(r.left, at)
			continue
		}
		s := Status{Policy: at.policy, Tenant: at.key.Tenant, Authority: at.key.Authority.String(), State: Open, Since: l.since, Reason: byRestart,
			Opened: l.opened, RetryAfter: max(0, l.left(now))}
		if forced, ok := r.forced[s.Authority]; ok {
			s.State, s.Forced, s.Reason, s.RetryAfter = forced, true, byOperator, 0
		}
		out = append(out, s)
	}
	return out
}
