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
	maxExportedSize = 16 << 20
)

// exported is what gates know, for the next process.
type exported struct {
	Version int            `json:"version"`
	Saved   time.Time      `json:"saved"`
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
	State      quota.Snapshot `json:"state"`

	closed time.Duration
}

func (e *exportedGate) key() state.Key {
	return state.Key{Tenant: e.Tenant, Authority: exchange.Authority{Host: e.Host, Port: e.Port}, Credential: string(e.Credential)}
}

// Export is what all gates know and still holds: a text of JSON that belongs into a file which nobody else can read, or nil where that is nothing.
// Where it is too much, gates that are closed the longest come first.
func (r *Room) Export() []byte {
	var all []exportedGate
	_, gates := r.everything()
	for _, g := range gates {
		g.table.Each(func(k state.Key, a *account) {
			if s, ok := a.Snapshot(); ok {
				all = append(all, exportedGate{Policy: g.policy, Tenant: k.Tenant, Host: k.Authority.Host, Port: k.Authority.Port,
					Credential: []byte(k.Credential), Options: g.options, State: s, closed: longestClosed(a)})
			}
		})
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b exportedGate) int { return cmp.Compare(b.closed, a.closed) })
	out := exported{Version: exportVersion, Saved: time.Now(), Secret: r.secret.Load()[:]}
	head, _ := json.Marshal(out)
	b := bytes.NewBuffer(bytes.TrimSuffix(head, []byte("null}")))
	b.WriteByte('[')
	for i := range all[:min(len(all), maxExported)] {
		text, err := json.Marshal(all[i])
		if err != nil || b.Len()+len(text) > maxExportedSize {
			break
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(text)
	}
	b.WriteString("]}\n")
	return b.Bytes()
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
	case len(in.Secret) != secretSize || len(in.Gates) > maxExported || in.Saved.IsZero():
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
	r.pending.set(in.Gates, in.Saved)
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
	saved time.Time
	gates map[pendingKey]quota.Snapshot
}

type pendingKey struct {
	policy  string
	options quota.Options
	key     state.Key
}

func (p *pending) set(gates []exportedGate, saved time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.saved, p.gates = saved, make(map[pendingKey]quota.Snapshot, len(gates))
	for _, g := range gates {
		p.gates[pendingKey{g.Policy, g.Options, g.key()}] = g.State
	}
}

// age is how long ago it was saved. A clock that went back makes it no younger.
func (p *pending) age() time.Duration { return max(0, time.Since(p.saved)) }

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
	age := p.age()
	p.mu.Unlock()
	if !ok {
		return
	}
	a.Restore(s, age)
	g.reckon(a)
	if d := longestClosed(a); d > 0 {
		a.recent.Add("", "closed for "+d.Round(time.Second).String(), "it was when the daemon stopped")
	}
}

// announce makes requests look for their gates while something may be known of them.
func (p *pending) announce(g *gates) {
	p.mu.Lock()
	defer p.mu.Unlock()
	age := p.age()
	for k, s := range p.gates {
		if k.policy != g.policy || k.options != g.options {
			continue
		}
		for _, in := range s.Groups {
			until := in.Closed
			for _, q := range in.Quotas {
				until = max(until, q.Closes)
				if left := min(q.Reset, 366*24*time.Hour) - age; left > 0 {
					extend(&g.known, left)
				}
			}
			if left := min(until, time.Hour) - age; left > 0 {
				extend(&g.horizon, left)
			}
		}
	}
}
