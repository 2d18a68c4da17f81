package ratelimit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/state"
	"httpowerd/internal/state/quota"
)

// exportVersion is the version of the form of an export.
const exportVersion = 1

// Bounds of an export.
const (
	maxExported     = state.MaxEntries
	maxExportedSize = 3 << 19 // 1.5 MiB: the file that holds it, and what others export, has 4
)

// exported is what gates know, for the next process.
type exported struct {
	Version int            `json:"version"`
	Secret  []byte         `json:"secret"` // of the credentials' fingerprints
	Gates   []exportedGate `json:"gates"`
}

type exportedGate struct {
	Policy     string         `json:"policy"`
	Tenant     string         `json:"tenant,omitempty"`
	Host       string         `json:"host"`
	Port       uint16         `json:"port"`
	Credential []byte         `json:"credential,omitempty"`
	Options    quota.Options  `json:"options"`
	State      quota.Snapshot `json:"state"` // Absolute: the same as long as nothing but the clock moves
}

func (e *exportedGate) key() state.Key {
	return state.Key{Tenant: e.Tenant, Authority: exchange.Authority{Host: e.Host, Port: e.Port}, Credential: string(e.Credential)}
}

// exportGate makes an entry of a snapshot that is absolute.
func exportGate(policy string, o quota.Options, k state.Key, s quota.Snapshot) exportedGate {
	return exportedGate{Policy: policy, Tenant: k.Tenant, Host: k.Authority.Host, Port: k.Authority.Port, Credential: []byte(k.Credential), Options: o, State: s}
}

// Export is what all gates know and still holds, also what an earlier process left and nobody has asked for yet: a text of JSON that belongs into a
// file which nobody else can read, or nil where that is nothing. Where it is too much, gates that are closed the longest come first.
func (r *Room) Export() []byte {
	now := time.Now()
	var all []ranked
	for _, g := range r.pending.list(now) {
		all = append(all, rank(g))
	}
	_, gates := r.everything()
	for _, g := range gates {
		g.table.Each(func(k state.Key, a *account) {
			if s, ok := a.Snapshot(now); ok {
				all = append(all, rank(exportGate(g.policy, g.options, k, s.Absolute(now))))
			}
		})
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, dearest)
	head, _ := json.Marshal(exported{Version: exportVersion, Secret: r.secret.Load()[:]})
	b := bytes.NewBuffer(bytes.TrimSuffix(head, []byte("null}")))
	const end = "]}\n"
	begin, misfits := b.Len()+1, 0
	b.WriteByte('[')
	for i := range all[:min(len(all), maxExported)] {
		if b.Len() > maxExportedSize-leastExported || misfits == maxMisfits {
			break
		}
		text, err := json.Marshal(all[i].exportedGate)
		if err != nil || b.Len()+len(text)+len(end)+1 > maxExportedSize {
			misfits++ // a smaller one may fit
			continue
		}
		if b.Len() > begin {
			b.WriteByte(',')
		}
		b.Write(text)
	}
	b.WriteString(end)
	return b.Bytes()
}

const (
	leastExported = 64  // less than any entry takes
	maxMisfits    = 100 // of entries that are tried though there is no room for them
)

// ranked is an entry with what it is sorted by first: when it closes and tells nothing any more.
type ranked struct {
	exportedGate
	closed, known time.Duration
}

func rank(g exportedGate) ranked {
	closed, known := last(g.State)
	return ranked{g, closed, known}
}

// dearest puts what is closed the longest first, then what is known the longest; the rest of the order is there to be the same each time.
func dearest(a, b ranked) int {
	if c := cmp.Or(cmp.Compare(b.closed, a.closed), cmp.Compare(b.known, a.known), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Tenant, b.Tenant), bytes.Compare(a.Credential, b.Credential)); c != 0 {
		return c
	}
	return cmp.Compare(fmt.Sprint(a.Options), fmt.Sprint(b.Options))
}

// last is when an absolute snapshot closes and tells nothing any more.
func last(s quota.Snapshot) (closed, known time.Duration) {
	for _, in := range s.Groups {
		closed = max(closed, in.Closed)
		for _, q := range in.Quotas {
			closed, known = max(closed, q.Closes), max(known, q.Reset)
		}
	}
	return closed, known
}

