package policy

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"httpowerd/internal/exchange"
	"httpowerd/internal/policy/breaker"
	"httpowerd/internal/policy/concurrency"
	"httpowerd/internal/policy/dedup"
	"httpowerd/internal/policy/destination"
	"httpowerd/internal/policy/hedge"
	"httpowerd/internal/policy/match"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/policy/retry"
	"httpowerd/internal/policy/sanitize"
	"httpowerd/internal/policy/tenant"
	"httpowerd/internal/policy/timeout"
	"httpowerd/internal/policy/upstream"
	"httpowerd/internal/redact"
	"httpowerd/internal/state"
)

// Rooms are the long-lived makers of stages, one for each block. They own the metrics; what they make for a snapshot does not.
type Rooms struct {
	Timeout     *timeout.Room
	Retry       *retry.Room
	RateLimit   *ratelimit.Room
	Concurrency *concurrency.Room
	Breaker     *breaker.Room
	Hedge       *hedge.Room
	Dedup       *dedup.Room
	Sanitize    *sanitize.Room
	Tenants     *tenant.Room // nil where no key sets are fetched
	Ends        Ends
	Redact      redact.Shared
	CA          func() error // makes sure that there is a CA which can be used; nil: nobody intercepts
}

// Ends makes what stands at the end of every chain.
type Ends interface {
	Requests(state.Scope, upstream.Config, timeout.Config, *destination.Rules) (http.RoundTripper, error)
	Tunnels(state.Scope, upstream.Config, timeout.Config, *destination.Rules) (http.RoundTripper, error)
}

// Compile makes a snapshot. It either succeeds, and the keeper holds what the snapshot uses, or changes nothing.
func Compile(f *File, rooms Rooms, keeper *state.Keeper) (*Snapshot, error) {
	snapshot, generation, err := compile(f, rooms, keeper, f.settings.Proxy.LoopbackOnly())
	if err != nil {
		return nil, err
	}
	generation.Commit()
	return snapshot, nil
}

// compile leaves it to the caller to commit the generation once the snapshot is in use. loopbackOnly is about the listeners that run, which
// may be others than those in the file.
func compile(f *File, rooms Rooms, keeper *state.Keeper, loopbackOnly bool) (_ *Snapshot, _ *state.Generation, err error) {
	generation := keeper.Begin()
	defer func() {
		if err != nil {
			generation.Abort()
		}
	}()
	rules, err := destination.Compile(f.settings.Destinations, loopbackOnly)
	if err != nil {
		return nil, nil, fmt.Errorf("destinations: %w", err)
	}
	rooms.Redact.Learn(f.Secrets()...)
	c := newCompiler(f, rooms, generation, rules)
	s := &Snapshot{Hash: f.Hash(), Loaded: time.Now(), Warnings: f.warnings, Settings: f.settings, Rules: rules, hosts: hostIndex{byPattern: match.NewIndex[*Host]()}}
	base, err := c.policy(f.base)
	if err != nil {
		return nil, nil, err
	}
	s.hosts.rest = &Host{Base: base}
	for i := range f.hosts {
		if err := c.host(&s.hosts, &f.hosts[i]); err != nil {
			return nil, nil, err
		}
	}
	if err := c.tenants(s); err != nil {
		return nil, nil, err
	}
	if s.intercepts = c.intercepts; s.intercepts && rooms.CA != nil {
		if err := rooms.CA(); err != nil {
			return nil, nil, fmt.Errorf("tls: intercept needs a CA, and it cannot be used: %w", err)
		}
	}
	return s, generation, nil
}

type compiler struct {
	file       *File
	rooms      Rooms
	generation *state.Generation
	rules      *destination.Rules
	builtin    *redact.Redactor            // what holds where nothing is added
	redactors  map[string]*redact.Redactor // by the spelling of their configuration
	intercepts bool
}

func newCompiler(f *File, rooms Rooms, generation *state.Generation, rules *destination.Rules) *compiler {
	return &compiler{file: f, rooms: rooms, generation: generation, rules: rules, builtin: rooms.Redact.On(redact.Default()), redactors: map[string]*redact.Redactor{}}
}

