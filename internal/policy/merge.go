package policy

import (
	"slices"
)

// Where a value comes from. They are what explain prints.
const (
	originDefault  = "default"
	originDerived  = "derived"
	originProfile  = "profile"
	originProvider = "provider"
	originDefaults = "defaults"
	originHost     = "host"
	originRoute    = "route"
	originTenant   = "tenant"
	originFlag     = "flag"
)

// layer is one mapping of a policy's blocks. Layers lie on each other from the lowest to the highest.
type layer struct {
	level  string // path of the level that it belongs to: defaults, hosts["x"], hosts["x"].routes[0]
	origin string
	body   *node
}

// merged is one block after all layers were laid on each other.
type merged struct {
	on     bool
	wrote  *node         // the topmost node of the block, for faults; nil where nobody wrote it
	body   *node         // its fields
	levels []mergedLevel // of cumulative blocks
	config any           // decoded: a pointer to the room's Config
}

type mergedLevel struct {
	name   string
	body   *node
	config any
}

// overlay lays upper on lower: mappings field by field, anything else replaces.
func overlay(lower, upper *node) *node {
	if lower == nil || upper == nil || lower.kind != mapping || upper.kind != mapping {
		if upper == nil {
			return lower
		}
		return upper
	}
	out := &node{kind: mapping, at: upper.at, path: upper.path, origin: upper.origin, fields: slices.Clone(lower.fields)}
	for _, f := range upper.fields {
		out.set(f.key, overlay(out.get(f.key), f.value))
	}
	return out
}

// accumulate is overlay, but lists grow instead of being replaced.
func accumulate(lower, upper *node) *node {
	if lower == nil || lower.kind != mapping || upper.kind != mapping {
		return upper
	}
	out := &node{kind: mapping, at: upper.at, path: upper.path, origin: upper.origin, fields: slices.Clone(lower.fields)}
	for _, f := range upper.fields {
		below := out.get(f.key)
		if below == nil || below.kind != list || f.value.kind != list {
			out.set(f.key, f.value)
			continue
		}
		grown := *f.value
		grown.items = slices.Concat(below.items, f.value.items)
		out.set(f.key, &grown)
	}
	return out
}

// merge lays the layers' blocks of one name on each other.
func (b block) merge(layers []layer) *merged {
	m := &merged{on: b.on}
	for _, l := range layers {
		n := l.body.get(b.name)
		switch {
		case n == nil || n.kind == broken:
		case n.isOff():
			*m = merged{on: b.always, wrote: n}
		case n.kind == mapping || n.isOn():
			b.add(m, n, l)
		}
	}
	for i := range m.levels {
		b.facts(&m.levels[i], layers)
	}
	return m
}

func (b block) add(m *merged, n *node, l layer) {
	if n.isOn() {
		n = &node{kind: mapping, at: n.at, path: n.path, origin: n.origin}
	}
	if l.origin == originProvider {
		// Facts about a vendor fill in what is on for another reason; they switch nothing on.
		if b.adds == replaces {
			m.body = overlay(m.body, n)
		}
		return
	}
	m.on, m.wrote = true, n
	switch b.adds {
	case lists:
		m.body = accumulate(m.body, n)
	case levels:
		i := slices.IndexFunc(m.levels, func(v mergedLevel) bool { return v.name == l.level })
		if i < 0 {
			m.levels = append(m.levels, mergedLevel{name: l.level, body: n})
			return
		}
		m.levels[i].body = overlay(m.levels[i].body, n) // a profile beneath the level that names it
	default:
		m.body = overlay(m.body, n)
	}
}

// facts lays what providers say about a cumulative block beneath each of its levels.
func (b block) facts(m *mergedLevel, layers []layer) {
	var facts *node
	for _, l := range layers {
		if n := l.body.get(b.name); l.origin == originProvider && n != nil && n.kind == mapping {
			facts = overlay(facts, n)
		}
	}
	if facts != nil {
		own := m.body
		m.body = overlay(facts, own)
		m.body.at, m.body.path, m.body.origin = own.at, own.path, own.origin
	}
}

// find is the node that a room's fault is about, or the nearest one above it, with the rest of the path.
func find(n *node, key []string) (*node, []string) {
	for len(key) > 0 {
		next := n.get(key[0])
		if n != nil && n.kind == list {
			next = n.item(key[0])
		}
		if next == nil {
			break
		}
		n, key = next, key[1:]
	}
	return n, key
}

// written tells whether a person (or a flag) wrote the field, and whether a profile or provider did.
func (m *merged) written(key ...string) (byPerson, byProfile bool) {
	n, rest := find(m.body, key)
	if m.body == nil || len(rest) > 0 {
		return false, false
	}
	profile := n.origin == originProfile || n.origin == originProvider
	return !profile, profile
}

// dependent tells which of several values that depend on each other count as written. What a profile says gives way as soon as a person
// wrote one of them.
func dependent(fields ...func() (byPerson, byProfile bool)) []bool {
	out := make([]bool, len(fields))
	anyPerson := false
	for _, f := range fields {
		person, _ := f()
		anyPerson = anyPerson || person
	}
	for i, f := range fields {
		person, profile := f()
		out[i] = person || (profile && !anyPerson)
	}
	return out
}