// Import takes in what Export gave, before there is traffic. What is over is left out; of what makes no sense nothing is taken, and the error says so.
func (r *Room) Import(data []byte) error {
	if len(data) > 2*maxExportedSize {
		return errors.New("the saved quotas are too large")
	}
	var in exported
	if err := json.Unmarshal(data, &in); err != nil {
		return errors.New("the saved quotas cannot be read")
	}
	switch {
	case in.Version != exportVersion:
		return fmt.Errorf("the saved quotas have the form %d, want %d", in.Version, exportVersion)
	case len(in.Secret) != secretSize || len(in.Gates) > maxExported:
		return errors.New("the saved quotas are damaged")
	}
	for i := range in.Gates {
		g := &in.Gates[i]
		if g.Host == "" || len(g.Host) > 255 || len(g.Credential) != 0 && len(g.Credential) != 16 {
			return errors.New("the saved quotas are damaged")
		}
	}
	if secret := [secretSize]byte(in.Secret); r.shared == nil {
		r.secret.Store(&secret)
	} else if secret != *r.secret.Load() {
		in.Gates = slices.DeleteFunc(in.Gates, func(g exportedGate) bool { return len(g.Credential) > 0 }) // nobody could be told apart
	}
	r.pending.set(in.Gates)
	for _, g := range in.Gates {
		if closed, _ := g.State.Relative(time.Now()).Holds(); closed > 0 {
			r.watch.expect(subject{g.Policy, g.Tenant, g.key().Authority}, string(g.Credential), g.State.Label, closed)
		}
	}
	_, gates := r.everything()
	for _, g := range gates {
		for _, k := range r.pending.keys(g) {
			r.pending.restore(g, g.table.Get(k)) // whoever is new has done so itself
		}
	}
	return nil
}

// pending is what was imported and not asked for yet.
type pending struct {
	mu    sync.Mutex
	gates map[pendingKey]quota.Snapshot // absolute
}

type pendingKey struct {
	policy  string
	options quota.Options
	key     state.Key
}

func (p *pending) set(gates []exportedGate) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gates = make(map[pendingKey]quota.Snapshot, len(gates))
	for _, g := range gates {
		s := g.State.Relative(now)
		if closed, known := s.Holds(); closed > 0 || known > 0 {
			p.gates[pendingKey{g.Policy, g.Options, g.key()}] = s.Absolute(now)
		}
	}
}

// list is what still holds, to be saved again. What does not is forgotten.
func (p *pending) list(now time.Time) (out []exportedGate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, s := range p.gates {
		if closed, known := s.Relative(now).Holds(); closed <= 0 && known <= 0 {
			delete(p.gates, k)
			continue
		}
		out = append(out, exportGate(k.policy, k.options, k.key, s))
	}
	return out
}

// keys are the accounts of a policy that something is known of.
func (p *pending) keys(g *gates) (out []state.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.gates {
		if k.policy == g.policy && k.options == g.options {
			out = append(out, k.key)
		}
	}
	return out
}

// restore gives a gate what was imported for it.
func (p *pending) restore(g *gates, a *account) {
	k := pendingKey{g.policy, g.options, a.key}
	p.mu.Lock()
	s, ok := p.gates[k]
	delete(p.gates, k)
	p.mu.Unlock()
	if !ok {
		return
	}
	a.Restore(s.Relative(time.Now()), 0)
	g.reckon(a)
	if d := longestClosed(a); d > 0 {
		a.recent.Add("", "closed for "+d.Round(time.Second).String(), "it was when the daemon stopped")
	}
}

// announce makes requests look for their gates while something may be known of them.
func (p *pending) announce(g *gates) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, s := range p.gates {
		if k.policy != g.policy || k.options != g.options {
			continue
		}
		closed, known := s.Relative(now).Holds()
		if closed > 0 {
			extend(&g.horizon, closed)
		}
		if known > 0 {
			extend(&g.known, known)
		}
	}
}