func (c *compiler) host(index *hostIndex, plan *hostPlan) error {
	pattern, err := match.ParsePattern(plan.pattern)
	if err != nil {
		return err
	}
	h, err := c.compileHost(plan)
	if err != nil {
		return err
	}
	index.hosts = append(index.hosts, h)
	return index.byPattern.Add(pattern, h)
}

func (c *compiler) compileHost(plan *hostPlan) (h *Host, err error) {
	h = &Host{Pattern: plan.pattern}
	if h.Base, err = c.policy(plan.base); err != nil {
		return nil, err
	}
	for _, r := range plan.routes {
		route := Route{Name: r.label}
		if route.match, err = match.Compile(r.plan.matches); err != nil {
			return nil, fmt.Errorf("%s.match: %w", r.plan.level, err)
		}
		if route.Policy, err = c.policy(r.plan); err != nil {
			return nil, err
		}
		h.Routes = append(h.Routes, route)
	}
	return h, nil
}

// policy links the stages of one level, by THE ORDER.
func (c *compiler) policy(p *plan) (*Policy, error) {
	scope := state.Scope{Generation: c.generation, Policy: p.name}
	up, _ := config[upstream.Config](p, "upstream")
	if up.Warm > 0 {
		up.Early = early(p)
	}
	limits, _ := config[timeout.Config](p, "timeout")
	audit, _ := config[AuditPolicy](p, "audit")
	requests, err := c.rooms.Ends.Requests(scope, up, limits, c.rules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.level, err)
	}
	tunnels, err := c.rooms.Ends.Tunnels(scope, up, limits, c.rules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.level, err)
	}
	redactor, err := c.redactor(p)
	if err != nil {
		return nil, fmt.Errorf("%s.redact: %w", p.level, err)
	}
	settings := settingsOf(p)
	order := requestOrder(settings)
	intercept := p.wordOf("tls") == "intercept"
	c.intercepts = c.intercepts || intercept
	return &Policy{
		Name: p.name, Access: Access(p.wordOf("access")), Intercept: intercept, SNI: SNI(p.wordOf("sni")),
		Upgrade: p.wordOf("upgrade") == "https", Timeout: limits, Audit: audit, Redactor: redactor, Unapplied: p.deaf,
		Signal:   http.CanonicalHeaderKey(settings.retry.Signal),
		Requests: exchange.Chain(whole{requests}, forge(order, c.rooms, scope)...),
		Tunnels:  exchange.Chain(whole{tunnels}, forge(tunnelOrder(settings), c.rooms, scope)...),
		Stages:   names(order),
	}, nil
}

// early is the URL of the host that a policy is written for, "" where its pattern is not one host: what requests to it will need connections to.
func early(p *plan) string {
	pattern, _, _ := strings.Cut(p.name, "#")
	if pattern == "" || strings.HasPrefix(pattern, "*") || p.wordOf("access") == string(Deny) {
		return ""
	}
	scheme, port := "http", uint16(80)
	if p.wordOf("tls") == "intercept" || p.wordOf("upgrade") == "https" {
		scheme, port = "https", 443
	}
	a, err := exchange.ParseAuthority(pattern, port)
	if err != nil || scheme == "http" && a.Port == 443 { // tunnels, which nothing is kept for
		return ""
	}
	return scheme + "://" + a.String()
}

// redactor is shared by policies that add the same: each holds compiled patterns.
func (c *compiler) redactor(p *plan) (*redact.Redactor, error) {
	config, _ := config[redact.Config](p, "redact")
	if config.IsZero() {
		return c.builtin, nil
	}
	key := fmt.Sprintf("%#v", config) // quotes every text, so that no two configurations are spelt alike; JSON would make invalid UTF-8 equal
	if r := c.redactors[key]; r != nil {
		return r, nil
	}
	r, err := redact.New(config)
	if err != nil {
		return nil, err
	}
	r = c.rooms.Redact.On(r)
	c.redactors[key] = r
	return r, nil
}
