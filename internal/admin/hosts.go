package admin

import (
	"cmp"
	"maps"
	"slices"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
)

// hostSummary is one host block in the list. Pattern is "" for what no block matches.
type hostSummary struct {
	Pattern  string    `json:"pattern"`
	Policies []string  `json:"policies"`
	Counters *counters `json:"counters"`
}

// named is a name that no block matches, as metrics know it.
type named struct {
	Host     string    `json:"host"`
	Counters *counters `json:"counters"`
}

// hosts lists the host blocks, and the names that none matches.
func (h *Handler) hosts(c *call) *problem {
	snapshot := h.Policies.Load()
	counts := h.count()
	out := struct {
		Hosts     []hostSummary `json:"hosts"`
		Unmatched []named       `json:"unmatched"`
	}{[]hostSummary{}, []named{}}
	for _, host := range snapshot.Hosts() {
		out.Hosts = append(out.Hosts, hostSummary{host.Pattern, policyNames(host), counts.of(host.Pattern)})
		delete(counts, host.Pattern)
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out.Unmatched = append(out.Unmatched, named{name, counts[name]})
	}
	return c.json(out)
}

func policyNames(host *policy.Host) []string {
	out := []string{host.Base.Name}
	for _, r := range host.Routes {
		out = append(out, r.Policy.Name)
	}
	return out
}

// policyView is one policy of a host.
type policyView struct {
	Name      string   `json:"name"`
	Access    string   `json:"access"`
	TLS       string   `json:"tls"`
	Upgrade   string   `json:"upgrade"`
	SNI       string   `json:"sni"`
	Chain     []string `json:"chain"`
	Unapplied []string `json:"unapplied,omitempty"` // blocks that cannot act on a tunnel
}

func viewOf(p *policy.Policy) policyView {
	v := policyView{Name: p.Name, Access: string(p.Access), TLS: "tunnel", Upgrade: "off", SNI: string(p.SNI), Chain: p.Stages, Unapplied: p.Unapplied}
	if p.Intercept {
		v.TLS = "intercept"
	}
	if p.Upgrade {
		v.Upgrade = "https"
	}
	return v
}

// hostView is all about one host block, or about one name under it.
type hostView struct {
	Pattern  string                  `json:"pattern"`        // "": nothing but the defaults
	Host     string                  `json:"host,omitempty"` // where a name was asked for
	Policies []policyView            `json:"policies"`
	Counters *counters               `json:"counters"` // of the pattern; of the name where it matches none
	Breakers []breakerStatus         `json:"breakers"`
	Limits   []ratelimit.LimitStatus `json:"limits"`
	Places   []concurrency.Status    `json:"concurrency"`
	Budgets  []retry.BudgetStatus    `json:"retry_budgets"`
}

// host is all about a pattern as it is written, or about a name and the block that holds for it.
func (h *Handler) host(c *call) *problem {
	snapshot := h.Policies.Load()
	hosts := snapshot.Hosts()
	var found *policy.Host
	name := ""
	if i := slices.IndexFunc(hosts, func(p *policy.Host) bool { return p.Pattern == c.arg }); i >= 0 {
		found = hosts[i]
	} else {
		a, err := exchange.ParseAuthority(c.arg, 443)
		if err != nil {
			return refuse(codeNotFound, "there is no such host pattern, and no host can be called so")
		}
		found, name = snapshot.Host(a), a.Host
	}
	v := hostView{Pattern: found.Pattern, Host: name, Policies: []policyView{viewOf(found.Base)}}
	for _, r := range found.Routes {
		v.Policies = append(v.Policies, viewOf(r.Policy))
	}
	counts := h.count()
	v.Counters = counts.of(found.Pattern)
	if found.Pattern == "" {
		v.Counters = counts.of(name)
	}
	v.Breakers = h.breakersOf(func(s breaker.Status) bool {
		return exchange.PatternOf(s.Policy) == found.Pattern && (name == "" || hostOf(s.Authority) == name)
	})
	v.Limits = h.limitsOf(func(s ratelimit.LimitStatus) bool { return under(snapshot, found, name, s.Authority, s.Pattern) })
	v.Places = h.placesOf(func(s concurrency.Status) bool { return under(snapshot, found, name, s.Authority, s.Pattern) })
	v.Budgets = h.budgetsOf(func(s retry.BudgetStatus) bool {
		return exchange.PatternOf(s.Policy) == found.Pattern && (name == "" || hostOf(s.Authority) == name)
	})
	return c.json(v)
}

// budgetsOf lists the retry budgets that a test lets through, in a lasting order.
func (h *Handler) budgetsOf(keep func(retry.BudgetStatus) bool) []retry.BudgetStatus {
	out := []retry.BudgetStatus{}
	h.Budgets(func(s retry.BudgetStatus) {
		if keep(s) {
			s.Authority = cleaned(s.Authority)
			out = append(out, s)
		}
	})
	slices.SortFunc(out, func(a, b retry.BudgetStatus) int {
		return cmp.Or(cmp.Compare(a.Authority, b.Authority), cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Tenant, b.Tenant))
	})
	return out
}

// under tells whether a limit of that authority or pattern holds for a host block, or for a name under it.
func under(snapshot *policy.Snapshot, host *policy.Host, name, authority, pattern string) bool {
	if authority == "" {
		return pattern == host.Pattern
	}
	a, err := exchange.ParseAuthority(authority, 0)
	return err == nil && (name == "" || a.Host == name) && snapshot.Host(a).Pattern == host.Pattern
}

// placesOf lists the bulkheads that a test lets through, in a lasting order.
func (h *Handler) placesOf(keep func(concurrency.Status) bool) []concurrency.Status {
	out := []concurrency.Status{}
	h.Places(func(s concurrency.Status) {
		if keep(s) {
			s.Authority = cleaned(s.Authority)
			out = append(out, s)
		}
	})
	slices.SortFunc(out, func(a, b concurrency.Status) int {
		return cmp.Or(cmp.Compare(a.Authority, b.Authority), cmp.Compare(a.Pattern, b.Pattern), cmp.Compare(a.Level, b.Level))
	})
	return out
}
