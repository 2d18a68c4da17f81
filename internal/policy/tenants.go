package policy

import (
	"cmp"
	"slices"
	"strings"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/match"
	"httpowerd/internal/policy/tenant"
)

// tenantPlan is what one tenant changes of the policies of hosts.
type tenantPlan struct {
	name  string
	hosts []tenantHost
}

// tenantHost is what it changes for one pattern of its own: every host block that this pattern meets, with the tenant's on top.
type tenantHost struct {
	pattern match.Pattern
	rest    *plan       // over the bare defaults
	over    []*hostPlan // over File.hosts[i]; nil where no authority matches both
}

// keySets makes the files of tenants' keys a part of the configuration.
func (a *assembly) keySets(section *node) {
	for _, f := range section.fields {
		auth := f.value.get("auth")
		if auth == nil || auth.kind != list {
			continue
		}
		for _, m := range auth.items {
			a.signingKey(m.get("signature"))
			n := m.get("jwt").get("jwks")
			if n == nil || n.kind != scalar || n.text == "" || strings.Contains(n.text, "://") {
				continue
			}
			a.named(m.get("jwt"), "jwks")
			data, _, err := readFile(n.text, maxFilledFile)
			if err == nil {
				err = tenant.CheckJWKS(data)
			}
			if err != nil {
				a.faults.at(n, "%s: %v", n.text, err)
			}
		}
	}
}

// signingKey makes the file of a signature's key a part of the configuration.
func (a *assembly) signingKey(signature *node) {
	n := signature.get("public_key")
	if n == nil || n.kind != scalar || n.text == "" {
		return
	}
	a.named(signature, "public_key")
	data, _, err := readFile(n.text, maxFilledFile)
	if algorithm := signature.get("algorithm"); err == nil && algorithm != nil {
		err = tenant.CheckKey(algorithm.text, data)
	}
	if err != nil {
		a.faults.at(n, "%s: %v", n.text, err)
	}
}

// tenants reads the hosts of the tenants. The rest of the section was decoded as settings are.
func (a *assembly) tenants(root *node) {
	section := root.get("tenants")
	if section == nil || section.kind != mapping {
		return
	}
	for _, f := range section.fields {
		hosts := f.value.get("hosts")
		if hosts == nil || hosts.kind != mapping {
			continue
		}
		t := tenantPlan{name: f.key}
		seen := map[match.Pattern]bool{}
		for _, h := range hosts.fields {
			p, err := match.ParsePattern(h.key)
			switch {
			case err != nil:
				a.faults.at(h.value, "%v", err)
				continue
			case seen[p]:
				a.faults.at(h.value, "is written twice")
				continue
			}
			seen[p] = true
			a.publicSuffix(h.value, p.String())
			if a.level(h.value, originTenant) {
				t.hosts = append(t.hosts, a.tenantHost(t.name, p, h.value))
			}
		}
		slices.SortStableFunc(t.hosts, func(x, y tenantHost) int { return cmp.Compare(x.pattern.String(), y.pattern.String()) })
		a.file.tenants = append(a.file.tenants, t)
	}
	slices.SortStableFunc(a.file.tenants, func(x, y tenantPlan) int { return cmp.Compare(x.name, y.name) })
}

func (a *assembly) tenantHost(name string, p match.Pattern, n *node) tenantHost {
	n.mark(originTenant)
	on := func(below *plan) *plan {
		full := a.plan(cmp.Or(below.name, p.String())+"@"+name, n, a.stack(below.layers, n, originTenant))
		full.matches = below.matches
		return full
	}
	h := tenantHost{pattern: p, rest: on(a.file.base)}
	for i := range a.file.hosts {
		base := &a.file.hosts[i]
		pattern, err := match.ParsePattern(base.pattern)
		if err != nil || !p.Meets(pattern) {
			h.over = append(h.over, nil)
			continue
		}
		full := &hostPlan{pattern: base.pattern, base: on(base.base)}
		for _, r := range base.routes {
			full.routes = append(full.routes, routePlan{r.label, on(r.plan)})
		}
		a.checkTunnel(full)
		h.over = append(h.over, full)
	}
	a.checkTunnel(&hostPlan{pattern: p.String(), base: h.rest})
	return h
}

// tenantHosts are a tenant's own policies, compiled.
type tenantHosts struct {
	byPattern *match.Index[*tenantOverrides]
}

// tenantOverrides is what one pattern of a tenant makes of each host block.
type tenantOverrides struct {
	rest *Host
	over map[*Host]*Host
}

// HostOf is Host for a tenant: its own policies lie on top.
func (s *Snapshot) HostOf(name string, a exchange.Authority) *Host {
	h := s.Host(a)
	t, ok := s.tenantHosts[name]
	if !ok {
		return h
	}
	o, _, ok := t.byPattern.Find(a)
	if !ok {
		return h
	}
	if h == s.hosts.rest {
		return o.rest
	}
	if own := o.over[h]; own != nil {
		return own
	}
	return h
}

// tenants compiles what tenants change.
func (c *compiler) tenants(s *Snapshot) error {
	var err error
	if s.Tenants, err = tenant.New(c.file.settings.Tenants, c.rooms.Tenants); err != nil {
		return err
	}
	for _, t := range c.file.tenants {
		hosts := &tenantHosts{byPattern: match.NewIndex[*tenantOverrides]()}
		for _, h := range t.hosts {
			o := &tenantOverrides{rest: &Host{}, over: map[*Host]*Host{}}
			if o.rest.Base, err = c.policy(h.rest); err != nil {
				return err
			}
			for i, full := range h.over {
				if full == nil {
					continue
				}
				own, err := c.compileHost(full)
				if err != nil {
					return err
				}
				o.over[s.hosts.hosts[i]] = own
			}
			if err := hosts.byPattern.Add(h.pattern, o); err != nil {
				return err
			}
		}
		if s.tenantHosts == nil {
			s.tenantHosts = map[string]*tenantHosts{}
		}
		s.tenantHosts[t.name] = hosts
	}
	return nil
}

// ownFor is the tenant's plan for an authority whose host block is h (nil pattern: the bare defaults), for a File that was not compiled.
func (f *File) ownFor(name string, a exchange.Authority, h *hostPlan) *hostPlan {
	i := slices.IndexFunc(f.tenants, func(t tenantPlan) bool { return t.name == name })
	if i < 0 {
		return h
	}
	index := match.NewIndex[*tenantHost]()
	for j := range f.tenants[i].hosts {
		t := &f.tenants[i].hosts[j]
		_ = index.Add(t.pattern, t) // no pattern is there twice
	}
	t, _, ok := index.Find(a)
	switch {
	case !ok:
		return h
	case h.pattern == "":
		return &hostPlan{base: t.rest}
	}
	for j := range f.hosts {
		if f.hosts[j].pattern == h.pattern && t.over[j] != nil {
			return t.over[j]
		}
	}
	return h
}
